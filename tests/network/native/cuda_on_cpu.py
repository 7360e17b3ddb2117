"""The CUDA kernels on a CPU: the same source as C++, and the same calls, with a driver that runs a kernel as a loop."""

import ctypes
import functools
import shutil
import subprocess
import tempfile
from pathlib import Path

import jax
import pytest

from alexnet_jax.network.native import build, ops
from alexnet_jax.network.native.compiler import find_compiler


@functools.cache
def _library() -> ctypes.CDLL:
    folder = Path(tempfile.mkdtemp())
    driver, cubin, built = folder / "driver.so", folder / "kernels.cubin", folder / "operations.so"
    cubin.write_bytes(b"none")
    command = ["c++", "-std=c++17", "-O2", "-ffp-contract=off", "-Wall", "-Werror", "-shared", "-fPIC"]
    source = Path(__file__).with_name("fake_cuda.cpp")
    subprocess.run([*command, "-I", str(build.CUDA_FOLDER), str(source), "-o", str(driver)], check=True)
    flags = ["-Werror", "-shared", f'-DDRIVER="{driver}"', f'-DCUBIN="{cubin}"', "-I", jax.ffi.include_dir()]
    sources = map(str, (build.CUDA_FOLDER / "launch.c", build.FOLDER / "call.c"))
    subprocess.run([*find_compiler().command, *flags, *sources, "-o", str(built), "-ldl"], check=True)
    library = ctypes.CDLL(str(built))
    build._load_kernels(library)
    for name in build.CUDA_OPERATIONS:
        target = build.cuda_target(name)
        jax.ffi.register_ffi_target(target, jax.ffi.pycapsule(library[target]), platform="cpu")
    return library


def use(monkeypatch: pytest.MonkeyPatch) -> None:
    """Programs that are traced from here on call the CUDA kernels, on this CPU."""
    if shutil.which("c++") is None:
        pytest.skip("there is no C++ compiler")
    _library()
    monkeypatch.setattr(build, "_status", build.Status("cuda", "CUDA operations: on a CPU"))
    monkeypatch.setattr(ops, "CUDA", "cpu")
