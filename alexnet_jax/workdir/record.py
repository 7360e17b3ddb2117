"""The files of a workdir beside checkpoints and metrics: the config as run, the final result, the lock."""

import contextlib
import fcntl
import importlib.metadata
import json
import os
import platform
import re
import socket
import sys
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any

from etils import epath

import alexnet_jax
from alexnet_jax import strict_json
from alexnet_jax.errors import NO_LOCKS, UsageError
from alexnet_jax.paths import is_file, is_missing
from alexnet_jax.runtime import output, processes
from alexnet_jax.workdir.atomic import storage_errors, write_atomically
from alexnet_jax.workdir.errors import (
    DamagedFileError,
    LockedWorkdirError,
    LostCheckpointsError,
    NoRunError,
    OtherConfigError,
    UnreadableFileError,
    UnwritableWorkdirError,
)

CHECKPOINTS = "checkpoints"
CONFIG_FILE = "config.json"
RESULT_FILE = "result.json"
# Orbax reads `[...]` and a backslash in a path as parts of a pattern, and then finds no checkpoint.
UNREADABLE = re.compile(r"\[.*\]|\\")
LOCK_FILE = "lock"
RESULT_KEYS = {"step", "count", "loss_1_views", "top1_1_views", "loss_10_views", "top1_10_views"}  # of every result
PACKAGES = [
    "jax",
    "jaxlib",
    "flax",
    "optax",
    "orbax-checkpoint",
    "tensorflow-datasets",
    "numpy",
    "pillow",
]


def _same(config: dict[str, Any]) -> dict[str, Any]:
    return config


def check(
    folder: epath.Path,
    config: Mapping[str, Any],
    *,
    may_change: Collection[str] = (),
    may_grow: Collection[str] = (),
    may_follow: Collection[str] = (),
    complete: Callable[[dict[str, Any]], Mapping[str, Any]] = _same,
) -> None:
    """Makes the workdir. If it has checkpoints, compares their run's config with this one.

    Args:
      folder: the workdir.
      config: of the run that starts.
      may_change: keys whose values need not be the same, such as `mesh.data`.
      may_grow: keys whose values may be larger here.
      may_follow: keys that None leaves to the data set; a value and None do not differ.
      complete: adds to a recorded config the keys that an earlier version lacked.

    Raises:
      UsageError: as in `make`.
      OtherConfigError: another key has changed.
      LostCheckpointsError: the workdir has the result of a run and no checkpoints, and a run would overwrite it.
      DamagedFileError, UnreadableFileError: the config of the run cannot be read.
    """
    make(folder)
    if not has_checkpoints(folder):
        if (folder / RESULT_FILE).exists():
            raise LostCheckpointsError(folder, RESULT_FILE)
        return
    if not (folder / CONFIG_FILE).exists():
        return

    def fits(key: str, old: Any, new: Any) -> bool:
        if key in may_follow and (old is None or new is None):
            return True
        return key in may_change or old == new or (key in may_grow and strict_json.is_finite(old) and new > old)

    there, here = _flatten(_plain(complete(read_config(folder)))), _flatten(_plain(config))
    changes = {
        key: (there.get(key), here.get(key))
        for key in sorted(there.keys() | here.keys())
        if not fits(key, there.get(key), here.get(key))
    }
    if changes:
        raise OtherConfigError(folder, changes)


def make(folder: epath.Path) -> None:
    """Makes the workdir, unless it is there.

    Raises:
      UsageError: no checkpoint could be written and read below this name.
      UnwritableWorkdirError: it cannot be made.
    """
    _check_name(folder, "name another")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UnwritableWorkdirError(folder, error) from error


def _check_name(folder: epath.Path, advice: str) -> None:
    """Checks that orbax can write and read checkpoints below a name."""
    name = str(folder)
    if odd := UNREADABLE.search(name):
        raise UsageError(f"the workdir {name} has {odd[0]} in its path, below which orbax reads nothing; {advice}")
    if name != name.encode("utf-8", "replace").decode():
        raise UsageError(f"the workdir {name!r} has a name that is no UTF-8, and orbax knows no other; {advice}")


def has_checkpoints(folder: epath.Path) -> bool:
    """Whether a workdir holds checkpoints, or what is left of one.

    Raises:
      UnreadableFileError: the folder of checkpoints cannot be read.
    """
    checkpoints = folder / CHECKPOINTS
    try:
        return checkpoints.exists() and any(checkpoints.iterdir())
    except OSError as error:
        raise UnreadableFileError(checkpoints, error) from error


@contextlib.contextmanager
def lock(folder: epath.Path) -> Iterator[None]:
    """Locks the workdir for this process until it leaves or dies: a second run would delete files of the first.

    The lock holds on one machine, and over NFS between Linux machines. Object stores have no locks: two runs in one
    workdir there destroy each other's files.

    Raises:
      LockedWorkdirError: another process has the lock.
      UnwritableWorkdirError: the lock cannot be written.
    """
    if "://" in str(folder) or processes.index() != 0:
        yield
        return
    with contextlib.ExitStack() as stack:
        try:
            # The file is never removed: two processes could then each lock a file of this name.
            file = stack.enter_context(open(folder / LOCK_FILE, "a+", encoding="utf-8", errors="replace"))
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            file.truncate(0)
            file.write(f"process {os.getpid()} on {socket.gethostname()}\n")
            file.flush()
        except BlockingIOError as error:
            file.seek(0)
            raise LockedWorkdirError(folder, file.read().strip()) from error
        except OSError as error:
            if error.errno not in NO_LOCKS:
                raise UnwritableWorkdirError(folder, error) from error
            output.warn(f"warning: the file system of {folder} has no locks; let no other run use this workdir")
        yield


