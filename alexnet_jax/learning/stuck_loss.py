"""Notices a run that does not begin to learn."""

import math
from collections import deque

WINDOW = 50  # updates whose loss is averaged
SHARE = 0.98  # of ln(classes): a loss above this is that of guessing
LATEST = 2000  # updates after which even a slow recipe has begun


class FlatLoss:
    """Tells once, some way into a run, if the loss is still that of guessing.

    Args:
      classes: of the data set; guessing costs ln(classes) nats.
      num_steps: of the whole run. A tenth of them, but at least `WINDOW` and at most `LATEST`, is the time to begin in.
    """

    def __init__(self, *, classes: int, num_steps: int):
        self._classes = classes
        self.after = max(WINDOW, min(LATEST, num_steps // 10))
        self._last: deque[float] = deque(maxlen=WINDOW)

    def add(self, step: int, loss: float) -> str | None:
        """Takes the loss of the update that made `step`; returns the warning when it is due."""
        self._last.append(loss)
        mean, guessing = sum(self._last) / len(self._last), math.log(self._classes)
        if step != self.after or mean < SHARE * guessing:
            return None
        return (
            f"warning: after {step:,} updates the loss, {mean:.4f}, is still that of guessing among {self._classes:,}"
            f" classes, {guessing:.4f}. Likely causes: pixels divided by their"
            " deviation under a recipe whose biases start at 1 (config.photometry.standardize, config.network.recipe;"
            " try config.network.he_init), or a rate too high or too low (config.rates). The run goes on"
        )
