"""The kinds of errors about data sets and their sources, with the facts as attributes.

The messages name no flag and no config field: the commands and `experiment` know these, and append the advice.
"""

from collections.abc import Sequence

from etils import epath

from alexnet_jax.errors import TEMPORARY, UsageError
from alexnet_jax.paths import in_one_line


class DatasetError(UsageError):
    """A data set cannot be opened or prepared."""


class UnknownDatasetError(DatasetError):
    """No prepared data set has the name."""

    def __init__(self, name: str, data_dir: object, known: Sequence[str]):
        there = f"there {'are' if known else 'is'} {', '.join(known) or 'none'}"
        super().__init__(f"there is no data set {name!r} in {data_dir}; {there}")


class ForeignDatasetError(DatasetError):
    """A folder holds a data set that another program prepared, such as TFDS: a file that training needs is missing.

    Attributes:
      name: the data set, as TFDS knows it.
      data_dir: the folder of data sets that holds it.
    """

    def __init__(self, folder: epath.Path, data_dir: epath.Path, missing: str):
        super().__init__(f"{folder} was not prepared for training: {missing} is missing")
        self.name, self.data_dir = str(folder.parent.relative_to(data_dir)), str(data_dir)


class IncompleteDatasetError(DatasetError):
    """A part of a prepared data set is missing or damaged, as after an interrupted copy."""

    def __init__(self, folder: object, problem: str):
        super().__init__(
            f"the data set in {folder} is incomplete or damaged: {problem}; remove the folder, and prepare the data"
            " set or copy it again"
        )


class SourceError(DatasetError):
    """The files of a source are not what the source should hold."""


class MissingSourceError(SourceError):
    """A file or folder of a source is missing or cannot be read."""


class PartialArchiveError(SourceError):
    """An archive holds another number of images than the official archive."""

    def __init__(self, path: str, images: int, expected: int):
        super().__init__(
            f"{path} holds {images:,} images and the official archive {expected:,}; download the archive again"
        )


class BrokenImagesError(DatasetError):
    """Images of a source cannot be decoded.

    Attributes:
      too_large: images refused for their count of pixels alone.
    """

    def __init__(self, problems: Sequence[tuple[str, str]], file: object, too_large: int):
        first = "; ".join(f"{in_one_line(name)} ({reason})" for name, reason in problems[:3])
        count = f"{len(problems):,} images are" if len(problems) > 1 else "1 image is"
        super().__init__(
            f"{count} broken: {first}{'; ...' if len(problems) > 3 else ''}; {file} lists all;"
            " repair the images and run again"
        )
        self.too_large = too_large


class UnwritableFolderError(DatasetError):
    """The folder of prepared data sets cannot be written."""

    def __init__(self, path: object, reason: str):
        super().__init__(f"{path} cannot be written: {reason}")


class WorkerDiedError(DatasetError):
    """A process of the preparation was killed, or found no memory.

    Attributes:
      processes: at work.
    """

    def __init__(self, processes: int):
        super().__init__("a process was killed or found no memory; run the same command again to resume")
        self.processes = processes


class StorageError(DatasetError):
    """The storage of a data set has failed for longer than the program tries again."""

    status = TEMPORARY


class ReaderDiedError(DatasetError):
    """A worker process that reads images was killed, or found no memory. The state of the run is whole."""

    status = TEMPORARY

    def __init__(self, pid: int, ending: str):
        super().__init__(
            f"worker process {pid}, which read images, ended with {ending}, as where the memory runs out; run the same"
            " command again to resume"
        )
