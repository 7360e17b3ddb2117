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
from jaxtyping import Array, Int, PyTree

Schedule = Callable[[Int[Array, ""]], Array]


def piecewise(table: Sequence[tuple[int, float]]) -> Schedule:
    """A value by step from a table of `(first step, value)` in ascending order, starting at step 0."""

    def schedule(step: Int[Array, ""]) -> Array:
        value = jnp.float32(table[0][1])
        for first, later in table[1:]:
            value = jnp.where(step >= first, jnp.float32(later), value)
        return value

    return schedule


@flax.struct.dataclass
class KrizhevskyState:
    """`count`: updates done, an int32 scalar. `velocity`: of every parameter."""

    count: PyTree
    velocity: PyTree


def krizhevsky_sgd(rates: PyTree, *, momentum: float, weight_decay: float) -> optax.GradientTransformation:
    """The 2012 update (A/src/weights.cu:146-197) as an optax transformation.

    Args:
      rates: a schedule for every leaf of the parameters; its count is the number of updates done.
      momentum: 0.9 in 2012.
      weight_decay: 0.0005 in 2012; for leaves named `kernel` alone.
    """

    def init(params: PyTree) -> KrizhevskyState:
        return KrizhevskyState(jnp.zeros((), jnp.int32), jax.tree.map(jnp.zeros_like, params))

    def update(gradients: PyTree, state: Any, params: PyTree | None = None) -> tuple[PyTree, KrizhevskyState]:
        if params is None:
            raise ValueError("weight decay needs the parameters: call update(gradients, state, params)")

        def leaf(path: tuple[Any, ...], gradient: Array, velocity: Array, weight: Array, rate: Schedule):
            now = rate(state.count)
            if path[-1].key == "kernel":
                gradient = gradient + weight_decay * weight
            moved = momentum * velocity - now * gradient
            frozen = now == 0
            return jnp.where(frozen, velocity, moved), jnp.where(frozen, jnp.zeros((), moved.dtype), moved)

        pairs = jax.tree_util.tree_map_with_path(leaf, gradients, state.velocity, params, rates)
        velocity, updates = jax.tree.transpose(jax.tree.structure(gradients), jax.tree.structure((0, 0)), pairs)
        return updates, KrizhevskyState(state.count + 1, velocity)

    return optax.GradientTransformation(init, update)
