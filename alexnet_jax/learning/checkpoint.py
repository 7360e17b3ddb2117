"""Checkpoints of the training state: the only file that knows orbax."""

import functools
import logging
import sys
from collections.abc import Callable, Sequence
from typing import Any

import jax
import orbax.checkpoint as ocp
from etils import epath
from jaxtyping import PyTree
from orbax.checkpoint.checkpoint_managers import AnyPreservationPolicy, BestN, LatestN

from alexnet_jax.errors import UsageError
from alexnet_jax.learning.step import TrainState


def _drop_late_answers(otherwise: Callable[[Any], Any], unraisable: Any) -> None:
    """Drops what could not be told to orbax's event loop, since that is closed."""
    if str(unraisable.exc_value) != "Event loop is closed":
        otherwise(unraisable)


class MisfitError(UsageError):
    """A sound checkpoint of another network."""


def _error_of(metrics: dict[str, float]) -> float:
    return metrics["top1"]


class Checkpoints:
    """The checkpoints of one run, a folder each, named by the step: the last few, and the best by validation error."""

    def __init__(self, folder: epath.Path, *, keep_last: int = 3, read_only: bool = False):
        best = BestN(get_metric_fn=_error_of, reverse=True, n=1, keep_checkpoints_without_metrics=False)
        self._folder = folder
        self._manager = ocp.CheckpointManager(
            folder,
            item_handlers=ocp.PyTreeCheckpointHandler(),
            options=ocp.CheckpointManagerOptions(
                preservation_policy=AnyPreservationPolicy([LatestN(n=keep_last), best]),
                best_fn=_error_of,
                best_mode="min",
                create=not read_only,
                read_only=read_only,
                cleanup_tmp_directories=not read_only,  # what an interrupted save left behind
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
        """
        if step in self._manager.all_steps():
            self._manager.delete(step)  # a damaged one, which the run has come past again
        metrics = None if top1 is None else {"top1": top1}
        self._manager.save(step, args=ocp.args.PyTreeSave(state), metrics=metrics)

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
        self._check_fits(step, target["params"] if isinstance(target, dict) else target.params)
        arguments = ocp.args.PyTreeRestore(
            item=target, restore_args=ocp.checkpoint_utils.construct_restore_args(target), partial_restore=True
        )
        # After a failure tensorstore's late answers come one by one, each with a traceback of its own: then this stays.
        before = sys.unraisablehook
        sys.unraisablehook = functools.partial(_drop_late_answers, before)
        logging.getLogger("asyncio").disabled = True
        try:
            restored = self._manager.restore(step, args=arguments)
            sys.unraisablehook = before
            logging.getLogger("asyncio").disabled = False
            return restored
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

    def wait(self) -> None:
        """Returns when what was saved is complete on disk."""
        self._manager.wait_until_finished()

    def close(self) -> None:
        """Waits, and ends orbax's threads."""
        self._manager.close()
