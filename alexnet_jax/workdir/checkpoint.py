"""Checkpoints of the training state: the only file that knows orbax."""

import contextlib
import ctypes
import datetime
import errno
import json
import logging
import math
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from etils import epath
from jax.experimental import multihost_utils
from jaxtyping import PyTree
from orbax.checkpoint.checkpoint_managers import LatestN

from alexnet_jax.errors import NO_ROOM, UsageError, reason_of, words_of
from alexnet_jax.learning.step import TrainState
from alexnet_jax.paths import is_file
from alexnet_jax.runtime import allocator, compat
from alexnet_jax.runtime.processes import log
from alexnet_jax.strict_json import is_finite
from alexnet_jax.workdir import manifest
from alexnet_jax.workdir.atomic import storage_errors, write_atomically
from alexnet_jax.workdir.errors import (
    DamagedCheckpointError,
    MismatchError,
    NotFiniteCheckpointError,
    NotFiniteStateError,
    NoTrainingStateError,
    OldCheckpointError,
    SaveError,
    UnreadableCheckpointError,
    UnreadableFileError,
    UnwritableWorkdirError,
)

# Files of the checkpoint as a whole: its times, and the mark that it is complete. The arrays do not depend on them.
LATE_FILES = ("_CHECKPOINT_METADATA", "commit_success.txt")

KEPT = 3  # of the last checkpoints, beside the best one
PART = ".orbax-checkpoint-tmp"  # in the name of an incomplete checkpoint
SMALL_FILES = 2**18  # bytes of a checkpoint beside its arrays
NUMBERS = ("params", "batch_stats", "opt_state")  # fields of a state whose numbers are finite; a plateau's are not

compat.stop_collecting_tensorstore_metrics()


def _rank(metrics: dict[str, float]) -> Any:
    """The best checkpoint has the smallest. Small evaluations often have equal errors: then the loss decides."""
    return metrics["top1"], metrics.get("loss", math.inf)


class _Step(ocp.path.step.Metadata):
    """A checkpoint for orbax's lists, which are by step: its time is of no concern, and the file with it not read."""

    @property
    def commit_timestamp(self) -> datetime.datetime:
        return datetime.datetime.min


class _Names:
    """The names of checkpoints, for orbax: a damaged file of one checkpoint keeps no other from use."""

    def __init__(self) -> None:
        self._standard = ocp.path.step.standard_name_format()
        self.build_name = self._standard.build_name

    def find_all(self, folder: epath.Path) -> Iterator[_Step]:
        """All complete checkpoints."""
        return (_Step(entry.step, entry.path) for entry in self._standard.find_all(folder))

    def find_step(self, folder: epath.Path, step: int) -> _Step:
        """The complete checkpoint of the step; without it a `ValueError`."""
        entry = self._standard.find_step(folder, step)
        return _Step(entry.step, entry.path)


class _Manager(ocp.CheckpointManager):
    """Ignores a validation error that is damaged or not finite: `restore` names the damage of the checkpoint."""

    def metrics(self, step: int) -> Any:
        folder = self.directory / str(step)
        try:
            if not is_file(folder / "metrics/metrics") or manifest.damage(folder, below="metrics/"):
                return None
            metrics = super().metrics(step)
        except (ValueError, OSError, RecursionError):
            return None
        is_sound = isinstance(metrics, dict) and is_finite(metrics.get("top1")) and is_finite(metrics.get("loss", 0))
        return metrics if is_sound else None


