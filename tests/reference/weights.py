"""Parameters of the program in the order of other programs."""

import numpy as np


def of_2012(params, *, side):
    """Parameters `[tower, ...]` as `network.py` wants them; `side` is that of the maps before the first matrix."""
    weights = {}
    after_maps = True
    for name in sorted(params, key=order):
        leaves = {leaf: np.asarray(values, np.float64) for leaf, values in params[name].items()}
        towers = range(len(next(iter(leaves.values()))))
        if name.endswith("_norm"):
            weights[name] = [{leaf: values[t] for leaf, values in leaves.items()} for t in towers]
            continue
        kernel, bias = leaves["kernel"], leaves["bias"]
        if name.startswith("conv"):  # [rows, columns, in, out]
            kernel = kernel.transpose(0, 4, 3, 1, 2)
        elif name.startswith("local"):  # [row, column, in x 3 x 3, out]
            places, out = kernel.shape[1] * kernel.shape[2], kernel.shape[-1]
            kernel = kernel.reshape(len(kernel), places, -1, 3, 3, out).transpose(0, 1, 5, 2, 3, 4)
            bias = bias.reshape(len(bias), places, out)
        else:  # [in, out]; maps are flattened [rows, columns, channels]
            inputs, out = kernel.shape[1:]
            if after_maps:
                kernel = kernel.reshape(len(kernel), side, side, -1, out).transpose(0, 3, 1, 2, 4)
                after_maps = False
            kernel = kernel.reshape(len(kernel), inputs, out).transpose(0, 2, 1)
        weights[name] = [(kernel[t], bias[t]) for t in towers]
    return weights


def order(name):
    """Convolutions before matrices; a bottleneck just before the last."""
    return ("conv", "loca", "fc6", "fc7", "bott", "fc").index(
        next(start for start in ("conv", "loca", "fc6", "fc7", "bott", "fc") if name.startswith(start))
    ), name
