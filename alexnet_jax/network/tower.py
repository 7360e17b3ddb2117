"""One GPU's half of the network, written once.

Who runs the two halves, and where, is `forward.py`'s business: here a tower only knows that it has a twin, which it
meets through `exchange`.
"""

import math
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import lax
from jaxtyping import Array, Float

from alexnet_jax.errors import UsageError
from alexnet_jax.network import layers as ops
from alexnet_jax.network import native
from alexnet_jax.network.convolution import convolution
from alexnet_jax.network.recipes import RECIPES, Layer, layers_of

TOWER = "tower"


def exchange(x: Float[Array, "... c"]) -> Float[Array, "... both"]:
    """The channels of all towers, side by side: where the paper's GPUs communicate (section 3.5)."""
    # Gathered on an axis of their own: on the last one a CPU would turn channels to the front and back again.
    both = lax.all_gather(x, TOWER)
    return jnp.concatenate([both[tower] for tower in range(both.shape[0])], axis=-1)


class Tower(nn.Module):
    """A tower of net 145, or of another recipe: the defaults are net 145's.

    Attributes:
      layers: what it is made of; see `recipes.py`.
      num_classes: of the whole network. Each tower has half of the logits, rounded up.
      towers: how many there are, 2 or 1.
      activation: relu or tanh (paper section 3.1).
      dtype: of what flows between layers, such as bfloat16; None: as wide as the images. Parameters, norms and logits
        stay wide.
      he_init: start kernels at He et al. 2015's sqrt(2 / inputs) and biases at 0, not at the recipe's values.
      norm_k, norm_alpha, norm_beta, norm_size: response norm; alpha as it multiplies the sum: 1e-4 / 5
        (A/layers/layer-params-145.cfg:137-155 and A/layer.py:1182).
      whole_norm: the window of a response norm goes on into the other tower, as in Caffe.
      spatial_alpha, spatial_size: the second norm of layer 2: k 1, alpha 1e-3 / 25
        (A/layers/layer-params-145.cfg:157-163).
      pool_size, pool_stride: overlapping pooling (paper section 3.4).
      keep: share of units that dropout keeps (paper section 4.2).
      inverted_dropout: dropout divides by `keep` in training, as in Caffe, instead of multiplying at test.
      division: how the batch is divided, if it is; `layout.make_forward` tells.
    """

    layers: tuple[Layer, ...]
    num_classes: int
    towers: int = 2
    he_init: bool = False
    activation: str = "relu"
    dtype: Any = None
    norm_k: float = 2.0
    norm_alpha: float = 1e-4 / 5
    norm_beta: float = 0.75
    norm_size: int = 5
    whole_norm: bool = False
    spatial_alpha: float = 1e-3 / 25
    spatial_size: int = 5
    pool_size: int = 3
    pool_stride: int = 2
    keep: float = 0.5
    inverted_dropout: bool = False
    division: native.Division | None = None

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"], *, train: bool) -> Float[Array, "b share"]:
        """This tower's share of the logits; in training it needs an rng `dropout`.

        Raises:
          UsageError: the images are too small for a layer.
        """
        wide = x.dtype
        for layer in self.layers:
            if layer.exchange:
                x = exchange(x)
            x = self._convolution(layer, x) if layer.window else self._connection(layer, x)
            self.sow("signals", f"{layer.name}_out", x)  # kept for those alone who apply with mutable=["signals"]
            for operation in layer.then:
                x = self._apply(operation, x, layer, train=train)
        return x.astype(wide)

    def _convolution(self, layer: Layer, x: Array) -> Array:
        padding = [
            ops.overhang(n, window=layer.window, stride=layer.stride, padding=layer.padding, layer=layer.name)
            for n in x.shape[1:3]
        ]
        if layer.local:
            return nn.ConvLocal(
                layer.features,
                (layer.window, layer.window),
                strides=layer.stride,
                padding=padding,
                dtype=self.dtype,
                kernel_init=self._kernel_init(layer),
                bias_init=self._bias_init(layer),
                name=layer.name,
            )(x)
        kernel, bias = self._weights(layer, (layer.window, layer.window, x.shape[-1], layer.features))
        x, kernel = self._narrow(x), self._narrow(kernel)
        y = convolution(x, kernel, stride=layer.stride, padding=padding, division=self.division)
        return _biased(y, bias)

    def _connection(self, layer: Layer, x: Array) -> Array:
        x = x.reshape(x.shape[0], -1)
        units = layer.features or math.ceil(self.num_classes / self.towers)
        kernel, bias = self._weights(layer, (x.shape[1], units))
        return _biased(self._narrow(x) @ self._narrow(kernel), bias)

    def _weights(self, layer: Layer, shape: tuple[int, ...]) -> tuple[Array, Array]:
        return _Weights(shape, self._kernel_init(layer), self._bias_init(layer), name=layer.name)()

    def _narrow(self, x: Array) -> Array:
        return x.astype(self.dtype) if self.dtype else x

    def _kernel_init(self, layer: Layer) -> nn.initializers.Initializer:
        """The standard deviation in every place; `layout.init_params` draws."""

        def scale(key: Array, shape: Any, dtype: Any) -> Array:
            inputs = math.prod(shape[2:-1] if layer.local else shape[:-1])  # a local kernel's shape begins with places
            std = math.sqrt(2 / inputs) if self.he_init else layer.std
            return jnp.full(shape, std, dtype)

        return scale

    def _bias_init(self, layer: Layer) -> nn.initializers.Initializer:
        return nn.initializers.constant(0.0 if self.he_init else layer.bias)

    def _apply(self, operation: str, x: Array, layer: Layer, *, train: bool) -> Array:
        match operation:
            case "activation":
                return {"relu": jax.nn.relu, "tanh": jnp.tanh}[self.activation](x)
            case "norm" | "spatial_norm" | "batch_norm":
                wide = jnp.float32 if self.dtype else x.dtype  # squares of activations do not fit eight bits
                return self._norm(operation, x.astype(wide), layer, train=train).astype(x.dtype)
            case "pool":
                for n in x.shape[1:3]:
                    ops.output_size(
                        n, window=self.pool_size, stride=self.pool_stride, layer=f"the pooling after {layer.name}"
                    )
                return ops.max_pool(x, size=self.pool_size, stride=self.pool_stride, division=self.division)
            case "dropout":
                key = self.make_rng("dropout") if train else None
                return ops.dropout(x, self.keep, key, inverted=self.inverted_dropout)
        raise ValueError(f"{layer.name} is followed by an unknown operation {operation!r}")

    def _norm(self, operation: str, x: Array, layer: Layer, *, train: bool) -> Array:
        match operation:
            case "batch_norm":
                statistics: Any = _Leaves(
                    {"scale": 1.0, "bias": 0.0, "mean": 0.0, "variance": 1.0}, x.shape[-1], name=f"{layer.name}_norm"
                )()
                return ops.batch_norm(x, **statistics, train=train)
            case "spatial_norm":
                return ops.spatial_norm(
                    x,
                    size=self.spatial_size,
                    k=1.0,
                    alpha=self.spatial_alpha,
                    beta=self.norm_beta,
                    division=self.division,
                )
        width = x.shape[-1]
        margin = self.norm_size // 2 if self.whole_norm and self.towers > 1 else 0
        if margin:
            x = _with_neighbours(x, margin, layer.name)
        x = ops.response_norm(
            x,
            size=self.norm_size,
            k=self.norm_k,
            alpha=self.norm_alpha,
            beta=self.norm_beta,
            division=self.division,
        )
        return lax.slice_in_dim(x, margin, margin + width, axis=x.ndim - 1)


