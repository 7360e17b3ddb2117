import importlib
import itertools
import sys

import pytest

from alexnet_jax.errors import UsageError
from alexnet_jax.experiment import summary
from alexnet_jax.experiment.settings import read_settings
from tests.conftest import ROOT

sys.path.insert(0, str(ROOT))
from docs import roofline, variants

EVERY = [
    (name, variant) for name in variants.CONFIGS for variant in importlib.import_module(f"configs.{name}").VARIANTS
]


@pytest.mark.parametrize(("name", "variant"), EVERY, ids=lambda part: part)
def test_every_variant_can_be_read_and_described(name, variant):
    config = importlib.import_module(f"configs.{name}").get_config(variant)
    assert config.is_locked
    text = summary.describe(read_settings(config))
    assert "updates of" in text and "multiply-adds" in text


@pytest.mark.parametrize("name", variants.CONFIGS)
def test_every_config_introduces_itself(name):
    """What it reproduces, what it costs, the data and the command."""
    module = importlib.import_module(f"configs.{name}")
    for part in ("Reproduces" if name != "fall2011" else "no error for it", "Cost:", "Data:", f"configs/{name}.py"):
        assert part in module.__doc__, part
    assert module.get_config().name


def test_workdirs_of_variants_differ():
    names = [importlib.import_module(f"configs.{name}").get_config(variant).name for name, variant in EVERY]
    assert len(set(names)) == len(names)


def test_an_unknown_variant_lists_the_known():
    from configs import imagenet2012

    with pytest.raises(UsageError, match=r"no variant 'onetower'; known: original, .*one_tower"):
        imagenet2012.get_config("onetower")


def test_a_config_that_changed_changes_the_page():
    assert (ROOT / "docs/variants.md").read_text() == variants.page(), "run python -m docs.variants > docs/variants.md"


def test_a_network_that_changed_changes_the_roofline():
    assert roofline.section() in (ROOT / "docs/performance.md").read_text(), (
        "put in what python -m docs.roofline prints"
    )


def test_log145_in_updates():
    """A/layers/layer-params-145.cfg:165-182, at 1,281,167 / 128 updates an epoch."""
    from configs import imagenet2012

    text = summary.describe(read_settings(imagenet2012.get_config()))
    assert "910,830 updates" in text
    assert "rate of all: kernels 0.01 from update 0, 0.001 from update 250,228, 0.0001 from update 510,465" in text
    assert "1e-05 from update 670,611, 0 from update 720,656" in text
    assert "colour noise: 0.1 from update 0, 0 from update 670,611" in text


def test_finetuning_starts_from_the_run_before():
    from configs import finetune, imagenet2012

    chain = [imagenet2012.get_config(), *(finetune.get_config(name) for name in finetune.VARIANTS)]
    for before, after in itertools.pairwise(chain):
        assert after.init_from == f"runs/{before.name}"
