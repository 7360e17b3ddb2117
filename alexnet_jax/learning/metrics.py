"""Metrics are sums and counts: adding merges them, and the mean is taken once, on the host."""

import flax.struct
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, PyTree

TOP5_CLASSES = 6  # with fewer classes, five guesses are never wrong


@flax.struct.dataclass
class Metrics:
    """Sums over `count` examples: scalars, on the device in float32, on the host in float64.

    Attributes:
      loss: cross-entropy, in nats.
      top1, top5: errors. A tie for the last place counts by its share, as in A/src/layer_kernels.cu:96-118. With fewer
        than `TOP5_CLASSES` classes there is no top-5 error: `top5` is None.
      count: examples; padding is not counted.
    """

    loss: PyTree
    top1: PyTree
    top5: PyTree
    count: PyTree

    def __add__(self, other: "Metrics") -> "Metrics":
        top5 = None if self.top5 is None or other.top5 is None else self.top5 + other.top5
        return Metrics(self.loss + other.loss, self.top1 + other.top1, top5, self.count + other.count)

    def means(self) -> dict[str, float]:
        """Loss in nats and error rates in [0, 1], by name, on the host; without `top5` where there is none.

        Raises:
          ValueError: there are no examples, so there is no mean.
        """
        count = float(self.count)
        if count == 0:
            raise ValueError("the metrics hold no example, so they have no mean")
        sums = {"loss": self.loss, "top1": self.top1, "top5": self.top5}
        return {name: float(value) / count for name, value in sums.items() if value is not None}


ZERO = Metrics(*(np.float64(0),) * 4)


def measure(log_probs: Float[Array, "B classes"], labels: Int[Array, " B"], mask: Bool[Array, " B"]) -> Metrics:
    """Sums over the examples whose mask is True."""
    loss, top1, top5 = measure_each(log_probs, labels)

    def total(values: Array) -> Array:
        return jnp.sum(jnp.where(mask, values, jnp.zeros((), values.dtype)))

    return Metrics(
        loss=total(loss),
        top1=total(top1),
        top5=None if top5 is None else total(top5),
        count=jnp.sum(mask, dtype=jnp.float32),
    )


def measure_each(
    log_probs: Float[Array, "B classes"], labels: Int[Array, " B"]
) -> tuple[Float[Array, " B"], Float[Array, " B"], Float[Array, " B"] | None]:
    """Loss, top-1 error and top-5 error of each example, as `Metrics` sums them.

    An example with a log-probability that is not finite is an error, top-1 and top-5. Comparisons alone would count it
    as a hit: no number compares as greater than NaN.
    """
    own = jnp.take_along_axis(log_probs, labels[:, None], axis=1)
    better = jnp.sum(log_probs > own, axis=1, dtype=jnp.float32)
    equal = jnp.sum(log_probs == own, axis=1, dtype=jnp.float32)
    finite = jnp.isfinite(log_probs).all(axis=1)

    def errors(k: float) -> Array:
        hits = jnp.clip((k - better) / jnp.maximum(equal, 1), 0, 1)
        return 1 - jnp.where(finite, hits, 0)

    return -own[:, 0], errors(1.0), errors(5.0) if log_probs.shape[1] >= TOP5_CLASSES else None
