"""Updates, ten-view evaluations and the parts of an update of net 145, as this program runs them.

python -m alexnet_jax.benchmarks.our_step [auto|off [BATCH_SIZE [float32|bfloat16]]]   # auto, off: as --native says

On an accelerator the images of an update are on the device already, and several updates are started before any is
waited for, as in training.
"""

import collections
import contextlib
import dataclasses
import functools
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from alexnet_jax.benchmarks import breakdown, turns
from alexnet_jax.benchmarks.input import refuse
from alexnet_jax.configs import imagenet2012
from alexnet_jax.data.batch import Batch, Shard
from alexnet_jax.data.dataset import open_dataset
from alexnet_jax.data.photometry import photometry
from alexnet_jax.data.preprocessing import of_colour
from alexnet_jax.data.workers import Workers
from alexnet_jax.errors import UsageError
from alexnet_jax.experiment import build
from alexnet_jax.experiment.feed import FromDisk
from alexnet_jax.experiment.fields import Settings
from alexnet_jax.experiment.settings import read_settings
from alexnet_jax.learning.optimizer import krizhevsky_sgd, piecewise
from alexnet_jax.learning.step import build_steps
from alexnet_jax.network import sharding
from alexnet_jax.network.native import build as native
from alexnet_jax.network.tower import make_tower
from alexnet_jax.runtime import allocator, processes

CROP_SIZE, CLASSES, VIEWS = 224, 1000, 10
WARM_UP = 20  # updates from disk before the clock starts
HEAP_GROWS = 3  # updates and evaluations before the first that is measured; later ones mostly reuse memory
REPEATS = 20  # updates or evaluations of one measurement on an accelerator


def seconds_of(run: Callable[[], Any]) -> float:
    """The time until all arrays that `run` returns are computed."""
    begun = time.perf_counter()
    jax.block_until_ready(run())
    return time.perf_counter() - begun


class Ours:
    """Net 145 in training, compiled as `experiment.build` does it.

    Args:
      batch_size: images of an update.
      dtype: of the activations; None: float32.
    """

    def __init__(self, batch_size: int, dtype: Any = None) -> None:
        self._begun = time.perf_counter()
        self._batch_size, devices = batch_size, jax.device_count()
        self._on_cpu = jax.default_backend() == "cpu"
        towers = sharding.fastest_tower_axis(devices, jax.default_backend())
        mesh = self._mesh = sharding.make_mesh(data=1, tower=towers)
        tower = self._tower = make_tower("original", num_classes=CLASSES, dtype=dtype)
        self._key = jax.jit(lambda: jax.random.key(0), out_shardings=sharding.replicated(mesh))()
        rates = {
            name: {leaf: piecewise([(0, 0.02 if leaf == "bias" else 0.01)]) for leaf in leaves}
            for name, leaves in tower.leaf_names().items()
        }
        self._optimizer = krizhevsky_sgd(rates, momentum=0.9, weight_decay=0.0005)
        pixels = functools.partial(
            photometry,
            preprocessing=of_colour((), image_size=CROP_SIZE, crop_size=CROP_SIZE, mean=[120.0] * 3),
            color_directions=np.eye(3, dtype=np.float32) * 60,
            noise=piecewise([(0, 0.1)]),
        )
        self._steps = build_steps(
            tower=tower, optimizer=self._optimizer, photometry=pixels, mesh=mesh, image_size=CROP_SIZE
        )
        self._state = self._steps.init(self._key)
        rng = np.random.default_rng(0)
        images: Any = rng.integers(0, 256, (batch_size, CROP_SIZE, CROP_SIZE, 3), np.uint8)
        labels: Any = rng.integers(0, CLASSES, batch_size, np.int32)
        mask: Any = np.ones(batch_size, bool)
        self._batch = Batch(images, labels, mask)
        self._examples = batch_size // VIEWS
        count = self._examples * VIEWS
        self._views = Batch(
            images[:count].reshape(self._examples, VIEWS, CROP_SIZE, CROP_SIZE, 3),
            labels[: self._examples],
            mask[: self._examples],
        )
        self._there = None if self._on_cpu else sharding.put_batch(self._batch, mesh)
        self._repeats = 1
        self.update()
        self.first_update = time.perf_counter() - self._begun
        self.forward()
        self._repeats = 1 if self._on_cpu else REPEATS
        if self._on_cpu:
            allocator.trim()
            allocator.keep_large_arrays()
            for _ in range(HEAP_GROWS):
                self.update()
                self.forward()

    def update(self) -> float:
        """Seconds of an update; on a CPU with the copy of the batch to the devices."""

        def run() -> Any:
            for _ in range(self._repeats):
                batch = self._there or sharding.put_batch(self._batch, self._mesh)
                self._state, metrics = self._steps.train_step(self._state, batch, self._key)
            return self._state, metrics

        return seconds_of(run) / self._repeats

    def copied_update(self) -> float:
        """Seconds of an update whose batch is copied to the device while the update before it runs."""

        def run() -> Any:
            batch, before = sharding.put_batch(self._batch, self._mesh), None
            for _ in range(self._repeats):
                finish = sharding.start_copy(self._batch, self._mesh)
                self._state, metrics = self._steps.train_step(self._state, batch, self._key)
                batch = finish()
                if before is not None:
                    before.block_until_ready()  # as `Loop`, which reports an update while the next one runs
                before = metrics.loss
            return self._state, batch

        return seconds_of(run) / self._repeats

    def copy(self) -> float:
        """Seconds of the copy of a batch to the device."""
        return seconds_of(lambda: sharding.put_batch(self._batch, self._mesh))

    def from_disk(self, name: str, folder: str, workers: str, updates: str) -> float:
        """Images a second of updates whose images worker processes read.

        Sums over the first batches, taken while updates and copies are under way, have to be those of batches that
        threads make.

        Args:
          name: of a prepared data set.
          folder: of prepared data sets.
          workers: how many processes.
          updates: how many are timed.
        """
        settings = default_settings(self._batch_size)
        source = open_dataset(name, folder).split("train")
        experiment: Any = SimpleNamespace(
            settings=settings, steps=self._steps, mesh=self._mesh, train_source=source, crop_size=CROP_SIZE,
            shard=Shard(), num_steps=10**9,
        )  # fmt: skip
        with contextlib.closing(FromDisk(experiment, Workers(int(workers), refuse), mirrors=True)) as feed:
            feed.start(0)
            before, begun, sums = None, 0.0, []
            for step in range(int(updates) + WARM_UP):
                if step == WARM_UP:
                    begun = time.perf_counter()
                batch = feed.fetch(step, 1)
                if step < WARM_UP:
                    sums.append(_sum(*batch[:2]))
                self._state, metrics = feed.update(self._state, batch, self._key)
                if before is not None:
                    before.block_until_ready()
                before = metrics.loss
            jax.block_until_ready(before)
            seconds = time.perf_counter() - begun
        by_threads = build.training_batches(experiment, start_step=0)
        for step, (there, batch) in enumerate(zip(sums, by_threads, strict=False)):
            if int(there) != int(_sum(batch.image, batch.label)):
                raise RuntimeError(f"batch {step} on the device is another one than that which threads make")
        return self._batch_size * int(updates) / seconds

    def forward(self) -> float:
        """Seconds of a view in ten-view evaluation, where an image has ten."""
        batch = sharding.put_batch(self._views, self._mesh)
        jax.block_until_ready(batch)

        def run() -> Any:
            for _ in range(self._repeats):
                metrics = self._steps.eval_step(self._state.params, self._state.batch_stats, batch)
            return metrics

        return seconds_of(run) / self._repeats / (self._examples * VIEWS)

    def memory(self) -> int:
        """Peak memory in bytes: of the process on a CPU, of the device on an accelerator."""
        return turns.peak_memory() if self._on_cpu else jax.local_devices()[0].memory_stats()["peak_bytes_in_use"]

    def kernels(self) -> list[tuple[str, float]]:
        """Milliseconds of an update by kernel, the longest first; each with its operation in the program."""
        with tempfile.TemporaryDirectory(prefix="alexnet_jax-benchmark-") as folder:
            with jax.profiler.trace(folder):
                self.update()
            [file] = Path(folder).rglob("*.xplane.pb")
            nanoseconds = _nanoseconds_by_kernel(jax.profiler.ProfileData.from_file(str(file)))
        return [(name, count / 1e6 / self._repeats) for name, count in nanoseconds.most_common()]

    def parts(self) -> list[dict[str, Any]]:
        """Seconds and FLOP of each part of an update alone, by direction."""
        parts = breakdown.measure(self._tower, self._mesh, self._batch_size, CROP_SIZE)
        parts.append(breakdown.measure_optimizer(self._optimizer, self._state, self._mesh))
        return [dataclasses.asdict(part) for part in parts]


