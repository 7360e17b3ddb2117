from collections.abc import Callable
from typing import Any

import pytest
from ml_collections import ConfigDict

from alexnet_jax.configs import cifar10, default, imagenet2012, large_batch
from alexnet_jax.errors import UsageError
from alexnet_jax.experiment.settings import read_settings


def test_the_default_config_is_read_whole():
    settings = read_settings(default.get_config())
    assert settings.momentum == 0.9
    assert settings.rates["all"].kernel[0][0] == 0
    assert settings.mesh.tower is None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"batch_size": "many"}, "config.batch_size is 'many' and should be a whole number"),
        ({"batch_size": 0}, "config.batch_size is 0 and must be more than 0"),
        ({"batch_size": True}, "config.batch_size is True and should be a whole number"),
        ({"schedule": "weekly"}, "config.schedule is 'weekly' and should be 'epochs' or 'run'"),
        ({"photometry.noise": ((1, 0.1),)}, "config.photometry.noise must start at position 0"),
        ({"photometry.noise": ((0, 0.1), (0, 0.2))}, "positions of config.photometry.noise must ascend"),
        ({"photometry.noise": ((0, "x"),)}, r"config.photometry.noise\[0\]\[1\] is 'x' and should be a number"),
        ({"mesh.tower": 0}, "config.mesh.tower is 0 and must be at least 1, or None"),
        ({"mesh.tower": "two"}, "config.mesh.tower is 'two' and should be a whole number"),
        (
            {"rates.all.kernel": (0, 0.1)},
            r"kernel is \(0, 0.1\) and should be a number, or a table such as \(\(0, 0.01\)",
        ),
        ({"rates.all.kernel": ((0, -0.1),)}, "config.rates.all.kernel is -0.1 from position 0 on and must be at least"),
        ({"rates.all.kernel": ((0, float("nan")),)}, r"kernel\[0\]\[1\] is nan and should be a finite number"),
        ({"num_epochs": float("inf")}, "config.num_epochs is inf and should be a finite number"),
        ({"num_epochs": 1e20}, "config.num_epochs is 1e.20 and must be at most 2,147,483,647"),
        ({"seed": -1}, r"config.seed is -1 and must be at least 0 and less than 2\*\*63"),
        ({"seed": 2**64}, r"config.seed is 18446744073709551616 and must be at least 0 and less than 2\*\*63"),
        ({"momentum": 1.0}, "config.momentum is 1.0 and must be at least 0 and less than 1"),
        ({"weight_decay": -0.1}, "config.weight_decay is -0.1 and must be at least 0$"),
        ({"weight_decays.all": 0.1}, "config.weight_decays names 'all', .* use config.weight_decay for all"),
        ({"weight_decays.fc8": -0.1}, "config.weight_decays.fc8 is -0.1 and must be at least 0$"),
        ({"batch_size": 10**12}, "config.batch_size is 1000000000000 and must be at most 1,048,576"),
        ({"batch_size": None}, "config.batch_size is None and should be a whole number"),
        ({"dataset.train_images": 0}, "config.dataset.train_images is 0 and must be more than 0, or None"),
        ({"dataset.name": ""}, "config.dataset.name is empty; name a prepared data set"),
        ({"dataset.name": "/data/flowers"}, "config.dataset.name is '/data/flowers', a path; name a data set, such as"),
        ({"name": " "}, "config.name is empty; name the workdir"),
        ({"photometry.standardize": False}, "each_image is True and standardize is False; it standardizes each image"),
        ({"jitter.symmetries": 3}, "config.jitter.symmetries is 3 and must be 1, 2, 4 or 8"),
        ({"init_from": ""}, "config.init_from is empty; name the workdir of a run"),
    ],
)
def test_a_wrong_value_is_named(change: dict, message: str):
    config = default.get_config().unlock()
    with config.ignore_type():
        config.update_from_flattened_dict(change)
    with pytest.raises(UsageError, match=message):
        read_settings(config)


@pytest.mark.parametrize("constant", [0.02, 1, (0.02,), [0.02]])
def test_a_number_is_a_constant_table(constant: object):
    """The flag of a tuple makes `(0.02,)` of 0.02."""
    config = default.get_config().unlock()
    value = constant[0] if isinstance(constant, (tuple, list)) else constant
    with config.ignore_type():
        config.update_from_flattened_dict(
            {"rates.all.kernel": constant, "rates.all.bias": constant, "photometry.noise": constant}
        )
    settings = read_settings(config)
    assert settings.rates["all"].kernel == settings.rates["all"].bias == settings.photometry.noise == ((0, value),)


MAY_BE_NONE = [
    "name",
    "dataset.train_split",
    "dataset.eval_split",
    "dataset.crop_size",
    "dataset.classes",
    "dataset.train_images",
    "clip_norm",
    "lars_trust",
    "init_from",
    "mesh.data",
    "mesh.tower",
]


@pytest.mark.parametrize("config", [default, imagenet2012, cifar10, large_batch], ids=lambda module: module.__name__)
def test_none_in_a_config_file(config: Any):
    """For every field that may be None, whatever value it has in the config."""
    made = config.get_config()
    made.update_from_flattened_dict(dict.fromkeys(MAY_BE_NONE))
    settings = read_settings(made)
    assert settings.name == settings.dataset.name.partition("/")[0]
    assert (settings.dataset.classes, settings.mesh.data, settings.lars_trust) == (None, None, None)


def test_the_name_is_that_of_the_data_set(tiny_config: Callable):
    config = default.get_config()
    assert read_settings(config).name == "elpv"
    config.dataset.name = "flowers/160"
    assert read_settings(config).name == "flowers"
    assert read_settings(tiny_config()).name == "tiny"


def test_a_key_that_nobody_reads_is_an_error():
    config = default.get_config().unlock()
    config.network.widht = 0.5
    with pytest.raises(UsageError, match=r"nothing reads config.network.widht; did you mean config.network.width?"):
        read_settings(config)


def test_a_missing_key_is_an_error():
    config = default.get_config().unlock()
    del config.momentum
    with pytest.raises(UsageError, match=r"config.momentum is missing; configs/default.py explains it"):
        read_settings(config)


def test_rates_need_a_rule_for_all(tiny_config: Callable):
    config = tiny_config().unlock()
    config.rates = {"conv1": config.rates["all"]}
    with pytest.raises(UsageError, match=r"config.rates.all is missing"):
        read_settings(config)


def test_a_whole_number_is_a_name():
    """As the flag reads `--config.name=2024`, where the default is None."""
    from alexnet_jax.config_flag import Literal, OrNone

    for text, name in (("2024", "2024"), ("0", "0"), ("2024a", "2024a")):
        values = default.get_config().to_dict()
        values["name"] = values["dataset"]["eval_split"] = OrNone(Literal()).parse(text)
        settings = read_settings(ConfigDict(values))
        assert (settings.name, settings.dataset.eval_split) == (name, name)