class _Weights(nn.Module):
    """Kernel and bias of a layer, under its name."""

    shape: tuple[int, ...]
    kernel_init: nn.initializers.Initializer
    bias_init: nn.initializers.Initializer

    @nn.compact
    def __call__(self) -> tuple[Array, Array]:
        return self.param("kernel", self.kernel_init, self.shape, jnp.float32), self.param(
            "bias", self.bias_init, self.shape[-1:], jnp.float32
        )


def _biased(x: Float[Array, "b *places c"], bias: Float[Array, "c"]) -> Float[Array, "b *places c"]:
    """Adds in the bias's type: its gradient is a sum over batch and places, which eight bits cannot hold."""
    return (x.astype(bias.dtype) + lax.expand_dims(bias, tuple(range(x.ndim - 1)))).astype(x.dtype)


class _Leaves(nn.Module):
    """Vectors of one length under a name of their own, each filled with an initial value."""

    values: Any
    length: int

    @nn.compact
    def __call__(self) -> dict[str, Array]:
        return {
            name: self.param(name, nn.initializers.constant(value), (self.length,))
            for name, value in self.values.items()
        }


def _with_neighbours(x: Float[Array, "... c"], margin: int, layer: str) -> Float[Array, "... wider"]:
    """The tower's channels with the nearest `margin` of the other tower on the side where it lies, and 0 on the other.

    Exchanges the margins alone.
    """
    if x.shape[-1] < margin:
        raise UsageError(f"{layer} has {x.shape[-1]} maps, too few for a norm across towers; use a larger width")
    edges = exchange(jnp.concatenate([x[..., :margin], x[..., -margin:]], axis=-1))
    of_first, of_second = edges[..., margin : 2 * margin], edges[..., 2 * margin : 3 * margin]
    first, nothing = lax.axis_index(TOWER) == 0, jnp.zeros_like(of_first)
    return jnp.concatenate([jnp.where(first, nothing, of_first), x, jnp.where(first, of_second, nothing)], axis=-1)


def make_tower(recipe: str, *, num_classes: int, width: float = 1.0, he_init: bool = False, dtype: Any = None) -> Tower:
    """The tower of a recipe.

    Args:
      recipe: its name.
      num_classes: of the whole network.
      width: of every layer but the last, relative to the recipe.
      he_init: He initialisation, whatever the recipe says.
      dtype: as in `Tower`.

    Raises:
      UsageError: there is no such recipe, it is too narrow, or there are fewer than two classes.
    """
    if num_classes < 2:
        raise UsageError(f"the data set has {num_classes} class, and telling classes apart takes at least 2")
    layers = layers_of(recipe, width=width)
    fields = dict(RECIPES[recipe].fields) | (dict(he_init=True) if he_init else {})
    return Tower(layers=layers, num_classes=num_classes, dtype=dtype, **fields)
