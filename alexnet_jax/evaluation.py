"""Error rates of parameters, and predictions of trained networks: for training, `evaluate`, and the figures."""

import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Float, Int

from alexnet_jax.data.batch import Batch, Shard
from alexnet_jax.data.pipeline import Source, eval_batches
from alexnet_jax.experiment.build import Experiment
from alexnet_jax.experiment.feed import Feed, FromDisk
from alexnet_jax.experiment.reading import MIN_CROPS, open_workers
from alexnet_jax.learning.metrics import ZERO, Metrics
from alexnet_jax.network import sharding
from alexnet_jax.network.forward import BatchStats, Params
from alexnet_jax.runtime import allocator, processes
from alexnet_jax.trained import Trained


def evaluate(
    experiment: Experiment,
    params: Params,
    batch_stats: BatchStats,
    *,
    views: int,
    feed: Feed | None = None,
    stop: Callable[[int], bool] = lambda done: False,
) -> Metrics | None:
    """Sums over every example of the evaluation split, each counted once.

    Args:
      experiment: whose evaluation split and compiled step are used.
      feed: of the batches; None: from disk.
      params, batch_stats: of the network.
      views: 1, the centre crop, or 10; a batch then holds a tenth of the images.
      stop: called after each batch with the number of images done; True ends the evaluation, which returns None.
    """
    size = _batch_size(experiment.settings.batch_size, views, experiment.mesh.shape[sharding.DATA])
    batches = (feed or FromDisk(experiment)).eval_batches(batch_size=size, views=views)
    total = ZERO
    for metrics in _one_behind(batches, lambda batch: experiment.steps.eval_step(params, batch_stats, batch)):
        total += metrics
        if stop(int(total.count)):
            return None
    allocator.trim()
    return total


def _one_behind(batches: Iterable[Batch], run: Callable[[Batch], Any]) -> Iterator[Any]:
    """What `run` gives for each batch, on the host: read only when the devices have the next batch to work on."""
    running = None
    for number, batch in enumerate(itertools.chain(batches, [None])):
        processes.enter(f"batch {number} of an evaluation", slow=number == 0)  # which compiles
        before, running = running, None
        if batch is not None:
            running = run(batch)
        if before is not None:
            yield jax.device_get(before)


class Block(NamedTuple):
    """Predictions of successive examples of a split, without padding.

    Attributes:
      examples: their numbers in the split, from 0.
      labels: true classes.
      log_probs: log of the probabilities, averaged over the views.
    """

    examples: Int[np.ndarray, "b"]
    labels: Int[np.ndarray, "b"]
    log_probs: Float[np.ndarray, "b classes"]


def predictions(
    net: Trained,
    source: Source,
    *,
    views: int = 1,
    batch_size: int | None = None,
    stop: Callable[[int], bool] = lambda done: False,
) -> Iterator[Block]:
    """The network's predictions for every example of a split, in order, in constant memory.

    With several processes each reads its part of the images, and all of them get all predictions.

    Args:
      net: the network, with a classifier.
      source: a split of a data set whose stored images have the size that the network's preprocessing names.
      views: 1, the centre crop, or 10.
      batch_size: examples of a block; None: `batch_size_of([net], views)`.
      stop: called after each block with the number of examples done; True ends the predictions.

    Raises:
      UsageError: the network has no classifier, or the storage fails.
    """
    size = batch_size or batch_size_of([net], views)
    gather = jax.jit(lambda labels, mask: (labels, mask), out_shardings=sharding.replicated(net.mesh))

    def run(batch: Batch) -> tuple[jax.Array, ...]:
        return net.log_probs_step(net.params, net.batch_stats, batch.image), *gather(batch.label, batch.mask)

    done = 0
    for log_probs, labels, mask in _one_behind(_batches(net, source, views, size), run):
        block = Block(done + np.arange(mask.sum()), labels[mask], log_probs[mask])
        done += len(block.examples)
        yield block
        if stop(done):
            return
    allocator.trim()


def _batches(net: Trained, source: Source, views: int, size: int) -> Iterator[Batch]:
    """The batches of a split on the network's devices."""
    workers = open_workers(net.settings.dataset.workers)
    try:
        batches = eval_batches(
            source,
            batch_size=size,
            views=views,
            shard=Shard(*sharding.place_on_data_axis(net.mesh)),
            crop_size=net.preprocessing.crop_size,
            workers=workers,
        )
        for batch in batches:
            yield sharding.put_batch(batch, net.mesh)
    finally:
        if workers is not None:
            workers.close()


def batch_size_of(nets: Sequence[Trained], views: int) -> int:
    """The examples of a batch for evaluation: every network's devices can share them evenly.

    Args:
      nets: of one evaluation.
      views: of an example; a batch of ten views holds a tenth of the examples.
    """
    parts = math.lcm(*(net.mesh.shape[sharding.DATA] for net in nets))
    return _batch_size(max(net.settings.batch_size for net in nets), views, parts)


def _batch_size(crops: int, views: int, parts: int) -> int:
    """Examples of a batch with so many crops, at least `MIN_CROPS`, which so many devices share evenly."""
    return max(1, max(crops, MIN_CROPS) // views // parts) * parts


def confusion(
    labels: Int[np.ndarray, "n"], predicted: Int[np.ndarray, "n"], classes: int
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
