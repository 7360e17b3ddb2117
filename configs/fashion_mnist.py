"""Fashion-MNIST with the networks of `configs/cifar10.py`: 60,000 + 10,000 grey images of clothes, 28x28, ten classes.

Reproduces no result of the paper. It makes the comparisons of `configs/cifar10.py` where CIFAR-10 cannot be downloaded.
The error of these networks on this data set is not on record.

Data: `python -m alexnet_jax.prepare fashion_mnist --source_dir=/usr/share/datasets/fashion-mnist --size=28` reads the
files of Debian's package `dataset-fashion-mnist`. `python -m alexnet_jax.prepare tfds fashion_mnist --size=28` takes
TFDS's data set of that name.

Cost: 52 epochs of 60,000 images, a tenth of those of `configs/cifar10.py`; `relu` and `tanh` take 10.

Command: `python -m alexnet_jax.main --config=configs/fashion_mnist.py:VARIANT`. The default variant is `relu`.
"""

from ml_collections import ConfigDict

from alexnet_jax.configs import cifar10
from alexnet_jax.configs.variants import Variant, vary

SHORT = ((0, 0.001), (50, 0.0001), (51, 0.00001))
LENGTH = {"num_epochs": 52.0, "rates": {"all": dict(kernel=SHORT, bias=cifar10.BIASES)}}
FIGURE_1 = cifar10.FIGURE_1 | {"num_epochs": 10.0, "dataset.crop_size": 28}

VARIANTS = {
    name: Variant(
        "no record on this data set",
        variant.changes | (FIGURE_1 if name in ("relu", "tanh") else LENGTH),
    )
    for name, variant in cifar10.VARIANTS.items()
}


def get_config(variant: str = "relu") -> ConfigDict:
    """A variant. Its workdir is `runs/fashion_mnist-VARIANT`."""
    config = cifar10.base()
    config.name = f"fashion_mnist-{variant}"
    config.dataset.update(name="fashion_mnist", train_images=60_000)
    config.evaluate_every = config.save_every = 1.0
    return vary(config, VARIANTS, variant)