@jax.jit
def _sum(images: Any, labels: Any) -> jax.Array:
    """The sum of all pixels and labels times odd numbers that differ from place to place, modulo 2^32."""
    arrays = (jnp.ravel(array).astype(jnp.uint32) for array in (images, labels))
    return sum(jnp.sum(array * (2 * jnp.arange(array.size, dtype=jnp.uint32) + 1)) for array in arrays)  # type: ignore[return-value]


def _nanoseconds_by_kernel(profile: jax.profiler.ProfileData) -> collections.Counter[str]:
    """The time of the program's operations: on the streams of a GPU, or on the threads of a CPU."""
    durations = collections.Counter[str]()
    for plane in profile.planes:
        for line in plane.lines:
            if line.name.startswith("Stream" if plane.name.startswith("/device:") else "tf_XLA"):
                for event in line.events:
                    name, operation = event.name, dict(event.stats).get("hlo_op")
                    if operation and not name.startswith("end: "):
                        durations[name if name == operation else f"{operation}: {name}"] += event.duration_ns
    return durations


def product(size: int = 2048) -> float:
    """FLOP a second of the product of two square matrices."""
    a, b = jnp.asarray(np.random.default_rng(0).standard_normal((2, size, size), np.float32))
    multiply = jax.jit(jnp.matmul)
    seconds_of(lambda: multiply(a, b))
    return 8 * 2 * size**3 / seconds_of(lambda: [multiply(a, b) for _ in range(8)])


def default_settings(batch_size: int) -> Settings:
    """Those of net 145, for another batch size."""
    return dataclasses.replace(read_settings(imagenet2012.get_config("original")), batch_size=batch_size)


def main(mode: str = "auto", batch_size: str = "128", dtype: str = "float32") -> None:
    """Serves net 145; when it is ready, it answers with the line that says which operations are native."""
    try:
        processes.make_devices(cpu_devices=2)
    except UsageError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.status)
    line = native.load(mode).line
    ours = Ours(int(batch_size), None if dtype == "float32" else jnp.dtype(dtype))
    turns.serve(
        {
            "ready": lambda: line,
            "device": lambda: jax.local_devices()[0].device_kind,
            "first_update": lambda: ours.first_update,
            "update": ours.update,
            "copied_update": ours.copied_update,
            "copy": ours.copy,
            "from_disk": ours.from_disk,
            "forward": ours.forward,
            "kernels": ours.kernels,
            "parts": ours.parts,
            "product": product,
            "memory": ours.memory,
        }
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
