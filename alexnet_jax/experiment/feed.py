"""The batches of a run on its devices: read from disk ahead of the updates, or cut from splits kept on the devices."""

import functools
import os
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, PRNGKeyArray, UInt8

from alexnet_jax.data import resident
from alexnet_jax.data.batch import Batch
from alexnet_jax.data.filling import EvalPlan, Randomness, Source
from alexnet_jax.data.pipeline import eval_batches
from alexnet_jax.data.workers import Workers
from alexnet_jax.errors import UsageError
from alexnet_jax.experiment import build
from alexnet_jax.experiment.build import Experiment
from alexnet_jax.experiment.reading import devices_mirror, open_workers
from alexnet_jax.learning.metrics import Metrics
from alexnet_jax.learning.step import TrainState
from alexnet_jax.network import sharding
from alexnet_jax.runtime import processes

SHARE = 1 / 4  # of a device's memory: with on_device=None, splits that take less are kept there
# Updates in one program, at most: some seconds of the largest networks, within which a signal is heard.
BLOCK, CPU_BLOCK = 64, 8
EVAL_CROPS, EVAL_BYTES = 1024, 2**28  # most crops of an evaluation batch on an accelerator, and their bytes as float32
LINE_EVERY = 10.0  # seconds between two lines about the splits that are being decoded
PHASE = 1000  # decoded images between two reports to the watchdog


class FromDisk:
    """Batches that the host reads and copies to the devices.

    Args:
      experiment: of the run.
      workers: processes that read the images; None: threads.
      mirrors: whether the devices mirror the crops.

    Attributes:
      longest: number of updates that one call of `update` can make.
      least_crops: of a batch of an evaluation.
    """

    longest = least_crops = 1

    def __init__(self, experiment: Experiment, workers: Workers | None = None, *, mirrors: bool = False):
        self._experiment, self._workers, self._mirrors = experiment, workers, mirrors
        self._batches: Iterator[Batch] = iter(())
        self._copying: Callable[[], Batch] | None = None  # of the next batch, which is on its way to the devices
        self._plan = build.train_plan(experiment.settings, experiment.shard, experiment.crop_size)
        self._randomness = Randomness(experiment.settings.seed, len(experiment.train_source))
        self._mirror = jax.jit(_mirror, out_shardings=sharding.batch_sharding(experiment.mesh))

    def start(self, start_step: int) -> None:
        """Begins with the batch of that number."""
        self._next = start_step
        self._batches = build.training_batches(
            self._experiment, start_step=start_step, workers=self._workers, mirrored=not self._mirrors
        )

    def close(self) -> None:
        """Ends the processes that read images."""
        if self._workers is not None:
            self._workers.close()

    def fetch(self, step: int, count: int) -> Batch:
        """The batches `step` to `step + count - 1` on the devices, as `update` takes them: one batch here.

        From worker processes, also the batch after it is waited for, and its copy starts: a GPU overlaps a copy with an
        update only if the copy was started first. Where the input is slower than the updates, each update comes a batch
        later, at the same rate.
        """
        assert count == 1, "longest"
        assert step == self._next - (self._copying is not None), "batches come in order"
        finish, self._copying = self._copying or self._start(), None
        batch = finish()
        if self._workers is not None and self._next < self._experiment.num_steps:
            self._copying = self._start()
        return batch

    def update(self, state: TrainState, fetched: Batch, key: PRNGKeyArray) -> tuple[TrainState, Metrics]:
        """Starts the update: state after it, and its metrics."""
        return self._experiment.steps.train_step(state, fetched, key)

    def _start(self) -> Callable[[], Batch]:
        """Starts the copy of the next batch, as `sharding.start_copy`. The function raises where it cannot be read."""
        step, self._next = self._next, self._next + 1
        try:
            batch = next(self._batches)
        except UsageError as error:
            return functools.partial(_raise, error)  # the update before can still be made
        if not self._mirrors:
            return sharding.start_copy(batch, self._experiment.mesh)
        flips = self._plan.flips(self._randomness, step)
        finish = sharding.start_copy((batch, flips), self._experiment.mesh)

        def mirrored() -> Batch:
            there, flips = finish()
            return there._replace(image=self._mirror(there.image, flips))

        return mirrored

    def eval_batches(self, *, batch_size: int, views: int) -> Iterator[Batch]:
        """The batches of the evaluation split on the devices, each example once, the last batch padded."""
        experiment = self._experiment
        plan = EvalPlan(batch_size, experiment.shard, experiment.crop_size, views)
        batches = eval_batches(experiment.eval_source, plan, workers=self._workers)
        return (sharding.put_batch(batch, experiment.mesh) for batch in batches)


