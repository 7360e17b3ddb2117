"""The parts of an experiment, built once from its settings: what training, evaluation and prediction share."""

import dataclasses
import functools
import itertools
from collections.abc import Callable, Iterator

import jax
import numpy as np
from jax.sharding import Mesh
from jaxtyping import PRNGKeyArray, PyTree

from alexnet_jax.data.batch import Batch, Shard
from alexnet_jax.data.dataset import Prepared, open_dataset
from alexnet_jax.data.photometry import photometry
from alexnet_jax.data.pipeline import Source, eval_batches, train_batches
from alexnet_jax.errors import UsageError
from alexnet_jax.experiment import schedules as updates
from alexnet_jax.experiment.settings import Settings
from alexnet_jax.learning import optimizer
from alexnet_jax.learning.metrics import ZERO, Metrics
from alexnet_jax.learning.step import Photometry, TrainState, init_state, jit_eval_step, jit_train_step, stream
from alexnet_jax.network import forward as forwards
from alexnet_jax.network import native, sharding
from alexnet_jax.network.recipes import towers_of
from alexnet_jax.runtime import allocator, processes

EVALUATED = 128  # crops of a batch at least: an evaluation need not take the small batches that train well


@dataclasses.dataclass(frozen=True)
class Experiment:
    """An experiment, ready to run on its mesh.

    Attributes:
      settings: what it was built from.
      mesh: where it runs.
      shard: this process's part of every batch.
      data: the prepared data set.
      train_source, eval_source: its two splits.
      num_steps: updates of the whole run.
      steps_per_epoch: not whole in general; batches may lie across epochs.
      key: of the run's randomness.
      target: shapes and shardings of the state, without values.
      init: makes a fresh state.
      train_step: `(state, batch, key) -> (state, Metrics)`, compiled; the state is donated.
      eval_step: `(params, batch) -> Metrics`, compiled.
      observe: `(state, top-1 error) -> state`, for a plateau schedule; else None.
    """

    settings: Settings
    mesh: Mesh
    shard: Shard
    data: Prepared
    train_source: Source
    eval_source: Source
    num_steps: int
    steps_per_epoch: float
    key: PRNGKeyArray
    target: TrainState
    init: Callable[[], TrainState]
    train_step: Callable[[TrainState, Batch, PRNGKeyArray], tuple[TrainState, Metrics]]
    eval_step: Callable[[PyTree, Batch], Metrics]
    observe: Callable[[TrainState, float], TrainState] | None

    def facts(self) -> dict[str, object]:
        """What all processes of a run must have in common beside its config, by name."""
        return self.data.facts() | {
            "the mesh": f"data={self.mesh.shape[sharding.DATA]} tower={self.mesh.shape[forwards.TOWER]}",
            "the number of updates": self.num_steps,
            "operations built in C": native.available(),  # else their programs would wait for different sums
        }


def build(settings: Settings, data_dir: str | None, *, say: Callable[[str], None]) -> Experiment:
    """Opens the data set, makes the mesh and compiles nothing yet.

    Args:
      settings: of the experiment.
      data_dir: of prepared data sets; None: TFDS's own.
      say: takes a line about what goes on.

    Raises:
      UsageError: the settings do not fit the machine or the data.
    """
    mesh = build_mesh(settings)
    shard = Shard(*sharding.place_on_data_axis(mesh))
    data = processes.first_then_rest(lambda: open_dataset(settings.dataset.name, data_dir, say=say))
    train_source = data.split(settings.dataset.train_split)
    eval_source = data.split(settings.dataset.eval_split)
    steps_per_epoch = len(train_source) / settings.batch_size
    num_steps = updates.steps_of(settings, steps_per_epoch)
    tower = updates.build_tower(settings, len(data.class_names))
    forward = forwards.make_forward(tower, mesh)
    clock = updates.Clock(settings, steps_per_epoch)
    photometry = build_photometry(settings, data, optimizer.piecewise(clock.by_step(settings.photometry.noise)))
    key = jax.jit(lambda: jax.random.key(settings.seed), out_shardings=sharding.replicated(mesh))()

    def init_params(key: PRNGKeyArray) -> PyTree:
        return forwards.init_params(tower, stream(key, "init"), settings.dataset.crop_size)

    update = updates.build_optimizer(settings, jax.eval_shape(init_params, key), clock.rate)

    def init(key: PRNGKeyArray) -> TrainState:
        return init_state(init_params(key), update)

    abstract = jax.eval_shape(init, key)
    shardings = sharding.state_shardings(abstract, mesh)
    return Experiment(
        settings=settings,
        mesh=mesh,
        shard=shard,
        data=data,
        train_source=train_source,
        eval_source=eval_source,
        num_steps=num_steps,
        steps_per_epoch=steps_per_epoch,
        key=key,
        target=jax.tree.map(
            lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding), abstract, shardings
        ),
        init=lambda: jax.jit(init, out_shardings=shardings)(key),
        train_step=jit_train_step(
            mesh,
            shardings,
            forward=forward,
            optimizer=update,
            photometry=photometry,
            label_smoothing=settings.label_smoothing,
        ),
        eval_step=jit_eval_step(mesh, forward=forward, photometry=photometry),
        observe=updates.build_observe(settings, mesh) if settings.schedule == "plateau" else None,
    )


