"""ILSVRC 2012: table 2 of the paper, its ablations, and later reproductions.

Reproduces the paper's "1 CNN": 40.7 % top-1 and 18.2 % top-5 error on the validation set with ten views. The log has
40.66 / 18.21 (A/layers/layer-params-145.cfg:181-182). Not yet trained here at full length. `docs/variants.md` has the
published figures of each variant.

Data: `python -m alexnet_jax.prepare imagenet2012 --source_dir=DIR`, where DIR has `ILSVRC2012_img_train.tar` and
`ILSVRC2012_img_val.tar`.

Cost: 91 epochs of 1,281,167 images, which is 910,830 updates. The forward pass takes 0.72 billion multiply-adds an
image, training three times as many. In 2012: between five and six days on two GTX 580 (paper section 5).

The variants with a run on the log have the schedule of that run. To change the network alone, and keep the schedule of
`original`, use `--config=configs/imagenet2012.py:original --config.network.recipe=RECIPE`.

Five similar networks as one (`python -m alexnet_jax.evaluate --views=10` with a `--workdir` for each) gave 38.1 / 16.4
(paper table 2). Which five, and with which weights, is not on record.

Command: `python -m alexnet_jax.main --config=configs/imagenet2012.py:VARIANT`. The default variant is `original`.
"""

from collections.abc import Sequence
from typing import Any

from ml_collections import ConfigDict

from alexnet_jax.configs import default
from alexnet_jax.configs.variants import Variant, change, vary

TRAIN_IMAGES = 1_281_167


def passes(place: str, files: float) -> float:
    """The passes over the images that are done at a place such as `6.2600` of the log: the 2600th file of epoch 6.

    The program of 2012 prints the epoch, from 1, and the file of 1,024 images (A/convnet.py:120, A/convdata.py:12).

    Args:
      place: of the log.
      files: of a pass.
    """
    epoch, file = map(int, place.split("."))
    return round(epoch - 1 + file / files, 2)


def run_of_log(
    num_epochs: float,
    *,
    lowered: Sequence[float],
    early: Sequence[tuple[float, float]],
    noise: float | None,
    biases: float | None,
    early_layers: Sequence[str] = ("conv1",),
) -> dict[str, Any]:
    """The changes that make the schedule of a run of the log, whose author lowered rates by hand.

    The log counts epochs from 1: its epoch 25 lies between 24 and 25 passes over the images. Where the log has a whole
    number, the change is here at the end of that pass; `passes` has those with the number of a file.

    Args:
      num_epochs: the epoch at which the run was stopped.
      lowered: epochs at which the rate of the kernels is divided by 10, from 0.01 on.
      early: epochs and rates of the first layers' kernels, once they leave those of all; the last rate is 0.
      noise: epoch at which the colour noise ends; None: it does not end.
      biases: epoch at which the rate of the biases falls from 0.02 to 0.002; None: it does not fall.
      early_layers: the first layers.
    """
    kernel = tuple(zip((0, *lowered), (0.01, 0.001, 0.0001, 0.00001), strict=False))
    bias = ((0, 0.02),) if biases is None else ((0, 0.02), (biases, 0.002))
    shared = (entry for entry in kernel if entry[0] < early[0][0])
    first = {"kernel": (*shared, *early), "bias": (*bias, early[-1])}
    return {
        "num_epochs": float(num_epochs),
        "rates": {"all": dict(kernel=kernel, bias=bias)} | {layer: dict(first) for layer in early_layers},
        "photometry.noise": ((0, 0.1),) if noise is None else ((0, 0.1), (noise, 0.0)),
    }


# A/layers/layer-params-145.cfg:165-182. The rate of conv1 falls to 1e-5 when the colour noise ends, and later to 0. The
# log does not have the biases' rate of these epochs; the run on ILSVRC 2010 ended at 0.002, and net 120-4gpu had 0.002
# with its second rate (A/layers/layer-params-145-2010.cfg, layer-params-120-4gpu-auto2.cfg).
NET_145 = run_of_log(91, lowered=(25, 51, 79), early=((67, 1e-5), (72, 0.0)), noise=67, biases=25)

# The same run went on: the rate went up again at epoch 91, but for conv1, and the noise came back
# (A/layers/layer-params-145.cfg:192-203, whose rates of the biases are those of the end).
SECOND_ANNEAL = {
    "num_epochs": 135.0,
    "rates": {
        "all": dict(
            kernel=(*NET_145["rates"]["all"]["kernel"], (91, 0.001), (107, 0.0001), (124, 0.00001)),
            bias=(*NET_145["rates"]["all"]["bias"], (91, 0.02)),
        ),
        "conv1": NET_145["rates"]["conv1"],
    },
    "photometry.noise": (*NET_145["photometry.noise"], (91, 0.1), (124, 0.0)),
}

