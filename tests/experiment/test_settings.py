from collections.abc import Callable

import pytest

from alexnet_jax.configs import default
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
        ({"rates.all.kernel": 0.1}, r"config.rates.all.kernel is 0.1 and should be a table"),
    ],
)
def test_a_wrong_value_is_named(change: dict, message: str):
    config = default.get_config().unlock()
    with config.ignore_type():
        config.update_from_flattened_dict(change)
    with pytest.raises(UsageError, match=message):
        read_settings(config)


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