class OnDevice:
    """Batches that the devices cut from splits which every device holds whole.

    Every device has all images, because batch k may need any of them: divided images would have to be exchanged.

    Args:
      experiment: whose training and evaluation split are decoded and copied.
      say: prints a line.

    Attributes:
      longest, least_crops: as of `FromDisk`.
    """

    def __init__(self, experiment: Experiment, *, say: Callable[[str], None]):
        self._experiment = experiment
        settings, mesh = experiment.settings, experiment.mesh
        everywhere = sharding.replicated(mesh)

        def load(source: Source, split: str) -> resident.Resident:
            show = _progress(f"decoding {split}", len(source), say)

            def progress(done: int) -> None:
                if done // PHASE > (done - resident.PART) // PHASE:
                    processes.enter(f"decoding image {done:,} of {split}", slow=True)
                show(done)

            arrays = resident.load(source, say=progress)
            return resident.Resident(*(sharding.put_local(np.asarray(array), everywhere) for array in arrays))

        begun = time.monotonic()
        self._train = load(experiment.train_source, str(settings.dataset.train_split))
        self._eval = load(experiment.eval_source, str(settings.dataset.eval_split))
        say(
            f"the images are on the {'devices' if mesh.size > 1 else 'device'}, {size_of(experiment) / 2**20:,.0f} MiB,"
            f" decoded in {time.monotonic() - begun:.1f} s"
        )
        self.least_crops, self.longest = 1, CPU_BLOCK
        if jax.default_backend() != "cpu":  # batches of 128 small images would leave a GPU idle between them
            fitting = EVAL_BYTES // (experiment.crop_size**2 * 3 * 4)
            self.least_crops = max(1, min(EVAL_CROPS, fitting, len(experiment.eval_source)))
            self.longest = BLOCK
        self._plan = build.train_plan(settings, experiment.shard, experiment.crop_size)
        self._randomness = Randomness(settings.seed, len(experiment.train_source))
        self._drawer = ThreadPoolExecutor(1, "crops")
        self._drawn: tuple[int, Future[resident.Crops]] | None = None  # from that step on
        cut = functools.partial(resident.eval_batch, crop_size=experiment.crop_size)
        self._cut = jax.jit(cut, static_argnames=("batch_size", "views"), out_shardings=sharding.batch_sharding(mesh))

    def start(self, start_step: int) -> None:
        """Nothing: every batch follows from its number."""

    def close(self) -> None:
        """Ends the thread that draws crops."""
        self._drawer.shutdown(cancel_futures=True)

    def fetch(self, step: int, count: int) -> tuple[resident.Crops, Array]:
        """The crops of the batches from `step` on, and how many of them are for updates.

        The crops that follow are drawn meanwhile: the program of several updates may keep this thread until its end.
        """
        at, drawn = self._drawn or (step, self._drawer.submit(self._draw, step))
        crops = drawn.result() if at == step else self._draw(step)
        self._drawn = step + count, self._drawer.submit(self._draw, step + count)
        return crops, sharding.put_scalar(np.int32(count), self._experiment.mesh)

    def _draw(self, step: int) -> resident.Crops:
        """The crops of `longest` batches on the devices, whether or not the run has so many: one shape, one program."""
        size = self._experiment.data.image_size
        steps = range(step, step + self.longest)
        crops = resident.draw_crops(self._randomness, self._plan, steps=steps, image_size=size)
        place = sharding.stacked_batch_sharding(self._experiment.mesh)
        arrays = [sharding.put_local(np.asarray(leaf), place) for leaf in crops]
        return resident.Crops(*arrays)

    def update(
        self, state: TrainState, fetched: tuple[resident.Crops, Array], key: PRNGKeyArray
    ) -> tuple[TrainState, Metrics]:
        """Starts the updates: the state after them, and the metrics of each along the first axis."""
        assert self._experiment.steps.train_steps is not None
        crops, count = fetched
        return self._experiment.steps.train_steps(state, self._train, crops, count, key)

    def eval_batches(self, *, batch_size: int, views: int) -> Iterator[Batch]:
        """As of `FromDisk`."""
        for first in range(0, len(self._experiment.eval_source), batch_size):
            place = sharding.put_scalar(np.int32(first), self._experiment.mesh)
            yield self._cut(self._eval, place, batch_size=batch_size, views=views)


