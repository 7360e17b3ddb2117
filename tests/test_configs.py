import dataclasses
import importlib
import itertools
import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from alexnet_jax.errors import UsageError
from alexnet_jax.experiment import fields, summary
from alexnet_jax.experiment.settings import read_settings
from tests.conftest import ROOT

sys.path.insert(0, str(ROOT))
from docs import roofline, six_days, variants

EVERY = [
    (name, variant)
    for name in variants.CONFIGS
    for variant in importlib.import_module(f"alexnet_jax.configs.{name}").VARIANTS
]


@pytest.mark.parametrize(("name", "variant"), EVERY, ids=lambda part: part)
def test_every_variant_can_be_read_and_described(name, variant):
    config = importlib.import_module(f"alexnet_jax.configs.{name}").get_config(variant)
    assert config.is_locked
    settings = dataclasses.replace(read_settings(config), init_from=None)  # a run that is not here
    text = summary.describe(settings)
    assert "updates of" in text and "multiply-adds" in text


@pytest.mark.parametrize("name", variants.CONFIGS)
def test_every_config_introduces_itself(name):
    """What it reproduces, what it costs, the data and the command."""
    module = importlib.import_module(f"alexnet_jax.configs.{name}")
    for part in ("Reproduces" if name != "fall2011" else "no error for it", "Cost:", "Data:", f"configs/{name}.py"):
        assert part in module.__doc__, part
    assert module.get_config().name


def test_workdirs_of_variants_differ():
    names = [importlib.import_module(f"alexnet_jax.configs.{name}").get_config(variant).name for name, variant in EVERY]
    assert len(set(names)) == len(names)


def test_an_unknown_variant_lists_the_known():
    from alexnet_jax.configs import imagenet2012

    with pytest.raises(UsageError, match=r"no variant 'onetower'; known: original, .*one_tower"):
        imagenet2012.get_config("onetower")


def test_a_config_that_changed_changes_the_page():
    assert (ROOT / "docs/variants.md").read_text() == variants.page(), "run python -m docs.variants > docs/variants.md"


def test_a_network_that_changed_changes_the_roofline():
    assert roofline.section() in (ROOT / "docs/performance.md").read_text(), (
        "put in what python -m docs.roofline prints"
    )


def test_rates_that_changed_change_the_six_days():
    assert six_days.section() in (ROOT / "docs/performance.md").read_text(), (
        "put in what python -m docs.six_days prints"
    )


def test_log145_in_updates():
    """A/layers/layer-params-145.cfg:165-182, at 1,281,167 / 128 updates an epoch."""
    from alexnet_jax.configs import imagenet2012

    text = summary.describe(read_settings(imagenet2012.get_config()))
    assert "910,830 updates" in text
    assert "rate of all: kernels 0.01 from update 0, 0.001 from update 250,228, 0.0001 from update 510,465" in text
    assert "1e-05 from update 670,611, 0 from update 720,656" in text
    assert "colour noise: 0.1 from update 0, 0 from update 670,611" in text


LOG = {  # epochs of the run; epochs at which a rate falls, of kernels, conv1 and biases; the end of the colour noise
    ("imagenet2012", "original"): (91, (25, 51, 79), (25, 51, 67, 72), (25,), 67),
    ("imagenet2012", "no_norm"): (97, (22, 44, 86), (22, 44, 69, 73), (), 69),
    ("imagenet2012", "plain_pooling"): (90, (23, 51, 79), (23, 51, 79), (51,), None),
    ("imagenet2012", "no_exchange"): (92, (25, 49, 79), (25, 49, 66, 72), (), 66),
    ("imagenet2010", "original"): (93, (23, 51, 78), (23, 51, 68, 72), (23,), 68),
    ("imagenet2010", "one_tower"): (96, (20, 48, 78), (20, 48, 66, 72), (), 66),
    # 2600 files of 1,024 of 4,450,000 images after five passes, and so on: 6.2600, 13.3361, 18.2396, 21.1949, 25.3718.
    ("fall2009", "six_conv"): (27.75, (5.6, 12.77, 24.86), (5.6, 12.77, 17.55, 20.45), (5.6,), 17.55),
}
FIRST_BIASES = {("imagenet2010", "one_tower"): ((0, 0.02), (66, 0.002))}  # of conv1 and conv2, where they differ


