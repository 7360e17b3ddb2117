"""Which layers a network has: one table a recipe, with the paper's and the 2012 configuration's numbers."""

import dataclasses
import math

from alexnet_jax.errors import UsageError


@dataclasses.dataclass(frozen=True)
class Layer:
    """One layer of one tower.

    Attributes:
      name: as in the parameters: `conv1` ... `fc8`.
      features: maps or units in each tower; 0 in the last layer, which has the classes.
      window, stride, padding: of a convolution, in pixels; `window` 0 makes it fully connected.
      exchange: the layer sees both towers.
      then: what follows, in order: activation, norm, spatial_norm, pool, dropout.
      std: standard deviation of the initial Gaussian kernel.
      bias: initial bias.
    """

    name: str
    features: int
    window: int = 0
    stride: int = 1
    padding: int = 0
    exchange: bool = False
    then: tuple[str, ...] = ()
    std: float = 0.01
    bias: float = 0.0


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

RECIPES = {"original": ORIGINAL}


def layers_of(recipe: str, *, width: float = 1.0) -> tuple[Layer, ...]:
    """The layers of a recipe, every tower `width` times as wide.

    Raises:
      UsageError: the recipe is not known, or the width leaves a layer without features.
    """
    if recipe not in RECIPES:
        raise UsageError(f"there is no recipe {recipe!r}; known: {', '.join(sorted(RECIPES))}")
    layers = tuple(dataclasses.replace(layer, features=math.floor(layer.features * width)) for layer in RECIPES[recipe])
    empty = [layer.name for layer in layers[:-1] if layer.features < 1]
    if empty:
        raise UsageError(f"width {width} leaves {empty[0]} without features; use a larger width")
    return layers
