"""The operations of the network and their gradients in NumPy and float64: what every form of them is compared with.

Images are `[batch, rows, columns, channels]`, kernels `[rows, columns, channels, maps]`.
"""

import math

import numpy as np

NORM_AXES = {"response_norm": (3,), "spatial_norm": (1, 2)}


def window_sum(values: np.ndarray, size: int, axes: tuple[int, ...]) -> np.ndarray:
    """Sum over a centred window of `size` along each of `axes`, zeros outside."""
    for axis in axes:
        width = [(size // 2, size // 2) if i == axis else (0, 0) for i in range(values.ndim)]
        values = np.lib.stride_tricks.sliding_window_view(np.pad(values, width), size, axis).sum(-1)
    return values


def norm(x: np.ndarray, *, kind: str, size: int, k: float, alpha: float, beta: float) -> np.ndarray:
    return x * (k + alpha * window_sum(x * x, size, NORM_AXES[kind])) ** -beta


def norm_gradient(x, dy, *, kind: str, size: int, k: float, alpha: float, beta: float) -> np.ndarray:
    d = k + alpha * window_sum(x * x, size, NORM_AXES[kind])
    return dy * d**-beta - 2 * alpha * beta * x * window_sum(dy * x * d ** (-beta - 1), size, NORM_AXES[kind])


def windows(x: np.ndarray, *, size: int, stride: int):
    """Place of every window, and its part of the image; windows hang over the right and bottom border."""
    rows, columns = (1 + math.ceil((n - size) / stride) for n in x.shape[1:3])
    for i, j in np.ndindex(rows, columns):
        yield i, j, np.s_[:, i * stride : i * stride + size, j * stride : j * stride + size]


def max_pool(x: np.ndarray, *, size: int, stride: int, lowest: float) -> np.ndarray:
    """`lowest`: the maximum of a window that lies outside of the image."""
    rows, columns = (1 + math.ceil((n - size) / stride) for n in x.shape[1:3])
    y = np.full((x.shape[0], rows, columns, x.shape[3]), lowest)
    for i, j, part in windows(x, size=size, stride=stride):
        y[:, i, j] = x[part].max((1, 2), initial=lowest)
    return y


def max_pool_gradient(x: np.ndarray, dy: np.ndarray, *, size: int, stride: int) -> np.ndarray:
    """The gradient goes to every pixel that equals the maximum, undivided (V1/src/cudaconv2/conv_util.cu:1559)."""
    dx = np.zeros(x.shape)
    for i, j, part in windows(x, size=size, stride=stride):
        if x[part].size:
            dx[part] += (x[part] == x[part].max((1, 2), keepdims=True)) * dy[:, i : i + 1, j : j + 1]
    return dx


def _taps(x_shape, kernel_shape, stride: int, padding):
    """For each place of the kernel: the place, and the part of the padded image under it, one pixel a window."""
    (top, bottom), (left, right) = padding
    rows, columns = x_shape[1] + top + bottom, x_shape[2] + left + right
    for i, j in np.ndindex(kernel_shape[:2]):
        down, across = rows - kernel_shape[0] + i + 1, columns - kernel_shape[1] + j + 1
        yield i, j, np.s_[:, i:down:stride, j:across:stride]


def _padded(x: np.ndarray, padding) -> np.ndarray:
    return np.pad(x, [(0, 0), *padding, (0, 0)])


def convolution(x: np.ndarray, kernel: np.ndarray, *, stride: int, padding) -> np.ndarray:
    padded = _padded(x, padding)
    return sum(padded[part] @ kernel[i, j] for i, j, part in _taps(x.shape, kernel.shape, stride, padding))


def convolution_gradients(x, kernel, dy, *, stride: int, padding) -> tuple[np.ndarray, np.ndarray]:
    """Of the images and of the kernel."""
    padded = _padded(x, padding)
    padded_dx, dkernel = np.zeros(padded.shape), np.zeros(kernel.shape)
    for i, j, part in _taps(x.shape, kernel.shape, stride, padding):
        padded_dx[part] += dy @ kernel[i, j].T
        dkernel[i, j] = np.tensordot(padded[part], dy, ([0, 1, 2], [0, 1, 2]))
    (top, _), (left, _) = padding
    return padded_dx[:, top : top + x.shape[1], left : left + x.shape[2]], dkernel
