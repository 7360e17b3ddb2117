"""Division of the rates by 10 when the validation error stops falling (paper section 5).

In 2012 this was judged by eye. Here an evaluation is progress if its error is the smallest so far. The memory of
evaluations is a field of the training state, and so of the checkpoint: a resumed run drops its rates where the
uninterrupted run does.
"""

import flax.struct
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PyTree


@flax.struct.dataclass
class Plateau:
    """The memory of evaluations. The fields hold scalars, or what stands for scalars: shapes or shardings.

    Attributes:
      best: smallest validation error, or infinity before the first evaluation.
      waited: evaluations since then.
      drops: how often the rates were divided by 10.
      seen: step of the last evaluation.
    """

    best: PyTree
    waited: PyTree
    drops: PyTree
    seen: PyTree

    @property
    def factor(self) -> Float[Array, ""]:
        """The rates are multiplied by this."""
        return jnp.float32(10.0) ** -self.drops.astype(jnp.float32)


def fresh() -> Plateau:
    """The memory before the first evaluation."""
    zero = jnp.zeros((), jnp.int32)
    return Plateau(best=jnp.full((), jnp.inf, jnp.float32), waited=zero, drops=zero, seen=zero)


def observe(
    plateau: Plateau, error: Float[Array, ""], step: Int[Array, ""], *, patience: int, max_drops: int
) -> Plateau:
    """The memory after an evaluation.

    Args:
      plateau: the memory before the evaluation.
      error: top-1 error of the evaluation. An error that is not finite is no progress.
      step: updates done.
      patience: so many evaluations without progress divide the rates.
      max_drops: the most divisions; 3 in the paper.
    """
    better = error < plateau.best  # False for NaN
    waited = jnp.where(better, 0, plateau.waited + 1)
    drop = (waited >= patience) & (plateau.drops < max_drops)
    return Plateau(
        best=jnp.where(better, error, plateau.best),
        waited=jnp.where(drop, 0, waited).astype(jnp.int32),
        drops=plateau.drops + drop.astype(jnp.int32),
        seen=step,
    )
