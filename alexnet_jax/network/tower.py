"""One GPU's half of the network, written once.

Who runs the two halves, and where, is `layout.py`'s business: here a tower only knows that it has a twin, which it
meets through `exchange`.
"""

import math
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import lax
from jaxtyping import Array, Float

from alexnet_jax.network import layers as ops
from alexnet_jax.network.recipes import Layer

TOWER = "tower"


def exchange(x: Float[Array, "... c"]) -> Float[Array, "... both"]:
    """The channels of all towers, side by side: where the paper's GPUs communicate (section 3.5)."""
    return lax.all_gather(x, TOWER, axis=x.ndim - 1, tiled=True)


class Tower(nn.Module):
    """A tower of net 145, or of another recipe.

    Attributes:
      layers: what it is made of; see `recipes.py`.
      num_classes: of the whole network. Each tower has half of the logits, rounded up.
      towers: how many there are, 2 or 1.
      he_init: start kernels at He et al. 2015's sqrt(2 / inputs) and biases at 0, not at the recipe's values.
      norm_k, norm_alpha, norm_beta, norm_size: response norm; alpha as it multiplies the sum: 1e-4 / 5
        (A/layers/layer-params-145.cfg:137-155 and A/layer.py:1182).
      spatial_alpha, spatial_size: the second norm of layer 2: k 1, alpha 1e-3 / 25
        (A/layers/layer-params-145.cfg:157-163).
      pool_size, pool_stride: overlapping pooling (paper section 3.4).
      keep: share of units that dropout keeps (paper section 4.2).
    """

    layers: tuple[Layer, ...]
    num_classes: int
    towers: int = 2
    he_init: bool = False
    norm_k: float = 2.0
    norm_alpha: float = 1e-4 / 5
    norm_beta: float = 0.75
    norm_size: int = 5
    spatial_alpha: float = 1e-3 / 25
    spatial_size: int = 5
    pool_size: int = 3
    pool_stride: int = 2
    keep: float = 0.5

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"], *, train: bool) -> Float[Array, "b share"]:
        """This tower's share of the logits; in training it needs an rng `dropout`.

        Raises:
          UsageError: the images are too small for a layer.
        """
        for layer in self.layers:
            if layer.exchange:
                x = exchange(x)
            x = self._convolution(layer, x) if layer.window else self._connection(layer, x)
            for operation in layer.then:
                x = self._apply(operation, x, layer, train=train)
        return x

    def _convolution(self, layer: Layer, x: Array) -> Array:
        padding = [
            ops.overhang(n, window=layer.window, stride=layer.stride, padding=layer.padding, layer=layer.name)
            for n in x.shape[1:3]
        ]
        return nn.Conv(
            layer.features,
            (layer.window, layer.window),
            strides=layer.stride,
            padding=padding,
            kernel_init=self._kernel_init(layer),
            bias_init=self._bias_init(layer),
            name=layer.name,
        )(x)

    def _connection(self, layer: Layer, x: Array) -> Array:
        return nn.Dense(
            layer.features or math.ceil(self.num_classes / self.towers),
            kernel_init=self._kernel_init(layer),
            bias_init=self._bias_init(layer),
            name=layer.name,
        )(x.reshape(x.shape[0], -1))

    def _kernel_init(self, layer: Layer) -> nn.initializers.Initializer:
        """The standard deviation in every place; `layout.init_params` draws."""

        def scale(key: Array, shape: tuple[int, ...], dtype: Any) -> Array:
            std = math.sqrt(2 / math.prod(shape[:-1])) if self.he_init else layer.std
            return jnp.full(shape, std, dtype)

        return scale

    def _bias_init(self, layer: Layer) -> nn.initializers.Initializer:
        return nn.initializers.constant(0.0 if self.he_init else layer.bias)

    def _apply(self, operation: str, x: Array, layer: Layer, *, train: bool) -> Array:
        match operation:
            case "activation":
                return jax.nn.relu(x)
            case "norm":
                return ops.response_norm(
                    x, size=self.norm_size, k=self.norm_k, alpha=self.norm_alpha, beta=self.norm_beta
                )
            case "spatial_norm":
                return ops.spatial_norm(x, size=self.spatial_size, k=1.0, alpha=self.spatial_alpha, beta=self.norm_beta)
            case "pool":
                for n in x.shape[1:3]:
                    ops.output_size(
                        n, window=self.pool_size, stride=self.pool_stride, layer=f"the pooling after {layer.name}"
                    )
                return ops.max_pool(x, size=self.pool_size, stride=self.pool_stride)
            case "dropout":
                return ops.dropout(x, self.keep, self.make_rng("dropout") if train else None)
        raise ValueError(f"{layer.name} is followed by an unknown operation {operation!r}")
