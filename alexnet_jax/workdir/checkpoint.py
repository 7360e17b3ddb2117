"""Checkpoints of the training state: the only file that knows orbax."""

import contextlib
import errno
import os
import tempfile
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from etils import epath
from jax.experimental import multihost_utils
from jaxtyping import PyTree
from orbax.checkpoint._src.serialization import tensorstore_utils
from orbax.checkpoint.checkpoint_managers import AnyPreservationPolicy, BestN, LatestN

from alexnet_jax.errors import UsageError
from alexnet_jax.learning.step import TrainState
from alexnet_jax.workdir import manifest

# Of the checkpoint as a whole: its times, and that it is complete. The data does not depend on them.
LATE_FILES = ("_CHECKPOINT_METADATA", "commit_success.txt")

SMALL_FILES = 2**18  # bytes of a checkpoint beside its arrays

# Orbax asks TensorStore before and after each save how much it has written, for a line of its log. TensorStore 0.1.86
# never frees what it answers, 430 Python objects a save; of nothing written orbax says nothing.
tensorstore_utils.get_tensorstore_raw_bytes = lambda *_, **__: 0


class MisfitError(UsageError):
    """A sound checkpoint of another network."""


class SaveError(UsageError):
    """A checkpoint could not be written; those before it are as they were."""


def _error_of(metrics: dict[str, float]) -> float:
    return metrics["top1"]


class _Manager(ocp.CheckpointManager):
    """Reads past a validation error that is damaged: `restore` names the file, and other checkpoints are still good."""

    def metrics(self, step: int) -> Any:
        try:
            return None if manifest.damage(self.directory / str(step), below="metrics/") else super().metrics(step)
        except ValueError:
            return None