def record(
    folder: epath.Path,
    config: Mapping[str, Any],
    *,
    complete: Callable[[dict[str, Any]], Mapping[str, Any]] = _same,
) -> None:
    """Writes the config as run, the versions and the command, unless the workdir has them for this config.

    Args:
      folder: the workdir.
      config: of the run.
      complete: as in `check`.

    Raises:
      UnwritableWorkdirError: the file cannot be written.
    """
    file = folder / CONFIG_FILE
    try:
        if file.exists() and _plain(complete(read_config(folder))) == _plain(config):
            return
    except (DamagedFileError, UnreadableFileError) as error:  # `check` has refused this where there are checkpoints
        processes.log(f"warning: {error}; it is written anew")
    write_json(folder, CONFIG_FILE, {"config": _plain(config), "versions": versions(), "command": sys.argv})


def differs(folder: epath.Path, config: Mapping[str, Any]) -> bool:
    """Whether the config in a workdir is another one, or cannot be read."""
    try:
        return read_config(folder) != _plain(config)
    except UsageError:
        return True


def read_config(folder: epath.Path) -> dict[str, Any]:
    """The config of the run in a workdir.

    Raises:
      NoRunError: there is no config, or the workdir is a file.
      DamagedFileError: the config is no config.
      UnreadableFileError: the config or the folder cannot be read.
      UsageError: orbax reads no checkpoint below this name.
    """
    file = folder / CONFIG_FILE
    if is_file(folder):
        raise NoRunError(folder, is_file=True)
    try:
        if is_missing(file):
            raise NoRunError(folder)
    except OSError as error:
        raise UnreadableFileError(folder, error) from error
    _check_name(folder, "rename it")
    config = read_json(file).get("config")
    if not isinstance(config, dict):
        raise DamagedFileError(file, "it holds no config")
    return config


def read_result(folder: epath.Path) -> dict[str, Any] | None:
    """The losses and errors of a run's final state; None: the run is not finished.

    A damaged result is as none, and a line names it: the run then evaluates its final state again.
    """
    file = folder / RESULT_FILE
    if not file.exists():
        return None
    try:
        result = read_json(file)
        missing = sorted(RESULT_KEYS - {key for key, value in result.items() if strict_json.is_finite(value)})
        if missing:
            raise DamagedFileError(file, f"{missing[0]} is not a finite number")
    except (DamagedFileError, UnreadableFileError) as error:
        processes.log(f"warning: {error}; the run counts as not finished")
        return None
    return result


def remove_result(folder: epath.Path) -> None:
    """Removes the result of a shorter run, which goes on.

    Raises:
      UnwritableWorkdirError: it cannot be removed.
    """
    try:
        (folder / RESULT_FILE).unlink(missing_ok=True)
    except OSError as error:
        raise UnwritableWorkdirError(folder, error) from error


def versions() -> dict[str, str]:
    """Versions of this program, of Python and of the packages that can change a number, by name."""
    programs = {"alexnet_jax": alexnet_jax.__version__, "python": platform.python_version()}
    return programs | {package: importlib.metadata.version(package) for package in PACKAGES}


def wait_for_config(folder: epath.Path, *, patience: float = 60.0) -> bool:
    """Whether the config that process 0 writes appears here. Network file systems may show a file seconds late.

    Args:
      folder: the workdir.
      patience: seconds to wait.
    """
    until = time.monotonic() + patience
    while not (exists := (folder / CONFIG_FILE).exists()) and time.monotonic() < until:
        time.sleep(0.2)
    return exists


def facts(config: Mapping[str, Any]) -> dict[str, Any]:
    """The facts that all processes of a run must share before they begin: config and versions, by key."""
    config_keys = {f"config.{key}": value for key, value in _flatten(_plain(config)).items()}
    return config_keys | {f"the version of {name}": version for name, version in versions().items()}


def write_json(folder: epath.Path, name: str, value: dict[str, Any]) -> None:
    """Writes a JSON object into a file of the workdir.

    Raises:
      UnwritableWorkdirError: the file cannot be written.
    """
    write_bytes(folder, name, (strict_json.dumps(value, indent=2) + "\n").encode())


def write_bytes(folder: epath.Path, name: str, data: bytes) -> None:
    """Writes a file of the workdir.

    Raises:
      UnwritableWorkdirError: the file cannot be written.
    """
    try:
        write_atomically(folder / name, data)
    except OSError as error:
        raise UnwritableWorkdirError(folder, error) from error


def read_json(file: epath.Path) -> dict[str, Any]:
    """The JSON object in a file.

    Raises:
      DamagedFileError: the file holds something else.
      UnreadableFileError: the file may not be read, or its storage fails.
    """
    if file.exists() and not is_file(file):
        raise DamagedFileError(file, "it is not a file")
    try:
        with storage_errors(file):
            content = file.read_bytes()
        value = json.loads(content.decode("utf-8-sig"))  # editors may add the mark of UTF-8
    except UnicodeDecodeError as error:
        raise DamagedFileError(file, "it is not UTF-8") from error
    except OSError as error:
        raise UnreadableFileError(file, error) from error
    except (ValueError, RecursionError) as error:
        raise DamagedFileError(file, str(error)) from error
    if not isinstance(value, dict):
        raise DamagedFileError(file, "it holds no JSON object")
    return value


def _plain(config: Mapping[str, Any]) -> dict[str, Any]:
    """The config as `read_config` reads it: tuples are lists."""
    return json.loads(strict_json.dumps(config))


def _flatten(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        flat |= _flatten(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
    return flat
