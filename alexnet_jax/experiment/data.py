"""Opens the data set of an experiment. Errors get the advice that names flags and fields of the config."""

from collections.abc import Callable

from alexnet_jax.data.dataset import Dataset, open_dataset
from alexnet_jax.data.errors import DatasetError, ForeignDatasetError, UnknownDatasetError, UnwritableFolderError
from alexnet_jax.data.preparing import automatic
from alexnet_jax.errors import UsageError

PREPARE = "python -m alexnet_jax.prepare"


def open_data(name: str, data_dir: str | None, *, say: Callable[[str], None]) -> Dataset:
    """The prepared data set `name`; a data set that needs no files from the user is prepared first.

    Args:
      name: `config.dataset.name`, such as `elpv/160`.
      data_dir: folder of prepared data sets; None: TFDS's own.
      say: takes a line about the preparation.

    Raises:
      UsageError: the data set is missing, incomplete or cannot be prepared.
    """
    try:
        automatic.ensure(name, data_dir, say=say)
        return open_dataset(name, data_dir)
    except DatasetError as error:
        advice = _advice(error)
        if not advice:
            raise
        raise UsageError(f"{error}; {advice}") from error


def _advice(error: DatasetError) -> str:
    match error:
        case UnknownDatasetError():
            return (
                f"config.dataset.name names the data set and --data_dir the folder; {automatic.KNOWN} is made when"
                f" first used, and `{PREPARE}` makes others"
            )
        case ForeignDatasetError():
            return f"`{PREPARE} tfds {error.name} --source_dir={error.data_dir}` prepares the data set from that copy"
        case UnwritableFolderError():
            return "name another folder with --data_dir"
    return ""
