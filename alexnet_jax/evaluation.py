"""Error rates of parameters and of checkpoints: for training, `evaluate`, and everything else that restores a run."""

import itertools
from collections.abc import Callable
from typing import NamedTuple

import jax
from etils import epath

from alexnet_jax.data.pipeline import eval_batches
from alexnet_jax.errors import UsageError
from alexnet_jax.experiment.build import Experiment
from alexnet_jax.learning.metrics import ZERO, Metrics
from alexnet_jax.network import sharding
from alexnet_jax.network.forward import BatchStats, Params
from alexnet_jax.runtime import allocator, processes
from alexnet_jax.workdir import record
from alexnet_jax.workdir.checkpoint import Checkpoints

MIN_CROPS = 128  # of a batch: an evaluation need not take the small batches that train well


def evaluate(
    experiment: Experiment,
    params: Params,
    batch_stats: BatchStats,
    *,
    views: int,
    stop: Callable[[int], bool] = lambda done: False,
) -> Metrics | None:
    """Sums over every example of the evaluation split, each counted once.

    Args:
      experiment: whose evaluation split and compiled step are used.
      params, batch_stats: of the network.
      views: 1, the centre crop, or 10; a batch then holds a tenth of the images.
      stop: called after each batch with the number of images done; True ends the evaluation, which returns None.
    """
    settings, data_axis = experiment.settings, experiment.mesh.shape[sharding.DATA]
    crops = max(settings.batch_size, MIN_CROPS)
    batches = eval_batches(
        experiment.eval_source,
        batch_size=max(1, crops // views // data_axis) * data_axis,
        views=views,
        shard=experiment.shard,
        crop_size=experiment.crop_size,
    )
    total = ZERO
    running: Metrics | None = None
    for number, batch in enumerate(itertools.chain(batches, [None])):
        processes.enter(f"batch {number} of an evaluation", slow=number == 0)  # which compiles
        before, running = running, None
        if batch is not None:
            running = experiment.steps.eval_step(params, batch_stats, sharding.put_batch(batch, experiment.mesh))
        if before is not None:  # read only now, when the devices have the next batch to work on
            total += jax.device_get(before)
            if stop(int(total.count)):
                return None
    allocator.trim()
    return total


class Restored(NamedTuple):
    """A network from a checkpoint.

    Attributes:
      step: updates done.
      params, batch_stats: of the network.
    """

    step: int
    params: Params
    batch_stats: BatchStats


def choose_step(checkpoints: Checkpoints, wanted: str) -> int:
    """The step that `last`, `best` or a number names.

    Raises:
      UsageError: there is no such checkpoint.
    """
    steps = checkpoints.steps()
    if not steps:
        raise UsageError("the workdir holds no checkpoint yet; train first")
    best = checkpoints.best_step()
    known = {"last": steps[-1], "best": steps[-1] if best is None else best} | {str(step): step for step in steps}
    if wanted not in known:
        raise UsageError(f"there is no checkpoint {wanted!r}; there are {', '.join(known)}")
    return known[wanted]


def restore(experiment: Experiment, workdir: epath.Path, step: int) -> Restored:
    """The network of the checkpoint of `step`, laid out on the experiment's mesh, whatever mesh wrote it.

    Raises:
      UsageError: the checkpoint is damaged, or does not fit the experiment's network.
    """
    target = experiment.steps.target
    checkpoints = Checkpoints(workdir / record.CHECKPOINTS, read_only=True)
    try:
        fields = checkpoints.restore(step, {"params": target.params, "batch_stats": target.batch_stats})
    finally:
        checkpoints.close()
    return Restored(step, fields["params"], fields["batch_stats"])
