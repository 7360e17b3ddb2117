"""The model card of a training run that is through."""

import contextlib
import os
import platform
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
from etils import epath

from alexnet_jax.data.dataset import count_shared
from alexnet_jax.data.pipeline import usable_cores
from alexnet_jax.data.preprocessing import LEAST_CONTRAST
from alexnet_jax.errors import UsageError
from alexnet_jax.experiment import follow
from alexnet_jax.experiment.build import Experiment
from alexnet_jax.learning.metrics import TOP5_CLASSES
from alexnet_jax.model_card import card, differences
from alexnet_jax.model_card.card import Card, Errors
from alexnet_jax.network import sharding
from alexnet_jax.network.native import build as native
from alexnet_jax.workdir import record
from alexnet_jax.workdir.metrics_log import read_rows
from alexnet_jax.workdir.progress import duration

FEW_IMAGES = 100_000  # of training: far fewer than the network was made for


def write(
    folder: epath.Path,
    experiment: Experiment,
    result: Mapping[str, float],
    *,
    say: Callable[[str], None],
    trained_here: bool,
) -> None:
    """Writes the card of a run into its workdir.

    Args:
      folder: the workdir.
      experiment: of the run.
      result: of its last evaluation, as `result.json` has it.
      say: prints a line.
      trained_here: this process made the run's last updates; else its machine and versions are unknown here.
    """
    card.write(folder, card_of(folder, experiment, result, trained_here=trained_here), say=say)


def card_of(folder: epath.Path, experiment: Experiment, result: Mapping[str, float], *, trained_here: bool) -> Card:
    """The facts of a run that is through. The arguments are as in `write`."""
    settings, data = experiment.settings, experiment.data
    name, recipe, classes = settings.dataset.name, settings.network.recipe, len(data.class_names)
    origin = data.provenance
    width = "" if settings.network.width == 1 else f", with {settings.network.width:g} of its maps and units"
    return Card(
        title=f"AlexNet ({recipe}) on {name}",
        summary=(
            f"AlexNet (Krizhevsky, Sutskever and Hinton, 2012) by the recipe {recipe}{width}:"
            f" {sharding.count_params(experiment.steps.target.params):,} parameters, trained from {_start(experiment)}"
            f" to tell the {classes:,} classes of {name} apart."
        ),
        license=origin.license,
        class_names=data.class_names,
        data=dict(_data(experiment, origin.description, origin.homepage)),
        training=dict(_training(folder, experiment, trained_here)),
        errors=_errors(experiment, result, classes),
        differences=differences.from_2012(settings),
        limits=list(_limits(experiment, origin.license)),
        versions=record.versions() if trained_here else _recorded_versions(folder),
    )


def _start(experiment: Experiment) -> str:
    return "random initial values" if experiment.settings.init_from is None else "the parameters of another run"


def _data(experiment: Experiment, description: str, homepage: str) -> Iterator[tuple[str, str]]:
    identity, settings = experiment.data.identity(), experiment.settings
    train_split, eval_split, crop_size = follow.followed(settings)
    yield "data set", str(identity["name"])
    if description:
        yield "description", description
    if homepage:
        yield "source", homepage
    yield "training images", f"{len(experiment.train_source):,} ({train_split})"
    yield "evaluation images", f"{len(experiment.eval_source):,} ({eval_split})"
    yield "stored images", f"{identity['image_size']} x {identity['image_size']} pixels, RGB: the central square"
    if settings.photometry.each_image:
        values = f"minus its own mean, divided by its own standard deviation plus {LEAST_CONTRAST:g}"
    else:
        scaled = ", divided by the standard deviation of the pixels" * settings.photometry.standardize
        values = f"minus the mean of the training images{scaled}"
    yield "input of the network", f"crops of {crop_size} x {crop_size} pixels, values 0 to 255, {values}"
    yield "digest of the training images' statistics", str(identity["statistics"])


def _training(folder: epath.Path, experiment: Experiment, trained_here: bool) -> Iterator[tuple[str, str]]:
    settings = experiment.settings
    yield "updates", f"{experiment.num_steps:,}, of {settings.batch_size:,} images"
    yield "epochs", f"{settings.num_epochs:g}"
    yield "seed", str(settings.seed)
    updates, seconds = time_of_updates(folder, settings.batch_size)
    if seconds:
        speed = updates * settings.batch_size / seconds
        yield (
            "time",
            f"{duration(seconds * experiment.num_steps / updates)} for the updates, at {speed:,.0f} images a second;"
            " compilation, evaluations and checkpoints come on top",
        )
    if trained_here:
        yield "machine", machine(experiment)
        yield "finished", time.strftime("%Y-%m-%d", time.gmtime())


