"""The parameters of a network in the order that PyTorch and Caffe share, and back.

There a convolution's kernel is `[out, in, rows, columns]`, where a layer of two groups sees half of the maps, a matrix
is `[out, in]`, maps are flattened channel by channel, and both towers lie side by side.
"""

import math
from collections.abc import Mapping, Sequence
from typing import TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from alexnet_jax.errors import UsageError
from alexnet_jax.formats.errors import FormatError
from alexnet_jax.network.forward import init_params
from alexnet_jax.network.recipes import Layer, layers_of, towers_of
from alexnet_jax.network.tower import Tower, make_tower

Whole: TypeAlias = dict[str, tuple[np.ndarray, np.ndarray]]  # kernel and bias by layer

DIGITS = 6  # of a width that is written in a config


def tower_of(recipe: str, whole: Whole, classes: int) -> tuple[Tower, float]:
    """The network of a recipe whose layers are as wide as these, and its width.

    Args:
      recipe: its name.
      whole: the layers; the counts of biases count.
      classes: of the last layer; 0: the recipe has no classifier.

    Raises:
      FormatError: no width gives these layers.
    """
    towers = towers_of(recipe)
    sizes = {layer.name: layer.features for layer in layers_of(recipe) if layer.features}
    width = _width_of({name: (size, len(whole[name][1]) / towers) for name, size in sizes.items()})
    try:
        tower = make_tower(recipe, num_classes=classes, width=width)
    except UsageError as error:
        raise FormatError(f"its network is too small for the recipe {recipe!r}: {error}") from error
    for layer in tower.layers:
        if layer.features and layer.features * towers != len(whole[layer.name][1]):
            raise FormatError(
                f"its {layer.name} has {len(whole[layer.name][1])} maps or units; beside a conv1 of"
                f" {len(whole['conv1'][1])} the recipe {recipe!r} has {layer.features * towers}"
            )
    return tower, width


def _width_of(features: Mapping[str, tuple[int, float]]) -> float:
    """The shortest width that gives these features, as `(of the recipe, found)`, or the nearest where none does."""
    least = max(units / whole for whole, units in features.values())
    for digits in range(DIGITS + 1):
        width = math.ceil(least * 10**digits) / 10**digits
        if all(math.floor(whole * width) == units for whole, units in features.values()):
            return width
    return least


def to_params(whole: Whole, tower: Tower, crop_size: int) -> PyTree[np.ndarray]:
    """The parameters as `Tower` has them, `[tower, ...]`, in float32.

    Args:
      whole: the layers.
      tower: their network.
      crop_size: side of the images.

    Raises:
      FormatError: a layer has another shape than the network's, or numbers that are not finite.
    """
    try:
        shapes = jax.eval_shape(lambda: init_params(tower, jax.random.key(0), crop_size))
    except UsageError as error:
        raise FormatError(f"its network does not take images of {crop_size}x{crop_size} pixels: {error}") from error
    params = {}
    maps = None  # channels before the first matrix
    for layer in tower.layers:
        kernel, bias = whole[layer.name]
        expected = _whole_shape(layer, shapes[layer.name]["kernel"].shape, tower)
        if kernel.shape != expected or bias.shape != expected[:1]:
            raise FormatError(
                f"its {layer.name} has a kernel of {times(kernel.shape)} and {times(bias.shape)} biases, and the"
                f" network with images of {crop_size} pixels {times(expected)} and {expected[0]}"
            )
        kernel, bias = (_finite(array, layer.name) for array in (kernel, bias))
        params[layer.name] = _layer_params(layer, kernel, bias, tower, None if layer.window else maps)
        maps = len(bias) if layer.window else None
    return params


def of_params(params: PyTree[np.ndarray], tower: Tower) -> Whole:
    """The layers in the order of PyTorch and Caffe: `to_params` of them is `params` again, bit by bit.

    With an odd number of classes, the logit that the last tower has too many is left out.
    """
    whole: Whole = {}
    maps = None
    for layer in tower.layers:
        kernel, bias = (np.asarray(params[layer.name][leaf]) for leaf in ("kernel", "bias"))
        bias = bias.reshape(-1)
        if layer.window:
            kernel = kernel.transpose(0, 4, 3, 1, 2).reshape(len(bias), kernel.shape[3], layer.window, layer.window)
        else:
            kernel = kernel.transpose(0, 2, 1).reshape(len(bias), -1)
            kernel = kernel if maps is None else _channels_first(kernel, maps)
        if not layer.features:
            kernel, bias = kernel[: tower.num_classes], bias[: tower.num_classes]
        whole[layer.name] = (np.ascontiguousarray(kernel, np.float32), np.ascontiguousarray(bias, np.float32))
        maps = len(bias) if layer.window else None
    return whole


def _layer_params(
    layer: Layer, kernel: np.ndarray, bias: np.ndarray, tower: Tower, maps: int | None
) -> dict[str, np.ndarray]:
    towers = tower.towers
    missing = -len(bias) % towers  # with an odd number of classes
    bias = np.concatenate([bias, np.zeros(missing, np.float32)]).reshape(towers, -1)
    if layer.window:
        return {"kernel": _towers_first(kernel, towers).transpose(0, 3, 4, 2, 1).copy(), "bias": bias}
    kernel = kernel if maps is None else _channels_last(kernel, maps)
    kernel = np.concatenate([kernel, np.zeros((missing, kernel.shape[1]), np.float32)]) if missing else kernel
    return {"kernel": _towers_first(kernel, towers).transpose(0, 2, 1).copy(), "bias": bias}


def _towers_first(kernel: np.ndarray, towers: int) -> np.ndarray:
    return kernel.reshape(towers, -1, *kernel.shape[1:])


def _channels_last(kernel: np.ndarray, maps: int) -> np.ndarray:
    """A matrix `[out, maps x places]` as `[out, places x maps]`."""
    return kernel.reshape(len(kernel), maps, -1).transpose(0, 2, 1).reshape(len(kernel), -1)


def _channels_first(kernel: np.ndarray, maps: int) -> np.ndarray:
    return kernel.reshape(len(kernel), -1, maps).transpose(0, 2, 1).reshape(len(kernel), -1)


def _whole_shape(layer: Layer, shape: tuple[int, ...], tower: Tower) -> tuple[int, ...]:
    """The shape of the kernel of both towers in the order of PyTorch and Caffe."""
    out = tower.towers * layer.features or tower.num_classes
    return (out, shape[3], layer.window, layer.window) if layer.window else (out, shape[1])


def _finite(array: np.ndarray, layer: str) -> np.ndarray:
    if array.dtype.kind != "f" and array.dtype != jnp.bfloat16:
        raise FormatError(f"its {layer} has numbers of the type {array.dtype}, and weights have fractions")
    with np.errstate(over="ignore"):  # of float64
        array = array.astype(np.float32)
    if not np.isfinite(array).all():
        raise FormatError(f"its {layer} has weights that are not finite numbers")
    return array


def times(shape: Sequence[int]) -> str:
    """A shape as people write it: `3x3x256`."""
    return "x".join(map(str, shape))
