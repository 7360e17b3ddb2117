"""Builds the C kernels with the machine's C compiler, caches the library, and registers its operations with XLA.

The kernels are optional. Without a compiler, for types other than float32 and on accelerators, the plain form in JAX
runs that each operation has beside its kernel.
"""

import contextlib
import contextvars
import ctypes
import dataclasses
import hashlib
import platform
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax

from alexnet_jax.network.native import cache
from alexnet_jax.network.native.compiler import BuildError, Compiler, find_compiler, run

FOLDER = Path(__file__).parent
OPERATIONS = (
    "response_norm",
    "response_norm_gradient",
    "spatial_norm",
    "spatial_norm_gradient",
    "max_pool",
    "max_pool_gradient",
    "convolution",
    "convolution_input_gradient",
    "convolution_kernel_gradient",
)
LINE = "C operations: "
HELP = (
    "Operations in C on a CPU. auto: built with the C compiler that CC names, else cc, gcc or clang, and used; off: the"
    " plain form in JAX, which takes twice as long and rounds 3x3 and 5x5 convolutions like a plain sum."
)


@dataclasses.dataclass(frozen=True)
class Status:
    """Whether operations run in C.

    Attributes:
      available: this process runs on a CPU and has the C kernels.
      line: says which path runs, for a command to print; empty on accelerators.
    """

    available: bool
    line: str


_plain = contextvars.ContextVar("_plain", default=False)
_lock = threading.Lock()
_status: Status | None = None  # of the last `load`
_registered: Status | None = None  # once the operations are registered with XLA, or cannot be


def load(mode: str = "auto") -> Status:
    """Builds the operations, or loads them from the cache, and registers them with XLA, once a process.

    Call it before JAX traces a program, and after `jax_compilation_cache_dir` is set: the library is cached there.
    `make_forward` calls it for a program that has not.

    Args:
      mode: auto: the operations run in C on a CPU, if they can be built. off: the plain form in JAX runs.

    Raises:
      ValueError: the mode is neither.
    """
    global _registered, _status
    if mode not in ("auto", "off"):
        raise ValueError(f"the mode is {mode!r}, expected auto or off")
    with _lock:
        if jax.default_backend() != "cpu":
            _status = Status(False, "")
        elif mode == "off":
            _status = Status(False, f"{LINE}off; the plain form in JAX runs")
        else:
            _registered = _status = _registered or _register()
        return _status


def load_once() -> Status:
    """`load()`, unless the program has called it."""
    return _status or load()


def available() -> bool:
    """Whether operations run in C: `load` has registered them, on a CPU, and its last mode is auto."""
    return _status is not None and _status.available and not _plain.get()


@contextlib.contextmanager
def plain_form() -> Iterator[None]:
    """Programs that this thread traces within the block have the plain form: for machines without the C kernels."""
    token = _plain.set(True)
    try:
        yield
    finally:
        _plain.reset(token)


def target(name: str) -> str:
    """The name under which an operation is registered with XLA."""
    return f"alexnet_jax_{name}"


def _register() -> Status:
    try:
        compiler = find_compiler()
        library = load_library(compiler, cache_folder())
        for name in OPERATIONS:
            jax.ffi.register_ffi_target(target(name), jax.ffi.pycapsule(library[target(name)]), platform="cpu")
    except (BuildError, OSError, jax.errors.JaxRuntimeError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        return Status(
            False,
            f"{LINE}none ({reason}); training takes twice as long; install gcc or clang, or name a C compiler in CC",
        )
    return Status(True, f"{LINE}{compiler}")


def load_library(compiler: Compiler, folder: Path | None) -> ctypes.CDLL:
    """The library of the operations, from the cache, or else built.

    Args:
      compiler: builds it.
      folder: of the cache; None: no cache.

    Raises:
      BuildError: the compiler fails, or the library cannot be written or loaded.
    """
    key = _key(compiler)
    if folder is not None and (cached := cache.find(folder, key)):
        with contextlib.suppress(OSError):
            return ctypes.CDLL(str(cached))
    try:
        with tempfile.TemporaryDirectory() as temporary:
            built = Path(temporary) / "operations.so"
            sources = map(str, sorted(FOLDER.glob("*.c")))
            run([*compiler.command, "-shared", "-I", jax.ffi.include_dir(), *sources, "-o", str(built)])
            if folder is not None:
                with contextlib.suppress(OSError):  # where a cache cannot be written, the next start builds again
                    return ctypes.CDLL(str(cache.put(folder, key, built.read_bytes())))
            return ctypes.CDLL(str(built))
    except OSError as error:
        raise BuildError(f"the library cannot be built: {error}") from error


def cache_folder() -> Path | None:
    """The folder of JAX's compilation cache; None: it is off, or not on this machine."""
    config: Any = jax.config  # whose fields are made at run time
    folder = config.jax_compilation_cache_dir if config.jax_enable_compilation_cache else None
    return Path(folder) if folder and "://" not in folder else None


def _key(compiler: Compiler) -> str:
    """Of all that makes the library what it is: sources, compiler, flags, processor and XLA's interface."""
    sources = [file.name + "\0" + file.read_text() for file in sorted(FOLDER.glob("*.[ch]"))]
    macros = [f"{name} {value}" for name, value in sorted(compiler.macros.items())]
    parts = (*compiler.command, *macros, *sources, platform.machine(), jax.lib.__version__)
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()
