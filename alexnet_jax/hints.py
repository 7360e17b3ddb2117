"""Advice for errors by kind: flags that help, of which the rooms that raise these errors know nothing."""

import contextlib
import shlex
from collections.abc import Iterator

import jax

from alexnet_jax.drawing.collection import UnwritableOutputError
from alexnet_jax.errors import NO_ROOM, UsageError
from alexnet_jax.runtime.errors import ClusterError
from alexnet_jax.workdir import errors

OUT_OF_MEMORY = "RESOURCE_EXHAUSTED:"  # the start of JAX's error
LESS_MEMORY = (
    "a smaller batch (config.batch_size) or network (config.network.width), more devices, or"
    " config.dataset.on_device=False take less"
)
FREE = "end other programs that use the device, or use another device: JAX_PLATFORMS=cpu runs on the CPU"


@contextlib.contextmanager
def hints(*, has_config: bool = False) -> Iterator[None]:
    """Appends the advice to the message of an error that leaves the block. Also a decorator: `@hints()`.

    Args:
      has_config: whether the command takes a config, whose fields may help.

    Raises:
      UsageError: as raised in the block, of the same kind and with the same attributes; or a device has too little
        memory, of which JAX raises pages.
    """
    try:
        yield
    except jax.errors.JaxRuntimeError as error:
        if not str(error).startswith(OUT_OF_MEMORY):
            raise
        reason = str(error).splitlines()[0].removeprefix(OUT_OF_MEMORY)
        raise UsageError(
            f"a device has too little memory:{reason.rstrip('.')}; {LESS_MEMORY if has_config else FREE}"
        ) from error
    except UsageError as error:
        if (hint := _hint(error)) is not None:
            error.args = (f"{error}; {hint}",)
        elif error.option:
            error.args = (f"{error} (--{error.option})",)
        raise


def _other_config(error: errors.OtherConfigError) -> str:
    advice = f"name another --workdir; --config.init_from={error.folder} starts from that run's parameters"
    if "num_epochs" in error.changes:
        advice += (
            ". A run resumes here with more epochs where no rate of its past changes: with the schedule 'epochs' or"
            " 'steps', or with constant rates and the schedule 'run'"
        )
    return advice


def _hint(error: UsageError) -> str | None:
    match error:
        case errors.OtherConfigError():
            return _other_config(error)
        case errors.LostCheckpointsError():
            return f"name another --workdir, or remove {error.file.name} there to train again from the beginning"
        case errors.OtherDataError():
            return (
                f"prepare that run's data set again, name another --workdir, or remove {error.file.name} there to go on"
                " with the data set here"
            )
        case errors.UnwritableWorkdirError() if error.reason.errno in NO_ROOM:
            return "make room, or name another with --workdir"
        case errors.UnwritableWorkdirError():
            return "name another with --workdir"
        case errors.LockedWorkdirError():
            return "wait for it, or name another --workdir"
        case errors.NoRunError() if error.is_file:
            file = shlex.quote(str(error.folder))
            return (
                f"`python -m alexnet_jax.convert import {file} --workdir=DIR` makes a workdir of a file of parameters"
            )
        case errors.NoRunError():
            return "name the --workdir of a training run"
        case errors.DamagedFileError() if error.file.name == "data.json":
            return "remove it, if the data set here is that of the run"
        case errors.DamagedFileError():
            return "restore it, or remove it and train again with the config that the run had"
        case errors.UnreadableFileError():
            return "make it readable, or check the storage"
        case errors.MismatchError():
            layer = error.name.split("/")[0]
            return f"use the recipe it was made with, or, starting from it, name {layer!r} in config.fresh"
        case errors.NoTrainingStateError():
            return f"name another --workdir, and start from this network with --config.init_from={error.folder}"
        case errors.OldCheckpointError():
            return "use that version, or train anew with another --workdir"
        case errors.NotFiniteCheckpointError():
            return "name an earlier one with --checkpoint, or train anew with lower rates (config.rates)"
        case errors.UnreadableCheckpointError():
            return "resume that run, which then ignores this checkpoint, or name another one with --checkpoint"
        case errors.SaveError():
            return "remove the cause and run the same command again: the run resumes from the newest checkpoint"
        case UnwritableOutputError():
            return "name another folder with --output"
        case ClusterError():
            return "--distributed=off runs alone"
    return None
