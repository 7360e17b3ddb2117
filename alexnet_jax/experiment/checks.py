"""Checks of a config's values: their ranges, and values that exclude one another."""

import itertools
import math

from alexnet_jax.data.dataset import is_path
from alexnet_jax.errors import UsageError
from alexnet_jax.experiment.fields import Settings, Table

LARGEST_STEP = 2**31 - 1  # steps are int32
LARGEST_WORKERS = 1024  # processes of one machine
LARGEST_SEED = 2**63 - 1


def check(settings: Settings) -> None:
    """Checks every value.

    Raises:
      UsageError: a value is out of its range, or does not fit another value.
    """
    _check_ranges(settings)
    _check_names(settings)
    if settings.fresh and settings.init_from is None:
        raise UsageError("config.fresh names layers to start anew, but config.init_from names no run to start from")
    if settings.schedule == "plateau":
        _check_plateau(settings)
    if "all" in settings.weight_decays:
        raise UsageError(
            "config.weight_decays names 'all', and has the decays of single layers; use config.weight_decay for all"
        )
    if "all" not in settings.rates:
        raise UsageError("config.rates.all is missing; add it: the rates of all layers that config.rates does not name")
    _check_table("photometry.noise", settings.photometry.noise)
    for layer, rates in settings.rates.items():
        _check_table(f"rates.{layer}.kernel", rates.kernel)
        _check_table(f"rates.{layer}.bias", rates.bias)


def _check_ranges(settings: Settings) -> None:
    data = settings.dataset
    for path, value, largest in (
        ("batch_size", settings.batch_size, 2**20),
        ("num_epochs", settings.num_epochs, LARGEST_STEP),
        ("evaluate_every", settings.evaluate_every, math.inf),
        ("save_every", settings.save_every, math.inf),
        ("dataset.crop_size", data.crop_size, 4096),
        ("dataset.crop_group", data.crop_group, LARGEST_STEP),
        ("dataset.train_images", data.train_images, 2**40),
        ("network.width", settings.network.width, 64),
        ("plateau.patience", settings.plateau.patience, LARGEST_STEP),
        ("plateau.drops", settings.plateau.drops, 30),
        ("mesh.data", settings.mesh.data, 2**20),
        ("mesh.tower", settings.mesh.tower, 2**20),
        ("clip_norm", settings.clip_norm, math.inf),
        ("lars_trust", settings.lars_trust, math.inf),
    ):
        optional = path in (*_OR_NONE, *_MESH)
        if value is not None and value <= 0:
            least = "at least 1" if path in _MESH else "more than 0"
            raise UsageError(f"config.{path} is {value} and must be {least}{', or None' if optional else ''}")
        if value is not None and value > largest:
            raise UsageError(f"config.{path} is {value} and must be at most {largest:,}")
    for path, value, end in (
        ("momentum", settings.momentum, 1.0),
        ("label_smoothing", settings.label_smoothing, 1.0),
        ("jitter.scale", settings.jitter.scale, math.inf),
        ("jitter.rotation", settings.jitter.rotation, 180.0),
        ("warmup_epochs", settings.warmup_epochs, math.inf if settings.num_epochs is None else settings.num_epochs),
        ("weight_decay", settings.weight_decay, math.inf),
        *((f"weight_decays.{layer}", decay, math.inf) for layer, decay in settings.weight_decays.items()),
    ):
        if not 0 <= value < end:
            below = "" if end == math.inf else f" and less than {end:g}"
            raise UsageError(f"config.{path} is {value} and must be at least 0{below}")
    if settings.jitter.symmetries not in (1, 2, 4, 8):
        raise UsageError(f"config.jitter.symmetries is {settings.jitter.symmetries} and must be 1, 2, 4 or 8")
    if settings.photometry.each_image and not settings.photometry.standardize:
        raise UsageError(
            "config.photometry.each_image is True and standardize is False; it standardizes each image, so set both"
        )
    if not 0 <= settings.seed <= LARGEST_SEED:
        raise UsageError(f"config.seed is {settings.seed} and must be at least 0 and less than 2**63")
    if data.workers is not None and not 0 <= data.workers <= LARGEST_WORKERS:
        raise UsageError(
            f"config.dataset.workers is {data.workers} and must be at least 0, which means threads, at most"
            f" {LARGEST_WORKERS}, or None"
        )
    if data.classes is not None and not 2 <= data.classes <= 2**24:
        raise UsageError(
            f"config.dataset.classes is {data.classes}, and a classifier needs at least 2, at most {2**24:,}"
        )


_MESH = ("mesh.data", "mesh.tower")
_OR_NONE = (
    "num_epochs",
    "evaluate_every",
    "save_every",
    "dataset.crop_size",
    "dataset.train_images",
    "clip_norm",
    "lars_trust",
)


def _check_names(settings: Settings) -> None:
    data = settings.dataset
    if is_path(data.name):
        raise UsageError(
            f"config.dataset.name is {data.name!r}, a path; name a data set, such as elpv/160, and its folder apart",
            option="data_dir",
        )
    for path, name, advice in (
        ("dataset.name", data.name, "name a prepared data set, such as elpv/160"),
        ("name", settings.name, "name the workdir, or None: the name of the data set"),
        ("dataset.train_split", data.train_split, "name a split, or None: the data set's"),
        ("dataset.eval_split", data.eval_split, "name a split, or None: the data set's"),
        ("init_from", settings.init_from, "name the workdir of a run, or None: initial values"),
        ("network.recipe", settings.network.recipe, "name a recipe, such as original"),
    ):
        if name is not None and not name.strip():
            raise UsageError(f"config.{path} is empty; {advice}")
        if name is not None and "\0" in name:
            raise UsageError(f"config.{path} is {name!r}, with a NUL character; {advice}")


def _check_plateau(settings: Settings) -> None:
    splits = settings.dataset.train_split or "train", settings.dataset.eval_split
    if splits[0] == splits[1]:
        raise UsageError(
            "config.schedule 'plateau' needs a validation set, and config.dataset.eval_split is"
            f" {splits[1]!r}, the training split; name another split"
        )
    if settings.evaluate_every is None or settings.num_epochs is None:
        return  # ten evaluations, or checked again when the epochs are known
    if settings.evaluate_every >= settings.num_epochs:
        raise UsageError(
            f"config.schedule 'plateau' needs evaluations, and config.evaluate_every is {settings.evaluate_every:g}"
            f" in a run of {settings.num_epochs:g} epochs; name a smaller number"
        )


def _check_table(path: str, table: Table) -> None:
    positions = [position for position, _ in table]
    if not positions or positions[0] != 0:
        raise UsageError(f"config.{path} must start at position 0: ((0, value), ...), not {table}")
    if any(later <= earlier for earlier, later in itertools.pairwise(positions)):
        raise UsageError(f"the positions of config.{path} must ascend: {table}")
    for position, value in table:
        if value < 0:
            raise UsageError(f"config.{path} is {value:g} from position {position:g} on and must be at least 0")
