"""ImageNet of fall 2011, whole: 21,841 classes, about 14.2 million images.

The paper pre-trains on it for its "1 CNN*" and gives no error for it. Net 146-2011 had six convolutions and a linear
bottleneck of 1024 units a tower before 21,843 outputs, divided over the GPUs (A/layers/layers-146-2011.cfg:344-386); it
started from another run, as `configs/finetune.py:fall2011` does. This config starts from nothing. Not yet trained here.

Data: a folder of classes, `python -m alexnet_jax.prepare folder fall2011 --source_dir=DIR`.

Cost: nobody wrote down a schedule from scratch; this one is net 170's four quarters over 10 epochs, as many updates as
ILSVRC takes in about 110.

Command: `python -m alexnet_jax.main --config=configs/fall2011.py`.
"""

from ml_collections import ConfigDict

from alexnet_jax.configs import imagenet2012
from alexnet_jax.configs.imagenet2012 import QUARTERS
from alexnet_jax.configs.variants import Variant, vary

VARIANTS = {"bottleneck": Variant("no figure in the paper, none in the log")}


def get_config(variant: str = "bottleneck") -> ConfigDict:
    """Six convolutions and a bottleneck on 21,841 classes, `runs/fall2011`."""
    config = imagenet2012.base()
    config.name = "fall2011"
    config.dataset.update(name="fall2011", classes=21_841, train_images=14_197_122)
    config.network.recipe = "bottleneck"
    config.schedule = "run"
    config.num_epochs = 10.0
    config.rates = ConfigDict({"all": dict(kernel=QUARTERS, bias=((0, 0.02), (0.5, 0.002)))})
    config.photometry.noise = ((0, 0.1), (0.75, 0.0))
    return vary(config, VARIANTS, variant)
