"""The parts of an experiment, built once from its settings, in reading order."""

import dataclasses
import functools
from collections.abc import Callable, Iterator

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh
from jaxtyping import Array, Int, PRNGKeyArray, PyTree

from alexnet_jax.data import resident
from alexnet_jax.data.batch import Batch, Shard
from alexnet_jax.data.dataset import Dataset
from alexnet_jax.data.filling import TrainPlan
from alexnet_jax.data.photometry import photometry
from alexnet_jax.data.pipeline import Source, train_batches
from alexnet_jax.data.preprocessing import Preprocessing
from alexnet_jax.data.workers import Workers
from alexnet_jax.errors import UsageError
from alexnet_jax.experiment import follow
from alexnet_jax.experiment.data import open_data
from alexnet_jax.experiment.fields import Settings
from alexnet_jax.experiment.schedules import Schedule
from alexnet_jax.learning import optimizer
from alexnet_jax.learning.plateau import Plateau
from alexnet_jax.learning.step import Photometry, Steps, build_steps
from alexnet_jax.network import sharding
from alexnet_jax.network.native import build as native
from alexnet_jax.network.recipes import towers_of
from alexnet_jax.network.tower import Tower, make_tower
from alexnet_jax.runtime import processes

SMALLEST_STD = 1e-5  # of pixels 0 to 255; rounding leaves less


@dataclasses.dataclass(frozen=True)
class Experiment:
    """An experiment, ready to run on its mesh.

    Attributes:
      settings: of the experiment, with the values that follow from the data set.
      tower: a tower of its network.
      steps: compiled steps, and the mesh they run on.
      shard: this process's part of every batch.
      data: the prepared data set.
      train_source, eval_source: splits of the data set.
      crop_size: side of the crops, pixels.
      num_steps: updates of the whole run.
      steps_per_epoch: not whole in general; batches may lie across epochs.
      key: of the run's randomness.
      learning_rate: `(step, plateau) -> rate` of the kernels of layers without rates of their own.
    """

    settings: Settings
    tower: Tower
    steps: Steps
    shard: Shard
    data: Dataset
    train_source: Source
    eval_source: Source
    crop_size: int
    num_steps: int
    steps_per_epoch: float
    key: PRNGKeyArray
    learning_rate: Callable[[Int[Array, ""], Plateau | None], Array]

    @property
    def mesh(self) -> Mesh:
        """The mesh of the steps."""
        return self.steps.mesh

    def facts(self) -> dict[str, object]:
        """Facts that all processes of a run must have in common beside its config, by name."""
        return self.data.facts() | {
            "the mesh": f"data={self.mesh.shape[sharding.DATA]} tower={self.mesh.shape[sharding.TOWER]}",
            "the number of updates": self.num_steps,
            "the native kernels": native.available(),  # else their programs would wait for different sums
        }


def build(settings: Settings, data_dir: str | None, *, say: Callable[[str], None]) -> Experiment:
    """Opens the data set, makes the mesh, and builds the steps; nothing is compiled yet.

    Args:
      settings: of the experiment.
      data_dir: of prepared data sets; None: TFDS's.
      say: prints a line of progress, or a warning.

    Raises:
      UsageError: the settings do not fit the machine or the data.
    """
    mesh = build_mesh(settings)
    shard = Shard(*sharding.place_on_data_axis(mesh))
    data = processes.first_then_rest(lambda: open_data(settings.dataset.name, data_dir, say=say))
    settings = follow.follow(settings, follow.facts_of(data))
    if warning := follow.check_held_out(settings, follow.facts_of(data)):
        say(warning)
    train_split, eval_split, crop_size = follow.followed(settings)
    train_source = data.split(train_split)
    eval_source = data.split(eval_split)
    steps_per_epoch = len(train_source) / settings.batch_size
    schedule = Schedule(settings, steps_per_epoch)
    tower = build_tower(settings, len(data.class_names))
    steps = build_steps(
        tower=tower,
        optimizer=build_optimizer(settings, tower.leaf_names(), schedule),
        photometry=build_photometry(settings, data, schedule.noise()),
        mesh=mesh,
        image_size=crop_size,
        label_smoothing=settings.label_smoothing,
        memory=schedule.memory,
        observe=schedule.observe,
        cut=functools.partial(
            resident.cut,
            crop_size=crop_size,
            jitter=settings.jitter.rotation > 0 or settings.jitter.scale > 0,
            symmetries=settings.jitter.symmetries,
        ),
    )
    return Experiment(
        settings=settings,
        tower=tower,
        steps=steps,
        shard=shard,
        data=data,
        train_source=train_source,
        eval_source=eval_source,
        crop_size=crop_size,
        num_steps=schedule.num_steps,
        steps_per_epoch=steps_per_epoch,
        key=jax.jit(lambda: key_of_seed(settings.seed), out_shardings=sharding.replicated(mesh))(),
        learning_rate=jax.jit(_learning_rate(settings, schedule), out_shardings=sharding.replicated(mesh)),
    )


