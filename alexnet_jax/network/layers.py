"""The operations between convolutions, each with its formula and the gradient of 2012.

Images are NHWC. Response norm, max pooling and ReLU have custom gradients, which keep fewer arrays for the backward
pass and send the gradient where the 2012 kernels sent it.
"""

import functools
import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from alexnet_jax.errors import UsageError
from alexnet_jax.network.native import ops

EPSILON = 1e-5  # of batch norm


def output_size(
    size: int, *, window: int, stride: int, padding: int = 0, round_down: bool = False, layer: str = "layer"
) -> int:
    """Pixels along one side after a convolution or a pooling: `1 + ceil((2 padding + size - window) / stride)`.

    The 2012 code rounds up (A/layer.py:1004 and 1163-1164), so the last window may hang over the right and bottom edge.
    PyTorch rounds down: pixels that fill no window are not seen.

    Raises:
      UsageError: no pixel is left.
    """
    steps = (2 * padding + size - window) / stride
    out = 1 + (math.floor(steps) if round_down else math.ceil(steps))
    if out < 1:
        raise UsageError(
            f"the image is too small: {layer} is given {size}x{size} pixels for windows of {window}x{window}"
            " and leaves none; use larger images"
        )
    return out


def overhang(
    size: int, *, window: int, stride: int, padding: int = 0, round_down: bool = False, layer: str = "layer"
) -> tuple[int, int]:
    """Rows to add before and after so that every window of `output_size` is whole; conv1 at 224 gives `(0, 3)`.

    With `round_down` these are the padding: a convolution leaves out what fills no window.
    """
    out = output_size(size, window=window, stride=stride, padding=padding, round_down=round_down, layer=layer)
    return padding, padding if round_down else max(0, (out - 1) * stride + window - size - padding)


def _shifted(x: Array, size: int, axis: int) -> Iterator[Array]:
    """The array shifted to each place of a centred window of `size` along `axis`, with zeros beyond the ends."""
    half, length = size // 2, x.shape[axis]
    padded = jnp.pad(x, [(half, half) if i == axis % x.ndim else (0, 0) for i in range(x.ndim)])
    return (lax.slice_in_dim(padded, i, i + length, axis=axis) for i in range(size))


def _window_sum(x: Array, size: int, axes: Sequence[int]) -> Array:
    """Sum over a centred window of `size` along each of `axes`."""
    for axis in axes:
        x = functools.reduce(jnp.add, _shifted(x, size, axis))
    return x


def _window_sum_of_squares(x: Array, size: int, axes: Sequence[int]) -> Array:
    """`_window_sum(x * x, size, axes)`, which squares each number again at every place of the window.

    The backward pass uses this form. With the forward pass's form the compiler merges both, and keeps squares and
    powers from one pass to the other: two arrays as large as x.
    """
    first, *others = axes
    return _window_sum(functools.reduce(jnp.add, (part * part for part in _shifted(x, size, first))), size, others)


def _inverse_power(d: Array, beta: float) -> Array:
    if beta == 0.75:  # every norm of 2012: two square roots cost a fraction of a power
        return lax.rsqrt(d * jnp.sqrt(d))
    return d**-beta


AXES = {"response_norm": (-1,), "spatial_norm": (-3, -2)}


def type_of_sums(x: Array) -> Any:
    """The type of x, or float32 if that is narrower: bfloat16 is too narrow for sums."""
    return jnp.dtype(jnp.float32) if x.dtype.itemsize < 4 else x.dtype


def widened(x: Array) -> Array:
    """In `type_of_sums(x)`."""
    return x.astype(type_of_sums(x))


@functools.partial(jax.custom_vjp, nondiff_argnums=(1, 2, 3, 4, 5))
def _normalise(x: Array, kind: str, size: int, k: float, alpha: float, beta: float) -> Array:
    def plain(x: Array) -> Array:
        return x * _inverse_power(k + alpha * _window_sum(x * x, size, AXES[kind]), beta)

    return _by_kernel(kind, plain, x, kind=kind, size=size, k=k, alpha=alpha, beta=beta)


def _normalise_forward(x, *constants):
    return _normalise(x, *constants), x