def time_of_updates(folder: epath.Path, batch_size: int) -> tuple[int, float]:
    """Updates whose time is known, and their seconds, by the speed in the rows of `metrics.jsonl`.

    The rows are those of all sessions of a run. The first update of a session has no time: most of it is compilation.

    Args:
      folder: the workdir.
      batch_size: images an update.
    """
    updates, seconds, before = 0, 0.0, 0
    rows: list[dict[str, Any]] = []
    with contextlib.suppress(UsageError):  # a card has a place for the time, and needs none
        rows = read_rows(folder)
    for row in rows:
        step, speed = row["step"], row.get("train/images_per_second")
        if isinstance(speed, (int, float)) and speed > 0:
            updates += step - before
            seconds += (step - before) * batch_size / speed
        if "train/loss" in row:  # also the first update of a session
            before = step
    return updates, seconds


def machine(experiment: Experiment) -> str:
    """The devices of the run's mesh, in words."""
    devices = list(experiment.mesh.devices.flat)
    first, count = devices[0], len(devices)
    text = f"{count} x {first.device_kind}"
    if first.platform == "cpu":
        text = f"CPU ({processor()}) as {count} device{'s' * (count > 1)} of JAX"
        text += f"; {native.load_once().line}"
    processes = jax.process_count()
    return text + f", {processes} processes" * (processes > 1)


def processor() -> str:
    """The processor's name, as Linux has it, and the cores that this process may use: `AMD EPYC, 2 cores`."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except (OSError, ValueError):
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    cores = usable_cores()
    return f"{names[0] if names else platform.machine()}, {cores} core{'s' * (cores > 1)}"


def _errors(experiment: Experiment, result: Mapping[str, float], classes: int) -> list[Errors]:
    """The errors of a result. Of few classes, results of earlier versions have a top-5 error that means nothing."""
    return [
        Errors(
            dataset=experiment.settings.dataset.name,
            split=str(experiment.settings.dataset.eval_split),
            views=views,
            count=int(result["count"]),
            top1=result[f"top1_{views}_views"],
            top5=result.get(f"top5_{views}_views") if classes >= TOP5_CLASSES else None,
            loss=result[f"loss_{views}_views"],
        )
        for views in (1, 10)
    ]


def _limits(experiment: Experiment, licence: str) -> Iterator[str]:
    settings, classes = experiment.settings, len(experiment.data.class_names)
    yield (
        f"Every picture gets one of the {classes:,} classes, also a picture of something else. The probabilities are"
        " those of the softmax and are not calibrated."
    )
    yield "The network sees only the central square of a picture, reduced to the size of the stored images."
    if len(experiment.train_source) < FEW_IMAGES:
        yield (
            f"{len(experiment.train_source):,} training images are few for this network. Pictures with another camera,"
            " light or subject may be told apart far worse than the evaluation images, which come from the same source."
        )
    train_split, eval_split, _ = follow.followed(settings)
    if shared := count_shared(train_split, eval_split, experiment.data.examples):
        yield (
            f"{shared:,} of the {len(experiment.eval_source):,} evaluation images are training images too. On other"
            " images the error is larger."
        )
    yield "The errors are those of one run with one seed. Another seed gives another error."
    if settings.schedule == "plateau":
        yield "The learning rate followed the error of the evaluation images, so this error is a little too small."
    else:
        yield "The errors are those after the last update. No checkpoint was chosen by them."
    if licence:
        yield f"The licence of the images is {licence}. It may bind the use of the network too."
    else:
        yield "The licence of the images is not recorded. Look for it before the network is published."
    if settings.init_from is not None:
        before = epath.Path(os.path.expanduser(settings.init_from))
        theirs = "" if "://" in str(before) else card.licence_in(before)  # a card waits for no network
        yield (
            f"The run started from the network {before.name}, and the licence of that network's images may bind"
            f" this one too: {theirs or 'not recorded here'}."
        )


def _recorded_versions(folder: epath.Path) -> dict[str, str]:
    """The versions with which the run began."""
    versions = record.read_json(folder / record.CONFIG_FILE).get("versions")
    return {str(name): str(version) for name, version in versions.items()} if isinstance(versions, dict) else {}
