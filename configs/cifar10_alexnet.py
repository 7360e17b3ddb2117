"""AlexNet itself on CIFAR-10, enlarged to 64 pixels: the paper's ablations with seeds, in minutes on a GPU.

Reproduces no figure of the paper. Both towers, response norm, overlapping pooling and dropout are net 145's, at half
its width, so that its parts can be taken away one by one. Images of 64 pixels and crops of 56 leave a map of a single
pixel after the last pooling, in place of 6 x 6. `docs/results.md` has the errors.

Data: `python -m alexnet_jax.prepare tfds cifar10 --size=64 --encoding=raw`, as for `configs/cifar10.py`.

Cost: 20 epochs of 50,000 images, which is 7,812 updates.

Command: `python -m alexnet_jax.main --config=configs/cifar10_alexnet.py`, and `--config.network.recipe=no_norm` for the
network without norms; `network/recipes.py` has all recipes.
"""

from ml_collections import ConfigDict

from alexnet_jax.configs import default


def get_config() -> ConfigDict:
    """The config. Its workdir is `runs/cifar10_alexnet`."""
    config = default.of_2012()
    config.name = "cifar10_alexnet"
    config.dataset.update(
        name="cifar10/64_raw", train_split="train", eval_split="test", crop_size=56, classes=10, train_images=50_000
    )
    config.network.update(width=0.5, he_init=True)
    config.photometry.standardize = True  # which He's initial values want
    config.num_epochs = 20.0
    config.schedule = "cosine"
    config.rates = ConfigDict({"all": dict(kernel=((0, 0.01),), bias=((0, 0.02),))})
    config.weight_decay = 0.0005
    config.evaluate_every = 5.0
    config.save_every = 5.0
    return config.lock()