def _normalise_backward(kind, size, k, alpha, beta, x, dy):
    # dx = dy d^-b - 2ab x sum(dy x d^-(b+1)). The denominator d is computed again, so that only x is kept.
    def plain(x: Array, dy: Array) -> Array:
        d = k + alpha * _window_sum_of_squares(x, size, AXES[kind])
        p = _inverse_power(d, beta)
        return dy * p - (2 * alpha * beta) * x * _window_sum(dy * x * p / d, size, AXES[kind])

    return (_by_kernel(f"{kind}_gradient", plain, x, dy, kind=kind, size=size, k=k, alpha=alpha, beta=beta),)


def _by_kernel(
    name: str, plain: Callable[..., Array], x: Array, *dy: Array, kind: str, size: int, k: float, alpha: float,
    beta: float,
) -> Array:  # fmt: skip
    """A norm or its gradient, by the kernel of that name where one covers it; in float32, if the type is narrower."""
    covered, constants = x.ndim == 4 and beta == 0.75, dict(k=float(k), alpha=float(alpha))
    extra: tuple[Array, ...] = ()
    attributes: dict[str, Any] = {}
    if kind == "response_norm":  # the CUDA kernels also add a bias, and rectify
        extra, attributes = (jnp.zeros(x.shape[-1:], jnp.float32),), dict(rectify=0)
    elif covered:
        attributes = dict(chunk=_chunk(x, arrays=1 + len(dy)))

    def off_cuda(x: Array, *others: Array) -> Array:
        arrays = (x, *others[len(extra) :])
        y = ops.on_cpu(name, plain, *map(widened, arrays), fits=covered, size=size, **constants)
        return y.astype(x.dtype)

    fits = covered and size == 5 and attributes.get("chunk") != 0
    return ops.on_cuda(name, off_cuda, x, *extra, *dy, fits=fits, **constants, **attributes)


def _chunk(x: Array, arrays: int) -> int:
    """How many channels of an image a CUDA block works on; 0: none fit into its shared memory, in so many arrays."""
    _, rows, columns, channels = x.shape
    fit = (chunk for chunk in (16, 8, 4) if channels % chunk == 0 and 4 * arrays * rows * columns * chunk <= ops.SHARED)
    return next(fit, 0)


_normalise.defvjp(_normalise_forward, _normalise_backward)


def response_norm(
    x: Float[Array, "... c"],
    *,
    size: int,
    k: float,
    alpha: float,
    beta: float,
) -> Float[Array, "... c"]:
    """Response normalisation across maps: `x (k + alpha sum x^2)^-beta`, the sum over `size` neighbouring channels.

    Paper section 3.3; kernel C2/cudaconv3/src/conv_util.cu:1190-1207. Channels outside the tower count as 0.

    Args:
      x: the tower's maps.
      size: window, odd, in channels.
      k: constant of the denominator.
      alpha: as it multiplies the sum. The 2012 configuration says 1e-4 and divides by the window (A/layer.py:1183),
        which makes 2e-5 here.
      beta: exponent.

    Raises:
      UsageError: `size` is even.
    """
    _check_odd(size)
    return _normalise(x, "response_norm", size, k, alpha, beta)


def spatial_norm(
    x: Float[Array, "b h w c"],
    *,
    size: int,
    k: float,
    alpha: float,
    beta: float,
) -> Float[Array, "b h w c"]:
    """Response normalisation within a map, over a centred `size` x `size` window clipped at the border.

    The unpublished second norm of layer 2 (`cnorm2`, A/layers/layers-145.cfg:107-117; kernel
    V1/src/cudaconv2/conv_util.cu:924-1012). Arguments and errors as for `response_norm`.
    """
    _check_odd(size)
    return _normalise(x, "spatial_norm", size, k, alpha, beta)


def _check_odd(size: int) -> None:
    if size % 2 == 0:
        raise UsageError(f"the window of a response norm must be odd to have a centre, not {size}")


@functools.partial(jax.custom_vjp, nondiff_argnums=(1, 2))
def _max_pool(x: Array, size: int, stride: int) -> Array:
    def plain(x: Array) -> Array:
        return functools.reduce(jnp.maximum, _window_slices(x, size, stride))

    return _pool_by_kernel("max_pool", plain, x, size=size, stride=stride)


def _pool_by_kernel(name: str, plain: Callable[..., Array], *arrays: Array, size: int, stride: int) -> Array:
    """Pooling or its gradient, by the kernel of that name where one covers it."""

    def off_cuda(*arrays: Array) -> Array:
        return ops.on_cpu(name, plain, *arrays, size=size, stride=stride)

    return ops.on_cuda(name, off_cuda, *arrays, fits=fits_cuda_pool(size, stride), size=size)