class Checkpoints:
    """The checkpoints of one run, a folder each, named by the step: the last few, and the best by validation error.

    Each has a manifest, written before the checkpoint is complete, so that there is none without it: one that an
    earlier version of this code wrote is handed to orbax unverified.
    """

    def __init__(self, folder: epath.Path, *, keep_last: int = 3, read_only: bool = False):
        processes = jax.process_count()
        if processes > 1 and not read_only:
            folder.mkdir(parents=True, exist_ok=True)  # orbax does not, with barriers of the coordination service
        best = BestN(get_metric_fn=_error_of, reverse=True, n=1, keep_checkpoints_without_metrics=False)
        self._folder = folder
        self._writing: int | None = None
        self._has_failed = False
        self._manager = _Manager(
            folder,
            item_handlers=ocp.PyTreeCheckpointHandler(),
            options=ocp.CheckpointManagerOptions(
                preservation_policy=AnyPreservationPolicy([LatestN(n=keep_last), best]),
                best_fn=_error_of,
                best_mode="min",
                create=not read_only and processes == 1,
                read_only=read_only,
                cleanup_tmp_directories=not read_only,  # what an interrupted save left behind
                # Called by one process, when all have written and before the folder gets its name.
                async_options=ocp.options.AsyncOptions(post_finalization_callback=self._list_files),
                # Naming the processes makes orbax wait through the coordination service, not by a collective operation.
                multiprocessing_options=ocp.options.MultiprocessingOptions(
                    active_processes=set(range(processes)) if processes > 1 else None
                ),
            ),
        )

    def steps(self) -> Sequence[int]:
        """The steps of complete checkpoints, ascending."""
        return sorted(self._manager.all_steps())

    def best_step(self) -> int | None:
        """The step with the smallest validation error; None if none was evaluated."""
        return self._manager.best_step()

    def save(self, step: int, state: TrainState, *, top1: float | None) -> None:
        """Starts to write the state and returns once it is copied.

        Args:
          step: updates done; names the checkpoint.
          state: what to write.
          top1: validation error in [0, 1], where it is known.

        Raises:
          SaveError: the checkpoint before this one, or this one, could not be written.
        """
        self.wait()
        if self._has_failed:
            self._remove_parts()  # once more: writers of the failed one were still at work
        if problem := _agreed(lambda: _no_room(self._folder, state)):
            raise SaveError(f"the checkpoint of update {step} could not be written: {problem}")
        if step in self._manager.all_steps():
            self._manager.delete(step)  # a damaged one, which the run has come past again
        self._writing = step
        metrics = None if top1 is None else {"top1": top1}
        for again in (True, False) if self._has_failed else (False,):  # orbax may raise the same failure twice
            try:
                self._manager.save(step, args=ocp.args.PyTreeSave(state), metrics=metrics)
                break
            except Exception as error:  # as in `restore`
                if not again:
                    raise self._failed(error) from error

    def restore(self, step: int, target: PyTree) -> PyTree:
        """What was saved at `step`, or a part of it.

        Args:
          step: of the checkpoint.
          target: a tree of `ShapeDtypeStruct` with shardings: a `TrainState`, or some of its fields by name.

        Returns:
          The tree with values, laid out as its shardings say.

        Raises:
          MisfitError: the checkpoint is of another network.
          UsageError: it is damaged.
        """
        if problem := _agreed(lambda: manifest.damage(self._folder / str(step))):
            raise UsageError(f"the checkpoint {self._folder / str(step)} is damaged: {problem}")
        self._check_fits(step, target["params"] if isinstance(target, dict) else target.params)
        arguments = ocp.args.PyTreeRestore(
            item=target, restore_args=ocp.checkpoint_utils.construct_restore_args(target), partial_restore=True
        )
        try:
            return self._manager.restore(step, args=arguments)
        except Exception as error:  # orbax and tensorstore have no common error for missing or broken bytes
            reason = " ".join(str(error).split())[:200] or type(error).__name__
            raise UsageError(f"the checkpoint {self._folder / str(step)} cannot be read: {reason}") from error

    def _check_fits(self, step: int, target: PyTree) -> None:
        """Compares names and shapes; what cannot be read here is `restore`'s to tell."""
        folder = self._folder / str(step)
        try:
            stored = self._manager.item_metadata(step)["params"]
        except Exception:  # as in `restore`
            return
        shapes = {jax.tree_util.keystr(path): leaf.shape for path, leaf in jax.tree_util.tree_leaves_with_path(stored)}
        for path, leaf in jax.tree_util.tree_leaves_with_path(target):
            found = shapes.get(jax.tree_util.keystr(path))
            if found is None or tuple(found) != leaf.shape:
                name = "/".join(key.key for key in path)
                there = "does not have it" if found is None else f"has {tuple(found)}"
                raise MisfitError(
                    f"the checkpoint {folder} does not fit the network: {name} has the shape {leaf.shape} here, and the"
                    f" checkpoint {there}; use the recipe it was made with, or, starting from it, name"
                    f" {path[0].key!r} in config.fresh"
                )

    def _list_files(self) -> None:
        """Writes the manifest of the checkpoint that is being completed, but for what orbax writes after this."""
        step = str(self._writing)
        (folder,) = (path for path in self._folder.iterdir() if path.name.split(".")[0] == step)
        manifest.extend(folder, but=LATE_FILES)

    def wait(self) -> None:
        """Returns when what was saved is complete on disk.

        Raises:
          SaveError: it could not be written.
        """
        try:
            self._manager.wait_until_finished()
        except Exception as error:  # as in `restore`
            raise self._failed(error) from error
        if self._writing is not None and jax.process_index() == 0:
            with contextlib.suppress(OSError):  # the state is listed, whether or not these files are
                manifest.extend(self._folder / str(self._writing))
        if self._writing is not None:
            self._writing, self._has_failed = None, False

    def _failed(self, error: Exception) -> SaveError:
        """Frees the room of a checkpoint that could not be written."""
        step, self._writing, self._has_failed = self._writing, None, True
        self._remove_parts()
        self._manager.reload()  # orbax took those for gone that the failed one was to replace
        reason = " ".join(str(error).split())[-200:] or type(error).__name__  # tensorstore tells the cause last
        return SaveError(f"the checkpoint of update {step} could not be written: {reason}")

    def _remove_parts(self) -> None:
        """Removes what is not complete, while nothing is being written."""
        for path in self._folder.iterdir():
            if not path.name.isdigit() and jax.process_index() == 0:
                with contextlib.suppress(OSError):
                    path.rmtree()

    def close(self) -> None:
        """Waits, and ends orbax's threads."""
        self.wait()
        self._manager.close()


def _no_room(folder: epath.Path, state: TrainState) -> str | None:
    """Whether there is too little room for a state: asked first, since a writer that fails leaves others at work."""
    if "://" in str(folder):
        return None
    size = round(1.1 * sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(state))) + SMALL_FILES
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            os.posix_fallocate(file.fileno(), 0, size)  # unlike the free bytes, it knows of quotas
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            return f"there is no room for {size:,} bytes in {folder} ({error.strerror})"
    return None


def _agreed(look: Callable[[], str | None]) -> str | None:
    """What process 0 sees: all of them write or restore the checkpoint, or none does."""
    if jax.process_count() == 1:
        return look()
    told = (look() or "").encode()[:500] if jax.process_index() == 0 else b""
    with jax.transfer_guard("allow"):
        agreed = multihost_utils.broadcast_one_to_all(np.frombuffer(told.ljust(500), np.uint8))
    return np.asarray(agreed).tobytes().decode(errors="replace").strip() or None
