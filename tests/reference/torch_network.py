"""Four networks in PyTorch, grouped convolutions for towers, float64: an automatic gradient that is not JAX's."""

import numpy as np
import torch
from torch.nn import functional as nn


def parameters_of(weights, *, grouped):
    """`weights.of_2012` as tensors with gradients, both towers' side by side."""
    leaves = {}
    for name, towers in weights.items():
        for leaf, arrays in zip(("kernel", "bias"), zip(*towers, strict=True), strict=True):
            leaves[name, leaf] = torch.tensor(np.concatenate(arrays), requires_grad=True)
    assert grouped == (len(weights["conv1"]) == 2)
    return leaves


def same_map_norm(x):
    total = nn.avg_pool2d(x * x, 5, stride=1, padding=2, count_include_pad=True) * 25
    return x * (1 + 4e-5 * total) ** -0.75


def per_tower(x, towers, operation):
    return torch.cat([operation(half) for half in x.chunk(towers, dim=1)], dim=1)


def lrn(x, towers, k):
    """PyTorch too divides alpha by the window."""
    return per_tower(x, towers, lambda half: nn.local_response_norm(half, 5, alpha=1e-4, beta=0.75, k=k))


def forward(name, w, images):
    """Logits in evaluation; `images` are `[batch, 3, rows, columns]`."""

    def conv(x, layer, groups=1, **options):
        return nn.conv2d(x, w[layer, "kernel"], w[layer, "bias"], groups=groups, **options)

    def matrix(x, layer):
        return nn.linear(x.flatten(1), w[layer, "kernel"], w[layer, "bias"])

    def pool(x):
        return nn.max_pool2d(x, 3, 2)

    caffe = name in ("bvlc", "caffenet")
    towers = 1 if name == "one_tower" else 2
    keep = 1.0 if caffe else 0.5
    if caffe:
        x = nn.relu(conv(images, "conv1", stride=4))
        x = lrn(pool(x), 1, 1.0) if name == "caffenet" else pool(lrn(x, 1, 1.0))
        x = nn.relu(conv(x, "conv2", 2, padding=2))
        x = lrn(pool(x), 1, 1.0) if name == "caffenet" else pool(lrn(x, 1, 1.0))
    else:
        x = conv(nn.pad(images, (0, 3, 0, 3)), "conv1", stride=4)
        x = nn.relu(pool(lrn(x, towers, 2.0)))
        x = nn.relu(conv(x, "conv2", towers, padding=2))
        x = pool(same_map_norm(lrn(x, towers, 2.0)))
    x = nn.relu(conv(x, "conv3", padding=1))
    x = nn.relu(conv(x, "conv4", towers, padding=1))
    x = nn.relu(pool(conv(x, "conv5", towers, padding=1)))
    x = keep * nn.relu(matrix(x, "fc6"))
    x = keep * nn.relu(matrix(x, "fc7"))
    return matrix(x, "fc8")


class Sgd:
    """The rule in words of C2w/LayerParams.md:546: velocities take rate and decay in, weights get none for biases."""

    def __init__(self, parameters, *, momentum=0.9, decay=0.0005):
        self.velocity = {key: torch.zeros_like(value) for key, value in parameters.items()}
        self.parameters, self.momentum, self.decay = parameters, momentum, decay

    @torch.no_grad()
    def step(self, rate):
        for key, value in self.parameters.items():
            is_bias = key[1] == "bias"
            eps = 2 * rate if is_bias else rate
            decayed = value.grad if is_bias else value.grad + self.decay * value
            self.velocity[key].mul_(self.momentum).sub_(eps * decayed)
            value.add_(self.velocity[key])
            value.grad = None
