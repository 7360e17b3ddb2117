"""Statistics of images at hand."""

from collections.abc import Iterable

import numpy as np

from alexnet_jax.data.statistics import Statistics, Sums


def statistics_of(images: Iterable[np.ndarray]) -> Statistics:
    """The statistics of images of one size, at least one, in any order."""
    first, *others = images
    sums = Sums.zero(len(first))
    for image in (first, *others):
        sums.add(image)
    return sums.statistics()