def _mirror(images: UInt8[Array, "B h w 3"], flips: Bool[Array, " B"]) -> UInt8[Array, "B h w 3"]:
    """Mirrors some of the images, left to right."""
    return jnp.where(flips[:, None, None, None], images[:, :, ::-1], images)


def _raise(error: UsageError) -> Batch:
    raise error


Feed: TypeAlias = FromDisk | OnDevice


def open_feed(experiment: Experiment, *, say: Callable[[str], None]) -> Feed:
    """The feed that `config.dataset.on_device` wants; None chooses by the memory.

    Args:
      experiment: of the run.
      say: prints a line.

    Raises:
      UsageError: the images should be kept on the devices and do not fit, or they cannot be read.
    """
    wanted = experiment.settings.dataset.on_device
    if wanted is None:
        wanted = jax.default_backend() != "cpu" and _fits(experiment, SHARE, if_unknown=False)
    elif wanted and not _fits(experiment, 1.0, if_unknown=True):
        memory = _memory(experiment) or 0  # 0: unknown here, and too small in another process
        raise UsageError(
            f"config.dataset.on_device is True, and the images take {size_of(experiment) / 2**20:,.0f} MiB of the"
            f" {memory / 2**20:,.0f} MiB of a device's memory; use False, which reads them from disk"
        )
    if wanted:
        return OnDevice(experiment, say=say)
    workers = experiment.settings.dataset.workers
    mirrors = devices_mirror(workers, jax.default_backend())
    return FromDisk(experiment, open_workers(workers, say=say), mirrors=mirrors)


def size_of(experiment: Experiment) -> int:
    """The bytes of the decoded images of both splits, on each device."""
    images = len(experiment.train_source) + len(experiment.eval_source)
    return images * (experiment.data.image_size**2 * 3 + 4)


def _fits(experiment: Experiment, share: float, *, if_unknown: bool) -> bool:
    """Whether the images take less than a share of the memory of a device, on all processes."""
    memory = _memory(experiment)
    fits = if_unknown if memory is None else size_of(experiment) < share * memory
    processes.agree({"whether the images fit into the devices' memory": fits})
    return fits


def _memory(experiment: Experiment) -> int | None:
    """Bytes of the memory of the first device, of a CPU that of the machine.

    None: a GPU does not say, as with `XLA_PYTHON_CLIENT_ALLOCATOR=platform`.
    """
    if jax.default_backend() == "cpu":
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    device = next(device for device in experiment.mesh.devices.flat if device.process_index == jax.process_index())
    return (device.memory_stats() or {}).get("bytes_limit")


def _progress(what: str, count: int, say: Callable[[str], None]) -> Callable[[int], None]:
    """Says every few seconds how far the work is, and how long the rest takes."""
    begun = last = time.monotonic()

    def show(done: int) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last >= LINE_EVERY:
            last = now
            say(f"{what}: {done:,}/{count:,} images, {(now - begun) * (count - done) / done:.0f} s left")

    return show
