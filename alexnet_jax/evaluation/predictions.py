"""A trained network's predictions for the examples of a split: for `evaluate`, ensembles and the figures."""

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Float, Int

from alexnet_jax.data.batch import Batch, Shard
from alexnet_jax.data.filling import EvalPlan, Source
from alexnet_jax.data.pipeline import eval_batches
from alexnet_jax.data.workers import Workers
from alexnet_jax.evaluation.batches import examples_at_once, one_behind
from alexnet_jax.network import sharding
from alexnet_jax.runtime import allocator
from alexnet_jax.trained import Trained

MOST_CROPS = 1024  # of a device at a time. The batch of a run may be larger: more devices have shared it.


class Block(NamedTuple):
    """Predictions of successive examples of a split, without padding.

    Attributes:
      examples: their numbers in the split, from 0.
      labels: true classes.
      log_probs: log of the probabilities, averaged over the views.
    """

    examples: Int[np.ndarray, " b"]
    labels: Int[np.ndarray, " b"]
    log_probs: Float[np.ndarray, "b classes"]


def predictions(
    network: Trained,
    source: Source,
    *,
    views: int = 1,
    batch_size: int,
    workers: Workers | None = None,
) -> Iterator[Block]:
    """The network's predictions for every example of a split, in order, in constant memory.

    With several processes each reads its part of the images, and all of them get all predictions.

    Args:
      network: the network, with a classifier.
      source: a split of a data set whose stored images have the size that the network's preprocessing names.
      views: of an example, one of `geometry.VIEWS`.
      batch_size: examples of a block, as `batch_size_of` chooses them.
      workers: processes that read the images; None: threads read them.

    Raises:
      UsageError: the network has no classifier, or the storage fails.
    """
    gather = jax.jit(lambda labels, mask: (labels, mask), out_shardings=sharding.replicated(network.mesh))

    def run(batch: Batch) -> tuple[jax.Array, ...]:
        return network.log_probs_step(network.params, network.batch_stats, batch.image), *gather(
            batch.label, batch.mask
        )

    done = 0
    for log_probs, labels, mask in one_behind(_batches(network, source, views, batch_size, workers), run):
        block = Block(done + np.arange(mask.sum()), labels[mask], log_probs[mask])
        done += len(block.examples)
        yield block
    allocator.trim()


def _batches(network: Trained, source: Source, views: int, size: int, workers: Workers | None) -> Iterator[Batch]:
    """The batches of a split on the network's devices."""
    shard = Shard(*sharding.place_on_data_axis(network.mesh))
    plan = EvalPlan(size, shard, network.preprocessing.crop_size, views)
    for batch in eval_batches(source, plan, workers=workers):
        yield sharding.put_batch(batch, network.mesh)


def batch_size_of(networks: Sequence[Trained], views: int) -> int:
    """The examples of a batch for evaluation: every network's devices can share them evenly.

    Args:
      networks: of one evaluation.
      views: of an example; a batch of ten views holds a tenth of the examples.
    """
    parts = math.lcm(*(network.mesh.shape[sharding.DATA] for network in networks))
    crops = min(max(network.settings.batch_size for network in networks), MOST_CROPS * parts)
    return examples_at_once(crops, views, parts)
