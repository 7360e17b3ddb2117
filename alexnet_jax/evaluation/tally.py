"""Sums over a stream of predictions: loss and errors in all and by class, and which class was predicted as which."""

import jax
import numpy as np
from jaxtyping import Float, Int

from alexnet_jax.learning.metrics import TOP5_CLASSES, Metrics, measure_each

_measure_each = jax.jit(measure_each)


class Tally:
    """Sums of predictions so far.

    Attributes:
      count: examples of each class.
      top1, top5: sums of the errors of each class; `top5` is None with fewer than six classes.
      loss: sum over all examples, in nats.
      undefined: examples with a probability that is not finite. They count as errors, and are in no column of
        `confusion`.

    Args:
      classes: how many there are.
    """

    def __init__(self, classes: int):
        self.count = np.zeros(classes, np.int64)
        self.top1 = np.zeros(classes)
        self.top5 = np.zeros(classes) if classes >= TOP5_CLASSES else None
        self.loss = 0.0
        self.undefined = 0
        self._labels: list[np.ndarray] = []  # 8 bytes an example, where a matrix may take gigabytes
        self._predicted: list[np.ndarray] = []

    def add(self, labels: Int[np.ndarray, " b"], log_probs: Float[np.ndarray, "b classes"]) -> None:
        """Adds the predictions for some examples."""
        loss, top1, top5 = jax.device_get(_measure_each(log_probs, labels))
        self.loss += float(loss.sum(dtype=np.float64))
        np.add.at(self.count, labels, 1)
        np.add.at(self.top1, labels, top1)
        if self.top5 is not None:
            np.add.at(self.top5, labels, top5)
        predicted = predicted_classes(log_probs)
        self.undefined += int((predicted < 0).sum())
        self._labels.append(labels.astype(np.int32))
        self._predicted.append(predicted.astype(np.int32))

    def means(self) -> dict[str, float]:
        """Loss and error rates of all examples, by name, as `Metrics.means` has them.

        Raises:
          ValueError: there are no examples.
        """
        top5 = None if self.top5 is None else self.top5.sum()
        return Metrics(self.loss, self.top1.sum(), top5, self.count.sum()).means()

    def confusion(self) -> Int[np.ndarray, "classes classes"]:
        """How many examples of each true class (rows) were predicted as each class (columns)."""
        return confusion(np.concatenate(self._labels), np.concatenate(self._predicted), len(self.count))

    def by_class(self, sums: Float[np.ndarray, " classes"]) -> list[float | None]:
        """The error rate of each class; None: the class has no example."""
        return [float(error) / int(count) if count else None for error, count in zip(sums, self.count, strict=True)]


def predicted_classes(log_probs: Float[np.ndarray, "b classes"]) -> Int[np.ndarray, " b"]:
    """The likeliest class of each example, of equal ones the first; -1: a probability is not finite."""
    return np.where(np.isfinite(log_probs).all(axis=1), log_probs.argmax(axis=1), -1)


def confusion(
    labels: Int[np.ndarray, " n"], predicted: Int[np.ndarray, " n"], classes: int
) -> Int[np.ndarray, "classes classes"]:
    """How many examples of each true class (rows) were predicted as each class (columns).

    Args:
      labels: true classes.
      predicted: classes; -1: none, and the example is in no column.
      classes: how many there are.
    """
    matrix = np.zeros((classes, classes), np.int64)
    known = predicted >= 0
    np.add.at(matrix, (labels[known], predicted[known]), 1)
    return matrix
