"""The peer: the same network and update in PyTorch, as PyTorch programs commonly write them.

python -m alexnet_jax.benchmarks.torch_step norm     # or plain: without any response norm

Convolutions in two groups stand for the two towers, and the norm is LocalResponseNorm. SGD has momentum, weight decay
on weights alone, and twice the learning rate for biases. Images are floats from the start, without colour noise.

PyTorch runs the network eagerly and compiled by `torch.compile`, each with contiguous images and with `channels_last`
images. The fastest of these four forms is measured, chosen for updates and for evaluations separately.
"""

import contextlib
import itertools
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn

from alexnet_jax.benchmarks import turns

BATCH_SIZE, CROP_SIZE, CLASSES, VIEWS = 128, 224, 1000, 10


class SameMapNorm(nn.Module):
    """The second norm of layer 2: `x (1 + alpha / 25 sum x^2)^-beta` over 5 x 5 pixels of a map."""

    def __init__(self) -> None:
        super().__init__()
        self.mean = nn.AvgPool2d(5, stride=1, padding=2)

    def forward(self, x: Any) -> Any:
        """Returns an array of the shape of `x`."""
        return x * (1 + 1e-3 * self.mean(x * x)) ** -0.75


class TwelveDropout(nn.Module):
    """Dropout as in 2012: a mask in training, a factor of one half in evaluation."""

    def forward(self, x: Any) -> Any:
        """Returns an array of the shape of `x`."""
        return x * torch.empty_like(x).bernoulli_(0.5) if self.training else x * 0.5


def network(*, norm: bool) -> Any:
    """Net 145, `[B, 3, 224, 224] -> [B, 1000]`.

    The window of its response norm crosses the border between the two towers' maps; ours ends there.
    """

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
    """The update of 2012. PyTorch multiplies by the rate later, which is the same for a constant rate."""
    named = list(model.named_parameters())
    return torch.optim.SGD(
        [
            {"params": [p for name, p in named if name.endswith("weight")], "lr": 0.01, "weight_decay": 0.0005},
            {"params": [p for name, p in named if name.endswith("bias")], "lr": 0.02},
        ],
        momentum=0.9,
        fused=True,
    )


class Form(NamedTuple):
    """A way in which PyTorch can run the network.

    Attributes:
      compiled: by `torch.compile`, or eagerly.
      memory_format: of images and kernels.
    """

    compiled: bool
    memory_format: torch.memory_format

    def __str__(self) -> str:
        return f"{'torch.compile' if self.compiled else 'eager'}, {str(self.memory_format).removeprefix('torch.')}"


FORMS = list(itertools.starmap(Form, itertools.product((False, True), (torch.channels_last, torch.contiguous_format))))


def fastest(seconds_of: Callable[[Form], float]) -> Form:
    """The form that takes the least time; a form that PyTorch cannot compile here is left out with a line.

    Args:
      seconds_of: runs a form and returns its time.

    Raises:
      RuntimeError: the eager network fails.
    """
    seconds = {}
    for form in FORMS:
        try:
            seconds[form] = seconds_of(form)
        except RuntimeError as error:
            if not form.compiled:
                raise
            reason = str(error).strip().partition("\n")[0]
            print(f"warning: PyTorch is measured without {form}: {reason}", file=sys.stderr, flush=True)
    return min(seconds, key=lambda form: seconds[form])


class Peer:
    """The network in training and in evaluation, each in its fastest form.

    Args:
      norm: with response norms.
    """

    def __init__(self, *, norm: bool):
        torch.manual_seed(0)
        self._images = torch.randn(BATCH_SIZE, 3, CROP_SIZE, CROP_SIZE) * 60
        self._labels = torch.randint(0, CLASSES, (BATCH_SIZE,))
        self._model = network(norm=norm)
        self._compiled = torch.compile(self._model)
        self._form: Form | None = None
        self._update_form = fastest(lambda form: self._seconds(self._update, form))
        self._forward_form = fastest(lambda form: self._seconds(self._forward, form))
        with contextlib.suppress(OSError):  # peak memory starts anew: the slower forms do not count
            Path("/proc/self/clear_refs").write_text("5")

    def forms(self) -> dict[str, str]:
        """The form in which updates run, and the form in which evaluations run."""
        return {"update": str(self._update_form), "forward": str(self._forward_form)}

    def update(self) -> float:
        """Seconds of an update."""
        return self._seconds(self._update, self._update_form)

    def forward(self) -> float:
        """Seconds of an image in ten-view evaluation."""
        return self._seconds(self._forward, self._forward_form)

    def _seconds(self, run: Callable[[Any, Any], float], form: Form) -> float:
        if form != self._form:
            self._form = form
            self._model.to(memory_format=form.memory_format)
            self._optimizer = sgd(self._model)
            self._run(run, form)  # compiles, and allocates memory
        return self._run(run, form)

    def _run(self, run: Callable[[Any, Any], float], form: Form) -> float:
        return run(self._compiled if form.compiled else self._model, self._images.to(memory_format=form.memory_format))

    def _update(self, model: Any, images: Any) -> float:
        model.train()
        begun = time.perf_counter()
        self._optimizer.zero_grad(set_to_none=True)
        loss = nn.functional.cross_entropy(model(images), self._labels)
        loss.backward()
        self._optimizer.step()
        loss.item()
        return time.perf_counter() - begun

    @torch.inference_mode()
    def _forward(self, model: Any, images: Any) -> float:
        model.eval()
        examples = BATCH_SIZE // VIEWS
        views = images[: examples * VIEWS]
        begun = time.perf_counter()
        probs = model(views).softmax(dim=1).view(examples, VIEWS, CLASSES).mean(dim=1)
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
    """Serves the network that the command line names."""
    peer = Peer(norm=sys.argv[1] == "norm")
    turns.serve(
        {
            "ready": lambda: None,
            "forms": peer.forms,
            "update": peer.update,
            "forward": peer.forward,
            "product": product,
            "memory": turns.peak_memory,
        }
    )


if __name__ == "__main__":
    main()
