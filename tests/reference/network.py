"""Every network in plain NumPy, float64, one image at a time, in the layout of 2012: `[channels, rows, columns]`.

Written from A/layers/*.cfg, A/layer.py, K/models/*/train_val.prototxt and the paper's text, to check the program by
something that shares nothing with it. A network is straight-line code; a tower is an entry of a list.

Weights: `w[layer]` is a list, one entry a tower, of `(filters [out, in, rows, columns] or [out, in], biases [out])`;
local layers have `[place, out, in, rows, columns]` and `[place, out]`; `w['conv1_norm']` has dicts.
"""

import math

import numpy as np


def conv(x, weights, *, stride=1, pad=0, rounded=math.ceil):
    filters, biases = weights
    windows = windows_of(x, filters.shape[-1], stride, pad, rounded)
    return np.tensordot(filters, windows, axes=([1, 2, 3], [0, 3, 4])) + biases[:, None, None]


def windows_of(x, size, stride, pad, rounded=math.ceil):
    """Views of `[channels, out, out, size, size]`: windows start at -pad; outside the image is 0 (A/layer.py:1004)."""
    length = x.shape[1]
    out = 1 + rounded((2 * pad + length - size) / stride)
    canvas = np.zeros((x.shape[0], pad + length + size + stride, pad + length + size + stride))
    canvas[:, pad : pad + length, pad : pad + length] = x
    every = np.lib.stride_tricks.sliding_window_view(canvas, (size, size), axis=(1, 2))
    return every[:, ::stride, ::stride][:, :out, :out]


def local(x, weights, *, pad):
    filters, biases = weights
    windows = windows_of(x, filters.shape[-1], 1, pad)
    out = windows.shape[1]
    y = np.empty((filters.shape[1], out, out))
    for place in range(out * out):
        row, column = divmod(place, out)
        y[:, row, column] = np.tensordot(filters[place], windows[:, row, column], axes=3) + biases[place]
    return y


def fc(x, weights):
    """Inputs channel by channel, tower a before tower b."""
    matrix, biases = weights
    return matrix @ x.reshape(-1) + biases