@pytest.mark.parametrize(("name", "variant"), LOG, ids=lambda part: part)
def test_runs_of_the_log_have_its_schedule(name, variant):
    config = importlib.import_module(f"alexnet_jax.configs.{name}").get_config(variant)
    num_epochs, kernels, conv1, biases, noise = LOG[name, variant]
    rates, frozen = config.rates.to_dict(), conv1[-1]
    powers = (0.01, 0.001, 0.0001, 0.00001)
    assert (config.schedule, config.num_epochs) == ("epochs", num_epochs)
    assert rates["all"]["kernel"] == tuple(zip((0, *kernels), powers, strict=True))
    assert rates["conv1"]["kernel"] == (*zip((0, *conv1[:-1]), powers, strict=False), (frozen, 0.0))
    assert rates["all"]["bias"] == tuple(zip((0, *biases), (0.02, 0.002), strict=False))
    first = FIRST_BIASES.get((name, variant), rates["all"]["bias"])
    assert rates["conv1"]["bias"] == (*first, (frozen, 0.0))
    assert rates.get("conv2", {"bias": first})["bias"] in (first, (*first, (frozen, 0.0)))
    assert config.photometry.noise == ((0, 0.1), *([] if noise is None else [(noise, 0.0)]))


def test_biases_keep_their_rate_where_the_log_lowers_that_of_kernels_alone():
    from alexnet_jax.configs import cifar10, finetune

    for variant in finetune.VARIANTS:
        rates = finetune.get_config(variant).rates.to_dict()
        assert {layer: table["bias"] for layer, table in rates.items() if table["bias"] != ((0, 0.02),)} == {
            "fall2009": {"conv6": ((0, 0.002),)},
            "fall2011": {"conv6": ((0, 0.002),)},
            "imagenet2012": {"conv1": ((0, 0.02), (7, 0.0)), "conv6": ((0, 0.022),)},
        }[variant]
    assert all(cifar10.get_config(variant).rates.all.bias == ((0, 0.002),) for variant in cifar10.VARIANTS)


def test_epochs_of_the_log_count_from_one_and_have_files_behind_the_point():
    from alexnet_jax.configs import finetune
    from alexnet_jax.configs.imagenet2012 import passes

    assert passes("1.1", 100) == 0.01 and passes("8.11295", 13_726) == 7.82
    run = finetune.get_config("fall2009")
    assert (run.num_epochs, run.rates.all.kernel) == (5.74, ((0, 0.01), (1.18, 0.001)))
    assert finetune.get_config("fall2011").num_epochs == 7.82


def test_finetuning_starts_from_the_run_before():
    from alexnet_jax.configs import finetune, imagenet2012

    chain = [imagenet2012.get_config(), *(finetune.get_config(name) for name in finetune.VARIANTS)]
    for before, after in itertools.pairwise(chain):
        assert after.init_from == f"runs/{before.name}"