# The ablations of the log. Nets 148 and 150 end with 0.02 for the biases. Net 147 ends with 0.002, and a copy of its
# file from its second rate has 0.02; the fall is assumed at the third rate. Its log has no end of the noise.
NET_147 = run_of_log(90, lowered=(23, 51, 79), early=((79, 0.0),), noise=None, biases=51)
NET_148 = run_of_log(97, lowered=(22, 44, 86), early=((69, 1e-5), (73, 0.0)), noise=69, biases=None)
NET_150 = run_of_log(92, lowered=(25, 49, 79), early=((66, 1e-5), (72, 0.0)), noise=66, biases=None)

# Net 170, a fixed schedule: four quarters, with a total factor of 250 (A/src/lr.cu:132-151;
# A/layers/layer-params-170.cfg:212-215). In 95 epochs, colour noise ends at 68 and the training of conv1 at 74.
QUARTERS = ((0, 0.01), (0.25, 0.0015874), (0.5, 0.00025198), (0.75, 0.00004))
QUARTERS_170 = {
    "schedule": "run",
    "num_epochs": 95.0,
    "rates": {
        "all": dict(kernel=QUARTERS, bias=((0, 0.02), (0.5, 0.002))),
        "conv1": dict(kernel=(*QUARTERS, (74 / 95, 0.0)), bias=((0, 0.02), (0.5, 0.002), (74 / 95, 0.0))),
    },
    "photometry.noise": ((0, 0.1), (68 / 95, 0.0)),
}

# Paper section 5: the rate is divided by 10 whenever the validation error stops falling, three times.
PLATEAU = {
    "schedule": "plateau",
    "num_epochs": 90.0,
    "plateau.patience": 5,
    "rates": {"all": dict(kernel=((0, 0.01),), bias=((0, 0.02),))},
    "photometry.noise": ((0, 0.1),),
}

# Caffe divides the rate by 10 every 100,000 updates of 256 images (K/models/bvlc_alexnet/solver.prototxt). Here the
# middle of the mean image is subtracted from every crop, as in 2012, and images are not squashed.
CAFFE = {
    "schedule": "steps",
    "batch_size": 256,
    "dataset.crop_size": 227,
    "photometry.noise": ((0, 0.0),),
    "rates": {
        "all": dict(
            kernel=((0, 0.01), (100_000, 0.001), (200_000, 0.0001), (300_000, 0.00001)),
            bias=((0, 0.02), (100_000, 0.002), (200_000, 0.0002), (300_000, 0.00002)),
        )
    },
}

# The reference scripts of torchvision, which its `AlexNet_Weights` name as the recipe of the published weights: batches
# of 256, 90 epochs, the rate of 0.01 divided by 10 every 30 epochs, a decay of 1e-4, no colour noise. Here the decay
# spares biases, all channels have one deviation, and crops are those of 2012; torchvision crops and scales at random.
TORCHVISION = {
    "network.recipe": "torchvision",
    "photometry.standardize": True,
    "photometry.noise": ((0, 0.0),),
    "batch_size": 256,
    "num_epochs": 90.0,
    "weight_decay": 1e-4,
    "rates": {
        "all": dict(
            kernel=((0, 0.01), (30, 0.001), (60, 0.0001)),
            bias=((0, 0.01), (30, 0.001), (60, 0.0001)),
        )
    },
}

