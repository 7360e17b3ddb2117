"""Operations of JAX for CPUs, written in C; the machine's own compiler builds them at the first use.

A help and no more: where there is no compiler, for other types than float32, and on accelerators, the plain form that
is given with each operation runs.
"""

import contextlib
import ctypes
import functools
import hashlib
import os
import shlex
import shutil
import subprocess
import tempfile
import uuid
import warnings
from pathlib import Path
from typing import Any

import jax

FOLDER = Path(__file__).parent
SOURCES = [FOLDER / "maps.c", FOLDER / "convolution.c"]
FLAGS = ["-std=gnu11", "-O3", "-march=native", "-fno-math-errno", "-fno-trapping-math", "-fPIC", "-shared", "-pthread"]
OPERATIONS = (
    "response_norm",
    "response_norm_gradient",
    "spatial_norm",
    "spatial_norm_gradient",
    "max_pool",
    "max_pool_gradient",
    "convolution",
    "convolution_gradient",
)


def target(name: str) -> str:
    """The name by which XLA knows an operation."""
    return f"alexnet_jax_{name}"


def available() -> bool:
    """Whether this process has a CPU for its devices, and the operations for it."""
    return jax.default_backend() == "cpu" and _known()


@functools.cache
def _known() -> bool:
    """Makes the operations known to XLA; warns once where that cannot be."""
    try:
        library = _library()
        for name in OPERATIONS:
            jax.ffi.register_ffi_target(target(name), jax.ffi.pycapsule(library[f"serve_{name}"]), platform="cpu")
    except (OSError, jax.errors.JaxRuntimeError) as error:
        reason = str(error).splitlines()[0]
        warnings.warn(
            f"training on a CPU takes twice as long without operations built in C: {reason}; install gcc or clang, or"
            " name one in CC",
            stacklevel=4,
        )
        return False
    return True


def _library() -> ctypes.CDLL:
    """What this processor and compiler make of the sources.

    Raises:
      OSError: there is no compiler, it fails, or there is no room.
    """
    command = [*(shlex.split(os.environ.get("CC", "")) or [shutil.which("cc") or "gcc"]), *FLAGS]
    defined = _told([*command, "-dM", "-E", "-x", "c", os.devnull])  # by its version and the kind of processor
    sources = "".join(file.read_text() for file in (FOLDER / "work.h", *SOURCES))
    key = hashlib.sha256("\0".join((*command, defined, sources, jax.lib.__version__)).encode()).hexdigest()
    kept = _kept_in()
    with contextlib.suppress(OSError):
        if kept:
            return ctypes.CDLL(str(kept / f"{key}.so"))
    with tempfile.TemporaryDirectory() as passing:
        built = Path(passing) / "native.so"
        _told([*command, "-I", jax.ffi.include_dir(), *map(str, SOURCES), "-o", str(built)])
        with contextlib.suppress(OSError):  # to keep it is a help and no more
            if kept:
                kept.mkdir(parents=True, exist_ok=True)
                beside = kept / f"{uuid.uuid4().hex}.part"
                shutil.copy(built, beside)
                beside.replace(kept / f"{key}.so")
                return ctypes.CDLL(str(kept / f"{key}.so"))
        return ctypes.CDLL(str(built))


def _kept_in() -> Path | None:
    """The folder where JAX keeps what it compiles, if there is one on this machine."""
    config: Any = jax.config  # whose fields are made at run time
    folder = config.jax_compilation_cache_dir if config.jax_enable_compilation_cache else None
    return Path(folder) if folder and "://" not in folder else None


def _told(command: list[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise OSError(done.stderr.strip() or f"{command[0]!r} ended with status {done.returncode}")
    return done.stdout