def test_the_config_of_the_readme_runs_in_another_folder(tmp_path: Path):
    examples = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    [example] = [example for example in examples if "get_config" in example]
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs/__init__.py").touch()  # a user's package of that name
    (tmp_path / "configs/wide.py").write_text(example)
    run = subprocess.run(
        [sys.executable, "-m", "alexnet_jax.main", "--config=configs/wide.py", "--dry_run"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stderr
    assert run.stdout.startswith("wide: recipe no_dropout, 2 towers")


def test_a_wheel_holds_the_configs(tmp_path: Path):
    pytest.importorskip("setuptools", minversion="77", reason="pip install -r tests/torch-requirements.txt")
    source = tmp_path / "source"
    for name in ("alexnet_jax", "configs", "tests/requirements.txt", "pyproject.toml", "requirements.txt", "README.md"):
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (shutil.copytree if (ROOT / name).is_dir() else shutil.copy)(ROOT / name, source / name)
    shutil.copy(ROOT / "LICENSE", source)
    build = f"import setuptools.build_meta as backend; backend.build_wheel({str(tmp_path)!r})"
    subprocess.run([sys.executable, "-c", build], cwd=source, check=True, capture_output=True)
    [wheel] = tmp_path.glob("*.whl")
    zipfile.ZipFile(wheel).extractall(tmp_path / "installed")
    program = "from alexnet_jax.configs import default; print(default.__file__, default.get_config().dataset.name)"
    environment = os.environ | {"PYTHONPATH": str(tmp_path / "installed")}
    run = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert run.stdout == f"{tmp_path}/installed/alexnet_jax/configs/default.py elpv/160\n", run.stderr


def test_the_training_of_2012_takes_nothing_from_that_of_elpv():
    """`imagenet2012.base` resets the fields of the default config that were chosen for ELPV."""
    from alexnet_jax.configs import cifar10, imagenet2012, large_batch, own

    settings = read_settings(imagenet2012.get_config())
    assert settings.jitter == fields.Jitter(rotation=0.0, scale=0.0, symmetries=2)
    network = settings.network
    assert (network.recipe, network.width, network.he_init, network.bfloat16) == ("original", 1.0, False, False)
    assert (settings.photometry.standardize, settings.photometry.each_image) == (False, False)
    assert (settings.label_smoothing, settings.warmup_epochs, settings.weight_decays) == (0.0, 0.0, {})
    assert (settings.nesterov, settings.clip_norm, settings.lars_trust) == (False, None, None)
    users = own.get_config("pets")
    assert users.jitter.symmetries == 2, "photographs are not upside down"
    assert (users.network.recipe, users.photometry.each_image, users.batch_size) == ("original", False, 32)

    cifar = read_settings(cifar10.get_config())  # V1/example-layers/layer-params-conv-local-11pct.cfg
    assert (cifar.num_epochs, cifar.momentum, cifar.weight_decay) == (520.0, 0.9, 0.004)
    assert cifar.rates["all"].kernel == ((0, 0.001), (500, 0.0001), (510, 0.00001))
    assert cifar.weight_decays == {"conv1": 0.0, "conv2": 0.0, "fc10": 0.01}
    # C2w/TrainingExample.md: crops of 24. Colour noise is of ImageNet's program alone (A/convdata_jpeg.py).
    assert cifar.photometry.noise == ((0, 0.0),) and cifar.dataset.crop_size == 24
    large = read_settings(large_batch.get_config())
    assert large.warmup_epochs > 0 and large.batch_size > 1000
    # You et al. 2017: batch norm in place of response norm, and a trust coefficient of 0.001.
    assert (large.lars_trust, large.network.recipe, large.network.bfloat16) == (0.001, "batch_norm", True)
    assert (large.schedule, large.photometry.standardize, large.num_epochs) == ("cosine", True, 90.0)


def test_published_runs_made_as_many_updates_as_their_configs_say():
    from alexnet_jax.configs.variants import change

    images = {"default": 1970, "cifar10": 50_000, "cifar10_alexnet": 50_000}
    for file in sorted((ROOT / "docs/results").glob("*.jsonl")):
        for row in map(json.loads, file.read_text().splitlines()):
            if "ensemble" in row or "result" not in row:
                continue
            name, _, variant = row["config"].partition(":")
            module = importlib.import_module(f"alexnet_jax.configs.{name}")
            config = module.get_config(*[variant] * bool(variant)).unlock()
            change(config, row["overrides"])
            updates = round(config.num_epochs * images[name] / config.batch_size)
            assert updates == row["result"]["step"], (file, row["run"])


def test_the_default_config_is_that_of_the_readmes_errors():
    """README.md, "Result", and docs/experiments-log.md, "Longer and upside down"."""
    from alexnet_jax.configs import default

    found = default.get_config()
    assert (found.dataset.name, found.dataset.crop_size, found.network.width) == ("elpv/160", 144, 0.25)
    assert (found.batch_size, found.num_epochs, found.schedule) == (32, 120.0, "cosine")
    assert found.jitter.to_dict() == {"rotation": 5.0, "scale": 0.15, "symmetries": 4}
    assert found.rates.to_dict() == {"all": {"kernel": ((0, 0.014),), "bias": ((0, 0.028),)}}
    assert (found.momentum, found.weight_decay) == (0.9, 0.0005)


def test_the_network_of_the_ablations_is_that_of_the_results_page():
    from alexnet_jax.configs import cifar10_alexnet

    found = read_settings(cifar10_alexnet.get_config())
    assert (found.network.recipe, found.network.width, found.network.he_init) == ("original", 0.5, True)
    assert (found.dataset.name, found.dataset.crop_size, found.photometry.standardize) == ("cifar10/64_raw", 56, True)
    assert (found.schedule, found.num_epochs, found.weight_decay, found.momentum) == ("cosine", 20.0, 0.0005, 0.9)
    assert (found.rates["all"].kernel, found.rates["all"].bias) == (((0, 0.01),), ((0, 0.02),))


def test_errors_are_those_of_the_splits_of_the_paper():
    """Table 1 has the test set of 2010, table 2 the validation set of 2012."""
    from alexnet_jax.configs import imagenet2010, imagenet2012

    assert {imagenet2010.get_config(name).dataset.eval_split for name in imagenet2010.VARIANTS} == {"test"}
    assert imagenet2012.get_config().dataset.eval_split == "validation"


def test_the_networks_of_all_of_imagenet_have_a_sixth_convolution():
    """Paper section 6; A/layers/layers-146-2011.cfg."""
    from alexnet_jax.configs import fall2009, fall2011

    older, newer = fall2009.get_config(), fall2011.get_config()
    assert (older.network.recipe, older.dataset.classes) == ("six_conv", 10_184)
    assert (newer.network.recipe, newer.dataset.classes) == ("bottleneck", 21_841)
    assert (newer.schedule, newer.num_epochs, newer.photometry.noise) == ("run", 10.0, ((0, 0.1), (0.75, 0.0)))
    rates = [value for _, value in newer.rates.all.kernel]
    assert rates == pytest.approx([0.01, 0.0015874, 0.00025198, 0.00004])


@pytest.mark.parametrize("variant", ["plateau", "paper"])
def test_the_rate_falls_three_times_as_in_the_paper(variant):
    from alexnet_jax.configs import imagenet2012

    assert imagenet2012.get_config(variant).plateau.drops == 3
