"""The order of what the training loop does."""

import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path
from unittest import mock

import jax
import numpy as np
import pytest
from etils import epath

from alexnet_jax import loop
from alexnet_jax.data.batch import Batch
from alexnet_jax.data.errors import DatasetError
from alexnet_jax.data.workers import Workers
from alexnet_jax.errors import NotFiniteError
from alexnet_jax.evaluation import batches, error_rates
from alexnet_jax.experiment import build as experiments
from alexnet_jax.experiment import feed as feed_module
from alexnet_jax.experiment.feed import FromDisk
from alexnet_jax.experiment.settings import read_settings
from alexnet_jax.learning.metrics import Metrics
from alexnet_jax.learning.step import TrainState
from alexnet_jax.loop import Loop
from alexnet_jax.network import sharding
from alexnet_jax.runtime.interruption import Interruption
from alexnet_jax.workdir.checkpoint import Checkpoints
from alexnet_jax.workdir.progress import Progress
from tests import small


class Running:
    """A number that is not there yet."""

    def __init__(self, number: int):
        self.number = number

    def is_ready(self) -> bool:
        return False


def metrics_of(loss: object) -> Metrics:
    return Metrics(loss, *(np.float64(1),) * 3)


@pytest.fixture
def events(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    """What happens to batches and metrics, as it happens."""
    happened: list[tuple[str, int]] = []

    def start(batch, mesh):
        happened.append(("put", sum(kind == "put" for kind, _ in happened)))
        return lambda: batch

    def get(metrics):
        if not isinstance(metrics, Metrics):
            return metrics
        happened.append(("get", metrics.loss.number))
        return metrics_of(np.float64(1))

    monkeypatch.setattr(sharding, "start_copy", start)
    monkeypatch.setattr(loop.jax, "device_get", get)
    return happened


def test_a_step_is_waited_for_when_the_next_one_runs(
    events: list, tiny_config: Callable, data_dir: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def step(state, batch, key):
        number = sum(kind == "step" for kind, _ in events)
        events.append(("step", number))
        return state, metrics_of(Running(number))

    def kernel_norms(params):  # which a CPU computes when the update is done
        events.append(("norms", sum(kind == "norms" for kind, _ in events)))
        return {}

    experiment = experiments.build(read_settings(tiny_config()), data_dir, say=print)
    experiment = dataclasses.replace(
        experiment, steps=experiment.steps._replace(train_step=step, kernel_norms=kernel_norms), num_steps=4
    )
    monkeypatch.setattr(loop, "evaluate", lambda *_, **__: metrics_of(1.0))
    monkeypatch.setattr(Checkpoints, "save", lambda *_, **__: None)
    folder = epath.Path(tmp_path)
    progress = Progress(folder, num_steps=4, steps_per_epoch=2.0, start_step=0)
    checkpoints = Checkpoints(folder)
    waits: list[float] = []
    monkeypatch.setattr(Progress, "step", lambda self, step, metrics, *, waited, **_: waits.append(waited))
    made = Loop(experiment, FromDisk(experiment), checkpoints, progress, Interruption())
    made.run(TrainState(np.int32(0), None, None, ()), 0)
    progress.close()
    checkpoints.close()
    order = ["put 0", "step 0", "norms 0"]
    for number in range(1, 4):
        order += [f"put {number}", f"step {number}", f"get {number - 1}", f"norms {number}"]
    assert [f"{kind} {number}" for kind, number in events] == [*order, "get 3"]
    assert waits[0] > 0 and waits[1:] == [0.0] * 3, "no device waits while an update runs"


@pytest.fixture
def feed_of(
    events: list, tiny_config: Callable, data_dir: str, monkeypatch: pytest.MonkeyPatch
) -> Callable[[Iterator[Batch]], FromDisk]:
    """A feed of batches from worker processes, for a run of three updates."""

    def step(state, batch, key):
        events.append(("step", sum(kind == "step" for kind, _ in events)))
        return state, metrics_of(np.float64(1))

    def make(batches: Iterator[Batch]) -> FromDisk:
        experiment = experiments.build(read_settings(tiny_config(batch_size=2)), data_dir, say=print)
        experiment = dataclasses.replace(experiment, steps=experiment.steps._replace(train_step=step), num_steps=3)
        monkeypatch.setattr(feed_module.build, "training_batches", lambda *_, **__: batches)
        feed = FromDisk(experiment, mock.Mock(spec=Workers))
        feed.start(0)
        return feed

    return make


def test_the_copy_of_a_batch_starts_before_the_update_that_precedes_it(events: list, feed_of: Callable):
    """A GPU overlaps a copy with an update only if the copy starts first."""
    feed, state = feed_of(small.batch(2) for _ in range(3)), TrainState(np.int32(0), None, None, ())
    for number in range(3):
        feed.update(state, feed.fetch(number, 1), jax.random.key(0))
    order = ["put 0", "put 1", "step 0", "put 2", "step 1", "step 2"]
    assert [f"{kind} {number}" for kind, number in events] == order


def test_a_batch_that_cannot_be_read_ends_the_run_after_the_updates_before_it(events: list, feed_of: Callable):
    def batches() -> Iterator[Batch]:
        yield from (small.batch(2) for _ in range(2))
        raise DatasetError("example 5 cannot be read")

    feed, state = feed_of(batches()), TrainState(np.int32(0), None, None, ())
    for number in range(2):
        feed.update(state, feed.fetch(number, 1), jax.random.key(0))
    with pytest.raises(DatasetError, match="example 5"):
        feed.fetch(2, 1)
    assert [f"{kind} {number}" for kind, number in events] == ["put 0", "put 1", "step 0", "step 1"]


def test_an_evaluation_waits_for_a_batch_when_the_next_one_runs(
    events: list, tiny_config: Callable, data_dir: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(batches, "MIN_CROPS", 1)

    def step(params, batch_stats, batch):
        number = sum(kind == "step" for kind, _ in events)
        events.append(("step", number))
        return metrics_of(Running(number))

    experiment = experiments.build(read_settings(tiny_config(batch_size=20)), data_dir, say=print)
    experiment = dataclasses.replace(experiment, steps=experiment.steps._replace(eval_step=step))
    metrics = error_rates.evaluate(experiment, None, None, views=1, feed=FromDisk(experiment), stop=lambda: False)
    order = ["put 0", "step 0", "put 1", "step 1", "get 0", "put 2", "step 2", "get 1", "get 2"]
    assert [f"{kind} {number}" for kind, number in events] == order
    assert metrics is not None and metrics.loss == 3


def test_an_evaluation_loss_that_is_not_finite_ends_the_run(monkeypatch: pytest.MonkeyPatch):
    """The last update may leave finite parameters that overflow, which no training loss shows."""
    monkeypatch.setattr(loop, "evaluate", lambda *_, **__: metrics_of(np.float64(np.nan)))
    made = mock.MagicMock()
    made._stop_not_finite.side_effect = NotFiniteError("diverged")
    with pytest.raises(NotFiniteError):
        Loop._measure(made, TrainState(np.int32(0), None, None, ()), 12, 1)
    made._stop_not_finite.assert_called_once_with(12, "evaluation loss")
