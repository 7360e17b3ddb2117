"""NVRTC, NVIDIA's compiler of CUDA kernels as a library: where it is, and a compilation.

JAX for NVIDIA GPUs brings it. Its interface in C is stable, so that no package binds it here.
"""

import contextlib
import ctypes
import importlib.util
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from alexnet_jax.network.native.compiler import BuildError

# A fused operation stands where it is written, because kernels must agree in the last bit.
OPTIONS = ("--std=c++17", "--fmad=false")
NAMES = ("libnvrtc.so.13", "libnvrtc.so.12", "libnvrtc.so")  # of an installed CUDA toolkit


class Nvrtc:
    """A loaded NVRTC; printed as its name and version."""

    def __init__(self, library: Any):
        self._library = library
        major, minor = ctypes.c_int(), ctypes.c_int()
        self._call("nvrtcVersion", ctypes.byref(major), ctypes.byref(minor))
        self._version = f"{major.value}.{minor.value}"

    def __str__(self) -> str:
        return f"NVRTC {self._version}"

    def compile(self, source: str, headers: Mapping[str, str], architecture: str) -> bytes:
        """The machine code of kernels, as `cuLibraryLoadData` takes it.

        Args:
          source: in CUDA C++.
          headers: text by name.
          architecture: such as `sm_90`.

        Raises:
          BuildError: NVRTC does not know the architecture, or the source has errors.
        """
        program = ctypes.c_void_p()
        texts = (ctypes.c_char_p * len(headers))(*(text.encode() for text in headers.values()))
        names = (ctypes.c_char_p * len(headers))(*(name.encode() for name in headers))
        self._call(
            "nvrtcCreateProgram", ctypes.byref(program), source.encode(), b"kernels.cu", len(headers), texts, names
        )
        try:
            options = [f"--gpu-architecture={architecture}", *OPTIONS]
            encoded = (ctypes.c_char_p * len(options))(*(option.encode() for option in options))
            if status := self._library.nvrtcCompileProgram(program, len(options), encoded):
                lines = self._read("ProgramLog", program).decode(errors="replace").rstrip("\0").splitlines()
                reason = next((line for line in lines if "error" in line), lines[0] if lines else f"status {status}")
                raise BuildError(f"{self} fails for {architecture}: {reason}")
            return self._read("CUBIN", program)
        finally:
            self._library.nvrtcDestroyProgram(ctypes.byref(program))

    def _read(self, what: str, program: ctypes.c_void_p) -> bytes:
        size = ctypes.c_size_t()
        self._call(f"nvrtcGet{what}Size", program, ctypes.byref(size))
        content = ctypes.create_string_buffer(size.value)
        self._call(f"nvrtcGet{what}", program, content)
        return content.raw

    def _call(self, name: str, *arguments: Any) -> None:
        if status := self._library[name](*arguments):
            raise BuildError(f"{name} fails with status {status}")


def find_nvrtc() -> Nvrtc:
    """NVRTC as a Python package has it, else as a CUDA toolkit has it.

    Raises:
      BuildError: it is not installed.
    """
    for path in (*_packaged(), *NAMES):
        with contextlib.suppress(OSError, AttributeError):
            return Nvrtc(ctypes.CDLL(str(path)))
    raise BuildError("NVRTC is not installed")


def _packaged() -> Iterator[Path]:
    """The libraries of the packages nvidia-cuda-nvrtc and nvidia-cuda-nvrtc-cu12; the newest first."""
    spec = importlib.util.find_spec("nvidia")
    for folder in spec.submodule_search_locations or () if spec else ():
        yield from sorted(Path(folder).glob("*/lib/libnvrtc.so.*"), key=lambda path: path.name, reverse=True)
