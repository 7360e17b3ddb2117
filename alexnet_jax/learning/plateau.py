"""Dividing the rate by 10 when the validation error stops falling (paper section 5).

In 2012 this was judged by eye; here an evaluation counts as progress if its error is the smallest so far. What must be
remembered lies in the optimizer's state, and so in the checkpoint: a resumed run drops its rate where the uninterrupted
one does.
"""

import flax.struct
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PyTree


@flax.struct.dataclass
class Plateau:
    """What evaluations have shown so far; the fields hold scalars, or what stands for them.

    Attributes:
      best: smallest validation error, or infinity before the first evaluation.
      waited: evaluations since then.
      drops: how often the rate was divided by 10.
      seen: the step of the last evaluation taken into account.
    """

    best: PyTree
    waited: PyTree
    drops: PyTree
    seen: PyTree

    @property
    def factor(self) -> Float[Array, ""]:
        """By which the rates are multiplied."""
        return jnp.float32(10.0) ** -self.drops.astype(jnp.float32)


def fresh() -> Plateau:
    """Before the first evaluation."""
    nothing = jnp.zeros((), jnp.int32)
    return Plateau(best=jnp.full((), jnp.inf, jnp.float32), waited=nothing, drops=nothing, seen=nothing)


def observe(
    plateau: Plateau, error: Float[Array, ""], step: Int[Array, ""], *, patience: int, max_drops: int
) -> Plateau:
    """The plateau after an evaluation.

    Args:
      plateau: before it.
      error: its top-1 error.
      step: updates done.
      patience: evaluations without progress that make a drop.
      max_drops: 3 in the paper; after them the rate stays.
    """
    better = error < plateau.best
    waited = jnp.where(better, 0, plateau.waited + 1)
    drop = (waited >= patience) & (plateau.drops < max_drops)
    return Plateau(
        best=jnp.minimum(plateau.best, error),
        waited=jnp.where(drop, 0, waited).astype(jnp.int32),
        drops=plateau.drops + drop.astype(jnp.int32),
        seen=step,
    )