class Checkpoints:
    """The checkpoints of one run, a folder each, named by the step: the last few, and that of the best evaluation.

    Of equal errors the one with the smaller loss is the best, and of equal losses the later one.

    Each checkpoint has a manifest, which is written before the checkpoint is complete. A checkpoint without a manifest
    was written by an earlier version of this code; orbax then reads it unverified.

    Args:
      folder: of the checkpoints.
      read_only: nothing is written or removed.

    Attributes:
      last_sound: step of the last checkpoint that this object restored or wrote; None before the first.

    Raises:
      UnreadableFileError, UnreadableCheckpointError: the folder cannot be read.
    """

    def __init__(self, folder: epath.Path, *, read_only: bool = False):
        processes = jax.process_count()
        self._folder = folder
        self._writing: int | None = None
        self.last_sound: int | None = None
        self._has_failed = False
        self._not_deleted: set[int] = set()
        if processes > 1 and not read_only:
            try:
                folder.mkdir(parents=True, exist_ok=True)  # with several active processes orbax does not make it
            except OSError as error:
                raise UnwritableWorkdirError(folder, error) from error
        quiet = _without_warnings() if read_only else contextlib.nullcontext()
        try:
            with storage_errors(folder), quiet:
                self._manager = _Manager(
                    folder,
                    item_handlers=ocp.PyTreeCheckpointHandler(),
                    options=ocp.CheckpointManagerOptions(
                        step_name_format=_Names(),
                        # Orbax keeps all, and `_delete_old` deletes: a save fails if Orbax cannot delete an old one.
                        preservation_policy=LatestN(),
                        best_fn=_rank,
                        best_mode="min",
                        create=not read_only and processes == 1,
                        read_only=read_only,
                        cleanup_tmp_directories=not read_only,  # an interrupted save leaves such folders
                        # One process calls it, after all have written and before the folder gets its name.
                        async_options=ocp.options.AsyncOptions(post_finalization_callback=self._list_files),
                        # With named processes orbax waits through the coordination service, not by a collective.
                        multiprocessing_options=ocp.options.MultiprocessingOptions(
                            active_processes=set(range(processes)) if processes > 1 else None
                        ),
                    ),
                )
        except OSError as error:
            raise UnreadableFileError(folder, error) from error
        except ValueError as error:
            raise UnreadableCheckpointError(folder, words_of(error)) from error

    def steps(self) -> Sequence[int]:
        """The steps of complete checkpoints, ascending."""
        return sorted(self._manager.all_steps())

    def best_step(self) -> int | None:
        """The step with the smallest validation error, of equal errors that with the smallest loss; None: no error."""
        return self._manager.best_step()

    def holds(self, step: int) -> bool:
        """Whether the state after this update was restored or written here, or is being written."""
        return step in (self.last_sound, self._writing)

    def is_evaluated(self, step: int) -> bool:
        """Whether a validation error is stored with the checkpoint."""
        return _agreed(lambda: None if self._manager.metrics(step) else "no error") is None

    def add_error(self, step: int, *, top1: float, loss: float) -> None:
        """Stores the validation error of a checkpoint that has none. Arguments as in `save`."""
        metrics, folder = _metrics_of(top1, loss), self._folder / str(step)

        def write() -> str | None:
            with contextlib.suppress(OSError), storage_errors(folder):  # no state is lost
                (folder / "metrics").mkdir(exist_ok=True)
                write_atomically(folder / "metrics" / "metrics", json.dumps(metrics))
                manifest.extend(folder)
            return None

        if metrics is not None and not self.is_evaluated(step):  # the manifest holds a file as it was first written
            _agreed(write)
            self._reload()

    def save(
        self, step: int, state: TrainState | dict[str, PyTree], *, top1: float | None, loss: float | None = None
    ) -> None:
        """Starts to write the state, and returns when it is copied.

        Checkpoints of this update and of later ones are deleted: they could not be restored, and the run makes these
        updates again.

        Args:
          step: updates done; names the checkpoint.
          state: of the run; or some of its fields by name, as of an imported network.
          top1: validation error in [0, 1]; None: the state was not evaluated.
          loss: of the same evaluation, by which the best of equal errors is chosen. A state whose error or loss is not
            finite is never the best.

        Raises:
          NotFiniteStateError: parameters, batch statistics or velocities are not finite. Nothing is written.
          SaveError: the checkpoint before this one, or this one, could not be written.
        """
        if not all_finite(_fields(state)):
            raise NotFiniteStateError(step)
        self.wait()
        if self._has_failed:
            self._remove_parts()  # a second time: threads of the failed save were still writing at the first
        if problem := _agreed(lambda: _no_room(self._folder, state)):
            raise SaveError(step, problem)
        self._writing = step
        try:
            for later in (each for each in self.steps() if each >= step):
                log(f"the checkpoint of update {later:,}, which could not be restored, is deleted")
                self._manager.delete(later)  # orbax would skip this save, and count it among the last
        except Exception as error:  # as in `restore`
            raise self._failed(error) from error
        metrics = _metrics_of(top1, loss)
        for again in (True, False) if self._has_failed else (False,):  # orbax may raise the same failure twice
            try:
                if not self._manager.save(step, args=ocp.args.PyTreeSave(state), metrics=metrics):
                    raise RuntimeError("orbax skipped it")
                break
            except Exception as error:  # as in `restore`
                if not again:
                    raise self._failed(error) from error

    def restore(self, step: int, target: PyTree) -> PyTree:
        """The state that was saved at `step`, or a part of it.

        Args:
          step: of the checkpoint.
          target: a tree of `ShapeDtypeStruct` with shardings: a `TrainState`, or some of its fields by name.

        Returns:
          The tree with values, laid out as its shardings say.

        Raises:
          MismatchError: the checkpoint is of another network.
          NoTrainingStateError: it holds a network alone.
          OldCheckpointError: an earlier version wrote it, without a part of the state.
          DamagedCheckpointError: a file is missing or has changed.
          NotFiniteCheckpointError: parameters, batch statistics or velocities are not finite.
          UnreadableCheckpointError: orbax cannot read it.
        """
        path = self._folder / str(step)
        if problem := _agreed(lambda: manifest.damage(path) or _odd_late_file(path)):
            raise DamagedCheckpointError(path, problem)
        self.check_fits(step, _fields(target)["params"])
        arguments = ocp.args.PyTreeRestore(
            item=target, restore_args=ocp.checkpoint_utils.construct_restore_args(target), partial_restore=True
        )
        try:
            restored = self._manager.restore(step, args=arguments)
        except Exception as error:  # orbax and tensorstore have no common error for missing or broken bytes
            raise UnreadableCheckpointError(path, words_of(error)) from error
        for leaf_path, leaf in jax.tree_util.tree_leaves_with_path(restored):
            if isinstance(leaf, jax.ShapeDtypeStruct):  # orbax leaves what the checkpoint does not have as it was asked
                name = jax.tree_util.keystr(leaf_path, simple=True, separator="/")
                raise NoTrainingStateError(path) if name == "step" else OldCheckpointError(path, name)
        if not all_finite(_fields(restored)):
            raise NotFiniteCheckpointError(path)
        self.last_sound = step
        return restored

    def check_fits(self, step: int, target: PyTree) -> None:
        """Compares names and shapes of parameters. If they cannot be read here, `restore` raises the error.

        Raises:
          MismatchError: the checkpoint lacks a parameter of the target, or has another shape.
        """
        try:
            stored = self._manager.item_metadata(step)["params"]
        except Exception:  # as in `restore`
            return
        there = _shapes(stored)
        for name, shape in _shapes(target).items():
            if there.get(name) != shape:
                raise MismatchError(self._folder / str(step), name, shape, there.get(name))

    def _list_files(self) -> None:
        """Writes the manifest of the checkpoint that is being completed, without the files that orbax writes later."""
        step = str(self._writing)
        # On a disk an incomplete checkpoint has a longer name. A user's copy, such as `12.bak`, is another folder.
        folders = [path for path in self._folder.iterdir() if path.name == step or path.name.startswith(step + PART)]
        manifest.extend(max(folders, key=lambda path: len(path.name)), but=LATE_FILES)

    def wait(self) -> None:
        """Returns when the last save is complete on disk.

        Raises:
          SaveError: the checkpoint could not be written.
        """
        try:
            self._manager.wait_until_finished()
        except Exception as error:  # as in `restore`
            raise self._failed(error) from error
        if self._writing is not None and jax.process_index() == 0:
            folder = self._folder / str(self._writing)
            with contextlib.suppress(OSError), storage_errors(folder):  # the arrays are listed, with or without these
                manifest.extend(folder)
            self._delete_old()
        if self._writing is not None:
            self.last_sound, self._writing, self._has_failed = self._writing, None, False
            allocator.trim()  # the copies that were written

    def _delete_old(self) -> None:
        """Deletes all checkpoints but the last ones and the best one. What cannot be deleted is named, and stays."""
        steps = self.steps()
        old = sorted({*steps[:-KEPT]} - {self.best_step()})
        for step in old:
            try:
                with storage_errors(self._folder):
                    (self._folder / str(step)).rmtree()
            except OSError as error:
                if step not in self._not_deleted:
                    log(f"warning: the old checkpoint of update {step:,} cannot be deleted: {reason_of(error)}")
                self._not_deleted.add(step)
        if old:
            self._reload()

    def _failed(self, error: Exception) -> SaveError:
        """Removes the files of a checkpoint that could not be written."""
        step, self._writing, self._has_failed = self._writing, None, True
        self._remove_parts()
        self._reload()  # orbax counts the checkpoint that failed
        return SaveError(step, words_of(error, None)[-200:])  # tensorstore ends with the cause

    def _reload(self) -> None:
        """Lists the checkpoints anew, unless the storage fails just now."""
        with contextlib.suppress(OSError), storage_errors(self._folder):
            self._manager.reload()

    def _remove_parts(self) -> None:
        """Removes incomplete checkpoints, while nothing is being written. A user's copies of checkpoints stay."""
        if jax.process_index() > 0:
            return
        with contextlib.suppress(OSError), storage_errors(self._folder):  # the storage may be why the save failed
            for path in self._folder.iterdir():
                if PART in path.name:
                    with contextlib.suppress(OSError):
                        path.rmtree()

    def close(self) -> None:
        """Waits for the last save, and ends orbax's threads."""
        try:
            self.wait()
        finally:
            reported = (Exception,) if self._has_failed else ()  # orbax raises the failure of a save again
            with contextlib.suppress(*reported):
                self._manager.close()


