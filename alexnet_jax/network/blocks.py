"""Bias, ReLU, response norm and pooling of a layer as one operation, where one kernel in CUDA or C computes them.

Maps are then read and written once in each direction: layer 1 of net 145 reads what conv1 gives and writes what conv2
is given.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from alexnet_jax.network import layers
from alexnet_jax.network.native import build, ops


class Block(NamedTuple):
    """Operations after a convolution: its bias, then those named here.

    Attributes:
      rectify: ReLU before the norm.
      size, k, alpha, beta: of the response norm.
      pool: size and stride of the pooling after the norm; None: no pooling.
      rectify_pooled: ReLU after the pooling.
      round_down: of the pooling.
      operations: how many of the layer's operations these are, without the bias.
      groups: number of groups of channels, such as two for two towers. A norm's window stays within a group, and the
        maps after the block are a tuple with an entry for each group.
    """

    rectify: bool
    size: int
    k: float
    alpha: float
    beta: float
    pool: tuple[int, int] | None
    rectify_pooled: bool
    round_down: bool
    operations: int
    groups: int = 1


def block_of(
    then: Sequence[str], *, size: int, k: float, alpha: float, beta: float, pool: tuple[int, int], round_down: bool
) -> Block | None:
    """The operations at the start of `then` that are one kernel; None: they do not begin with a response norm.

    Args:
      then: of a layer whose activation is ReLU.
      size, k, alpha, beta: of its response norm.
      pool: size and stride of its pooling.
      round_down: of its pooling.
    """
    rectify = then[:1] == ("activation",)
    rest = tuple(then[rectify:])
    if rest[:1] != ("norm",):
        return None
    pools = rest[1:2] == ("pool",)
    rectify_pooled = pools and rest[2:3] == ("activation",)
    return Block(
        rectify, size, k, alpha, beta, pool if pools else None, rectify_pooled, round_down,
        operations=rectify + 1 + pools + rectify_pooled,
    )  # fmt: skip


def fits(x: Any, block: Block) -> bool:
    """Whether a kernel computes the block.

    Args:
      x: shape and type of the maps before the bias.
      block: what follows.
    """
    return _fits_cuda(x, block) or _fits_cpu(x, block)


def _fits_cpu(x: Any, block: Block) -> bool:
    """For float32 and one group, with the exponent of 2012, and pooling whose last window may hang over."""
    pools = block.pool is not None and not block.round_down
    return build.available("cpu") and x.dtype == jnp.float32 and block.groups == 1 and pools and block.beta == 0.75


def _fits_cuda(x: Any, block: Block) -> bool:
    """For float32 and bfloat16, with the windows and exponent of 2012."""
    channels = x.shape[-1] // block.groups
    if not ops.cuda_fits(x) or block.size != 5 or block.beta != 0.75 or channels % ops.CUDA_CHANNELS:
        return False
    if block.pool is None:
        return block.groups == 1
    row = x.shape[2] * channels * jnp.dtype(x.dtype).itemsize  # bytes
    # A block of threads holds the rows of a window at least.
    return layers.fits_cuda_pool(*block.pool) and block.pool[0] * row <= ops.SHARED


@jax.custom_vjp
def add_bias(x: Float[Array, "b *places c"], bias: Float[Array, "*own c"]) -> Float[Array, "b *places c"]:
    """Adds in the type of x, so that cuDNN adds the bias, and rectifies, where it convolves.

    The bias's gradient is a sum in its own type: bfloat16 is too narrow for it.

    Args:
      x: maps.
      bias: of each channel, or of each place and channel.
    """
    return x + lax.expand_dims(bias.astype(x.dtype), _shared_axes(x, bias))


def _shared_axes(x: Array, bias: Array) -> tuple[int, ...]:
    """The axes of x along which the bias is the same."""
    return tuple(range(x.ndim - bias.ndim))


def _add_bias_forward(x: Array, bias: Array) -> tuple[Array, Array]:
    return add_bias(x, bias), bias


def _add_bias_backward(bias: Array, dy: Array) -> tuple[Array, Array]:
    return dy, dy.astype(bias.dtype).sum(_shared_axes(dy, bias))


add_bias.defvjp(_add_bias_forward, _add_bias_backward)


Maps: TypeAlias = tuple[Array, ...]


def _plain(x: Array, bias: Array, block: Block) -> Maps:
    x = add_bias(x, bias)
    x = layers.relu(x) if block.rectify else x
    return tuple(_norm_and_pool(part, block) for part in jnp.split(x, block.groups, axis=-1))


def _norm_and_pool(x: Array, block: Block) -> Array:
    x = layers.response_norm(x, size=block.size, k=block.k, alpha=block.alpha, beta=block.beta)
    if block.pool:
        x = layers.max_pool(x, size=block.pool[0], stride=block.pool[1], round_down=block.round_down)
    return layers.relu(x) if block.rectify_pooled else x


def _name(block: Block) -> str:
    return "norm_pool" if block.pool else "response_norm"


def _attributes(block: Block) -> dict[str, Any]:
    attributes: dict[str, Any] = dict(k=float(block.k), alpha=float(block.alpha), rectify=int(block.rectify))
    if block.pool:
        attributes |= dict(size=block.pool[0], rectify_pooled=int(block.rectify_pooled), groups=block.groups)
    return attributes


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def run(x: Float[Array, "b h w c"], bias: Float[Array, " c"], block: Block) -> Maps:
    """The maps after the block, of each group, from those of a convolution without its bias."""

    def off_cuda(x: Array, bias: Array) -> Maps:
        return _on_cpu("norm_pool", lambda x, bias: _plain(x, bias, block), block, x, bias)

    return ops.on_cuda(_name(block), off_cuda, x, bias, fits=_fits_cuda(x, block), **_attributes(block))


def _on_cpu(name: str, plain: Callable[..., Any], block: Block, x: Array, bias: Array, *others: Array) -> Any:
    """By the C kernel of that name where it covers the block. For the kernel every array has four axes."""
    if block.pool is None or not _fits_cpu(x, block):
        return plain(x, bias, *others)
    attributes: dict[str, Any] = dict(
        size=block.size, k=float(block.k), alpha=float(block.alpha), pool_size=block.pool[0],
        pool_stride=block.pool[1], rectify=int(block.rectify), rectify_pooled=int(block.rectify_pooled),
    )  # fmt: skip

    def with_bias(x: Array, bias: Array, *others: Array) -> Any:
        return plain(x, bias[0, 0, 0], *others)

    return ops.on_cpu(name, with_bias, x, bias[None, None, None], *others, **attributes)


def _forward(x: Array, bias: Array, block: Block) -> tuple[Maps, tuple[Array, Array, Maps]]:
    y = run(x, bias, block)
    return y, (x, bias, y)


def _backward(block: Block, kept: tuple[Array, Array, Maps], dy: Maps) -> tuple[Array, Array]:
    x, bias, y = kept

    def plain(x: Array, bias: Array, *others: Array) -> Array:
        return jax.vjp(lambda x: _plain(x, bias, block), x)[1](others[-block.groups :])[0]

    def off_cuda(x: Array, bias: Array, *others: Array) -> Array:
        return _on_cpu("norm_pool_gradient", plain, block, x, bias, *others)

    arrays, fits = (*y, *dy) if block.pool else dy, _fits_cuda(x, block)
    dx = ops.on_cuda(f"{_name(block)}_gradient", off_cuda, x, bias, *arrays, fits=fits, **_attributes(block))
    return dx, dx.astype(bias.dtype).sum((0, 1, 2))


run.defvjp(_forward, _backward)
