"""Your images: net 145 at a quarter of its width, on any prepared data set of 60 images or more.

Reproduces no result of the paper, and promises no error. Splits, counts, crop and epochs follow from the data set.
Fields that were chosen for ELPV stay: a quarter of the maps, rotation, scaling and rates. With more than ten thousand
images, `--config.network.width=0.5` or 1 is worth its time; with pictures that have a right way up or a size with a
meaning, `--config.jitter.rotation=0` and `--config.jitter.scale=0`.

Data: `python -m alexnet_jax.prepare folder NAME --source_dir=DIR`. Images stored with `--size=160` take less than half
the time of those stored with 256 pixels.

Cost, on two cores, images of 256 pixels: 300 images take three minutes, 2,000 take eight, 60,000 take an hour.

Command: `python -m alexnet_jax.main --config=configs/own.py:NAME`. The workdir is `runs/NAME`.
docs/your-own-images.md has the whole way.
"""

from ml_collections import ConfigDict, config_dict

from alexnet_jax.configs import default
from alexnet_jax.errors import UsageError


def get_config(name: str = "") -> ConfigDict:
    """The config for the prepared data set of that name, such as `flowers` or `flowers/160`.

    Raises:
      UsageError: no data set is named.
    """
    if not name:
        raise UsageError("configs/own.py needs the name of a prepared data set: --config=configs/own.py:NAME")
    config = default.get_config()
    config.dataset.name = name
    # Images of the updates and of the evaluations. None: 'train', and the validation split, or else the test split.
    config.dataset.train_split = config_dict.placeholder(str)
    config.dataset.eval_split = config_dict.placeholder(str)
    config.dataset.crop_size = None  # side of the crops, pixels; None: 224 / 256 of the stored images, as in 2012

    # The next three fields have the values of 2012; those of `configs/default.py` are chosen for solar cells.
    config.network.recipe = "original"  # has dropout, which helps a network that fits its training images
    config.jitter.symmetries = 2  # crops are mirrored, and never upside down: most pictures have a top
    config.photometry.each_image = False  # brightness may tell classes apart: a crop keeps its own
    # Images an update. With fewer than 32 training images, a batch lies across epochs. The rates are chosen for 32.
    config.batch_size = 32
    # Passes over the training images. None: 2000 / the root of their number, rounded, at least 10: 272 for 54 images,
    # 122 for 270, 45 for 1,970, 10 for 40,000 and more. Few images need many passes to make enough updates.
    config.num_epochs = config_dict.placeholder(float)
    # Epochs between evaluations. None: a tenth of the run.
    config.evaluate_every = config_dict.placeholder(float)
    # Epochs between checkpoints. None: those between evaluations.
    config.save_every = config_dict.placeholder(float)
    return config
