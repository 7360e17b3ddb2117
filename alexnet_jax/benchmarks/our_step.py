"""Updates, ten-view evaluations and the parts of an update of net 145, as this program runs them.

python -m alexnet_jax.benchmarks.our_step [auto|off]   # the operations in C, as --native says
"""

import dataclasses
import functools
import sys
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from alexnet_jax.benchmarks import breakdown, turns
from alexnet_jax.data.batch import Batch
from alexnet_jax.data.photometry import photometry
from alexnet_jax.errors import UsageError
from alexnet_jax.learning.optimizer import krizhevsky_sgd, piecewise
from alexnet_jax.learning.step import build_steps
from alexnet_jax.network import sharding
from alexnet_jax.network.native import build as native
from alexnet_jax.network.tower import make_tower
from alexnet_jax.runtime import allocator, processes

BATCH_SIZE, CROP_SIZE, CLASSES, VIEWS = 128, 224, 1000, 10


def seconds_of(run: Callable[[], Any]) -> float:
    """The time until all arrays that `run` returns are computed."""
    begun = time.perf_counter()
    jax.block_until_ready(run())
    return time.perf_counter() - begun


class Ours:
    """Net 145 in training, compiled as `experiment.build` does it."""

    def __init__(self) -> None:
        devices = jax.device_count()
        towers = sharding.fastest_tower_axis(devices, jax.default_backend())
        mesh = self._mesh = sharding.make_mesh(data=1, tower=towers)
        tower = self._tower = make_tower("original", num_classes=CLASSES)
        self._key = jax.jit(lambda: jax.random.key(0), out_shardings=sharding.replicated(mesh))()
        rates = {
            name: {leaf: piecewise([(0, 0.02 if leaf == "bias" else 0.01)]) for leaf in leaves}
            for name, leaves in tower.leaf_names().items()
        }
        self._optimizer = krizhevsky_sgd(rates, momentum=0.9, weight_decay=0.0005)
        pixels = functools.partial(
            photometry,
            mean_image=np.full((CROP_SIZE, CROP_SIZE, 3), 120, np.float32),
            color_directions=np.eye(3, dtype=np.float32) * 60,
            noise=piecewise([(0, 0.1)]),
            pixel_scale=1.0,
        )
        self._steps = build_steps(
            tower=tower, optimizer=self._optimizer, photometry=pixels, mesh=mesh, image_size=CROP_SIZE
        )
        self._state = self._steps.init(self._key)
        rng = np.random.default_rng(0)
        images: Any = rng.integers(0, 256, (BATCH_SIZE, CROP_SIZE, CROP_SIZE, 3), np.uint8)
        labels: Any = rng.integers(0, CLASSES, BATCH_SIZE, np.int32)
        mask: Any = np.ones(BATCH_SIZE, bool)
        self._batch = Batch(images, labels, mask)
        examples = BATCH_SIZE // VIEWS
        self._views = Batch(
            self._batch.image[: examples * VIEWS].reshape(examples, VIEWS, CROP_SIZE, CROP_SIZE, 3),
            self._batch.label[:examples],
            self._batch.mask[:examples],
        )
        self.update()
        self.forward()
        allocator.trim()
        allocator.keep_large_arrays()

    def update(self) -> float:
        """Seconds of an update, with the copy of the batch to the devices."""

        def run() -> Any:
            self._state, metrics = self._steps.train_step(
                self._state, sharding.put_batch(self._batch, self._mesh), self._key
            )
            return self._state, metrics

        return seconds_of(run)

    def forward(self) -> float:
        """Seconds of an image in ten-view evaluation."""
        batch = sharding.put_batch(self._views, self._mesh)
        return seconds_of(lambda: self._steps.eval_step(self._state.params, self._state.batch_stats, batch)) / (
            BATCH_SIZE // VIEWS * VIEWS
        )

    def parts(self) -> list[dict[str, Any]]:
        """Seconds and FLOP of each part of an update alone, by direction."""
        parts = breakdown.measure(self._tower, self._mesh, BATCH_SIZE, CROP_SIZE)
        parts.append(breakdown.measure_optimizer(self._optimizer, self._state, self._mesh))
        return [dataclasses.asdict(part) for part in parts]


def product(size: int = 2048) -> float:
    """FLOP a second of the product of two square matrices."""
    a, b = jnp.asarray(np.random.default_rng(0).standard_normal((2, size, size), np.float32))
    multiply = jax.jit(jnp.matmul)
    seconds_of(lambda: multiply(a, b))
    return 8 * 2 * size**3 / seconds_of(lambda: [multiply(a, b) for _ in range(8)])


def main(mode: str = "auto") -> None:
    """Serves net 145; when it is ready, it answers with the line that says whether operations run in C."""
    jax.config.update("jax_num_cpu_devices", 2)
    try:
        processes.check_devices()
    except UsageError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.status)
    allocator.keep_memory()
    line = native.load(mode).line
    ours = Ours()
    turns.serve(
        {
            "ready": lambda: line,
            "update": ours.update,
            "forward": ours.forward,
            "parts": ours.parts,
            "product": product,
            "memory": turns.peak_memory,
        }
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
