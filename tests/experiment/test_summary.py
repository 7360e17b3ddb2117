import pytest

from alexnet_jax.benchmarks import step
from alexnet_jax.errors import UsageError
from alexnet_jax.experiment import summary
from alexnet_jax.experiment.follow import Facts
from alexnet_jax.experiment.settings import read_settings
from alexnet_jax.network import sharding
from alexnet_jax.network.recipes import RECIPES
from alexnet_jax.network.tower import make_tower
from tests import small


def size_of(recipe):
    return 24 if recipe.startswith("cifar") else 227 if recipe in ("bvlc", "caffenet") else 224


@pytest.mark.parametrize("recipe", sorted(RECIPES))
def test_parameters_are_those_of_the_network(recipe):
    tower = make_tower(recipe, num_classes=10)
    params, _ = small.shapes(tower, size_of(recipe))
    rows = summary.rows_of(tower, size_of(recipe))
    assert sum(row.params for row in rows) == sharding.count_params(params)
    assert {name: set(leaves) for name, leaves in params.items()} == {
        name: set(leaves) for name, leaves in tower.leaf_names().items()
    }


@pytest.mark.parametrize(
    ("recipe", "total"),
    [
        ("original", 60_965_224),
        ("six_conv", 61_555_304),
        ("one_tower", 59_798_312),
        ("no_exchange", 60_714_408),
        ("bottleneck", 67_897_960),
    ],
)
def test_totals_of_2012(recipe, total):
    """Counted from A/layers/*.cfg."""
    rows = summary.rows_of(make_tower(recipe, num_classes=1000), 224)
    assert sum(row.params for row in rows) == total


def test_the_paper_s_figures():
    rows = {row.name: row for row in summary.rows_of(make_tower("original", num_classes=1000), 224)}
    neurons = {name: row.neurons for name, row in rows.items()}
    assert neurons.pop("conv1") == 55 * 55 * 96
    assert neurons == {name: count for name, count in summary.PAPER_NEURONS.items() if name in neurons}
    assert rows["conv3"].multiply_adds == 13 * 13 * 384 * 3 * 3 * 256
    assert {name for name, row in rows.items() if row.exchanged} == {"conv3", "fc6", "fc7", "fc8"}


def test_the_products_of_an_update_are_those_that_the_benchmark_counts():
    first, *others = summary.rows_of(make_tower("original", num_classes=1000), 224)
    forward, kernel, inputs = 1, 1, 1  # passes; the image needs no gradient
    products = (forward + kernel) * first.multiply_adds
    products += (forward + kernel + inputs) * sum(row.multiply_adds for row in others)
    assert 2 * products / 1e9 == pytest.approx(step.GFLOP, abs=0.005)


def test_dry_run_prints_without_data(forked, tmp_path):
    flags = "--config=configs/imagenet2012.py:tanh", "--dry_run", f"--data_dir={tmp_path}/none"
    status, out, err = forked("main", *flags)
    assert (status, err) == (0, "")
    assert "60,965,224" in out and "253,440" in out and "290,400" in out and "910,830 updates" in out
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("changes", [{"recipe": "torchvision"}, {"recipe": "caffenet"}, {"width": 0.5}])
def test_another_network_stands_without_the_paper_s_figures(changes):
    from alexnet_jax.configs import imagenet2012
    from alexnet_jax.experiment.settings import read_settings

    config = imagenet2012.base()
    config.network.update(changes)
    if changes.get("recipe") == "caffenet":
        config.dataset.crop_size = 227
    text = summary.describe(read_settings(config.lock()))
    assert "multiply-adds" in text and "253,440" not in text and summary.PAPER_TOTALS not in text


def test_dry_run_takes_no_device(command):
    flags = "--config=configs/default.py", "--config.schedule=plateau", "--dry_run"
    status, out, err = command("main", *flags, devices=0, JAX_PLATFORMS="cuda", JAX_TRANSFER_GUARD="disallow").finish()
    assert (status, err) == (0, "") and "rates are divided by 10" in out


