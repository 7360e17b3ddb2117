"""The layers of each network: a table for each recipe, with the numbers of the paper and of the 2012 configuration.

A recipe is data: a table of `Layer`s of one tower, and the fields of `Tower` that differ from those of net 145.
Sources are files of the 2012 code (A), of the public cuda-convnet of July 2012 (V1) and of Caffe (K);
docs/variants.md has their addresses.
"""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any, NamedTuple

from alexnet_jax.errors import UsageError


@dataclasses.dataclass(frozen=True)
class Layer:
    """One layer of one tower.

    Attributes:
      name: as in the parameters: `conv1` ... `fc8`.
      features: maps or units in each tower; 0 in the last layer, which has the classes.
      window, stride, padding: of a convolution, in pixels; `window` 0 makes it fully connected.
      local: a convolution whose places do not share kernel and bias.
      exchange: the layer sees both towers.
      then: operations after the layer, in order: activation, norm, spatial_norm, batch_norm, pool, adaptive_pool,
        dropout.
      std: standard deviation of the initial Gaussian kernel.
      bias: initial bias.
    """

    name: str
    features: int
    window: int = 0
    stride: int = 1
    padding: int = 0
    local: bool = False
    exchange: bool = False
    then: tuple[str, ...] = ()
    std: float = 0.01
    bias: float = 0.0


class Recipe(NamedTuple):
    """Layers of a tower, and the fields of `Tower` that differ from those of net 145."""

    layers: tuple[Layer, ...]
    fields: Mapping[str, Any] = {}


def _change(layers: tuple[Layer, ...], **changes: Mapping[str, Any]) -> tuple[Layer, ...]:
    """The layers, with other values in the named ones."""
    assert set(changes) <= {layer.name for layer in layers}, "a recipe changes a layer that does not exist"
    return tuple(dataclasses.replace(layer, **changes.get(layer.name, {})) for layer in layers)


def _drop(layers: tuple[Layer, ...], *operations: str) -> tuple[Layer, ...]:
    """The layers, without the named operations after them."""
    return tuple(
        dataclasses.replace(layer, then=tuple(name for name in layer.then if name not in operations))
        for layer in layers
    )


def _before(layers: tuple[Layer, ...], name: str, *new: Layer) -> tuple[Layer, ...]:
    """The layers, with new ones before the named layer."""
    at = [layer.name for layer in layers].index(name)
    return *layers[:at], *new, *layers[at:]


def _without(layers: tuple[Layer, ...], name: str) -> tuple[Layer, ...]:
    return tuple(layer for layer in layers if layer.name != name)


# Net 145 (A/layers/layers-145.cfg:9-308), which gave 40.7 / 18.2 (A/layers/layer-params-145.cfg:181-182). Against the
# paper's text: layer 1 normalises the linear response and rectifies after pooling; layer 2 has a second norm; conv3 to
# conv5 start at 0.03.
ORIGINAL = (
    Layer("conv1", 48, window=11, stride=4, then=("norm", "pool", "activation")),
    Layer("conv2", 128, window=5, padding=2, then=("activation", "norm", "spatial_norm", "pool"), bias=1.0),
    Layer("conv3", 192, window=3, padding=1, exchange=True, then=("activation",), std=0.03),
    Layer("conv4", 192, window=3, padding=1, then=("activation",), std=0.03, bias=1.0),
    Layer("conv5", 128, window=3, padding=1, then=("pool", "activation"), std=0.03, bias=1.0),
    Layer("fc6", 2048, exchange=True, then=("activation", "dropout"), bias=1.0),
    Layer("fc7", 2048, exchange=True, then=("activation", "dropout"), bias=1.0),
    Layer("fc8", 0, exchange=True),
)

# The paper's text taken literally (sections 3.3 to 3.5 and 5): layer 1 rectifies before its norm, there is no second
# norm in layer 2, every kernel starts at 0.01, and alpha multiplies the sum undivided.
PAPER = _change(
    ORIGINAL,
    conv1=dict(then=("activation", "norm", "pool")),
    conv2=dict(then=("activation", "norm", "pool")),
    conv3=dict(std=0.01),
    conv4=dict(std=0.01),
    conv5=dict(std=0.01, then=("activation", "pool")),
)

# Caffe's AlexNet (K/models/bvlc_alexnet/train_val.prototxt): two groups are two towers, but a norm's window knows no
# groups, its k is 1 (K/src/caffe/proto/caffe.proto:888) and alpha is divided by the window (lrn_layer.cpp:120).
# Dropout is the inverted form. Made for crops of 227 pixels.
BVLC = _change(
    PAPER,
    conv2=dict(bias=0.1),
    conv4=dict(bias=0.1),
    conv5=dict(bias=0.1),
    fc6=dict(std=0.005, bias=0.1),
    fc7=dict(std=0.005, bias=0.1),
)
CAFFE_FIELDS = dict(norm_k=1.0, whole_norm=True, inverted_dropout=True, whole_windows=True)