def cpu_devices(settings: Settings) -> int:
    """How many devices CPUs should make, all processes together: what the mesh asks for, by default one a tower."""
    return (settings.mesh.data or 1) * (settings.mesh.tower or 2)


def build_mesh(settings: Settings) -> Mesh:
    """The mesh of the settings; what they leave open is chosen by what there is.

    Raises:
      UsageError: there are too few devices, the batch cannot be divided, or the CPU cannot exchange bfloat16.
    """
    devices = jax.devices()
    fastest = sharding.fastest_tower_axis(len(devices), devices[0].platform)
    if settings.network.bfloat16 and devices[0].platform == "cpu":
        # An exchange's gradient is a sum of bfloat16 between devices, on which jaxlib 0.10's compiler for CPUs aborts.
        if settings.mesh.tower == 2:
            raise UsageError(
                "config.network.bfloat16 with a tower on each of two devices of a CPU is more than jaxlib can compile;"
                " use config.mesh.tower=1, or leave bfloat16 to GPUs and TPUs"
            )
        fastest = 1
    tower = settings.mesh.tower or min(fastest, towers_of(settings.network.recipe))
    pairs = max(1, len(devices) // tower)
    data = settings.mesh.data or max(count for count in range(1, pairs + 1) if settings.batch_size % count == 0)
    if settings.batch_size % data:
        raise UsageError(
            f"config.batch_size is {settings.batch_size} and cannot be divided by the mesh's data axis of {data};"
            f" use a multiple of {data}"
        )
    return sharding.make_mesh(data=data, tower=tower)


def build_photometry(settings: Settings, data: Prepared, noise: optimizer.Schedule) -> Photometry:
    """Mean, scale and colour noise of the data set's training split.

    Raises:
      UsageError: the crop is larger than the stored images.
    """
    crop_size, statistics = settings.dataset.crop_size, data.statistics
    if crop_size > data.image_size:
        raise UsageError(
            f"config.dataset.crop_size is {crop_size} and the images of {settings.dataset.name} have"
            f" {data.image_size} pixels; use a smaller crop or larger images"
        )
    return functools.partial(
        photometry,
        mean_image=statistics.crop(crop_size).astype(np.float32),
        color_directions=statistics.color_directions.astype(np.float32),
        noise=noise,
        pixel_scale=1 / statistics.pixel_std if settings.photometry.standardize else 1.0,
    )


def training_batches(experiment: Experiment, *, start_step: int) -> Iterator[Batch]:
    """The batches of the training split from `start_step` on, without end, on the host."""
    settings = experiment.settings
    return train_batches(
        experiment.train_source,
        seed=settings.seed,
        batch_size=settings.batch_size,
        start_step=start_step,
        shard=experiment.shard,
        crop_size=settings.dataset.crop_size,
        crop_group=settings.dataset.crop_group,
        rotation=settings.jitter.rotation,
        scale=settings.jitter.scale,
    )


def evaluate(
    experiment: Experiment, params: PyTree, *, views: int, stop: Callable[[int], bool] = lambda done: False
) -> Metrics | None:
    """Sums over every example of the evaluation split, each counted once.

    Args:
      experiment: what to evaluate.
      params: of the network.
      views: 1, the centre crop, or 10; a batch then holds a tenth of the images.
      stop: is told after each batch how many images are done; True ends the evaluation, which returns None.
    """
    settings, data_axis = experiment.settings, experiment.mesh.shape[sharding.DATA]
    crops = max(settings.batch_size, EVALUATED)
    batch_size = max(1, crops // views // data_axis) * data_axis
    total = ZERO
    batches = eval_batches(
        experiment.eval_source,
        batch_size=batch_size,
        views=views,
        shard=experiment.shard,
        crop_size=settings.dataset.crop_size,
    )
    running: Metrics | None = None
    for number, batch in enumerate(itertools.chain(batches, [None])):
        processes.at(f"batch {number} of an evaluation")
        before, running = running, None
        if batch is not None:
            running = experiment.eval_step(params, sharding.put_batch(batch, experiment.mesh))
        if before is not None:  # only now: the devices have the next batch to work on
            total += jax.device_get(before)
            allocator.keep_large()  # the step is compiled by now
            if stop(int(total.count)):
                return None
    return total