def fits_cuda_pool(size: int, stride: int) -> bool:
    """Whether the CUDA kernels cover the pooling: that of 2012, and that without overlap."""
    return size in (2, 3) and stride == 2


def _window_slices(x: Array, size: int, stride: int) -> list[Array]:
    """For each of the `size`^2 places in a window, that place of every window: `[b, out, out, c]` each."""
    (rows, row_end), (columns, column_end) = (_pool_geometry(n, size, stride) for n in x.shape[1:3])
    lowest = jnp.finfo(x.dtype).min
    x = jnp.pad(x, ((0, 0), (0, row_end), (0, column_end), (0, 0)), constant_values=lowest)
    return [
        x[:, i : i + (rows - 1) * stride + 1 : stride, j : j + (columns - 1) * stride + 1 : stride]
        for i in range(size)
        for j in range(size)
    ]


def _pool_geometry(length: int, size: int, stride: int) -> tuple[int, int]:
    return output_size(length, window=size, stride=stride), overhang(length, window=size, stride=stride)[1]


def _max_pool_forward(x, *constants):
    y = _max_pool(x, *constants)
    return y, (x, y)


def _max_pool_backward(size, stride, kept, dy):
    plain = functools.partial(_max_pool_gradient, size, stride)
    return (_pool_by_kernel("max_pool_gradient", plain, *kept, dy, size=size, stride=stride),)