def _learning_rate(settings: Settings, schedule: Schedule) -> Callable[[Int[Array, ""], Plateau | None], Array]:
    rate = schedule.rate(settings.rates["all"].kernel, "rates.all.kernel")
    return lambda step, plateau: rate(step) * (1.0 if plateau is None else plateau.factor)


def key_of_seed(seed: int) -> PRNGKeyArray:
    """The key of a run. `jax.random.key` takes 32 bits of a seed, and drops the others in silence."""
    low, high = seed % 2**32, seed // 2**32
    return jax.random.fold_in(jax.random.key(low), high) if high else jax.random.key(low)


def build_tower(settings: Settings, num_classes: int) -> Tower:
    """The settings' network for so many classes.

    Raises:
      UsageError: the recipe is unknown, or the classes are too few.
    """
    return make_tower(
        settings.network.recipe,
        num_classes=num_classes,
        width=settings.network.width,
        he_init=settings.network.he_init,
        dtype=jnp.bfloat16 if settings.network.bfloat16 else None,
    )


def build_optimizer(
    settings: Settings, leaf_names: dict[str, list[str]], schedule: Schedule
) -> optax.GradientTransformationExtraArgs:
    """The 2012 update with the settings' rates. Rates and decay of a layer hold for the norm that follows it too.

    Args:
      settings: of the experiment.
      leaf_names: of the parameters, by layer or norm.
      schedule: of the run.

    Raises:
      UsageError: rates are given for a layer that the network does not have.
    """
    layers = [name for name in leaf_names if not name.endswith("_norm")]
    for key, given in (("rates", set(settings.rates) - {"all"}), ("weight_decays", set(settings.weight_decays))):
        unknown = sorted(given - set(layers))
        if unknown:
            raise UsageError(f"config.{key}.{unknown[0]} names no layer; the layers are {', '.join(layers)}")

    def rates_of(name: str, leaves: list[str]) -> PyTree:
        layer = name.removesuffix("_norm") if name.removesuffix("_norm") in settings.rates else "all"
        kinds = {leaf: "bias" if leaf == "bias" else "kernel" for leaf in leaves}
        return {
            leaf: schedule.rate(getattr(settings.rates[layer], kind), f"rates.{layer}.{kind}")
            for leaf, kind in kinds.items()
        }

    def decays_of(name: str, leaves: list[str]) -> PyTree:
        decay = settings.weight_decays.get(name.removesuffix("_norm"), settings.weight_decay)
        return dict.fromkeys(leaves, decay)

    return optimizer.krizhevsky_sgd(
        {name: rates_of(name, leaves) for name, leaves in leaf_names.items()},
        momentum=settings.momentum,
        weight_decay={name: decays_of(name, leaves) for name, leaves in leaf_names.items()},
        nesterov=settings.nesterov,
        clip_norm=settings.clip_norm,
        trust=settings.lars_trust,
    )


def cpu_devices(settings: Settings) -> int:
    """How many devices CPUs should make, all processes together: as many as the mesh asks for, by default two.

    Two are for the two towers, or for two parts of the batch.
    """
    return (settings.mesh.data or 1) * (settings.mesh.tower or 2)


