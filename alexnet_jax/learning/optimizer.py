"""The update of 2012: `v <- 0.9 v - 0.0005 rate w - rate gradient`, `w <- w + v` (paper section 5).

The rate stands inside the velocity, so lowering it does not rescale what is already moving. Decay acts on kernels
alone (A/src/layer.cu:565), kernels and biases have schedules of their own, and a leaf whose rate is 0 is frozen: not
even its velocity moves it (A/src/weights.cu:148).
"""

from collections.abc import Callable, Sequence
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int, PyTree

from alexnet_jax.learning import plateau as plateaus

Schedule = Callable[[Int[Array, ""]], Array]

# Leaves that no loss moves: their gradient is their distance from what they follow (`network/layers.py:batch_norm`).
RUNNING = ("mean", "variance")
RUNNING_SHARE = 0.1  # of that distance, an update


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
class KrizhevskyState:
    """State of the update.

    Attributes:
      count: updates done, an int32 scalar.
      velocity: of every parameter.
      plateau: what a plateau schedule has seen of evaluations; None without one.
    """

    count: PyTree
    velocity: PyTree
    plateau: PyTree = None


def krizhevsky_sgd(
    rates: PyTree,
    *,
    momentum: float,
    weight_decay: PyTree,
    nesterov: bool = False,
    clip_norm: float | None = None,
    trust: float | None = None,
    plateau: bool = False,
) -> optax.GradientTransformation:
    """The 2012 update (A/src/weights.cu:146-197) as an optax transformation, and what came later on request.

    Args:
      rates: a schedule for every leaf of the parameters; its count is the number of updates done.
      momentum: 0.9 in 2012.
      weight_decay: a number for all, or one for every leaf; for leaves named `kernel` alone. 0.0005 in 2012.
      nesterov: the update is `momentum v - rate gradient` with the new v (Sutskever et al. 2013).
      clip_norm: the gradient is shortened to this length where it is longer, over all parameters.
      trust: LARS (You et al. 2017): a kernel's rate is multiplied by `trust |w| / (|gradient| + decay |w|)`.
      plateau: the rates are divided by 10 as `plateau.observe` says.
    """

    def init(params: PyTree) -> KrizhevskyState:
        velocity = jax.tree.map(jnp.zeros_like, params)
        return KrizhevskyState(jnp.zeros((), jnp.int32), velocity, plateaus.fresh() if plateau else None)

    def update(gradients: PyTree, state: Any, params: PyTree | None = None) -> tuple[PyTree, KrizhevskyState]:
        if params is None:
            raise ValueError("weight decay needs the parameters: call update(gradients, state, params)")
        shrink = None if clip_norm is None else jnp.minimum(1, clip_norm / _length(gradients))

        def leaf(path: tuple[Any, ...], gradient: Array, velocity: Array, weight: Array, rate: Schedule, decay: float):
            name = path[-1].key
            if name in RUNNING:
                return velocity, -RUNNING_SHARE * gradient
            now = rate(state.count)
            if state.plateau is not None:
                now = now * state.plateau.factor
            now = now.astype(weight.dtype)
            frozen = now == 0
            if shrink is not None:
                gradient = gradient * shrink
            if name == "kernel":
                if trust is not None:
                    now = now * _local_rate(weight, gradient, decay=decay, trust=trust)
                gradient = gradient + decay * weight
            moved = momentum * velocity - now * gradient
            step = momentum * moved - now * gradient if nesterov else moved
            return jnp.where(frozen, velocity, moved), jnp.where(frozen, jnp.zeros((), moved.dtype), step)

        decays = jax.tree.map(lambda _: weight_decay, gradients) if isinstance(weight_decay, float) else weight_decay
        pairs = jax.tree_util.tree_map_with_path(leaf, gradients, state.velocity, params, rates, decays)
        velocity, updates = jax.tree.transpose(jax.tree.structure(gradients), jax.tree.structure((0, 0)), pairs)
        return updates, state.replace(count=state.count + 1, velocity=velocity)

    return optax.GradientTransformation(init, update)


def _length(gradients: PyTree) -> Float[Array, ""]:
    """Euclidean, over all leaves that a loss moves."""
    leaves = jax.tree_util.tree_leaves_with_path(gradients)
    return jnp.sqrt(sum(jnp.sum(jnp.square(leaf)) for path, leaf in leaves if path[-1].key not in RUNNING))


def _local_rate(weight: Array, gradient: Array, *, decay: float, trust: float) -> Float[Array, ""]:
    """LARS's rate of a layer, of both towers together; 1 while the kernel or its gradient is 0."""
    weights, gradients = (jnp.sqrt(jnp.sum(jnp.square(x))) for x in (weight, gradient))
    local = trust * weights / (gradients + decay * weights)
    return jnp.where((weights > 0) & (gradients > 0), local, jnp.ones((), weight.dtype))
