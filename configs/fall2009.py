"""ImageNet of fall 2009: 10,184 classes, 8.9 million images, half of them for training (paper section 6).

Reproduces 67.4 % top-1 and 40.9 % top-5 error of a network with a sixth convolution. The log has no record of this
network. The closest are 69.42 / 43.73 and 69.38 / 43.65, of other networks (A/layers/layer-params-131-2009.cfg:171,
A/layers/layer-params-2009-101.cfg:162). Not yet trained here.

Data: a folder of classes, `python -m alexnet_jax.prepare folder fall2009 --source_dir=DIR --held_out=0.5`.

Cost: 20 epochs, as many updates as about 70 epochs of ILSVRC. The schedule of 2012 is not on record; this config uses
the four quarters of net 170.

Command: `python -m alexnet_jax.main --config=configs/fall2009.py`.
"""

from ml_collections import ConfigDict

from alexnet_jax.configs import imagenet2012
from alexnet_jax.configs.imagenet2012 import QUARTERS
from alexnet_jax.configs.variants import Variant, vary

VARIANTS = {
    "six_conv": Variant("67.4 / 40.9 (paper section 6); no record of this network from scratch"),
}


def get_config(variant: str = "six_conv") -> ConfigDict:
    """Six convolutions on 10,184 classes. The workdir is `runs/fall2009`."""
    config = imagenet2012.base()
    config.name = "fall2009"
    config.dataset.update(name="fall2009", classes=10_184, train_images=4_450_000)
    config.network.recipe = "six_conv"
    config.schedule = "run"
    config.num_epochs = 20.0
    config.rates = ConfigDict({"all": dict(kernel=QUARTERS, bias=((0, 0.02), (0.5, 0.002)))})
    config.photometry.noise = ((0, 0.1), (0.75, 0.0))
    return vary(config, VARIANTS, variant)
