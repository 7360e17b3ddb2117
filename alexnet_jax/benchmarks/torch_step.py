"""The peer: the same network and update in PyTorch, as PyTorch programs commonly write them.

python -m alexnet_jax.benchmarks.torch_step norm     # or plain: without any response norm

Two groups for the two towers, LocalResponseNorm, SGD with momentum, decay on weights alone and twice the rate for
biases. The images are floats already and there is no colour noise. It runs with images as they come and with
`channels_last`, and is measured with what was faster.
"""

import sys
import time
from typing import Any

import torch
from torch import nn

from alexnet_jax.benchmarks import turns

BATCH_SIZE, CROP_SIZE, CLASSES, VIEWS = 128, 224, 1000, 10


class SameMapNorm(nn.Module):
    """The second norm of layer 2: `x (1 + alpha / 25 sum x^2)^-beta` over 5 by 5 pixels of a map."""

    def __init__(self) -> None:
        super().__init__()
        self.mean = nn.AvgPool2d(5, stride=1, padding=2)

    def forward(self, x: Any) -> Any:
        """As large as `x`."""
        return x * (1 + 1e-3 * self.mean(x * x)) ** -0.75


class TwelveDropout(nn.Module):
    """Dropout as in 2012: a mask in training, one half at test."""

    def forward(self, x: Any) -> Any:
        """As large as `x`."""
        return x * torch.empty_like(x).bernoulli_(0.5) if self.training else x * 0.5


def network(*, norm: bool) -> Any:
    """Net 145, `[B, 3, 224, 224] -> [B, 1000]`; the norm's window ends at the border of a tower only in ours."""

    def norms(*modules: nn.Module) -> list[nn.Module]:
        return list(modules) if norm else []

    def response_norm() -> nn.Module:
        return nn.LocalResponseNorm(5, alpha=1e-4, beta=0.75, k=2.0)

    return nn.Sequential(
        nn.ZeroPad2d((0, 3, 0, 3)),
        nn.Conv2d(3, 96, 11, stride=4),
        *norms(response_norm()),
        nn.MaxPool2d(3, 2),
        nn.ReLU(inplace=True),
        nn.Conv2d(96, 256, 5, padding=2, groups=2),
        nn.ReLU(inplace=True),
        *norms(response_norm(), SameMapNorm()),
        nn.MaxPool2d(3, 2),
        nn.Conv2d(256, 384, 3, padding=1),
        nn.ReLU(inplace=True),
        nn.Conv2d(384, 384, 3, padding=1, groups=2),
        nn.ReLU(inplace=True),
        nn.Conv2d(384, 256, 3, padding=1, groups=2),
        nn.MaxPool2d(3, 2),
        nn.ReLU(inplace=True),
        nn.Flatten(),
        nn.Linear(9216, 4096),
        nn.ReLU(inplace=True),
        TwelveDropout(),
        nn.Linear(4096, 4096),
        nn.ReLU(inplace=True),
        TwelveDropout(),
        nn.Linear(4096, CLASSES),
    )


def sgd(model: nn.Module) -> torch.optim.Optimizer:
    """The update of 2012: of a constant rate it does not matter where the rate stands."""
    named = list(model.named_parameters())
    return torch.optim.SGD(
        [
            {"params": [p for name, p in named if name.endswith("weight")], "lr": 0.01, "weight_decay": 0.0005},
            {"params": [p for name, p in named if name.endswith("bias")], "lr": 0.02},
        ],
        momentum=0.9,
        fused=True,
    )


class Peer:
    """The network in training, in the memory format that makes its updates faster."""

    def __init__(self, *, norm: bool):
        torch.manual_seed(0)
        self._images = torch.randn(BATCH_SIZE, 3, CROP_SIZE, CROP_SIZE) * 60
        self._labels = torch.randint(0, CLASSES, (BATCH_SIZE,))
        self._model = network(norm=norm)
        self._optimizer = sgd(self._model)
        seconds = {}
        for self._format in (torch.channels_last, torch.contiguous_format):
            self._model.to(memory_format=self._format)
            self.update()
            seconds[self._format] = self.update()
        self._format = min(seconds, key=lambda name: seconds[name])
        self._model.to(memory_format=self._format)

    def format(self) -> str:
        """Of images and kernels in memory."""
        return str(self._format).removeprefix("torch.")

    def update(self) -> float:
        """Seconds of one."""
        images = self._images.to(memory_format=self._format)
        self._model.train()
        begun = time.perf_counter()
        self._optimizer.zero_grad(set_to_none=True)
        loss = nn.functional.cross_entropy(self._model(images), self._labels)
        loss.backward()
        self._optimizer.step()
        loss.item()
        return time.perf_counter() - begun

    @torch.inference_mode()
    def forward(self) -> float:
        """Seconds of an image in ten-view evaluation."""
        examples = BATCH_SIZE // VIEWS
        images = self._images[: examples * VIEWS].to(memory_format=self._format)
        self._model.eval()
        begun = time.perf_counter()
        probs = self._model(images).softmax(dim=1).view(examples, VIEWS, CLASSES).mean(dim=1)
        probs.log().sum().item()
        return (time.perf_counter() - begun) / (examples * VIEWS)


def product(size: int = 2048) -> float:
    """FLOP a second of the product of two square matrices."""
    a, b = torch.randn(size, size), torch.randn(size, size)
    a @ b
    begun = time.perf_counter()
    for _ in range(8):
        a @ b
    return 8 * 2 * size**3 / (time.perf_counter() - begun)


def main() -> None:
    """Serves one network."""
    peer = Peer(norm=sys.argv[1] == "norm")
    turns.serve(
        {
            "ready": lambda: None,
            "format": peer.format,
            "update": peer.update,
            "forward": peer.forward,
            "product": product,
            "memory": turns.peak_memory,
        }
    )


if __name__ == "__main__":
    main()
