"""Opens the data set of an experiment. Errors get the advice that names flags and fields of the config."""

import json
import re
from collections.abc import Callable

from alexnet_jax.data.dataset import RECORD_FILE, Dataset, open_dataset
from alexnet_jax.data.errors import DatasetError, ForeignDatasetError, UnknownDatasetError, UnwritableFolderError
from alexnet_jax.data.preparing import automatic
from alexnet_jax.errors import UsageError, reason_of
from alexnet_jax.experiment import follow

PREPARE = "python -m alexnet_jax.prepare"
SMALL_CROP = 2 / 3  # of the share of the side that crops have in the paper


def open_data(
    name: str, data_dir: str | None, *, say: Callable[[str], None], named: str = "config.dataset.name"
) -> Dataset:
    """The prepared data set `name`; a data set that needs no files from the user is prepared first.

    Args:
      name: `config.dataset.name`, such as `elpv/160`.
      data_dir: folder of prepared data sets; None: TFDS's own.
      say: takes a line about the preparation.
      named: the flag or field that holds the name.

    Raises:
      UsageError: the data set is missing, incomplete or cannot be prepared.
    """
    try:
        automatic.ensure(name, data_dir, say=say)
        return open_dataset(name, data_dir)
    except DatasetError as error:
        advice = _advice(error, named)
        if not advice:
            raise
        raise UsageError(f"{error}; {advice}") from error
    except BrokenPipeError:  # of a line that `say` printed
        raise
    except OSError as error:
        raise UsageError(
            f"{error.filename or name} cannot be read: {reason_of(error)}; make the folder readable, or name another"
            " with --data_dir"
        ) from error


def small_crops(dataset: Dataset, name: str, crop_size: int | None) -> str | None:
    """A line for a run whose crops see far less of the stored images than in 2012; None: they see enough.

    Args:
      dataset: of the run.
      name: `config.dataset.name`.
      crop_size: pixels; None: it follows from the stored images, and is large enough.
    """
    if crop_size is None or crop_size / dataset.image_size >= SMALL_CROP * follow.RECIPE_SHARE:
        return None
    size = round(crop_size / follow.RECIPE_SHARE)
    family = name.partition("/")[0]
    return (
        f"warning: crops of {crop_size} pixels see {(crop_size / dataset.image_size) ** 2:.0%} of the area of stored"
        f" images of {dataset.image_size}, and 77 % in 2012; `{_prepare_command(dataset, family, size)}` and"
        f" --config.dataset.name={family}/{size} store smaller images, or"
        f" --config.dataset.crop_size={follow.crop_of(dataset.image_size)} takes larger crops"
    )


def _prepare_command(dataset: Dataset, family: str, size: int) -> str:
    """The command that prepared the data set, with another size."""
    try:
        command = str(json.loads((dataset.folder / RECORD_FILE).read_text())["command"])
    except (OSError, ValueError, KeyError, TypeError):
        command = f"{PREPARE} ..."
    if family == "elpv":
        return f"{PREPARE} elpv/{size}"
    return f"{re.sub(r' --?size[= ][0-9]+', '', command)} --size={size}"


def _advice(error: DatasetError, named: str) -> str:
    match error:
        case UnknownDatasetError():
            return (
                f"{named} names the data set and --data_dir the folder; {automatic.KNOWN} is made when"
                f" first used, and `{PREPARE}` makes others"
            )
        case ForeignDatasetError():
            return f"`{PREPARE} tfds {error.name} --source_dir={error.data_dir}` prepares the data set from that copy"
        case UnwritableFolderError():
            return "name another folder with --data_dir"
    return ""
