"""The order of what the training loop does, and the account of its time."""

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from etils import epath

from alexnet_jax import train
from alexnet_jax.benchmarks.run import RunResult, describe
from alexnet_jax.experiment import build as experiments
from alexnet_jax.experiment.settings import read_settings
from alexnet_jax.learning.metrics import Metrics
from alexnet_jax.learning.step import TrainState
from alexnet_jax.runtime.interruption import Interruption
from alexnet_jax.workdir import progress as reports
from alexnet_jax.workdir.checkpoint import Checkpoints
from alexnet_jax.workdir.progress import Report


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

    def put(batch, mesh):
        happened.append(("put", sum(kind == "put" for kind, _ in happened)))
        return batch

    def get(metrics):
        happened.append(("get", metrics.loss.number))
        return metrics_of(np.float64(1))

    monkeypatch.setattr(sharding, "put_batch", put)
    monkeypatch.setattr(train.jax, "device_get", get)
    return happened


def test_a_step_is_waited_for_when_the_next_one_runs(
    events: list, tiny_config: Callable, data_dir: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def step(state, batch, key):
        number = sum(kind == "step" for kind, _ in events)
        events.append(("step", number))
        return state, metrics_of(Running(number))

    experiment = experiments.build(read_settings(tiny_config()), data_dir, say=print)
    experiment = dataclasses.replace(experiment, train_step=step, num_steps=4)
    for name in ("_evaluate", "_save"):
        monkeypatch.setattr(train.Loop, name, lambda *_: None)
    folder = epath.Path(tmp_path)
    report = Report(folder, num_steps=4, steps_per_epoch=2.0, start_step=0)
    checkpoints = Checkpoints(folder)
    train.Loop(experiment, checkpoints, report, Interruption()).run(TrainState(0, None, ()), 0)
    report.close()
    checkpoints.close()
    order = ["put 0", "step 0", "put 1", "step 1", "get 0", "put 2", "step 2", "get 1", "put 3", "step 3", "get 2"]
    assert [f"{kind} {number}" for kind, number in events] == [*order, "get 3"]


def test_an_evaluation_waits_for_a_batch_when_the_next_one_runs(
    events: list, tiny_config: Callable, data_dir: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(experiments, "EVALUATED", 1)

    def step(params, batch):
        number = sum(kind == "step" for kind, _ in events)
        events.append(("step", number))
        return metrics_of(Running(number))

    experiment = experiments.build(read_settings(tiny_config(batch_size=20)), data_dir, say=print)
    experiment = dataclasses.replace(experiment, eval_step=step)
    metrics = experiments.evaluate(experiment, None, views=1)
    order = ["put 0", "step 0", "put 1", "step 1", "get 0", "put 2", "step 2", "get 1", "get 2"]
    assert [f"{kind} {number}" for kind, number in events] == order
    assert metrics is not None and metrics.loss == 3


def test_the_account_names_where_the_time_went(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    now = 100.0
    monkeypatch.setattr(reports.time, "monotonic", lambda: now)
    report = Report(epath.Path(tmp_path), num_steps=9, steps_per_epoch=3.0, start_step=0)
    now += 8  # compilation
    report.step(1, metrics_of(1.0), waited=0.5)
    for step in range(2, 7):
        now += 2
        report.step(step, metrics_of(1.0), waited=0.0)
    now += 2 + 0.25
    report.step(7, metrics_of(1.0), waited=0.25)
    with report.aside("evaluation"):
        now += 5
    for step in (8, 9):
        now += 2 + 0.5  # nobody says why
        report.step(step, metrics_of(1.0), waited=0.0)
    account = report.account()
    report.close()
    assert (account.updates, account.total, account.first, account.step) == (8, 30.25, 8, 2)
    assert (account.waited, account.aside, account.rest) == (0.25, {"evaluation": 5}, 1.0)
    lines = describe(RunResult(account, batch_size=32))
    assert "8 updates after the first, 2000.0 ms each (median), are 16.0 s: 16.0 images/s" in lines[0]
    assert any(line.split() == ["evaluation", "5.00", "s", "31.25%"] for line in lines)
    assert lines[-2].split() == ["all", "beside", "the", "updates", "14.25", "s", "89.06%"]