@contextlib.contextmanager
def _without_warnings() -> Iterator[None]:
    """Silences orbax, which warns that a checkpoint is opened to be read; the commands silence all of its log."""
    logger = logging.getLogger("absl")
    level = logger.level
    logger.setLevel(max(level, logging.ERROR))
    try:
        yield
    finally:
        logger.setLevel(level)


def restore_newest(checkpoints: Checkpoints, target: PyTree) -> PyTree | None:
    """The newest state that can be read, or a part of it; None: no checkpoint can be read.

    A damaged checkpoint is named and passed over. It stays until the next save: perhaps the storage is broken, and not
    the checkpoint.

    Raises:
      UsageError: as in `Checkpoints.restore`, where the checkpoint can be read and does not fit.
    """
    for step in reversed(checkpoints.steps()):
        try:
            return checkpoints.restore(step, target)
        except UnreadableCheckpointError as error:
            log(f"warning: {error}; trying the one before")
    return None


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


def _odd_late_file(folder: epath.Path) -> str | None:
    """Names a device or a folder in place of a file that orbax reads, where no manifest lists the files; None: none."""
    odd = (name for name in LATE_FILES if (folder / name).exists() and not is_file(folder / name))
    return next((f"{name} is not a file" for name in odd), None)


def all_finite(arrays: PyTree) -> bool:
    """Whether every number of the arrays is finite, on all devices and processes."""
    return bool(jax.device_get(_all_finite(arrays))) if jax.tree.leaves(arrays) else True


