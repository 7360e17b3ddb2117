"""Parameters and running averages of the towers on a device, under the name of their layer: `[tower, ...]`."""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
from flax import linen as nn
from jax import lax
from jaxtyping import Array, Float


def split_towers(x: Float[Array, "tower ..."]) -> tuple[Array, ...]:
    """The entries of the leading axis.

    Their gradients are padded and added, which XLA does within the update of the parameters. With a concatenation it
    would update them in two passes over memory.
    """
    return tuple(lax.index_in_dim(x, tower, keepdims=False) for tower in range(x.shape[0]))


class Weights(nn.Module):
    """Kernels and biases of a layer, under its name: `[tower, ...]`."""

    shape: tuple[int, ...]
    bias_shape: tuple[int, ...]
    kernel_init: Callable[..., Array]
    bias_init: Callable[..., Array]

    @nn.compact
    def __call__(self) -> tuple[Array, Array]:
        """Kernels `[tower, *shape]` and biases."""
        return self.param("kernel", self.kernel_init, self.shape, jnp.float32), self.param(
            "bias", self.bias_init, self.bias_shape, jnp.float32
        )


class BatchNormLeaves(nn.Module):
    """Scale, bias and running averages of a batch norm, `[tower, channels]`."""

    towers: int
    channels: int

    @nn.compact
    def __call__(self) -> tuple[Array, Array, Any, Any]:
        """Scale and bias, and the variables that hold mean and variance."""
        shape = (self.towers, self.channels)
        scale = self.param("scale", nn.initializers.ones, shape, jnp.float32)
        bias = self.param("bias", nn.initializers.zeros, shape, jnp.float32)
        mean = self.variable("batch_stats", "mean", jnp.zeros, shape, jnp.float32)
        variance = self.variable("batch_stats", "variance", jnp.ones, shape, jnp.float32)
        return scale, bias, mean, variance
