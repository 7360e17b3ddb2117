"""Your images: the network and the update of `configs/default.py` on any prepared data set.

Reproduces no result of the paper, and promises no error. Splits, classes, counts and the crop (224 / 256 of the stored
images, as in 2012) follow from the data set. Fields that were chosen for ELPV stay: a quarter of the maps, 45 epochs of
batches of 32, rotation and scaling. With more than ten thousand images, `--config.network.width=0.5` or 1 is worth its
time; with pictures that have a right way up or a size with a meaning, `--config.jitter.rotation=0` and
`--config.jitter.scale=0`.

Data: `python -m alexnet_jax.prepare folder NAME --source_dir=DIR`. Images stored with `--size=160` take less than half
the time of those stored with 256 pixels.

Cost: with crops of 140 pixels, about as much an image as `configs/default.py`; with 224, 2.5 times as much.

Command: `python -m alexnet_jax.main --config=configs/own.py:NAME`. The workdir is `runs/NAME`.
"""

from ml_collections import ConfigDict

from alexnet_jax.configs import default
from alexnet_jax.errors import UsageError


def get_config(name: str = "") -> ConfigDict:
    """The config for the prepared data set of that name, such as `flowers` or `flowers/160`.

    Raises:
      UsageError: no data set is named.
    """
    if not name:
        raise UsageError("configs/own.py wants the name of a prepared data set: --config=configs/own.py:NAME")
    config = default.get_config()
    config.dataset.name = name
    config.dataset.crop_size = None
    return config
