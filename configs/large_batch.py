"""ILSVRC 2012 on modern accelerators: batches of 1024 to 8192 images over the data axis, LARS, bfloat16 activations.

Reproduces the claim that LARS trains AlexNet with batches of up to 8192 images without loss of accuracy (You, Gitman
and Ginsburg 2017, "Large Batch Training of Convolutional Networks", abstract). Their network has batch norm in place of
response norm, as has the recipe of this config. Not yet trained here, so no error is promised.

Each variant has its rate and its warm-up. The program never scales a rate: with another batch size set another rate by
`--config.rates.all.kernel='((0, RATE),)'`.

Data: `python -m alexnet_jax.prepare imagenet2012 --source_dir=DIR`.

Cost: 90 epochs, which is 14,075 updates with batches of 8192. The batch is divided over `--config.mesh.data`
devices, by default over all of them. With more devices, each needs less memory.

Command: `python -m alexnet_jax.main --config=configs/large_batch.py:VARIANT`. The default variant is `4096`.
"""

from ml_collections import ConfigDict

from alexnet_jax.configs import imagenet2012
from alexnet_jax.configs.variants import Variant, vary


def _batch(size: int, rate: float, warmup: float) -> dict:
    return {
        "batch_size": size,
        "warmup_epochs": warmup,
        "rates": {"all": dict(kernel=((0, rate),), bias=((0, 0.02),))},
    }


# With LARS, the rate times `lars_trust` is a share of the kernel's norm. Rates here grow by the root of the batch size.
# The log has two larger batches, without LARS: 256 images at twice the rate gave what 128 had given, and 1,024 gave no
# good result (A/layers/layer-params-170-256-double.cfg:195-203, A/layers/layer-params-137.cfg:203-207).
VARIANTS = {
    "1024": Variant("no record", _batch(1024, 5.0, 2.0)),
    "2048": Variant("no record", _batch(2048, 7.0, 5.0)),
    "4096": Variant("no record; no loss against small batches (You et al. 2017)", _batch(4096, 10.0, 5.0)),
    "8192": Variant("no record; no loss against small batches (You et al. 2017)", _batch(8192, 14.0, 5.0)),
}


def get_config(variant: str = "4096") -> ConfigDict:
    """A batch size. The workdir is `runs/large_batch-VARIANT`."""
    config = imagenet2012.base()
    config.name = f"large_batch-{variant}"
    config.network.recipe = "batch_norm"
    config.network.bfloat16 = True
    config.photometry.update(noise=((0, 0.1),), standardize=True)
    config.schedule = "cosine"
    config.num_epochs = 90.0
    config.lars_trust = 0.001
    return vary(config, VARIANTS, variant)
