"""Builds the C kernels with the machine's C compiler, caches the library, and registers its operations with XLA.

The kernels are optional. Without a compiler, for types other than float32 and on accelerators, the plain form in JAX
runs that each operation has beside its kernel.
"""

import contextlib
import ctypes
import dataclasses
import hashlib
import os
import platform
import re
import shlex
import shutil
import subprocess
import tempfile
import threading
import time
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax

FOLDER = Path(__file__).parent
FLAGS = ("-std=gnu11", "-O3", "-fno-math-errno", "-fno-trapping-math", "-fvisibility=hidden", "-fPIC", "-pthread")
NATIVE_FLAGS = {"x86_64": "-march=native", "AMD64": "-march=native", "aarch64": "-mcpu=native", "arm64": "-mcpu=native"}
INSTRUCTIONS = {  # by the macro that a compiler defines for them; the first one counts
    "__AVX512F__": "AVX-512",
    "__AVX2__": "AVX2",
    "__AVX__": "AVX",
    "__SSE2__": "SSE2",
    "__ARM_NEON": "NEON",
}
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
CACHED = 16  # libraries of other processors, compilers and versions that stay in the cache, those used last
UNFINISHED = ".part"
ABANDONED = 3600.0  # seconds after which the writer of an unfinished file counts as dead
TIMEOUT = 300.0  # seconds that a compiler may take
LINE = "C operations: "
HELP = (
    "Operations in C on a CPU. auto: built with the C compiler that CC names, else cc, gcc or clang, and used; off: the"
    " plain form in JAX, which takes twice as long and rounds 3x3 and 5x5 convolutions like a plain sum."
)


class BuildError(Exception):
    """The C kernels cannot be built or loaded; the message is one clause."""


@dataclasses.dataclass(frozen=True)
class Status:
    """Whether operations run in C.

    Attributes:
      available: this process runs on a CPU and has the C kernels.
      line: says which path runs, for a command to print; empty on accelerators.
    """

    available: bool
    line: str


@dataclasses.dataclass(frozen=True)
class Compiler:
    """A C compiler and its target.

    Attributes:
      command: the compiler and all flags.
      macros: that it defines, by name: its version, its target's instructions.
    """

    command: tuple[str, ...]
    macros: Mapping[str, str]

    def __str__(self) -> str:
        if "__clang__" in self.macros:
            version = "clang {__clang_major__}.{__clang_minor__}"
        elif "__GNUC__" in self.macros:
            version = "gcc {__GNUC__}.{__GNUC_MINOR__}"
        else:
            version = self.command[0]
        used = next((name for macro, name in INSTRUCTIONS.items() if macro in self.macros), platform.machine())
        return f"{version.format_map(self.macros)}, {used}"


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
    return _status is not None and _status.available


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
        reason = str(error).splitlines()[0]
        return Status(
            False,
            f"{LINE}none ({reason}); training takes twice as long; install gcc or clang, or name a C compiler in CC",
        )
    return Status(True, f"{LINE}{compiler}")


def find_compiler() -> Compiler:
    """The C compiler that CC names, else cc, gcc or clang.

    Raises:
      BuildError: there is none, or it fails.
    """
    try:
        command = shlex.split(os.environ.get("CC", ""))
    except ValueError as error:
        raise BuildError(f"no C compiler: CC is {os.environ['CC']!r}: {error}") from error
    if not command:
        installed = [name for name in ("cc", "gcc", "clang") if shutil.which(name)]
        if not installed:
            raise BuildError("no C compiler: neither cc, gcc nor clang is installed")
        command = installed[:1]
    if native := NATIVE_FLAGS.get(platform.machine()):
        command.append(native)
    command += FLAGS
    defined = _run([*command, "-dM", "-E", "-x", "c", os.devnull])
    macros = re.findall(r"#define (\w+) (.*)", defined)
    return Compiler(tuple(command), dict(macros))


def load_library(compiler: Compiler, cache: Path | None) -> ctypes.CDLL:
    """The library of the operations, from the cache if it is there and undamaged, else built.

    Raises:
      BuildError: the compiler fails, or the library cannot be written or loaded.
    """
    key = _key(compiler)
    cached = None if cache is None else _find(cache, key)
    if cached is not None:
        with contextlib.suppress(OSError):
            return ctypes.CDLL(str(cached))
    try:
        with tempfile.TemporaryDirectory() as temporary:
            built = Path(temporary) / "operations.so"
            sources = map(str, sorted(FOLDER.glob("*.c")))
            _run([*compiler.command, "-shared", "-I", jax.ffi.include_dir(), *sources, "-o", str(built)])
            if cache is not None:
                with contextlib.suppress(OSError):  # where a cache cannot be written, the next start builds again
                    return ctypes.CDLL(str(_put(cache, key, built.read_bytes())))
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


def _find(cache: Path, key: str) -> Path | None:
    """The library of a key whose content has the digest in its name; removes those that have not."""
    found = None
    with contextlib.suppress(OSError):
        for file in cache.glob(f"{key}-*.so"):
            with contextlib.suppress(OSError):
                if file.name == _name(key, file.read_bytes()):
                    os.utime(file)  # the cache keeps the libraries used last
                    found = file
                else:
                    file.unlink()
    return found


def _name(key: str, content: bytes) -> str:
    return f"{key}-{hashlib.sha256(content).hexdigest()}.so"


def _put(cache: Path, key: str, content: bytes) -> Path:
    cache.mkdir(parents=True, exist_ok=True)
    unfinished = cache / f"{uuid.uuid4().hex}{UNFINISHED}"
    try:
        unfinished.write_bytes(content)
        unfinished.replace(cache / _name(key, content))
    finally:
        unfinished.unlink(missing_ok=True)
    _evict(cache)
    return cache / _name(key, content)


def _evict(cache: Path) -> None:
    """Removes all but the libraries used last, and unfinished files that a dead process has left."""
    libraries = []
    for file in cache.iterdir():
        with contextlib.suppress(OSError):  # another process may evict, too
            used = file.stat().st_mtime
            if re.fullmatch(r"[0-9a-f]{64}(-[0-9a-f]{64})?\.so", file.name):  # without a digest: of an older version
                libraries.append((used, file))
            elif file.suffix == UNFINISHED and used < time.time() - ABANDONED:
                file.unlink()
    for _, file in sorted(libraries)[:-CACHED]:
        with contextlib.suppress(OSError):
            file.unlink()


def _run(command: list[str]) -> str:
    """The standard output of a compiler.

    Raises:
      BuildError: it cannot be run, or fails.
    """
    try:
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=TIMEOUT)
    except OSError as error:
        raise BuildError(f"no C compiler: {command[0]} cannot be run: {error.strerror}") from error
    except subprocess.TimeoutExpired as error:
        raise BuildError(f"the C compiler {command[0]} has not ended after {TIMEOUT:.0f} s") from error
    if done.returncode:
        lines = done.stderr.strip().splitlines()
        reason = next((line for line in lines if "error" in line), lines[-1] if lines else "")
        raise BuildError(f"the C compiler {command[0]} fails: {reason or f'status {done.returncode}'}")
    return done.stdout
