"""Notices a run whose loss stays where it begins."""

import math
from collections import Counter, deque
from collections.abc import Callable, Sequence

WINDOW = 50  # updates whose loss is averaged
SHARE = 0.98  # of the loss of guessing; a loss above this share is that of guessing
FEW_CLASSES = 100  # whose frequencies `LABELS` labels show
LABELS = 2000
LATEST = 2000  # updates after which even a slow recipe has begun to learn


class StuckLoss:
    """Checks once, early in a run, whether the loss is still that of guessing.

    Guessing has a loss of ln(classes) nats. A network that has learned the frequencies of the classes alone has the
    entropy of these frequencies, which is less where the classes are not equally frequent.

    Args:
      classes: of the data set.
      num_steps: of the whole run.
      labels: gives labels of training images, all or `LABELS` of them. It is called at most once, when the check is
        due, and only where the classes are few.

    Attributes:
      after: updates before the check: a tenth of the run, but at least two windows, of which the first does not count,
        and at most `LATEST`.
    """

    def __init__(self, *, classes: int, num_steps: int, labels: Callable[[], Sequence[int]]):
        self._classes, self._labels = classes, labels
        self.after = max(2 * WINDOW, min(LATEST, num_steps // 10))
        self._last: deque[float] = deque(maxlen=WINDOW)

    def add(self, step: int, loss: float) -> str | None:
        """Adds the mean loss of the update that made `step`; returns a description if the check is due and fails."""
        self._last.append(loss)
        if step != self.after:
            return None
        mean, guessing = sum(self._last) / len(self._last), math.log(self._classes)
        plateau = f"after {step:,} updates the loss, {mean:.4f}, is still that of"
        if mean >= SHARE * guessing:
            return f"{plateau} guessing among {self._classes:,} classes, {guessing:.4f}"
        labels = self._labels() if self._classes <= FEW_CLASSES else ()
        frequencies = entropy(labels)
        if labels and mean >= SHARE * frequencies:
            return f"{plateau} a network that has learned the frequencies of the classes alone, {frequencies:.4f}"
        return None


def entropy(labels: Sequence[int]) -> float:
    """Of the frequencies of the labels, in nats."""
    shares = [count / len(labels) for count in Counter(labels).values()]
    return -sum(share * math.log(share) for share in shares)
