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
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import Mesh, PartitionSpec
from jaxtyping import Array, Float

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


class Division(NamedTuple):
    """The axis of a mesh over which the batch is divided; the compiler sees to it, but for the operations here."""

    mesh: Mesh
    axis: str


def on_cpu(
    name: str,
    plain: Callable[..., Array],
    *inputs: Float[Array, "..."],
    fits: bool = True,
    division: Division | None,
    batched: str = "",
    **constants: float,
) -> Float[Array, "..."]:
    """`plain(*inputs)`, as far as it runs on a CPU computed by the operation of that name.

    Args:
      name: one of `OPERATIONS`.
      plain: the same in JAX, for all other platforms.
      inputs: maps `[batch rows columns channels]`; a convolution's kernel comes last.
      fits: the operation knows the case. Float32 is asked for besides.
      division: how the batch is divided, if it is; the operation is then divided by hand.
      batched: "image": the last input is a kernel; "kernel": the result is one, the sum over the batch.
      constants: the operation's, whole or real as it expects them.
    """
    expected = jax.eval_shape(plain, *inputs)
    shape = expected.shape
    usable = fits and all(x.dtype == jnp.float32 and x.ndim >= 3 and x.size > 0 for x in (expected, *inputs))
    if not usable or not available():
        return plain(*inputs)

    def own(*inputs: Array, shape: tuple[int, ...] = shape) -> Array:
        vmap_method = "sequential" if batched else "broadcast_all"  # maps may have any axes before their last three
        run = jax.ffi.ffi_call(_target(name), jax.ShapeDtypeStruct(shape, jnp.float32), vmap_method=vmap_method)
        y = run(*inputs, **{key: _attribute(constant) for key, constant in constants.items()})
        # Under shard_map JAX would take it for the same on all devices. Where plain's is, since the images are, their
        # gradient is the sum of all devices'.
        varying = frozenset().union(*(_varying(jax.typeof(x)) for x in inputs))
        y = lax.pcast(y, tuple(varying), to="varying") if varying else y
        summed = varying - _varying(expected) - {division.axis if division else None}
        return lax.psum(y, tuple(summed)) if summed else y

    if division is None:
        return lax.platform_dependent(*inputs, cpu=own, default=plain)
    mesh, axis = division

    def part(*inputs: Array) -> Array:
        if batched == "kernel":
            return lax.psum(own(*inputs), axis)
        return own(*inputs, shape=(shape[0] // mesh.shape[axis], *shape[1:]))

    images, kernel = PartitionSpec(axis), PartitionSpec()
    parts = jax.shard_map(
        part,
        mesh=None if jax.sharding.get_abstract_mesh().manual_axes else mesh,  # the one we are in, beside the towers'
        in_specs=(*[images] * (len(inputs) - 1), kernel if batched == "image" else images),
        out_specs=kernel if batched == "kernel" else images,
        axis_names={axis},
    )
    return lax.platform_dependent(*inputs, cpu=parts, default=plain)


def available() -> bool:
    """Whether this process has a CPU for its devices, and the operations for it."""
    return jax.default_backend() == "cpu" and _known()


def _attribute(constant: float) -> np.int64 | np.float32:
    return np.int64(constant) if isinstance(constant, (int, np.integer)) else np.float32(constant)


def _varying(kind: Any) -> frozenset[str]:
    """The axes under `shard_map` along which an array differs."""
    return kind.manual_axis_type.varying if kind.manual_axis_type else frozenset()


def _target(name: str) -> str:
    return f"alexnet_jax_{name}"


@functools.cache
def _known() -> bool:
    """Makes the operations known to XLA; warns once where that cannot be."""
    try:
        library = _library()
        for name in OPERATIONS:
            jax.ffi.register_ffi_target(_target(name), jax.ffi.pycapsule(library[f"serve_{name}"]), platform="cpu")
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