def test_dry_run_of_an_unknown_variant_is_one_line(forked):
    status, out, err = forked("main", "--config=configs/imagenet2012.py:nonorm", "--dry_run")
    assert (status, out) == (2, "")
    assert err.startswith("error: there is no variant 'nonorm'; known: original, ") and err.count("\n") == 1


def test_a_count_that_is_missing(tiny_config):
    config = tiny_config(**{"dataset.name": "flowers"})
    with pytest.raises(UsageError, match=r"dataset\.classes is None, and there is no prepared data set flowers"):
        summary.describe(read_settings(config))


def test_counts_follow_from_the_data_set(tiny_config):
    assert "elpv/64 (2 classes, 197 training images)" in summary.describe(read_settings(tiny_config()))  # train[:10%]
    config = tiny_config(**{"dataset.name": "flowers", "dataset.train_split": None})
    flowers = Facts(5, {"train": 70, "test": 60}, 64)
    assert "flowers (5 classes, 70 training images)" in summary.describe(read_settings(config), flowers)
    config.dataset.train_images = 60  # for a dry run without the data set
    assert "flowers (5 classes, 70 training images)" in summary.describe(read_settings(config), flowers)
    config.dataset.classes = 4
    with pytest.raises(UsageError, match=r"classes is 4 and flowers has 5 classes; with None, the data set"):
        summary.describe(read_settings(config), flowers)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"dataset.crop_size": 65}, "config.dataset.crop_size is 65 and the images of elpv/64 have 64 pixels"),
        ({"mesh.tower": 3}, "config.mesh.tower is 3 and the recipe 'original' has 2 towers; use 1 or 2, or None"),
        ({"mesh.data": 5}, "config.batch_size is 32 and cannot be divided by the mesh's data axis of 5"),
        ({"dataset.train_split": "train[:0%]"}, r"split 'train\[:0%\]' holds no example; ask for a larger part"),
        ({"dataset.eval_split": "train[90%:80%]"}, r"split 'train\[90%:80%\]' holds no example"),
        ({"network.recipe": "torchvision_convolutions"}, "the network has no classifier: its last layer is conv5"),
        ({"dataset.train_split": "all"}, "there is no split 'all'; there are train, test, and parts"),
        ({"dataset.eval_split": "nothing"}, "there is no split 'nothing'; there are train, test, and parts"),
    ],
)
def test_a_dry_run_finds_what_a_run_would_find_in_the_data_set(tiny_config, changes, message):
    facts = Facts(2, {"train": 1970, "test": 654}, 64)
    with pytest.raises(UsageError, match=message):
        summary.describe(read_settings(tiny_config(**changes)), facts)
    summary.describe(read_settings(tiny_config()), facts)


def test_the_memory_of_a_device():
    from alexnet_jax.configs import imagenet2012

    config = imagenet2012.base()
    config.network.bfloat16, config.mesh.data, config.mesh.tower = True, 2, 2
    rows = summary.rows_of(make_tower("original", num_classes=1000), 224)
    [line] = summary._memory(read_settings(config), rows)
    # Parameters, velocities and gradients of a tower in float32; of half of 128 images half of the maps in bfloat16.
    assert f"{60_965_224 / 2 * 4 * 3 / 1e6:,.1f} MB for parameters, velocities" in line
    kept = sum(row.kept for row in rows) / 2 * 64 * 2 / 1e6
    assert f"{kept:,.1f} MB for what the backward pass needs of 64 images" in line


@pytest.mark.parametrize(("recipe", "local3", "local4"), [("cifar_13pct", 32, 32), ("cifar_11pct", 64, 32)])
def test_totals_of_cifars_networks(recipe, local3, local4):
    """A/example-layers/layers-conv-local-13pct.cfg and V1/example-layers/layers-conv-local-11pct.cfg."""
    places = 6 * 6
    total = (25 * 3 * 64 + 64) + (25 * 64 * 64 + 64) + places * (9 * 64 * local3 + local3)
    total += places * (9 * local3 * local4 + local4) + (places * local4 * 10 + 10)
    assert sum(row.params for row in summary.rows_of(make_tower(recipe, num_classes=10), 24)) == total