@jax.jit
def _all_finite(arrays: PyTree) -> jax.Array:
    return jnp.all(jnp.stack([jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(arrays)]))


def _fields(state: PyTree) -> dict[str, PyTree]:
    """The fields of `NUMBERS` that a state, or a dictionary of some of its fields, has."""
    fields = state if isinstance(state, dict) else vars(state)
    return {name: fields[name] for name in NUMBERS if name in fields}


def _shapes(params: PyTree) -> dict[str, tuple[int, ...]]:
    """Shapes by name, such as `fc8/kernel`."""
    leaves = jax.tree_util.tree_leaves_with_path(params)
    return {jax.tree_util.keystr(path, simple=True, separator="/"): tuple(leaf.shape) for path, leaf in leaves}


def _metrics_of(top1: float | None, loss: float | None) -> dict[str, float] | None:
    """The numbers by which checkpoints are compared; None: this one never is the best."""
    if top1 is None or not is_finite(top1) or (loss is not None and not is_finite(loss)):
        return None
    return {"top1": top1} if loss is None else {"top1": top1, "loss": loss}


def _no_room(folder: epath.Path, state: PyTree) -> str | None:
    """A description if there is too little room for a state. Checked first: a failed save leaves threads that write."""
    if "://" in str(folder):
        return None
    size = round(1.1 * sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(state))) + SMALL_FILES
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            _reserve(file.fileno(), size)
    except OSError as error:
        if error.errno in NO_ROOM:
            return f"there is no room for {size:,} bytes in {folder} ({reason_of(error)})"
    return None


def _reserve(descriptor: int, size: int) -> None:
    """Reserves room for a file, which quotas limit. Where the file system cannot, the free bytes are compared alone.

    `os.posix_fallocate` would write zeros there, as on NFS before 4.2.

    Raises:
      OSError: there is no room, or it cannot be reserved.
    """
    reserve = getattr(ctypes.CDLL(None, use_errno=True), "fallocate", None)  # None: macOS
    if reserve is not None and reserve(descriptor, 0, ctypes.c_int64(0), ctypes.c_int64(size)) == 0:
        return
    number = errno.ENOTSUP if reserve is None else ctypes.get_errno()
    status = os.fstatvfs(descriptor)
    if number in (errno.ENOTSUP, errno.ENOSYS) and status.f_bavail * status.f_frsize < size:
        number = errno.ENOSPC
    raise OSError(number, os.strerror(number))


def _agreed(check: Callable[[], str | None]) -> str | None:
    """The problem that process 0 finds, on all processes: all of them write or restore the checkpoint, or none does."""
    if jax.process_count() == 1:
        return check()
    problem = (check() or "").encode()[:500] if jax.process_index() == 0 else b""
    with jax.transfer_guard("allow"):
        agreed = multihost_utils.broadcast_one_to_all(np.frombuffer(problem.ljust(500), np.uint8))
    return np.asarray(agreed).tobytes().decode(errors="replace").strip() or None
