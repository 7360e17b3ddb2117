"""Error rates of parameters on the evaluation split, for training."""

from collections.abc import Callable

from alexnet_jax.evaluation.batches import examples_at_once, one_behind
from alexnet_jax.experiment.build import Experiment
from alexnet_jax.experiment.feed import Feed
from alexnet_jax.learning.metrics import ZERO, Metrics
from alexnet_jax.network import sharding
from alexnet_jax.network.forward import BatchStats, Params
from alexnet_jax.runtime import allocator


def evaluate(
    experiment: Experiment,
    params: Params,
    batch_stats: BatchStats,
    *,
    views: int,
    feed: Feed,
    stop: Callable[[], bool],
) -> Metrics | None:
    """Sums over every example of the evaluation split, each counted once.

    Args:
      experiment: whose evaluation split and compiled step are used.
      params, batch_stats: of the network.
      views: of an image, one of `geometry.VIEWS`; a batch of ten views holds a tenth of the images.
      feed: of the batches.
      stop: called after each batch; True ends the evaluation, which returns None.
    """
    crops = max(experiment.settings.batch_size, feed.least_crops)
    size = examples_at_once(crops, views, experiment.mesh.shape[sharding.DATA])
    batches = feed.eval_batches(batch_size=size, views=views)
    total = ZERO
    for metrics in one_behind(batches, lambda batch: experiment.steps.eval_step(params, batch_stats, batch)):
        total += metrics
        if stop():
            return None
    allocator.trim()
    return total
