"""Measures a run: where its time goes beside its updates."""

import contextlib
import dataclasses
import sys
import tempfile

import jax
from etils import epath

from alexnet_jax.experiment import build as experiments
from alexnet_jax.experiment.settings import Settings
from alexnet_jax.runtime.interruption import Interruption
from alexnet_jax.train import Loop
from alexnet_jax.workdir.checkpoint import Checkpoints
from alexnet_jax.workdir.progress import Account, Report


@dataclasses.dataclass(frozen=True)
class RunResult:
    """What was measured.

    Attributes:
      account: of the time.
      batch_size: images an update.
    """

    account: Account
    batch_size: int


def measure(settings: Settings, data_dir: str | None, *, updates: int | None) -> RunResult:
    """Trains and evaluates as `main` does, in a workdir that is then removed.

    Args:
      settings: of the experiment.
      data_dir: of prepared data sets; None: TFDS's own.
      updates: the run ends after so many, with evaluation and save as at every end; None: as the settings say.
    """
    with contextlib.redirect_stdout(sys.stderr), tempfile.TemporaryDirectory() as temporary:
        folder = epath.Path(temporary)
        experiment = experiments.build(settings, data_dir, say=print)
        if updates is not None:
            experiment = dataclasses.replace(experiment, num_steps=min(updates, experiment.num_steps))
        checkpoints, state = Checkpoints(folder), experiment.init()
        report = Report(
            folder, num_steps=experiment.num_steps, steps_per_epoch=experiment.steps_per_epoch, start_step=0
        )
        with jax.transfer_guard("disallow"):
            loop = Loop(experiment, checkpoints, report, Interruption())
            loop.final_evaluation(loop.run(state, 0))
        with report.aside("saves"):
            checkpoints.wait()
        account = report.account()
        report.close()
        checkpoints.close()
    return RunResult(account, settings.batch_size)


def describe(result: RunResult) -> list[str]:
    """The account as lines: what takes time beside the updates, in seconds and as a share of theirs."""
    account = result.account
    updates = account.updates * account.step
    beside = {"first update, with compilation": account.first, "waiting for input": account.waited} | account.aside
    lines = [
        f"{account.updates:,} updates after the first, {account.step * 1e3:.1f} ms each (median), are {updates:.1f} s:"
        f" {result.batch_size / account.step:,.1f} images/s",
        *(_line(name, seconds, updates) for name, seconds in (beside | {"the rest": account.rest}).items()),
        _line("all beside the updates", account.total - updates, updates),
    ]
    return [*lines, f"telling and writing took {account.reporting:.1f} s while updates ran"]


def _line(name: str, seconds: float, updates: float) -> str:
    return f"  {name:32}{seconds:9.2f} s {seconds / updates:9.2%}"
