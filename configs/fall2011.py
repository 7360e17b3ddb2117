"""ImageNet of fall 2011, all of it: 21,841 classes, about 14.2 million images.

The paper pre-trains its "1 CNN*" on this data set and gives no error for it. Net 146-2011 had six convolutions and a
linear bottleneck of 1024 units a tower before 21,843 outputs, divided over the GPUs
(A/layers/layers-146-2011.cfg:344-386). Net 146-2011 started from the parameters of another run, as
`configs/finetune.py:fall2011` does. This config starts from initial values. Not yet trained here.

Data: a folder of classes, `python -m alexnet_jax.prepare folder fall2011 --source_dir=DIR --held_out=0.01`. A hundredth
is held out for the evaluations.

Cost: 10 epochs, as many updates as about 110 epochs of ILSVRC. No schedule from scratch is on record; this config has
the rates of net 170's four quarters. The colour noise ends with the third, and conv1 is not frozen.

Command: `python -m alexnet_jax.main --config=configs/fall2011.py`.
"""

from ml_collections import ConfigDict

from alexnet_jax.configs import imagenet2012
from alexnet_jax.configs.imagenet2012 import QUARTERS
from alexnet_jax.configs.variants import Variant, vary

VARIANTS = {"bottleneck": Variant("no record, and no figure in the paper")}


def get_config(variant: str = "bottleneck") -> ConfigDict:
    """Six convolutions and a bottleneck on 21,841 classes. The workdir is `runs/fall2011`."""
    config = imagenet2012.base()
    config.name = "fall2011"
    config.dataset.update(name="fall2011", classes=21_841, train_images=14_055_151)  # 14,197,122 less a hundredth
    config.network.recipe = "bottleneck"
    config.schedule = "run"
    config.num_epochs = 10.0
    config.rates = ConfigDict({"all": dict(kernel=QUARTERS, bias=((0, 0.02), (0.5, 0.002)))})
    config.photometry.noise = ((0, 0.1), (0.75, 0.0))
    return vary(config, VARIANTS, variant)