VARIANTS = {
    "original": Variant(
        "40.66 / 18.21 with ten views, net 145 (A/layers/layer-params-145.cfg:182); the paper's 40.7 / 18.2"
    ),
    "quarters": Variant(
        "42.34 / 19.58 centre, 40.53 / 18.05 with ten views, net 170 (A/layers/layer-params-170.cfg:204-205)",
        QUARTERS_170,
    ),
    "second_anneal": Variant(
        "40.25 / 17.99 with ten views, net 145 after 44 more epochs (A/layers/layer-params-145.cfg:192-203)",
        SECOND_ANNEAL,
    ),
    "plateau": Variant(
        "no record; about as `original`. Rates fall as in the paper's text, and those of biases are twice the kernels'",
        PLATEAU,
    ),
    "paper": Variant(
        "no record. At initialisation the signal shrinks to a twelfth from conv2 to conv4, so training begins slowly:"
        " on CIFAR-10 after 350 to 479 updates, in place of 50 to 60 (docs/results.md). The colour noise stays that of"
        " the code: standard deviations, and a division by 1.1",
        PLATEAU | {"network.recipe": "paper", "rates": {"all": dict(kernel=((0, 0.01),), bias=((0, 0.01),))}},
    ),
    "caffenet": Variant(
        "42.6 / 19.6 centre, after 310,000 updates, images squashed to 256x256"
        " (K/models/bvlc_reference_caffenet/readme.md)",
        CAFFE | {"network.recipe": "caffenet", "num_epochs": 310_000 * 256 / TRAIN_IMAGES},
    ),
    "bvlc": Variant(
        "42.9 / 19.8 centre, after 360,000 updates, images squashed to 256x256 (K/models/bvlc_alexnet/readme.md)",
        CAFFE | {"network.recipe": "bvlc", "num_epochs": 360_000 * 256 / TRAIN_IMAGES},
    ),
    "torchvision": Variant(
        "43.48 / 20.93 centre, torchvision's published weights (`AlexNet_Weights.IMAGENET1K_V1` in its documentation:"
        " accuracies 56.522 / 79.066), trained with other crops",
        TORCHVISION,
    ),
    "one_tower": Variant(
        "1.7 / 1.2 worse than `original` (paper section 3.2). The only record is on ILSVRC 2010: 39.17 / 18.23 with ten"
        " views, net 145-half (A/layers/layer-params-145-half.cfg:90-100)",
        {"network.recipe": "one_tower"},
    ),
    "no_norm": Variant(
        "42.03 / 19.36 with ten views, net 148 (A/layers/layer-params-148.cfg:141-148); 1.4 / 1.2 worse in"
        " paper section 3.3",
        NET_148 | {"network.recipe": "no_norm"},
    ),
    "plain_pooling": Variant(
        "41.06 / 18.51 with ten views, net 147 (A/layers/layer-params-147.cfg:169-174); 0.4 / 0.3 worse in"
        " paper section 3.4",
        NET_147 | {"network.recipe": "plain_pooling"},
    ),
    "no_exchange": Variant(
        "41.83 / 19.33 with ten views, net 150 (A/layers/layer-params-150.cfg:170-179)",
        NET_150 | {"network.recipe": "no_exchange"},
    ),
    "six_conv": Variant(
        "no error from scratch on record: a similar network was stopped at epoch 60 because it overfitted"
        " (A/layers/layer-params-141.cfg:181-187); pre-trained (`configs/finetune.py`) 38.99 / 16.62",
        {"network.recipe": "six_conv"},
    ),
    "drop_conv3": Variant(
        "that of `drop_conv4`, which differs in the first value of a bias", {"network.recipe": "drop_conv3"}
    ),
    "drop_conv4": Variant(
        "no record; about 2 top-1 worse than `original` (paper section 7)", {"network.recipe": "drop_conv4"}
    ),
    "tanh": Variant("no record; slower. The paper compares on CIFAR-10 (figure 1)", {"network.recipe": "tanh"}),
    "no_dropout": Variant(
        "no record; substantial overfitting (paper section 4.2), without a figure", {"network.recipe": "no_dropout"}
    ),
    "no_noise": Variant(
        "no record; over 1 top-1 worse than `original` (paper section 4.1)", {"photometry.noise": ((0, 0.0),)}
    ),
    "batch_norm": Variant(
        "no record; not of 2012: batch norm, He initialisation, pixels of unit variance, cosine schedule, Nesterov"
        " momentum",
        {
            "network.recipe": "batch_norm",
            "photometry.standardize": True,
            "schedule": "cosine",
            "num_epochs": 90.0,
            "nesterov": True,
            "rates": {"all": dict(kernel=((0, 0.02),), bias=((0, 0.02),))},
            "photometry.noise": ((0, 0.1),),
        },
    ),
}


def base() -> ConfigDict:
    """Net 145 on ILSVRC 2012, unlocked. The other configs for ImageNet start from it."""
    config = default.of_2012()
    config.name = "imagenet2012-original"
    config.dataset.update(
        name="imagenet2012",
        train_split="train",
        eval_split="validation",
        crop_size=224,
        classes=1000,
        train_images=TRAIN_IMAGES,
    )
    config.schedule = "epochs"
    change(config, NET_145)
    config.momentum = 0.9
    config.weight_decay = 5e-4
    config.evaluate_every = 1.0
    config.save_every = 1.0
    return config


def get_config(variant: str = "original") -> ConfigDict:
    """A variant of the training of net 145. Its workdir is `runs/imagenet2012-VARIANT`."""
    config = base()
    config.name = f"imagenet2012-{variant}"
    return vary(config, VARIANTS, variant)
