"""The update of 2012: `v <- 0.9 v - 0.0005 rate w - rate gradient`, `w <- w + v` (paper section 5).

The rate stands inside the velocity, so a lower rate does not rescale the velocity. Weight decay acts on kernels alone
(A/src/layer.cu:565). Kernels and biases have schedules of their own. A leaf whose rate is 0 is frozen: its velocity
does not move it either (A/src/weights.cu:148).
"""

from collections.abc import Callable, Sequence
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Int, PyTree

Schedule = Callable[[Int[Array, ""]], Array]  # a value by step


def piecewise(table: Sequence[tuple[int, float]]) -> Schedule:
    """A value by step from a table of `(first step, value)` in ascending order, starting at step 0."""

    def schedule(step: Int[Array, ""]) -> Array:
        value = jnp.float32(table[0][1])
        for first, later in table[1:]:
            value = jnp.where(step >= first, jnp.float32(later), value)
        return value

    return schedule


def cosine(schedule: Schedule, *, num_steps: int) -> Schedule:
    """The schedule times half a cosine, from 1 at step 0 to 0 at the end of the run (Loshchilov and Hutter 2016)."""
    return lambda step: schedule(step) * (0.5 * (1 + jnp.cos(jnp.pi * step.astype(jnp.float32) / num_steps)))


def warm_up(schedule: Schedule, *, steps: int) -> Schedule:
    """The schedule, reached by `steps` equal rises from 0 (Goyal et al. 2017)."""
    return lambda step: schedule(step) * jnp.minimum(1.0, (step.astype(jnp.float32) + 1) / steps)


@flax.struct.dataclass
class Velocity:
    """State of the update: the velocity of every parameter."""

    velocity: PyTree


def krizhevsky_sgd(
    rates: PyTree,
    *,
    momentum: float,
    weight_decay: PyTree,
    nesterov: bool = False,
    clip_norm: float | None = None,
    trust: float | None = None,
) -> optax.GradientTransformationExtraArgs:
    """The 2012 update (A/src/weights.cu:146-197), with later additions on request.

    `update(gradients, state, params, step=step, factor=1.0)` takes the run's step, at which `rates` are read, and a
    factor that multiplies every rate.

    Args:
      rates: a schedule for every leaf of the parameters.
      momentum: 0.9 in 2012.
      weight_decay: a number for all, or a number for every leaf; leaves named `kernel` alone decay. 0.0005 in 2012.
      nesterov: the update is `momentum v - rate gradient` with the new v (Sutskever et al. 2013).
      clip_norm: the gradient of all parameters is shortened to this length where it is longer.
      trust: LARS (You et al. 2017, equation 6): the decayed gradient of a kernel is multiplied by the local rate,
        `trust |w| / (|gradient| + weight_decay |w|)`, the lengths of both towers together, or by 1 while the kernel or
        its gradient is 0.
    """
    clip = None if clip_norm is None else optax.clip_by_global_norm(clip_norm)

    def decayed(path: tuple[Any, ...], gradient: Array, weight: Array, decay: float) -> Array:
        if path[-1].key != "kernel":
            return gradient
        total = gradient + decay * weight
        if trust is None:
            return total
        weights, lengths = jnp.linalg.norm(weight.ravel()), jnp.linalg.norm(gradient.ravel())
        local = trust * weights / (lengths + decay * weights)
        return total * jnp.where((weights > 0) & (lengths > 0), local, jnp.ones_like(local))

    def init(params: PyTree) -> Velocity:
        return Velocity(jax.tree.map(jnp.zeros_like, params))

    def update(
        gradients: PyTree,
        state: Velocity,
        params: PyTree | None = None,
        *,
        step: Array,
        factor: Array | float = 1.0,
        **_: Any,
    ) -> tuple[PyTree, Velocity]:
        if params is None:
            raise ValueError("weight decay needs the parameters: call update(gradients, state, params, step=step)")
        if clip is not None:
            gradients, _ = clip.update(gradients, optax.EmptyState())
        decays = weight_decay
        if isinstance(decays, (int, float)):
            decays = jax.tree.map(lambda _: weight_decay, gradients)
        gradients = jax.tree_util.tree_map_with_path(decayed, gradients, params, decays)

        def moved(gradient: Array, velocity: Array, schedule: Schedule) -> tuple[Array, Array]:
            rate = (schedule(step) * factor).astype(gradient.dtype)
            # The change is computed from the velocity that is kept: XLA for a CPU then reads it, where it would compute
            # both from the old values, and copy these first.
            new = jnp.where(rate == 0, velocity, momentum * velocity - rate * gradient)
            change = momentum * new - rate * gradient if nesterov else new
            return new, jnp.where(rate == 0, jnp.zeros_like(change), change)

        pairs = jax.tree.map(moved, gradients, state.velocity, rates)
        velocity, updates = jax.tree.transpose(jax.tree.structure(gradients), jax.tree.structure((0, 0)), pairs)
        return updates, Velocity(velocity)

    return optax.GradientTransformationExtraArgs(init, update)