# CaffeNet (K/models/bvlc_reference_caffenet/train_val.prototxt): as above, but it pools before it normalises, and
# biases start at 1.
CAFFENET = _change(
    BVLC,
    conv1=dict(then=("activation", "pool", "norm")),
    conv2=dict(then=("activation", "pool", "norm"), bias=1.0),
    conv4=dict(bias=1.0),
    conv5=dict(bias=1.0),
    fc6=dict(bias=1.0),
    fc7=dict(bias=1.0),
)

# 145-half (A/layers/layers-145-half.cfg), section 3.2's network on one GPU: one tower, but conv5 and the connected
# layers whole, "otherwise this net would have about half as many parameters" (A/layers/layer-params-145-half.cfg:90).
ONE_TOWER = _change(ORIGINAL, conv5=dict(features=256), fc6=dict(features=4096), fc7=dict(features=4096))

# Net 147 (A/layers/layers-147.cfg): pools of 2 by 2. To end at 6 by 6 again, conv2 and conv5 lose a pixel of padding.
PLAIN_POOLING = _change(ORIGINAL, conv2=dict(padding=1), conv5=dict(padding=0))

# Net 150 (A/layers/layer-params-150.cfg:179): the towers meet at fc8 alone; conv2 and fc6 are wider in return.
NO_EXCHANGE = _change(
    ORIGINAL,
    conv2=dict(features=160),
    conv3=dict(exchange=False),
    fc6=dict(features=4096, exchange=False),
    fc7=dict(exchange=False),
)

# Net 146 (A/layers/layers-146-2012-2011.cfg:258-287), of the paper's "1 CNN*": a sixth convolution on the 6 by 6 maps.
SIX_CONV = _before(
    ORIGINAL, "fc6", Layer("conv6", 128, window=3, padding=1, exchange=True, then=("activation",), std=0.03, bias=1.0)
)

# 146-2011 (A/layers/layers-146-2011.cfg:344-386): a linear layer of 1024 units a tower before 21,843 classes.
BOTTLENECK = _before(SIX_CONV, "fc8", Layer("bottleneck", 1024, exchange=True))

# Section 7: "removing any of the middle layers results in a loss of about 2 %". No log of such a run is known. Without
# conv3, conv4 sees both towers, so that depth alone changes. The network is then that without conv4, but for
# a name and the first value of a bias.
DROP_CONV3 = _change(_without(ORIGINAL, "conv3"), conv4=dict(exchange=True))

# Not of 2012: batch norm (Ioffe and Szegedy 2015) where response norm was, before the activation.
BATCH_NORM = _change(
    ORIGINAL,
    conv1=dict(then=("batch_norm", "pool", "activation")),
    conv2=dict(then=("batch_norm", "activation", "pool")),
)

# The "13 %" net of CIFAR-10 (A/example-layers/layers-conv-local-13pct.cfg), made for crops of 24 pixels.
CIFAR_13PCT = (
    Layer("conv1", 64, window=5, padding=2, then=("activation", "pool"), std=0.0001),
    Layer("conv2", 64, window=5, padding=2, then=("activation", "pool"), std=0.01),
    Layer("local3", 32, window=3, padding=1, local=True, then=("activation",), std=0.04),
    Layer("local4", 32, window=3, padding=1, local=True, then=("activation",), std=0.04),
    Layer("fc10", 0),
)

# The "11 %" net (V1/example-layers/layers-conv-local-11pct.cfg): response norm, and local3 twice as wide.
CIFAR_11PCT = _change(
    CIFAR_13PCT,
    conv1=dict(then=("activation", "pool", "norm")),
    conv2=dict(then=("activation", "norm", "pool")),
    local3=dict(features=64),
)
CIFAR_FIELDS = dict(towers=1, norm_k=1.0, norm_size=9, norm_alpha=1e-3 / 9)


def _pytorch_std(inputs: int) -> float:
    """Deviation of a kernel that PyTorch draws by default: evenly from -1 / sqrt(inputs) to 1 / sqrt(inputs)."""
    return 1 / math.sqrt(3 * inputs)


