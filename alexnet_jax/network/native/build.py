"""Builds native kernels with the machine's compilers, caches the libraries, and registers their operations with XLA.

On a CPU these are the C kernels, on an NVIDIA GPU the CUDA kernels. They are optional: each operation has a plain form
in JAX beside its kernel. It runs without a compiler, for types and shapes that a kernel does not cover, and on other
accelerators.
"""

import contextlib
import contextvars
import ctypes
import dataclasses
import hashlib
import platform
import re
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax

from alexnet_jax.network.native import cache
from alexnet_jax.network.native.compiler import BuildError, Compiler, find_compiler, run
from alexnet_jax.network.native.nvrtc import OPTIONS as NVRTC_OPTIONS
from alexnet_jax.network.native.nvrtc import Nvrtc, find_nvrtc

FOLDER = Path(__file__).parent
CUDA_FOLDER = FOLDER / "cuda"
CUDA_OPERATIONS = tuple(
    name + part for name in ("response_norm", "spatial_norm", "max_pool", "norm_pool") for part in ("", "_gradient")
)
OPERATIONS = (*CUDA_OPERATIONS, "convolution", "convolution_input_gradient", "convolution_kernel_gradient")
LINES = {"cpu": "C operations: ", "cuda": "CUDA operations: "}
WITHOUT = {
    "cpu": "training takes twice as long; install gcc or clang, or name a C compiler in CC",
    "cuda": (
        "norms and pooling take several times as long; they need NVRTC, which `pip install 'jax[cuda13]'` brings, and"
        " gcc or clang"
    ),
}
XLA_PLATFORMS = {"cpu": "cpu", "cuda": "CUDA"}  # as XLA names them
HELP = (
    "Operations in C on a CPU, in CUDA on an NVIDIA GPU of compute capability 8.0 or newer. auto: builds them with"
    " the C compiler that CC names, else cc, gcc or clang, on a GPU also with NVRTC, and runs them; off: runs the plain"
    " form in JAX, which takes longer and on a CPU rounds all convolutions like plain sums."
)


@dataclasses.dataclass(frozen=True)
class Status:
    """Which operations run in native kernels.

    Attributes:
      platform: `cpu` or `cuda`, for which kernels are loaded; None: no kernels are loaded.
      line: says which path runs, for a command to print; empty where no kernels exist for the accelerator.
    """

    platform: str | None
    line: str


_plain = contextvars.ContextVar("_plain", default=False)
_lock = threading.Lock()
_status: Status | None = None  # of the last `load`
OLDEST = 80  # the kernels want 96 KiB of shared memory a block, of which sm_75 has 64; older ones are not tested
_registered: Status | None = None  # once the operations are registered with XLA, or cannot be


def load(mode: str = "auto") -> Status:
    """Builds the operations, or loads them from the cache, and registers them with XLA, once a process.

    Call it before JAX traces a program, and after `jax_compilation_cache_dir` is set: the library is cached there.
    `make_forward` calls it for a program that has not.

    Args:
      mode: auto: the operations run in native kernels, if these can be built. off: the plain form in JAX runs.

    Raises:
      ValueError: the mode is neither.
    """
    global _registered, _status
    if mode not in ("auto", "off"):
        raise ValueError(f"the mode is {mode!r}, expected auto or off")
    with _lock:
        platform = _platform()
        if platform is None:
            _status = Status(None, "")
        elif mode == "off":
            _status = Status(None, f"{LINES[platform]}off; the plain form in JAX runs")
        else:
            _registered = _status = _registered or _register(platform)
        return _status


def load_once() -> Status:
    """`load()`, unless the program has called it."""
    return _status or load()


def available(platform: str | None = None) -> bool:
    """Whether operations run in native kernels: `load` has registered them, and its last mode is auto.

    Args:
      platform: `cpu` or `cuda`; None: either.
    """
    if _status is None or _status.platform is None or _plain.get():
        return False
    return platform in (None, _status.platform)


@contextlib.contextmanager
def plain_form() -> Iterator[None]:
    """Programs that this thread traces within the block have the plain form: for exports, and as a reference."""
    token = _plain.set(True)
    try:
        yield
    finally:
        _plain.reset(token)


def target(name: str) -> str:
    """The name under which a C operation is registered with XLA."""
    return f"alexnet_jax_{name}"


def cuda_target(name: str) -> str:
    """The name under which a CUDA operation is registered with XLA."""
    return target(f"cuda_{name}")


def _platform() -> str | None:
    """`cpu`, `cuda` on an NVIDIA GPU, or None on other accelerators."""
    if jax.default_backend() == "cpu":
        return "cpu"
    return "cuda" if _architecture() else None


def _architecture() -> str | None:
    """What kernels are compiled for, such as `sm_90`; None: no NVIDIA GPU."""
    capability = getattr(jax.local_devices()[0], "compute_capability", None)
    match = re.fullmatch(r"(\d+)\.(\d+)", str(capability))
    return match and f"sm_{match[1]}{match[2]}"


