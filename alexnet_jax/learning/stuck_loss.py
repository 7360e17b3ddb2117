"""Notices a run whose loss stays where it begins."""

import math
from collections import deque

WINDOW = 50  # updates whose loss is averaged
SHARE = 0.98  # of ln(classes), the loss of guessing; a loss above this share is that of guessing
LATEST = 2000  # updates after which even a slow recipe has begun to learn


class StuckLoss:
    """Checks once, early in a run, whether the loss is still that of guessing.

    Args:
      classes: of the data set; guessing has a loss of ln(classes) nats.
      num_steps: of the whole run.

    Attributes:
      after: updates before the check: a tenth of the run, but at least two windows, of which the first does not count,
        and at most `LATEST`.
    """

    def __init__(self, *, classes: int, num_steps: int):
        self._classes = classes
        self.after = max(2 * WINDOW, min(LATEST, num_steps // 10))
        self._last: deque[float] = deque(maxlen=WINDOW)

    def add(self, step: int, loss: float) -> str | None:
        """Adds the mean loss of the update that made `step`; returns a description if the check is due and fails."""
        self._last.append(loss)
        mean, guessing = sum(self._last) / len(self._last), math.log(self._classes)
        if step != self.after or mean < SHARE * guessing:
            return None
        return (
            f"after {step:,} updates the loss, {mean:.4f}, is still that of guessing among {self._classes:,} classes,"
            f" {guessing:.4f}"
        )
