"""Advice for errors that rooms below the commands raise, by kind: those rooms do not know flags and config fields."""

import contextlib
from collections.abc import Iterator

from alexnet_jax.errors import UsageError
from alexnet_jax.runtime.errors import ClusterError
from alexnet_jax.workdir import errors


@contextlib.contextmanager
def hints() -> Iterator[None]:
    """Appends the advice to the message of an error that leaves the block. Also a decorator: `@hints()`.

    Raises:
      UsageError: as raised in the block, of the same kind and with the same attributes.
    """
    try:
        yield
    except UsageError as error:
        if (hint := _hint(error)) is not None and hint not in str(error):
            error.args = (f"{error}; {hint}",)
        raise


def _hint(error: UsageError) -> str | None:
    match error:
        case errors.OtherConfigError():
            return "name another --workdir"
        case errors.UnwritableWorkdirError():
            return "make room, or name another with --workdir"
        case errors.LockedWorkdirError():
            return "wait for it, or name another --workdir"
        case errors.NoRunError():
            return "name the --workdir of a training run"
        case errors.DamagedFileError():
            return "restore it, or remove it if the run had the config that --config now names, and train again"
        case errors.MismatchError():
            layer = error.name.split("/")[0]
            return f"use the recipe it was made with, or, starting from it, name {layer!r} in config.fresh"
        case errors.OldCheckpointError():
            return "use that version, or train anew with another --workdir"
        case errors.NotFiniteCheckpointError():
            return "name an earlier one with --checkpoint, or train anew with lower rates (config.rates)"
        case errors.UnreadableCheckpointError():
            return "resume that run, which then ignores this checkpoint, or name another one with --checkpoint"
        case errors.SaveError():
            return "make room and run the same command again: the newest checkpoint is resumed"
        case ClusterError():
            return "--distributed=off runs alone"
    return None
