"""The errors of a workdir and its checkpoints. They hold facts; the callers that know flags add what to do."""

from typing import Any

from etils import epath

from alexnet_jax.errors import UsageError, reason_of


class UnwritableWorkdirError(UsageError):
    """The workdir cannot be written.

    Attributes:
      reason: of the operating system.
    """

    def __init__(self, folder: epath.Path, reason: OSError):
        super().__init__(f"the workdir {folder} cannot be written: {reason}")
        self.reason = reason


class NoRunError(UsageError):
    """The folder is not the workdir of a run.

    Attributes:
      folder: as named.
      is_file: whether it is a file.
    """

    def __init__(self, folder: epath.Path, *, is_file: bool = False):
        super().__init__(f"{folder} holds no run: {'it is a file' if is_file else 'config.json is missing'}")
        self.folder, self.is_file = folder, is_file


class OtherConfigError(UsageError):
    """The workdir holds a run of another config.

    Attributes:
      folder: the workdir.
      changes: the values there and here, by key.
    """

    def __init__(self, folder: epath.Path, changes: dict[str, tuple[Any, Any]]):
        listed = ", ".join(f"{key} ({there} there, {here} here)" for key, (there, here) in changes.items())
        super().__init__(f"{folder} holds a run of another config: {listed}")
        self.folder, self.changes = folder, changes


class LostCheckpointsError(UsageError):
    """The workdir holds the result of a run, and its checkpoints are gone.

    Attributes:
      file: the result.
    """

    def __init__(self, folder: epath.Path, file: str):
        super().__init__(f"{folder} holds the result of a run whose checkpoints are gone")
        self.file = folder / file


class OtherDataError(UsageError):
    """The workdir holds a run on other data.

    Attributes:
      file: holds the identity of that run's data.
    """

    def __init__(self, file: epath.Path, difference: str):
        super().__init__(f"the run in {file.parent} has other data than the data set here: {difference}")
        self.file = file


class DamagedFileError(UsageError):
    """A file of the workdir is empty, cut off or not ours.

    Attributes:
      file: its path.
    """

    def __init__(self, file: epath.Path, reason: str):
        super().__init__(f"{file} is damaged ({reason})")
        self.file = file


class UnreadableFileError(UsageError):
    """A file or folder of the workdir may not be read, or its storage fails. It may be sound."""

    def __init__(self, file: epath.Path, reason: OSError):
        super().__init__(f"{file} cannot be read: {reason_of(reason)}")


class LockedWorkdirError(UsageError):
    """Another run, `holder`, has the lock of the workdir."""

    def __init__(self, folder: epath.Path, holder: str):
        super().__init__(f"another run is at work in {folder} ({holder})")


class UnreadableCheckpointError(UsageError):
    """A checkpoint cannot be restored. Another checkpoint of the run may be sound."""

    def __init__(self, path: epath.Path, reason: str, *, form: str = "cannot be read: {}"):
        super().__init__(f"the checkpoint {path} {form.format(reason)}")


class DamagedCheckpointError(UnreadableCheckpointError):
    """A file of the checkpoint is missing, or has changed since it was written."""

    def __init__(self, path: epath.Path, reason: str):
        super().__init__(path, reason, form="is damaged: {}")


class NotFiniteCheckpointError(UnreadableCheckpointError):
    """The checkpoint holds numbers that are not finite, from a run that diverged."""

    def __init__(self, path: epath.Path):
        super().__init__(path, "its run diverged", form="holds numbers that are not finite: {}")


class MismatchError(UsageError):
    """A sound checkpoint of another network.

    Attributes:
      name: of the first parameter that differs, such as `fc8/kernel`.
    """

    def __init__(self, path: epath.Path, name: str, shape: tuple[int, ...], stored: tuple[int, ...] | None):
        there = "does not have it" if stored is None else f"has {stored}"
        super().__init__(
            f"the checkpoint {path} does not fit the network: {name} has the shape {shape} here, and the checkpoint"
            f" {there}"
        )
        self.name = name


class OldCheckpointError(UsageError):
    """A checkpoint of an earlier version of this program, whose state had other fields.

    Args:
      path: the checkpoint's folder.
      name: of the first array that the checkpoint does not have, such as `batch_stats/conv1_norm/mean`.
    """

    def __init__(self, path: epath.Path, name: str):
        super().__init__(f"the checkpoint {path} was written by an earlier version of this program: it has no {name}")


class NoTrainingStateError(UsageError):
    """A checkpoint of a network alone, as of an import: no run can go on from its step and velocities.

    Attributes:
      folder: the workdir.
    """

    def __init__(self, path: epath.Path):
        super().__init__(f"the checkpoint {path} holds a network and no state of a training run")
        self.folder = path.parent.parent


class SaveError(UsageError):
    """A checkpoint could not be written. Earlier checkpoints are unchanged."""

    def __init__(self, step: int | None, reason: str):
        which = "a checkpoint" if step is None else f"the checkpoint of update {step}"
        super().__init__(f"{which} could not be written: {reason}")


class NotFiniteStateError(UsageError):
    """A state with numbers that are not finite was to be saved."""

    def __init__(self, step: int):
        super().__init__(f"the state of update {step} is not finite")