def _max_pool_gradient(size: int, stride: int, x: Array, y: Array, dy: Array) -> Array:
    # Pixels are split by their place between the starts of two windows. Pixels of the same place lie in equally many
    # windows, so each pixel is written once. A sum of one array for each place of the window costs several times more.
    batch, height, width, channels = x.shape
    rows, columns = -(-height // stride), -(-width // stride)
    zero = jnp.zeros((), x.dtype)
    grid = lax.pad(x, zero, _ends(0, rows * stride - height, 0, columns * stride - width))
    grid = grid.reshape(batch, rows, stride, columns, stride, channels)
    back = (size - 1) // stride  # earlier windows that may reach a pixel
    around = _ends(back, rows - y.shape[1], back, columns - y.shape[2])
    y, dy = (lax.pad(array, zero, around) for array in (y, dy))  # where dy is 0, y has no effect

    def at_place(i: int, j: int) -> Array:
        dx = jnp.zeros((), x.dtype)
        for up, left in itertools.product(range(len(range(i, size, stride))), range(len(range(j, size, stride)))):
            window = np.s_[:, back - up : back - up + rows, back - left : back - left + columns]
            dx += jnp.where(grid[:, :, i, :, j] == y[window], dy[window], zero)
        return jnp.broadcast_to(dx, (batch, rows, columns, channels))

    dx = jnp.stack([jnp.stack([at_place(i, j) for j in range(stride)], axis=3) for i in range(stride)], axis=2)
    return dx.reshape(batch, rows * stride, columns * stride, channels)[:, :height, :width]


def _ends(top: int, bottom: int, left: int, right: int) -> list[tuple[int, int, int]]:
    """Configuration of `lax.pad` that adds so many rows and columns; negative numbers remove them."""
    return [(0, 0, 0), (top, bottom, 0), (left, right, 0), (0, 0, 0)]


_max_pool.defvjp(_max_pool_forward, _max_pool_backward)


def max_pool(
    x: Float[Array, "b h w c"], *, size: int, stride: int, round_down: bool = False
) -> Float[Array, "b out_h out_w c"]:
    """Overlapping max pooling (paper section 3.4), windows clipped at the right and bottom border.

    The gradient goes to every position that equals the maximum, undivided, as in V1/src/cudaconv2/conv_util.cu:1559.

    Args:
      x: the maps.
      size, stride: of the windows, in pixels.
      round_down: there are whole windows alone, and pixels at the border that fill none are not seen.

    Raises:
      UsageError: no pixel is left.
    """
    if round_down:
        for axis in (1, 2):
            windows = output_size(x.shape[axis], window=size, stride=stride, round_down=True)
            x = lax.slice_in_dim(x, 0, (windows - 1) * stride + size, axis=axis)
    return _max_pool(x, size, stride)


@jax.custom_vjp
def relu(x: Float[Array, "..."]) -> Float[Array, "..."]:
    """max(x, 0), with a gradient of 0 where x is at most 0.

    The gradient needs the result alone, so that cuDNN may rectify where it convolves. That of `jax.nn.relu` needs x as
    well, a pass more over memory on a GPU. XLA would turn `y > 0` below into `x > 0`.
    """
    return jnp.maximum(x, 0)


def _relu_forward(x: Array) -> tuple[Array, Array]:
    y = relu(x)
    return y, y


def _relu_backward(y: Array, dy: Array) -> tuple[Array]:
    return (jnp.where(y != 0, dy, jnp.zeros_like(dy)),)


relu.defvjp(_relu_forward, _relu_backward)


def adaptive_average_pool(x: Float[Array, "b h w c"], size: int) -> Float[Array, "b {size} {size} c"]:
    """Means over `size` x `size` windows that cover the maps, whatever their size, as PyTorch's AdaptiveAvgPool2d.

    Along a side of n pixels, window i reaches from pixel `floor(i n / size)` to before pixel `ceil((i + 1) n / size)`.
    Windows overlap where n is no multiple of `size`. Maps that have the size stay as they are.
    """
    dtype, wide = x.dtype, type_of_sums(x)
    for axis in (1, 2):
        if x.shape[axis] != size:
            shares = jnp.asarray(window_shares(x.shape[axis], size), wide)
            means = jnp.tensordot(shares, x.astype(wide), axes=(1, axis), precision=lax.Precision.HIGHEST)
            x = jnp.moveaxis(means, 0, axis)
    return x.astype(dtype)


def window_shares(length: int, size: int) -> np.ndarray:
    """The share of each pixel along a side in the mean of each window: `[size, length]`."""
    shares = np.zeros((size, length))
    for window in range(size):
        first, end = window * length // size, -(-(window + 1) * length // size)
        shares[window, first:end] = 1 / (end - first)
    return shares


def dropout(
    x: Float[Array, " b *c"], keep: float, mask: Bool[Array, " b *c"] | None, *, inverted: bool = False
) -> Float[Array, " b *c"]:
    """Dropout in its 2012 form (A/src/layer.cu:1126-1135): a mask in training, times `keep` in evaluation.

    The `inverted` form divides by `keep` in training, and leaves evaluation alone. `mask` None: evaluation.
    """
    scale = jnp.asarray(keep, x.dtype)
    if mask is None:
        return x if inverted else x * scale
    return jnp.where(mask, x / scale if inverted else x, jnp.zeros((), x.dtype))


def dropout_mask(key: PRNGKeyArray, rows: Int[Array, " b"], units: int, keep: float) -> Bool[Array, "b units"]:
    """Which units dropout keeps, drawn for each row by its number in the global batch: no layout changes a mask."""
    share = jnp.float32(keep)  # so that masks do not depend on JAX's default type
    return jax.vmap(lambda row: jax.random.bernoulli(jax.random.fold_in(key, row), share, (units,)))(rows)


def batch_moments(
    x: Float[Array, "b *places c"], axis_name: str | None = None
) -> tuple[Float[Array, " c"], Float[Array, " c"]]:
    """Mean and variance of every map over the global batch. `axis_name` names the mesh axis that divides the batch."""
    axes = tuple(range(x.ndim - 1))
    mean = x.mean(axes)
    mean = lax.pmean(mean, axis_name) if axis_name else mean
    variance = jnp.square(x - lax.expand_dims(mean, axes)).mean(axes)
    return mean, lax.pmean(variance, axis_name) if axis_name else variance


def batch_norm(
    x: Float[Array, "b *places c"],
    *,
    scale: Float[Array, " c"],
    bias: Float[Array, " c"],
    mean: Float[Array, " c"],
    variance: Float[Array, " c"],
) -> Float[Array, "b *places c"]:
    """Batch normalisation (Ioffe and Szegedy 2015): `scale (x - mean) / sqrt(variance + EPSILON) + bias`.

    In training `mean` and `variance` are the batch's (`batch_moments`), in evaluation their running averages.
    """
    axes = tuple(range(x.ndim - 1))
    slope, bias, mean = (lax.expand_dims(leaf, axes) for leaf in (scale * lax.rsqrt(variance + EPSILON), bias, mean))
    return (x - mean) * slope + bias