def _register(platform: str) -> Status:
    """Registers the operations of the platform with XLA; where they cannot be built, the status has the reason."""
    try:
        made_by, library = _c_library() if platform == "cpu" else _cuda_library()
        operations = map(target, OPERATIONS) if platform == "cpu" else map(cuda_target, CUDA_OPERATIONS)
        for name in operations:
            jax.ffi.register_ffi_target(name, jax.ffi.pycapsule(library[name]), platform=XLA_PLATFORMS[platform])
    except (BuildError, OSError, jax.errors.JaxRuntimeError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        return Status(None, f"{LINES[platform]}none ({reason}); {WITHOUT[platform]}")
    return Status(platform, f"{LINES[platform]}{made_by}")


def _c_library() -> tuple[str, ctypes.CDLL]:
    """What made the library, and the library."""
    compiler = find_compiler()
    return str(compiler), load_library(compiler, cache_folder())


def _cuda_library() -> tuple[str, ctypes.CDLL]:
    """What made the library, and the library, whose kernels the driver has loaded."""
    architecture = _architecture()
    assert architecture is not None
    capabilities = {str(getattr(device, "compute_capability", None)) for device in jax.local_devices()}
    if len(capabilities) > 1:
        raise BuildError(f"the GPUs have the compute capabilities {', '.join(sorted(capabilities))}, and not one")
    if int(architecture.removeprefix("sm_")) < OLDEST:
        raise BuildError(f"this GPU is {architecture}, and the kernels want sm_{OLDEST} or newer")
    nvrtc = find_nvrtc()
    library = load_cuda_library(find_compiler(), nvrtc, architecture, cache_folder())
    _load_kernels(library)
    return f"{nvrtc}, {architecture}", library


def _load_kernels(library: ctypes.CDLL) -> None:
    library.alexnet_jax_load_kernels.restype = ctypes.c_char_p
    status = ctypes.c_int()
    if failed := library.alexnet_jax_load_kernels(ctypes.byref(status)):
        raise BuildError(
            f"the CUDA driver's {failed.decode()} "
            + (f"fails with status {status.value}" if status.value else "is missing")
        )


def load_library(compiler: Compiler, folder: Path | None) -> ctypes.CDLL:
    """The library of the C operations, from the cache, or else built.

    Args:
      compiler: builds it.
      folder: of the cache; None: no cache.

    Raises:
      BuildError: the compiler fails, or the library cannot be written or loaded.
    """

    def build(built: Path) -> None:
        sources = map(str, sorted(FOLDER.glob("*.c")))
        run([*compiler.command, "-shared", "-I", jax.ffi.include_dir(), *sources, "-o", str(built)])

    return _cached(_key(compiler, FOLDER), folder, build)


def load_cuda_library(compiler: Compiler, nvrtc: Nvrtc, architecture: str, folder: Path | None) -> ctypes.CDLL:
    """The library of the CUDA operations, from the cache, or else built: the kernels, and the calls that launch them.

    Args:
      compiler: builds the calls.
      nvrtc: compiles the kernels.
      architecture: of the GPU, such as `sm_90`.
      folder: of the cache; None: no cache.

    Raises:
      BuildError: a compiler fails, or the library cannot be written or loaded.
    """

    def build(built: Path) -> None:
        kernels = built.with_name("kernels.cubin")
        headers = {file.name: file.read_text() for file in CUDA_FOLDER.glob("*.h")}
        kernels.write_bytes(nvrtc.compile((CUDA_FOLDER / "kernels.cu").read_text(), headers, architecture))
        sources = map(str, (CUDA_FOLDER / "launch.c", FOLDER / "call.c"))
        flags = ("-shared", f'-DCUBIN="{kernels}"', "-I", jax.ffi.include_dir())
        run([*compiler.command, *flags, *sources, "-o", str(built), "-ldl"])

    key = _key(compiler, FOLDER, CUDA_FOLDER, str(nvrtc), architecture, *NVRTC_OPTIONS)
    return _cached(key, folder, build)


def _cached(key: str, folder: Path | None, build: Callable[[Path], None]) -> ctypes.CDLL:
    if folder is not None and (cached := cache.find(folder, key)):
        with contextlib.suppress(OSError):
            return ctypes.CDLL(str(cached))
    try:
        with tempfile.TemporaryDirectory() as temporary:
            built = Path(temporary) / "operations.so"
            build(built)
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
    # A library is loaded by its path: a name alone would be looked for elsewhere.
    return Path(folder).absolute() if folder and "://" not in folder else None


def _key(compiler: Compiler, *parts: Path | str) -> str:
    """A digest of the sources, the compilers, the flags, the processor and XLA's interface.

    Args:
      compiler: of the library.
      parts: folders of sources, and what else the library depends on.
    """
    macros = [f"{name} {value}" for name, value in sorted(compiler.macros.items())]
    digest = [*compiler.command, *macros]
    for part in parts:
        if isinstance(part, str):
            digest.append(part)
        else:
            files = sorted(file for file in part.iterdir() if file.suffix in (".c", ".h", ".cu"))
            digest += [file.name + "\0" + file.read_text() for file in files]
    return hashlib.sha256("\0".join([*digest, platform.machine(), jax.lib.__version__]).encode()).hexdigest()
