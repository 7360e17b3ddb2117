"""What lies in a workdir besides metrics: the config as run, the checkpoints, the final result."""

import contextlib
import errno
import fcntl
import importlib.metadata
import json
import os
import platform
import socket
import sys
import time
from collections.abc import Iterator
from typing import Any

from etils import epath
from ml_collections import ConfigDict

from alexnet_jax.errors import UsageError
from alexnet_jax.runtime import processes
from alexnet_jax.workdir.atomic import write_whole

CHECKPOINTS = "checkpoints"
CONFIG_FILE = "config.json"
RESULT_FILE = "result.json"
LOCK_FILE = "lock"
NO_LOCKS = (errno.ENOSYS, errno.ENOTSUP, errno.ENOLCK)
PACKAGES = [
    "alexnet_jax",
    "jax",
    "jaxlib",
    "flax",
    "optax",
    "orbax-checkpoint",
    "grain",
    "tensorflow-datasets",
    "numpy",
    "pillow",
]

# Keys that change where and when things happen but not a single number of the training.
FREE_KEYS = ("mesh.data", "mesh.tower", "evaluate_every", "save_every", "on_failed_save")


def check(folder: epath.Path, config: ConfigDict) -> None:
    """Makes the workdir, and sees that its checkpoints, if it has any, are of this config.

    Raises:
      UsageError: the folder cannot be written, or belongs to another config.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _unwritable(folder, error) from error
    checkpoints = folder / CHECKPOINTS
    if not (folder / CONFIG_FILE).exists() or not checkpoints.exists() or not any(checkpoints.iterdir()):
        return
    before, now = _flatten(read_config(folder).to_dict()), _flatten(_plain(config))
    different = [
        key
        for key in sorted(before.keys() | now.keys())
        if key not in _free_keys(config) and before.get(key) != now.get(key)
    ]
    if different:
        changes = ", ".join(f"{key} ({before.get(key)} there, {now.get(key)} here)" for key in different)
        raise UsageError(f"{folder} holds a run of another config: {changes}; name another --workdir")


@contextlib.contextmanager
def lock(folder: epath.Path) -> Iterator[None]:
    """Keeps the workdir for this process, until it leaves or dies; other runs would delete what this one writes.

    It holds on one machine, and over NFS between Linux machines. Object stores have no locks: there nothing keeps two
    runs apart, which both would lose by.

    Raises:
      UsageError: another process has it, or the folder cannot be written.
    """
    if "://" in str(folder) or processes.index() != 0:
        yield
        return
    with contextlib.ExitStack() as stack:
        try:
            # Never removed: then two processes could each have the lock of a file of this name.
            file = stack.enter_context(open(folder / LOCK_FILE, "a+"))
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            file.truncate(0)
            file.write(f"process {os.getpid()} on {socket.gethostname()}\n")
            file.flush()
        except BlockingIOError as error:
            file.seek(0)
            raise UsageError(
                f"another run is at work in {folder} ({file.read().strip()}); wait for it, or name another --workdir"
            ) from error
        except OSError as error:
            if error.errno not in NO_LOCKS:
                raise _unwritable(folder, error) from error
            print(f"warning: the file system of {folder} has no locks; see that no other run uses this workdir")
        yield


def record(folder: epath.Path, config: ConfigDict) -> None:
    """Writes the config as run, with the versions and the command, unless a run before has.

    Raises:
      UsageError: the folder cannot be written.
    """
    if (folder / CONFIG_FILE).exists() and _flatten(read_config(folder).to_dict()) == _flatten(_plain(config)):
        return
    try:
        text = json.dumps({"config": _plain(config), "versions": versions(), "command": sys.argv}, indent=2)
        write_whole(folder / CONFIG_FILE, text + "\n")
    except OSError as error:
        raise _unwritable(folder, error) from error


def _unwritable(folder: epath.Path, error: OSError) -> UsageError:
    return UsageError(f"the workdir {folder} cannot be written: {error}; name another with --workdir")


def _plain(config: ConfigDict) -> dict[str, Any]:
    """As JSON brings it back: tuples are lists."""
    return json.loads(json.dumps(config.to_dict()))


def _free_keys(config: ConfigDict) -> list[str]:
    """A plateau schedule learns from evaluations, so with it their times do change numbers."""
    return [key for key in FREE_KEYS if not (key == "evaluate_every" and config.get("schedule") == "plateau")]


def read_config(folder: epath.Path) -> ConfigDict:
    """The config of the run in a workdir.

    Raises:
      UsageError: there is none.
    """
    file = folder / CONFIG_FILE
    if not file.exists():
        raise UsageError(f"{folder} holds no run: {CONFIG_FILE} is missing; name the --workdir of a training run")
    try:
        return ConfigDict(json.loads(file.read_text())["config"])
    except (ValueError, KeyError) as error:
        raise UsageError(f"{file} is damaged ({error}); remove the workdir, or restore the file") from error


def write_result(folder: epath.Path, result: dict[str, Any]) -> None:
    """Marks the run as finished, with the errors of its final state.

    Raises:
      UsageError: the folder cannot be written.
    """
    try:
        write_whole(folder / RESULT_FILE, json.dumps(result, indent=2) + "\n")
    except OSError as error:
        raise _unwritable(folder, error) from error


def read_result(folder: epath.Path) -> dict[str, Any] | None:
    """What `write_result` wrote, or None while the run is not finished."""
    file = folder / RESULT_FILE
    return json.loads(file.read_text()) if file.exists() else None


def versions() -> dict[str, str]:
    """Of Python and of the packages whose change could change a number."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:  # ourselves, run from a checkout
            continue
    return found


def shows(folder: epath.Path, *, patience: float = 60.0) -> bool:
    """Whether the config that process 0 writes is seen here within so many seconds; a network's disk may be late."""
    until = time.monotonic() + patience
    while not (there := (folder / CONFIG_FILE).exists()) and time.monotonic() < until:
        time.sleep(0.2)
    return there


def facts(config: ConfigDict) -> dict[str, Any]:
    """What all processes of a run must have in common before they begin: the config and the versions, by key."""
    config_keys = {f"config.{key}": value for key, value in _flatten(_plain(config)).items()}
    return config_keys | {f"the version of {name}": version for name, version in versions().items()}


def _flatten(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        flat |= _flatten(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
    return flat
