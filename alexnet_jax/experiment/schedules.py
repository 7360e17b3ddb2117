"""The network, its rates, schedules and update, from what the settings say of them."""

import dataclasses
import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh
from jaxtyping import PyTree

from alexnet_jax.errors import UsageError
from alexnet_jax.experiment.settings import Settings, Table
from alexnet_jax.learning import optimizer
from alexnet_jax.learning.plateau import observe
from alexnet_jax.learning.step import TrainState
from alexnet_jax.network import sharding
from alexnet_jax.network.tower import Tower, make_tower


def build_tower(settings: Settings, num_classes: int) -> Tower:
    """The settings' network for so many classes.

    Raises:
      UsageError: there is no such recipe, or the data set has other classes than the config says.
    """
    said = settings.dataset.classes
    if said is not None and said != num_classes:
        raise UsageError(
            f"config.dataset.classes is {said} and {settings.dataset.name} has {num_classes} classes;"
            " correct the config, or prepare the data set anew"
        )
    return make_tower(
        settings.network.recipe,
        num_classes=num_classes,
        width=settings.network.width,
        he_init=settings.network.he_init,
        dtype=jnp.bfloat16 if settings.network.bfloat16 else None,
    )


def steps_of(settings: Settings, steps_per_epoch: float) -> int:
    """Updates of the whole run."""
    return max(1, round(settings.num_epochs * steps_per_epoch))


class Clock:
    """Turns the tables of a config, by epoch or by share of the run, into schedules by step.

    Args:
      settings: `schedule` says what a table's positions are: epochs (`epochs`, `plateau`), updates (`steps`), or shares
        of the run from 0 to 1 (`run`, `cosine`).
      steps_per_epoch: not whole in general.
    """

    def __init__(self, settings: Settings, steps_per_epoch: float):
        self._settings = settings
        self.num_steps = steps_of(settings, steps_per_epoch)
        units = {"steps": 1.0, "run": self.num_steps, "cosine": self.num_steps}
        self.warmup_steps = max(1, round(settings.warmup_epochs * steps_per_epoch))
        self._unit = units.get(settings.schedule, steps_per_epoch)

    def by_step(self, table: Table) -> list[tuple[int, float]]:
        """The table with steps for positions.

        Raises:
          UsageError: it goes past the end of the run.
        """
        by_step = [(round(position * self._unit), value) for position, value in table]
        if by_step[-1][0] >= self.num_steps:
            raise UsageError(
                f"the schedule {table} changes at step {by_step[-1][0]} of a run of {self.num_steps};"
                " shorten it, or raise config.num_epochs"
            )
        return by_step

    def rate(self, table: Table) -> optimizer.Schedule:
        """A learning rate: the table, its cosine where the schedule is one, and the warm-up."""
        schedule = optimizer.piecewise(self.by_step(table))
        if self._settings.schedule == "cosine":
            schedule = optimizer.cosine(schedule, num_steps=self.num_steps)
        if self._settings.warmup_epochs:
            schedule = optimizer.warm_up(schedule, steps=self.warmup_steps)
        return schedule


def build_optimizer(
    settings: Settings, params: PyTree, rate: Callable[[Table], optimizer.Schedule]
) -> optax.GradientTransformation:
    """The 2012 update with the settings' rates; of `params` the names alone are used.

    Rates and decay of a layer hold for the norm that follows it too.

    Raises:
      UsageError: rates are given for a layer that the network does not have.
    """
    layers = [name for name in params if not name.endswith("_norm")]
    for key, given in (("rates", settings.rates), ("weight_decays", settings.weight_decays)):
        unknown = sorted(set(given) - {*layers, "all"})
        if unknown:
            raise UsageError(f"config.{key}.{unknown[0]} names no layer; the layers are {', '.join(layers)}")

    def rates_of(name: str, leaves: PyTree) -> PyTree:
        own = settings.rates.get(name.removesuffix("_norm"), settings.rates["all"])
        return {leaf: rate(own.bias if leaf == "bias" else own.kernel) for leaf in leaves}

    def decay_of(name: str) -> float:
        return settings.weight_decays.get(name.removesuffix("_norm"), settings.weight_decay)

    return optimizer.krizhevsky_sgd(
        {name: rates_of(name, leaves) for name, leaves in params.items()},
        momentum=settings.momentum,
        weight_decay={name: dict.fromkeys(leaves, decay_of(name)) for name, leaves in params.items()},
        nesterov=settings.nesterov,
        clip_norm=settings.clip_norm,
        trust=settings.lars_trust,
        plateau=settings.schedule == "plateau",
    )


def build_observe(settings: Settings, mesh: Mesh) -> Callable[[TrainState, float], TrainState]:
    """What tells the state of an evaluation's top-1 error."""
    compiled = jax.jit(
        functools.partial(observe, patience=settings.plateau.patience, max_drops=settings.plateau.drops),
        out_shardings=sharding.replicated(mesh),
    )

    def update(state: TrainState, top1: float) -> TrainState:
        error = sharding.put_scalar(np.float32(top1), mesh)
        plateau = compiled(state.opt_state.plateau, error, state.step)
        return TrainState(state.step, state.params, dataclasses.replace(state.opt_state, plateau=plateau))

    return update