def lrn(x, *, k, n, alpha, beta=0.75):
    """`alpha` multiplies the sum, over channels c - n/2 ... c + n/2 that exist."""
    y = np.empty_like(x)
    for c in range(len(x)):
        near = x[max(0, c - n // 2) : c + n // 2 + 1]
        y[c] = x[c] / (k + alpha * (near**2).sum(0)) ** beta
    return y


def same_map_norm(x):
    """`cnorm2`: 5x5 window clipped at the border, 1 + 0.001/25 sum, power 0.75 (A/layers/layers-145.cfg:107-117)."""
    y = np.empty_like(x)
    for row in range(x.shape[1]):
        for column in range(x.shape[2]):
            near = x[:, max(0, row - 2) : row + 3, max(0, column - 2) : column + 3]
            y[:, row, column] = x[:, row, column] / (1 + 0.001 / 25 * (near**2).sum((1, 2))) ** 0.75
    return y


def pool(x, size=3, stride=2, rounded=math.ceil):
    out = rounded((x.shape[1] - size) / stride) + 1
    y = np.empty((x.shape[0], out, out))
    for row in range(out):
        for column in range(out):
            y[:, row, column] = x[:, row * stride : row * stride + size, column * stride : column * stride + size].max(
                (1, 2)
            )
    return y


def relu(x):
    return np.maximum(x, 0)


def both(towers):
    return np.concatenate(towers)


def net145(image, w, *, f=relu, norms=True, size=3, pad2=2, pad5=1, keep=0.5, skip=(), batch_norm=False, talk=True):
    """A/layers/layers-145.cfg, and what became of it in 145-half, 146, 147, 148 and 150."""
    towers = range(len(w["conv1"]))

    def seen(x):  # by a layer that takes both towers' maps
        return [both(x) for _ in towers] if talk else x

    x = [conv(image, w["conv1"][t], stride=4) for t in towers]
    if batch_norm:
        x = [frozen_norm(x[t], w["conv1_norm"][t]) for t in towers]
    elif norms:
        x = [lrn(a, k=2, n=5, alpha=1e-4 / 5) for a in x]
    x = [f(pool(a, size)) for a in x]

    x = [conv(x[t], w["conv2"][t], pad=pad2) for t in towers]
    if batch_norm:
        x = [f(frozen_norm(x[t], w["conv2_norm"][t])) for t in towers]
    elif norms:
        x = [same_map_norm(lrn(f(a), k=2, n=5, alpha=1e-4 / 5)) for a in x]
    else:
        x = [f(a) for a in x]
    x = seen([pool(a, size) for a in x])

    for name in ("conv3", "conv4"):
        if name not in skip:
            x = [f(conv(x[t], w[name][t], pad=1)) for t in towers]
    x = [f(pool(conv(x[t], w["conv5"][t], pad=pad5), size)) for t in towers]
    if "conv6" in w:
        x = seen(x)
        x = [f(conv(x[t], w["conv6"][t], pad=1)) for t in towers]

    x = seen(x)
    x = seen([keep * f(fc(x[t], w["fc6"][t])) for t in towers])
    x = [keep * f(fc(x[t], w["fc7"][t])) for t in towers]
    if "bottleneck" in w:
        x = [fc(both(x), w["bottleneck"][t]) for t in towers]
    return both([fc(both(x), w["fc8"][t]) for t in towers])


def frozen_norm(x, leaves):
    """Batch norm at test, with the running statistics."""
    columns = {name: values[:, None, None] for name, values in leaves.items()}
    return (x - columns["mean"]) / np.sqrt(columns["variance"] + 1e-5) * columns["scale"] + columns["bias"]


def paper(image, w):
    """Sections 3.3 to 3.5 to the letter: rectify, normalise with alpha 1e-4 undivided, pool."""
    x = [relu(conv(image, w["conv1"][t], stride=4)) for t in range(2)]
    x = [pool(lrn(a, k=2, n=5, alpha=1e-4)) for a in x]
    x = [relu(conv(x[t], w["conv2"][t], pad=2)) for t in range(2)]
    x = [pool(lrn(a, k=2, n=5, alpha=1e-4)) for a in x]
    return rest(x, w, keep=0.5)


def caffe(image, w, *, pool_first):
    """K/models: grouped convolutions that round down, LRN over all channels, k 1, alpha / 5, inverted dropout."""

    def whole(x):
        y = lrn(both(x), k=1, n=5, alpha=1e-4 / 5)
        return [y[: len(y) // 2], y[len(y) // 2 :]]

    x = [conv(image, w["conv1"][t], stride=4, rounded=math.floor) for t in range(2)]
    x = [relu(a) for a in x]
    x = whole([pool(a) for a in x]) if pool_first else [pool(a) for a in whole(x)]
    x = [relu(conv(x[t], w["conv2"][t], pad=2)) for t in range(2)]
    x = whole([pool(a) for a in x]) if pool_first else [pool(a) for a in whole(x)]
    return rest(x, w, keep=1)


def rest(x, w, *, keep):
    """Layers 3 to 8 with everything rectified at once."""
    x = [relu(conv(both(x), w["conv3"][t], pad=1)) for t in range(2)]
    x = [relu(conv(x[t], w["conv4"][t], pad=1)) for t in range(2)]
    x = [pool(relu(conv(x[t], w["conv5"][t], pad=1))) for t in range(2)]
    x = [keep * relu(fc(both(x), w["fc6"][t])) for t in range(2)]
    x = [keep * relu(fc(both(x), w["fc7"][t])) for t in range(2)]
    return both([fc(both(x), w["fc8"][t]) for t in range(2)])


def cifar(image, w, *, f=relu, norms=False):
    """A/example-layers/layers-conv-local-13pct.cfg; with norms the 11 % net of V1."""

    def norm(x):
        return lrn(x, k=1, n=9, alpha=0.001 / 9) if norms else x

    x = norm(pool(f(conv(image, w["conv1"][0], pad=2))))
    x = pool(norm(f(conv(x, w["conv2"][0], pad=2))))
    x = f(local(x, w["local3"][0], pad=1))
    x = f(local(x, w["local4"][0], pad=1))
    return fc(x, w["fc10"][0])


def owt(image, w):
    """torchvision/models/alexnet.py: sizes rounded down; maps of any size become 6 by 6 before the first matrix."""
    x = pool(relu(conv(image, w["conv1"][0], stride=4, pad=2, rounded=math.floor)), rounded=math.floor)
    x = pool(relu(conv(x, w["conv2"][0], pad=2)), rounded=math.floor)
    x = relu(conv(x, w["conv3"][0], pad=1))
    x = relu(conv(x, w["conv4"][0], pad=1))
    x = pool(relu(conv(x, w["conv5"][0], pad=1)), rounded=math.floor)
    if "fc6" not in w:
        return x
    n = x.shape[1]
    rows = [slice(i * n // 6, math.ceil((i + 1) * n / 6)) for i in range(6)]
    x = np.stack([np.stack([x[:, r, c].mean((1, 2)) for c in rows], -1) for r in rows], 1)
    return fc(relu(fc(relu(fc(x, w["fc6"][0])), w["fc7"][0])), w["fc8"][0])


NETWORKS = {
    "original": net145,
    "paper": paper,
    "caffenet": lambda image, w: caffe(image, w, pool_first=True),
    "bvlc": lambda image, w: caffe(image, w, pool_first=False),
    "torchvision": owt,
    "torchvision_convolutions": owt,
    "one_tower": net145,
    "no_norm": lambda image, w: net145(image, w, norms=False),
    "plain_pooling": lambda image, w: net145(image, w, size=2, pad2=1, pad5=0),
    "no_exchange": lambda image, w: net145(image, w, talk=False),
    "six_conv": net145,
    "bottleneck": net145,
    "drop_conv3": lambda image, w: net145(image, w, skip=("conv3",)),
    "drop_conv4": lambda image, w: net145(image, w, skip=("conv4",)),
    "tanh": lambda image, w: net145(image, w, f=np.tanh),
    "no_dropout": lambda image, w: net145(image, w, keep=1),
    "batch_norm": lambda image, w: net145(image, w, batch_norm=True),
    "cifar_13pct": cifar,
    "cifar_tanh": lambda image, w: cifar(image, w, f=np.tanh),
    "cifar_11pct": lambda image, w: cifar(image, w, norms=True),
    "cifar_11pct_no_norm": cifar,
}

# Pixels along a side of a crop.
SIZES = {name: 24 if name.startswith("cifar") else 227 if name in ("bvlc", "caffenet") else 224 for name in NETWORKS}
