"""A run of seconds: net 145 with 3 % of its maps, dropout included, on a tenth of ELPV's photographs of 64 pixels."""

from ml_collections import ConfigDict

from alexnet_jax.configs import default


def get_config() -> ConfigDict:
    """Of `configs/default.py` the update and the jitter; all operations of net 145, so that tests reach them."""
    config = default.get_config()
    config.name = "tiny"
    config.dataset.name = "elpv/64"
    config.dataset.train_split = "train[:10%]"
    config.dataset.eval_split = "test[:50]"
    config.dataset.crop_size = 56
    config.network.recipe = "original"
    config.network.width = 0.03
    config.jitter.symmetries = 2
    config.photometry.each_image = False
    config.batch_size = 32
    config.num_epochs = 2.0
    config.evaluate_every = config.save_every = 1.0
    config.schedule = "run"
    return config
