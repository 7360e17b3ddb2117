"""The private parts of libraries that the program uses: all of them, each with its reason and a way on without it.

Each section names the version in which the private part was seen. `tests/runtime/test_compat.py` notices when a trick
no longer works, and when a library no longer needs it. No other file of the package touches a private name.
"""

import contextlib
import functools
import importlib
import re
import subprocess
import sys
from collections.abc import Iterator
from typing import Any, Protocol, runtime_checkable

import jax

from alexnet_jax.runtime import output


@functools.cache
def warn(line: str) -> None:
    """Prints a warning on the standard error, once per process."""
    output.warn(f"warning: {line}")


# JAX's coordination service. Seen in jax 0.10.2 and 0.12.0.1: `jax.distributed` has `initialize`, `is_initialized` and
# `shutdown` alone. The client of the key-value store has no public name. `jax.process_index()` and
# `jax.process_count()` are public, but count the devices first, which fixes their number.


def _distributed() -> Any:
    try:
        from jax._src import distributed

        return distributed.global_state
    except (ImportError, AttributeError):
        return None


def has_coordination_client() -> bool:
    """Whether `coordination_client` will find the client of a cluster that is joined."""
    return hasattr(_distributed(), "client")


def coordination_client() -> Any:
    """The client of the coordination service; None: there is a single process, or JAX keeps the client elsewhere."""
    if not has_coordination_client() and jax.distributed.is_initialized():
        warn(
            f"JAX {jax.__version__} has its coordination service in another place: the processes are not compared at"
            " the start, and a process that dies or hangs is not named"
        )
    return getattr(_distributed(), "client", None)


def coordinator_address() -> str | None:
    """HOST:PORT of process 0, as soon as `jax.distributed.initialize` knows the address; None: unknown."""
    return getattr(_distributed(), "coordinator_address", None)


def process_index() -> int:
    """The number of this process, from 0. The devices are not counted for the answer, where JAX allows."""
    index = getattr(_distributed(), "process_id", None)
    if index is None:
        return jax.process_index() if jax.distributed.is_initialized() else 0
    return index


def process_count() -> int:
    """The number of processes. The devices are not counted for the answer, where JAX allows."""
    count = getattr(_distributed(), "num_processes", None)
    if count is None:
        return jax.process_count() if jax.distributed.is_initialized() else 1
    return count


# A store for JAX's compilation cache. Seen in jax 0.10.2 and 0.12.0.1: `jax_compilation_cache_dir` names a folder for
# JAX's own store, and there is no public way to bring another store.


@runtime_checkable
class Store(Protocol):
    """What JAX calls: compiled programs by key."""

    _path: Any  # for a line of JAX's log

    def get(self, key: str) -> bytes | None:
        """The program of the key; None: not cached."""

    def put(self, key: str, value: bytes) -> None:
        """Stores the program of the key."""


def set_compilation_store(store: Store | None) -> bool:
    """Makes JAX keep compiled programs in the store, or, with None, opens JAX's own again.

    Returns:
      Whether JAX uses the store. If not, JAX's own store serves `jax_compilation_cache_dir`.
    """
    try:
        cache: Any = importlib.import_module("jax._src.compilation_cache")
    except ImportError:
        cache = None
    if not all(hasattr(cache, name) for name in ("_cache", "_cache_initialized", "reset_cache")):
        if store is not None:
            warn(
                f"JAX {jax.__version__} accepts no other store of compiled programs: JAX's own store is used, which may"
                " keep a damaged program after a crash"
            )
        return False
    cache.reset_cache()
    if store is not None:
        cache._cache, cache._cache_initialized = store, True
    return store is not None


# Orbax's question for the bytes written. Seen in orbax-checkpoint 0.12.8 with tensorstore 0.1.86: orbax collects the
# metrics of TensorStore before and after each save, for a line of its log, and TensorStore never frees the answers,
# 430 Python objects a save. Of zero bytes orbax logs nothing. Without the name orbax does not ask, and nothing is lost.


def stop_collecting_tensorstore_metrics() -> bool:
    """Makes orbax's saves collect no metrics of TensorStore; whether orbax has the function."""
    try:
        from orbax.checkpoint._src.serialization import tensorstore_utils
    except ImportError:
        return False
    if not hasattr(tensorstore_utils, "get_tensorstore_raw_bytes"):
        return False
    tensorstore_utils.get_tensorstore_raw_bytes = lambda *_, **__: 0
    return True


# XLA_FLAGS. Seen in jaxlib 0.10.2 and 0.12.0.1: XLA ends the process in C++, with status 1, at a flag that it does not
# know, as soon as it reads the variable. The options of a compilation, which have no public name, make it read the
# variable: another process tries that.


def xla_complaint() -> str:
    """XLA's words about an XLA_FLAGS that it cannot use; empty: XLA can, or nobody knows. Takes a third of a second."""
    code = "from jaxlib import xla_client; xla_client.CompileOptions()"
    try:
        tried = subprocess.run(
            [sys.executable, "-P", "-c", code],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            timeout=60,
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    match = re.search(r"^\w+ .*\.cc:\d+\] (.*)", tried.stderr.decode(errors="replace"), flags=re.MULTILINE)
    return match[1].rstrip(".")[:300] if tried.returncode and match else ""


# tensorboardX and PyTorch. Seen in tensorboardX 2.6.5: the package imports PyTorch where PyTorch is installed, which
# takes as long as all other imports together. A module that is None in `sys.modules` cannot be imported.


@contextlib.contextmanager
def without_torch() -> Iterator[None]:
    """Hides PyTorch from the imports of the block. PyTorch that is imported already stays."""
    modules: dict[str, Any] = sys.modules
    if "torch" in modules:
        yield
        return
    modules["torch"] = None
    try:
        yield
    finally:
        del modules["torch"]


def close_events_file(writer: Any) -> None:
    """Closes the file of a tensorboardX `EventsWriter` whose own `close` failed.

    Seen in tensorboardX 2.6.5: on a full disk `close` raises in its flush and leaves the file open, of which Python
    warns later. Without the private name that warning comes, and nothing else.
    """
    file = getattr(writer, "_py_recordio_writer", None)
    if file is not None:
        with contextlib.suppress(OSError):
            file.close()
