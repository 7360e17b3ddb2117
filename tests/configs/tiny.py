"""A run of seconds: the default config at 64 pixels, with 3 % of the maps, on a tenth of the photographs."""

from ml_collections import ConfigDict

from alexnet_jax.configs import default


def get_config() -> ConfigDict:
    """`configs/default.py` with a smaller size and length."""
    config = default.get_config()
    config.name = "tiny"
    config.dataset.name = "elpv/64"
    config.dataset.train_split = "train[:10%]"
    config.dataset.eval_split = "test[:50]"
    config.dataset.crop_size = 56
    config.network.width = 0.03
    config.batch_size = 32
    config.num_epochs = 2.0
    config.evaluate_every = config.save_every = 1.0
    config.schedule = "run"
    return config
