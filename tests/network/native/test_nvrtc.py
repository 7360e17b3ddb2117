"""The compilation of the CUDA kernels, which needs NVRTC and no GPU."""

from types import SimpleNamespace

import jax
import pytest

from alexnet_jax.network.native import build
from alexnet_jax.network.native.compiler import BuildError, find_compiler
from alexnet_jax.network.native.nvrtc import Nvrtc, find_nvrtc

HEADERS = {file.name: file.read_text() for file in build.CUDA_FOLDER.glob("*.h")}
KERNELS = (build.CUDA_FOLDER / "kernels.cu").read_text()


@pytest.fixture(scope="module")
def nvrtc() -> Nvrtc:
    try:
        return find_nvrtc()
    except BuildError as error:
        pytest.skip(f"{error}: pip install -r tests/requirements.txt")


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """JAX says that it runs on an H100."""
    monkeypatch.setattr(build, "_status", None)
    monkeypatch.setattr(build, "_registered", None)
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    monkeypatch.setattr(jax, "local_devices", lambda: [SimpleNamespace(compute_capability="9.0")])


@pytest.mark.parametrize("architecture", ["sm_80", "sm_90", "sm_100"])
def test_the_kernels_compile_for_old_and_new_gpus(nvrtc: Nvrtc, architecture: str):
    assert nvrtc.compile(KERNELS, HEADERS, architecture).startswith(b"\x7fELF")


def test_what_nvrtc_refuses_is_one_clause(nvrtc: Nvrtc):
    with pytest.raises(BuildError, match=rf"{nvrtc} fails for sm_90: kernels.cu\(1\): error: .*nothing.*"):
        nvrtc.compile("__global__ void kernel() { nothing(); }", {}, "sm_90")
    with pytest.raises(BuildError, match=f"{nvrtc} fails for sm_1: .*invalid value"):
        nvrtc.compile(KERNELS, HEADERS, "sm_1")


def test_the_library_has_every_operation_and_is_cached(nvrtc: Nvrtc, tmp_path):
    for _ in range(2):
        library = build.load_cuda_library(find_compiler(), nvrtc, "sm_90", tmp_path)
        assert all(hasattr(library, build.cuda_target(name)) for name in build.CUDA_OPERATIONS)
    assert len(list(tmp_path.iterdir())) == 1


def test_without_a_driver_the_plain_form_runs_and_a_line_says_so(nvrtc: Nvrtc, gpu: None):
    status = build.load()
    assert status.platform is None and not build.available()
    assert status.line.startswith(
        "CUDA operations: none (the CUDA driver's libcuda.so.1 is missing); norms and pooling"
    )


def test_an_older_gpu_has_the_plain_form_and_a_line_says_so(gpu: None, monkeypatch: pytest.MonkeyPatch):
    """A block of a kernel wants more shared memory than these have."""
    monkeypatch.setattr(jax, "local_devices", lambda: [SimpleNamespace(compute_capability="7.5")])
    status = build.load()
    assert status.platform is None
    expected = "CUDA operations: none (this GPU is sm_75, and the kernels want sm_80 or newer); norms and pooling"
    assert status.line.startswith(expected)


def test_gpus_of_two_kinds_have_the_plain_form_and_a_line_says_so(gpu: None, monkeypatch: pytest.MonkeyPatch):
    """A program has the machine code of kernels for one kind."""
    gpus = [SimpleNamespace(compute_capability=capability) for capability in ("9.0", "8.0", "9.0")]
    monkeypatch.setattr(jax, "local_devices", lambda: gpus)
    assert build.load().line.startswith(
        "CUDA operations: none (the GPUs have the compute capabilities 8.0, 9.0, and not one); norms and pooling"
    )


def test_without_nvrtc_the_plain_form_runs_and_a_line_says_so(gpu: None, monkeypatch: pytest.MonkeyPatch):
    def missing() -> Nvrtc:
        raise BuildError("NVRTC is not installed")

    monkeypatch.setattr(build, "find_nvrtc", missing)
    assert build.load().line == (
        "CUDA operations: none (NVRTC is not installed); norms and pooling take several times as long; they need NVRTC,"
        " which `pip install 'jax[cuda13]'` brings, and gcc or clang"
    )


def test_off_is_said_and_other_accelerators_have_no_line(gpu: None, monkeypatch: pytest.MonkeyPatch):
    assert build.load("off") == build.Status(None, "CUDA operations: off; the plain form in JAX runs")
    monkeypatch.setattr(jax, "local_devices", lambda: [SimpleNamespace(compute_capability="gfx90a")])
    assert build.load() == build.Status(None, "")


@pytest.mark.parametrize("capability", ["8.0", "12.0"])
def test_gpus_that_are_new_enough(gpu: None, monkeypatch: pytest.MonkeyPatch, capability: str):
    def missing():
        raise BuildError("NVRTC is not installed")

    monkeypatch.setattr(jax, "local_devices", lambda: [SimpleNamespace(compute_capability=capability)])
    monkeypatch.setattr(build, "find_nvrtc", missing)
    assert "none (NVRTC is not installed)" in build.load().line
