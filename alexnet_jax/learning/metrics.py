"""Metrics are sums and counts: adding merges them, and the mean is taken once, on the host."""

import flax.struct
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, PyTree


@flax.struct.dataclass
class Metrics:
    """Sums over `count` examples: scalars, on the device in float32, on the host in float64.

    Attributes:
      loss: cross-entropy, in nats.
      top1, top5: errors; a tie for the last place counts by its share, as in A/src/layer_kernels.cu:96-118.
      count: examples; padding counts for nothing.
    """

    loss: PyTree
    top1: PyTree
    top5: PyTree
    count: PyTree

    def __add__(self, other: "Metrics") -> "Metrics":
        return Metrics(self.loss + other.loss, self.top1 + other.top1, self.top5 + other.top5, self.count + other.count)

    def means(self) -> dict[str, float]:
        """Loss in nats and error rates in [0, 1], by name, on the host."""
        count = float(self.count)
        return {name: float(getattr(self, name)) / count for name in ("loss", "top1", "top5")}


ZERO = Metrics(*(np.float64(0),) * 4)


def measure(log_probs: Float[Array, "B classes"], labels: Int[Array, "B"], mask: Bool[Array, "B"]) -> Metrics:
    """Sums over the examples whose mask is True. With fewer than 6 classes the top-5 error is 0."""
    own = jnp.take_along_axis(log_probs, labels[:, None], axis=1)
    better = jnp.sum(log_probs > own, axis=1, dtype=jnp.float32)
    equal = jnp.sum(log_probs == own, axis=1, dtype=jnp.float32)

    def errors(k: float) -> Array:
        return 1 - jnp.clip((k - better) / equal, 0, 1)

    def total(values: Array) -> Array:
        return jnp.sum(jnp.where(mask, values, jnp.zeros((), values.dtype)))

    return Metrics(
        loss=total(-own[:, 0]),
        top1=total(errors(1.0)),
        top5=total(errors(5.0)),
        count=jnp.sum(mask, dtype=jnp.float32),
    )
