"""The peer: the same network and update in PyTorch, as PyTorch programs commonly write them.

python -m alexnet_jax.benchmarks.torch_step norm [BATCH_SIZE [float32|bfloat16]]   # plain: without any response norm

Convolutions in two groups stand for the two towers, and the norm is LocalResponseNorm. SGD has momentum, weight decay
on weights alone, and twice the learning rate for biases. Images are floats from the start, without colour noise.

PyTorch runs the network eagerly and compiled by `torch.compile`, each with contiguous images and with `channels_last`
images. The fastest of these four forms is measured, chosen for updates and for evaluations separately. On a GPU the
images are there already, float32 products are TF32 as in JAX, bfloat16 is PyTorch's autocast, and all forms are
`channels_last`, the layout of the GPU's tensor cores.
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

CROP_SIZE, CLASSES, VIEWS = 224, 1000, 10
REPEATS = 20  # updates or evaluations of one measurement on a GPU
GPU = torch.cuda.is_available()


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


FORMATS = (torch.channels_last,) if GPU else (torch.channels_last, torch.contiguous_format)
FORMS = list(itertools.starmap(Form, itertools.product((False, True), FORMATS)))


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
      batch_size: images of an update.
      bfloat16: on a GPU, by autocast.
    """

    def __init__(self, *, norm: bool, batch_size: int, bfloat16: bool):
        torch.manual_seed(0)
        self._device = torch.device("cuda" if GPU else "cpu")
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = torch.backends.cudnn.benchmark = True
        self._bfloat16, self._batch_size = bfloat16, batch_size
        self._repeats = REPEATS if GPU else 1
        self._images = (torch.randn(batch_size, 3, CROP_SIZE, CROP_SIZE) * 60).to(self._device)
        self._labels = torch.randint(0, CLASSES, (batch_size,), device=self._device)
        self._model = network(norm=norm).to(self._device)
        self._compiled = torch.compile(self._model)
        self._form: Form | None = None
        self._update_form = fastest(lambda form: self._seconds(self._update, form))
        self._forward_form = fastest(lambda form: self._seconds(self._forward, form))
        with contextlib.suppress(OSError):  # peak memory starts anew: the slower forms do not count
            Path("/proc/self/clear_refs").write_text("5")
        if GPU:
            torch.cuda.reset_peak_memory_stats()

    def forms(self) -> dict[str, str]:
        """The form in which updates run, and the form in which evaluations run."""
        return {"update": str(self._update_form), "forward": str(self._forward_form)}

    def update(self) -> float:
        """Seconds of an update."""
        return self._seconds(self._update, self._update_form)

    def forward(self) -> float:
        """Seconds of a view in ten-view evaluation, where an image has ten."""
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
        for _ in range(self._repeats):
            self._optimizer.zero_grad(set_to_none=True)
            with self._autocast():
                loss = nn.functional.cross_entropy(model(images), self._labels)
            loss.backward()
            self._optimizer.step()
        loss.item()
        self._wait()
        return (time.perf_counter() - begun) / self._repeats

    @torch.inference_mode()
    def _forward(self, model: Any, images: Any) -> float:
        model.eval()
        examples = self._batch_size // VIEWS
        views = images[: examples * VIEWS]
        begun = time.perf_counter()
        for _ in range(self._repeats):
            with self._autocast():
                probs = model(views).softmax(dim=1).view(examples, VIEWS, CLASSES).mean(dim=1)
            total = probs.log().sum()
        total.item()
        self._wait()
        return (time.perf_counter() - begun) / self._repeats / (examples * VIEWS)

    def _autocast(self) -> Any:
        return torch.autocast("cuda", torch.bfloat16, enabled=self._bfloat16) if GPU else contextlib.nullcontext()

    def _wait(self) -> None:
        if GPU:
            torch.cuda.synchronize()

    def memory(self) -> int:
        """Peak memory in bytes: of the process on a CPU, of the arrays on a GPU."""
        return torch.cuda.max_memory_allocated() if GPU else turns.peak_memory()


def product(size: int = 2048) -> float:
    """FLOP a second of the product of two square matrices."""
    a, b = torch.randn(2, size, size, device="cuda" if GPU else "cpu")

    def run(count: int) -> None:
        for _ in range(count):
            a @ b
        if GPU:
            torch.cuda.synchronize()

    run(1)
    begun = time.perf_counter()
    run(8)
    return 8 * 2 * size**3 / (time.perf_counter() - begun)


def main(kind: str, batch_size: str = "128", dtype: str = "float32") -> None:
    """Serves the network that the command line names."""
    peer = Peer(norm=kind == "norm", batch_size=int(batch_size), bfloat16=dtype == "bfloat16")
    turns.serve(
        {
            "ready": lambda: None,
            "forms": peer.forms,
            "update": peer.update,
            "forward": peer.forward,
            "product": product,
            "memory": peer.memory,
        }
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
