"""The schedule of a run: rates and colour noise by step, and the memory of a schedule that watches evaluations."""

import functools
from collections.abc import Callable

from alexnet_jax.errors import UsageError
from alexnet_jax.experiment.checks import LARGEST_STEP
from alexnet_jax.experiment.fields import Settings, Table
from alexnet_jax.learning import optimizer, plateau

SHARES = ("run", "cosine")  # schedules whose positions are shares of the run


def past_is_kept(settings: Settings) -> bool:
    """Whether more epochs leave the rates and the noise of earlier updates as they are.

    Positions in epochs or updates do not move with the length of the run, and shares of the run do. A plateau remembers
    the evaluation at the end of the shorter run, which the longer run would not have made.
    """
    if settings.schedule != "run":
        return settings.schedule in ("epochs", "steps")
    rates = settings.rates.values()
    tables = [settings.photometry.noise, *(rate.kernel for rate in rates), *(rate.bias for rate in rates)]
    return all(len(table) == 1 for table in tables)


class Schedule:
    """A config's tables, by epoch, step or share of the run, as functions of the step.

    Args:
      settings: `schedule` names the unit of a table's positions: epochs (`epochs`, `plateau`), updates (`steps`), or
        shares of the run from 0 to 1 (`run`, `cosine`).
      steps_per_epoch: not whole in general.

    Attributes:
      num_steps: updates of the whole run.
      warmup_steps: updates over which rates rise.
      memory: of evaluations, before the first; None: the schedule follows the step alone and wants no evaluations.
      observe: `(memory, top-1 error, step) -> memory` after an evaluation; None with a memory of None.

    Raises:
      UsageError: the run has too many updates.
    """

    def __init__(self, settings: Settings, steps_per_epoch: float):
        self._settings = settings
        assert settings.num_epochs is not None, "`follow.with_epochs` gives the number"
        self.num_steps = max(1, round(settings.num_epochs * steps_per_epoch))
        if self.num_steps > LARGEST_STEP:
            raise UsageError(
                f"config.num_epochs is {settings.num_epochs:g}, which is {self.num_steps:,} updates; a run has at most"
                f" {LARGEST_STEP:,}"
            )
        self.warmup_steps = max(1, round(settings.warmup_epochs * steps_per_epoch))
        units = {"steps": 1.0} | dict.fromkeys(SHARES, float(self.num_steps))
        self._unit = units.get(settings.schedule, steps_per_epoch)
        self.memory: plateau.Plateau | None = None
        self.observe: Callable[..., plateau.Plateau] | None = None
        if settings.schedule == "plateau":
            self.memory = plateau.fresh()
            self.observe = functools.partial(
                plateau.observe, patience=settings.plateau.patience, max_drops=settings.plateau.drops
            )

    def by_step(self, table: Table, path: str) -> list[tuple[int, float]]:
        """The table with steps for positions.

        Args:
          table: of the config.
          path: its field, such as `rates.all.kernel`.

        Raises:
          UsageError: a position lies past the end of the run.
        """
        by_step = [(round(position * self._unit), value) for position, value in table]
        if by_step[-1][0] < self.num_steps:
            return by_step
        last, name = table[-1][0], self._settings.schedule
        if name in SHARES and last >= 1:
            raise UsageError(
                f"config.{path} changes at {last:g}: with config.schedule {name!r} positions are shares of the run,"
                " at least 0 and less than 1"
            )
        raise UsageError(
            f"config.{path} changes at {last:g}, which is step {by_step[-1][0]:,} of a run of {self.num_steps:,};"
            " shorten it, or raise config.num_epochs"
        )

    def rate(self, table: Table, path: str) -> optimizer.Schedule:
        """A learning rate: the table, times a cosine where the schedule is one, after the warm-up.

        The arguments and the errors are those of `by_step`.
        """
        schedule = optimizer.piecewise(self.by_step(table, path))
        if self._settings.schedule == "cosine":
            schedule = optimizer.cosine(schedule, num_steps=self.num_steps)
        if self._settings.warmup_epochs:
            schedule = optimizer.warm_up(schedule, steps=self.warmup_steps)
        return schedule

    def noise(self) -> optimizer.Schedule:
        """Strength of the colour noise."""
        return optimizer.piecewise(self.by_step(self._settings.photometry.noise, "photometry.noise"))
