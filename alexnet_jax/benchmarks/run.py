"""Measures a run: its updates, and the share of its time in which the devices waited for images."""

import dataclasses
import time

import jax

from alexnet_jax import experiment as experiments
from alexnet_jax.network import layout
from alexnet_jax.settings import Settings


@dataclasses.dataclass(frozen=True)
class RunResult:
    """What was measured.

    Attributes:
      updates: timed.
      images: of them.
      seconds: they took.
      waited: seconds in which the devices had nothing to do but wait for images.
    """

    updates: int
    images: int
    seconds: float
    waited: float

    @property
    def wait_share(self) -> float:
        """Of the time."""
        return self.waited / self.seconds


def measure(settings: Settings, data_dir: str | None, *, updates: int, warm_up: int = 3) -> RunResult:
    """Makes the first updates of a run as training does, and keeps nothing of them.

    Args:
      settings: of the experiment.
      data_dir: of prepared data sets; None: TFDS's own.
      updates: how many are timed.
      warm_up: how many are made before: the first one compiles.
    """
    experiment = experiments.build(settings, data_dir, say=print)
    batches = experiments.training_batches(experiment, start_step=0)
    state, running = experiment.init(), None
    begun, waited = 0.0, 0.0
    for number in range(warm_up + updates):
        if number == warm_up:
            if running is not None:
                jax.block_until_ready(running)
            begun, waited = time.perf_counter(), 0.0
        asked = time.perf_counter()
        batch = layout.put_batch(next(batches), experiment.mesh)
        if running is None or running.loss.is_ready():  # else the devices were busy all the while
            waited += time.perf_counter() - asked
        before = running
        state, running = experiment.train_step(state, batch, experiment.key)
        if before is not None:
            jax.block_until_ready(before)
    jax.block_until_ready(running)
    seconds = time.perf_counter() - begun
    return RunResult(updates, updates * settings.batch_size, seconds, waited)


def describe(result: RunResult) -> list[str]:
    """The result as a line."""
    return [
        f"{result.updates:,} updates in {result.seconds:.1f} s, {result.images / result.seconds:,.1f} images/s;"
        f" waiting for input {result.wait_share:.2%} of the time"
    ]
