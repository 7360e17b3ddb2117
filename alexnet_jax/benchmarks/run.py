"""Measures a whole run: the time of its updates, and of everything else."""

import contextlib
import dataclasses
import sys
import tempfile

import jax
from etils import epath

from alexnet_jax.errors import UsageError
from alexnet_jax.experiment import build
from alexnet_jax.experiment.feed import open_feed
from alexnet_jax.experiment.fields import Settings
from alexnet_jax.loop import Loop
from alexnet_jax.network.native import build as native
from alexnet_jax.runtime.interruption import Interruption
from alexnet_jax.workdir.checkpoint import Checkpoints
from alexnet_jax.workdir.progress import Progress, TimeBreakdown


@dataclasses.dataclass(frozen=True)
class RunResult:
    """The measurements.

    Attributes:
      account: the time of the run by purpose.
      batch_size: images an update.
    """

    account: TimeBreakdown
    batch_size: int


def measure(settings: Settings, data_dir: str | None, *, updates: int | None) -> RunResult:
    """Trains and evaluates as `main` does, in a temporary workdir.

    Args:
      settings: of the experiment.
      data_dir: folder of prepared data sets; None: TFDS's default folder.
      updates: length of the run, which ends with an evaluation and a save; None: the length in the settings.

    Raises:
      UsageError: the data set is missing, or the run has fewer than two updates.
    """
    with contextlib.redirect_stdout(sys.stderr), tempfile.TemporaryDirectory() as temporary:
        folder = epath.Path(temporary)
        experiment = build.build(settings, data_dir, say=print)
        if line := native.load_once().line:
            print(line)
        if updates is not None:
            experiment = dataclasses.replace(experiment, num_steps=min(updates, experiment.num_steps))
        if experiment.num_steps < 2:
            raise UsageError("the run has one update, whose time is mostly that of compilation; give it more epochs")
        checkpoints, state = Checkpoints(folder), experiment.steps.init(experiment.key)
        progress = Progress(
            folder, num_steps=experiment.num_steps, steps_per_epoch=experiment.steps_per_epoch, start_step=0
        )
        with jax.transfer_guard("disallow"), contextlib.closing(open_feed(experiment, say=print)) as feed:
            loop = Loop(experiment, feed, checkpoints, progress, Interruption())
            loop.final_evaluation(loop.run(state, 0))
        with progress.paused("saves"):
            checkpoints.wait()
        account = progress.breakdown()
        progress.close()
        checkpoints.close()
    return RunResult(account, settings.batch_size)


def describe(result: RunResult) -> list[str]:
    """The account as lines. Times beside the updates are in seconds, and as a share of the updates' time."""
    account = result.account
    updates = account.updates * account.step
    beside = {"first update, with compilation": account.first, "waiting for input": account.waited} | account.paused
    lines = [
        f"{account.updates:,} updates after the first, {account.step * 1e3:.1f} ms each (median), are {updates:.1f} s:"
        f" {result.batch_size / account.step:,.1f} images/s",
        *(_line(name, seconds, updates) for name, seconds in (beside | {"the rest": account.rest}).items()),
        _line("all beside the updates", account.total - updates, updates),
    ]
    return [*lines, f"printing and writing metrics took {account.reporting:.1f} s while updates ran"]


def _line(name: str, seconds: float, updates: float) -> str:
    return f"  {name:32}{seconds:9.2f} s {seconds / updates:9.2%}"