# The network of Krizhevsky 2014 ("One weird trick for parallelizing convolutional neural networks") in the form that
# torchvision gave it (torchvision/models/alexnet.py), and that most people load: one tower, no norm, two pixels of
# padding before conv1, means over windows that make maps of 6 by 6 of any size, and dropout before fc6 and fc7. Kernels
# start with the deviation of PyTorch's, from a Gaussian; biases start at 0, which PyTorch draws like kernels.
TORCHVISION = (
    Layer("conv1", 64, window=11, stride=4, padding=2, then=("activation", "pool"), std=_pytorch_std(11 * 11 * 3)),
    Layer("conv2", 192, window=5, padding=2, then=("activation", "pool"), std=_pytorch_std(5 * 5 * 64)),
    Layer("conv3", 384, window=3, padding=1, then=("activation",), std=_pytorch_std(3 * 3 * 192)),
    Layer("conv4", 256, window=3, padding=1, then=("activation",), std=_pytorch_std(3 * 3 * 384)),
    Layer(
        "conv5",
        256,
        window=3,
        padding=1,
        then=("activation", "pool", "adaptive_pool", "dropout"),
        std=_pytorch_std(3 * 3 * 256),
    ),
    Layer("fc6", 4096, then=("activation", "dropout"), std=_pytorch_std(6 * 6 * 256)),
    Layer("fc7", 4096, then=("activation",), std=_pytorch_std(4096)),
    Layer("fc8", 0, std=_pytorch_std(4096)),
)
TORCHVISION_FIELDS = dict(towers=1, inverted_dropout=True, round_down=True)

# Its convolutions alone, as some programs ship them: a network without a classifier. Files of such weights end with
# conv5, and what follows conv5 needs no weights.
TORCHVISION_CONVOLUTIONS = _drop(TORCHVISION[:5], "adaptive_pool", "dropout")

RECIPES = {
    "original": Recipe(ORIGINAL),
    "paper": Recipe(PAPER, dict(norm_alpha=1e-4)),
    "caffenet": Recipe(CAFFENET, CAFFE_FIELDS),
    "bvlc": Recipe(BVLC, CAFFE_FIELDS),
    "torchvision": Recipe(TORCHVISION, TORCHVISION_FIELDS),
    "torchvision_convolutions": Recipe(TORCHVISION_CONVOLUTIONS, TORCHVISION_FIELDS),
    "one_tower": Recipe(ONE_TOWER, dict(towers=1)),
    "no_norm": Recipe(_drop(ORIGINAL, "norm", "spatial_norm")),  # net 148, A/layers/layer-params-148.cfg:147-148
    "plain_pooling": Recipe(PLAIN_POOLING, dict(pool_size=2)),
    "no_exchange": Recipe(NO_EXCHANGE),
    "six_conv": Recipe(SIX_CONV),
    "bottleneck": Recipe(BOTTLENECK),
    "drop_conv3": Recipe(DROP_CONV3),
    "drop_conv4": Recipe(_without(ORIGINAL, "conv4")),
    "tanh": Recipe(ORIGINAL, dict(activation="tanh")),  # section 3.1's comparison, on this network
    "no_dropout": Recipe(_drop(ORIGINAL, "dropout")),  # section 4.2: "exhibits substantial overfitting"
    "batch_norm": Recipe(BATCH_NORM, dict(he_init=True)),
    # Figure 1's nets are recorded nowhere; the 13 % net has four layers before the last and stands in for them.
    "cifar_13pct": Recipe(CIFAR_13PCT, CIFAR_FIELDS),
    "cifar_tanh": Recipe(CIFAR_13PCT, CIFAR_FIELDS | dict(activation="tanh")),
    "cifar_11pct": Recipe(CIFAR_11PCT, CIFAR_FIELDS),
    "cifar_11pct_no_norm": Recipe(_drop(CIFAR_11PCT, "norm"), CIFAR_FIELDS),
}


def towers_of(recipe: str) -> int:
    """The number of towers of a recipe.

    Raises:
      UsageError: the recipe is not known.
    """
    return _known(recipe).fields.get("towers", 2)


def _known(recipe: str) -> Recipe:
    if recipe not in RECIPES:
        raise UsageError(f"there is no recipe {recipe!r}; known: {', '.join(sorted(RECIPES))}")
    return RECIPES[recipe]


def layers_of(recipe: str, *, width: float = 1.0) -> tuple[Layer, ...]:
    """The layers of a recipe, every tower `width` times as wide.

    Raises:
      UsageError: the recipe is not known, or the width leaves a layer without features.
    """
    whole = _known(recipe).layers
    layers = tuple(dataclasses.replace(layer, features=math.floor(layer.features * width)) for layer in whole)
    empty = [layer.name for layer, before in zip(layers, whole, strict=True) if layer.features < 1 <= before.features]
    if empty:
        raise UsageError(f"width {width} leaves {empty[0]} without features; use a larger width")
    return layers