def build_mesh(settings: Settings, *, trains: bool = True) -> Mesh:
    """The mesh of the settings; what they leave open is chosen by what there is.

    Args:
      settings: of the run.
      trains: whether the data axis must divide the run's batch. Evaluations have other batches.

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
    data = settings.mesh.data or _data_axis(pairs, tower, settings.batch_size if trains else None)
    if trains:
        check_mesh(settings, data, tower)
    return sharding.make_mesh(data=data, tower=tower)


def _data_axis(pairs: int, tower: int, batch_size: int | None) -> int:
    """The largest data axis to which each process gives the same number of devices. It divides the batch, if any.

    Raises:
      UsageError: the processes cannot share the batch.
    """
    processes = jax.process_count()
    even = [count for count in range(pairs, 0, -1) if count * tower % processes == 0] or [pairs]
    data = next((count for count in even if batch_size is None or batch_size % count == 0), None)
    if data is None:
        raise UsageError(
            f"config.batch_size is {batch_size} and cannot be shared evenly by {processes} processes; use a multiple of"
            f" {even[-1]}"
        )
    return data


def check_given_mesh(settings: Settings) -> None:
    """Checks the axes that the settings give, without devices. Raises what `check_mesh` raises."""
    check_mesh(settings, settings.mesh.data or 1, settings.mesh.tower or 1)


def check_mesh(settings: Settings, data: int, tower: int) -> None:
    """Compares the axes of a mesh with the batch and with the network.

    Raises:
      UsageError: the batch cannot be divided, or the network has another number of towers.
    """
    if settings.batch_size % data:
        raise UsageError(
            f"config.batch_size is {settings.batch_size} and cannot be divided by the mesh's data axis of {data};"
            f" use a multiple of {data}"
        )
    towers = towers_of(settings.network.recipe)
    if tower not in (1, towers):
        raise UsageError(
            f"config.mesh.tower is {tower} and the recipe {settings.network.recipe!r} has {towers}"
            f" tower{'s' * (towers > 1)}; use {' or '.join(sorted({'1', str(towers)}))}, or None"
        )


def build_photometry(settings: Settings, data: Dataset, noise: optimizer.Schedule) -> Photometry:
    """Mean, scale and colour noise of the data set's training split.

    Args:
      settings: of the experiment, with the values that follow from the data set.
      data: its data set.
      noise: strength by step.

    Raises:
      UsageError: all pixels of the training images are equal.
    """
    preprocessing = preprocessing_of(settings, data)
    directions = data.statistics.color_directions.astype(np.float32)
    if preprocessing.each_image:  # whose centred pixels are scaled already
        directions *= _pixel_scale(settings, data)
    return functools.partial(photometry, preprocessing=preprocessing, color_directions=directions, noise=noise)


def _pixel_scale(settings: Settings, data: Dataset) -> float:
    """The factor of the pixels.

    Raises:
      UsageError: all pixels of the training images are equal, and their deviation is 0.
    """
    if not settings.photometry.standardize:
        return 1.0
    if data.statistics.pixel_std < SMALLEST_STD:
        raise UsageError(
            f"all pixels of the training images of {settings.dataset.name} are equal, so that"
            " config.photometry.standardize would divide by 0; prepare other images"
        )
    return 1 / data.statistics.pixel_std


def preprocessing_of(settings: Settings, data: Dataset) -> Preprocessing:
    """What evaluation does to a picture, for use without the data set.

    Args:
      settings: of the experiment, with the values that follow from the data set.
      data: its data set.
    """
    statistics = data.statistics
    return Preprocessing(
        class_names=tuple(data.class_names),
        image_size=data.image_size,
        crop_size=follow.followed(settings)[2],
        mean_image=statistics.mean_image.astype(np.float32),
        pixel_scale=np.full(3, _pixel_scale(settings, data), np.float32),
        each_image=settings.photometry.each_image,
    )


def training_batches(
    experiment: Experiment, *, start_step: int, workers: Workers | None = None, mirrored: bool = True
) -> Iterator[Batch]:
    """The batches of the training split from `start_step` on, without end, on the host.

    Args:
      experiment: of the run.
      start_step: the first batch's number.
      workers: processes that make the batches; None: threads.
      mirrored: as in `TrainPlan`.
    """
    plan = train_plan(experiment.settings, experiment.shard, experiment.crop_size)
    plan = dataclasses.replace(plan, mirrored=mirrored)
    return train_batches(experiment.train_source, plan, start_step=start_step, workers=workers)


def train_plan(settings: Settings, shard: Shard, crop_size: int) -> TrainPlan:
    """The batches of training.

    Args:
      settings: of the experiment.
      shard: this process's part of each batch.
      crop_size: pixels along a side.
    """
    return TrainPlan(
        batch_size=settings.batch_size,
        shard=shard,
        crop_size=crop_size,
        seed=settings.seed,
        rotation=settings.jitter.rotation,
        scale=settings.jitter.scale,
        crop_group=settings.dataset.crop_group,
        symmetries=settings.jitter.symmetries,
    )
