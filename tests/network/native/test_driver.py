"""The C kernels without JAX: every width of registers, both compilers, sanitizers, and 64-bit ARM in an emulator.

`driver.c` runs them at random geometries, against loops in double precision, with wrong arguments and without memory.
"""

import platform
import shutil
import subprocess
from pathlib import Path

import jax
import pytest

from alexnet_jax.network.native import build
from alexnet_jax.network.native.compiler import FLAGS

DRIVER = Path(__file__).parent / "driver.c"
WIDTHS = {  # flags, and the flags of /proc/cpuinfo that running the program needs
    "AVX-512": (["-mavx512f", "-mfma"], {"avx512f", "fma"}),
    "AVX2": (["-mavx2", "-mfma"], {"avx2", "fma"}),
    "SSE": (["-msse2"], {"sse2"}),
}
ARM = "aarch64-linux-gnu-gcc"


def compile_driver(folder: Path, compiler: str, *flags: str, sanitizer: str | None = None) -> Path:
    """The program, with the flags of the library. The driver's loops are not sanitized, which would take minutes."""
    if not shutil.which(compiler):
        pytest.skip(f"{compiler} is not installed")
    memory = ["-Daligned_alloc=test_aligned_alloc", "-Dcalloc=test_calloc", "-I", jax.ffi.include_dir()]
    command = [compiler, *FLAGS, "-Wall", "-Wextra", "-Werror", *memory, *flags]
    checked = [f"-fsanitize={sanitizer}", "-fno-sanitize-recover=all", "-O1", "-g", "-DUNROLL="] if sanitizer else []
    program, driver = folder / "driver", folder / "driver.o"
    sources = map(str, sorted(build.FOLDER.glob("*.c")))
    subprocess.run([*command, "-O1", "-D_GNU_SOURCE", "-c", str(DRIVER), "-o", str(driver)], check=True)
    subprocess.run([*command, *checked, *sources, str(driver), "-o", str(program), "-lm"], check=True)
    return program


def run_driver(program: Path, mode: str, *, seed: int, calls: int, under: tuple[str, ...] = ()) -> None:
    done = subprocess.run(
        [*under, str(program), mode, str(seed), str(calls)], capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stderr[-4000:]
    assert done.stdout == f"{calls} calls of each of {len(build.OPERATIONS)} operations\n"


def missing_instructions(width: str) -> str:
    """Those of a width that this processor has not."""
    if platform.machine() != "x86_64":
        pytest.skip(f"the widths are those of x86_64, and this is {platform.machine()}")
    info = Path("/proc/cpuinfo")
    has = set(info.read_text().split()) if info.exists() else set()
    return ", ".join(sorted(WIDTHS[width][1] - has))


@pytest.mark.parametrize(("width", "compiler"), [("AVX2", "gcc"), ("SSE", "gcc"), ("AVX-512", "clang")])
def test_every_width_of_registers_computes_the_formulas(width: str, compiler: str, tmp_path: Path):
    """Compiles without a warning, and runs where the processor can. The other pairs run under sanitizers."""
    missing = missing_instructions(width)
    program = compile_driver(tmp_path, compiler, *WIDTHS[width][0])
    if missing:
        pytest.skip(f"compiled, and not run: this processor has no {missing}")
    run_driver(program, "values", seed=1, calls=8)


@pytest.mark.sanitize
@pytest.mark.parametrize(
    ("sanitizer", "width"),
    [*(("address,undefined", width) for width in WIDTHS), ("thread", "AVX2")],  # threads are the same in every width
)
@pytest.mark.parametrize("compiler", ["gcc", "clang"])
def test_sanitizers_find_nothing(width: str, compiler: str, sanitizer: str, tmp_path: Path):
    if missing := missing_instructions(width):
        pytest.skip(f"this processor has no {missing}")
    _skip_without_sanitizer(tmp_path, compiler, sanitizer)
    program = compile_driver(tmp_path, compiler, *WIDTHS[width][0], sanitizer=sanitizer)
    run_driver(program, "values", seed=2, calls=40)
    run_driver(program, "faults", seed=3, calls=1)


@pytest.mark.sanitize
def test_threads_of_a_cuda_block_touch_no_number_at_once(tmp_path: Path):
    """Without any one of the kernels' `SYNCHRONIZE` the sanitizer finds a race."""
    _skip_without_sanitizer(tmp_path, "g++", "thread")
    program = tmp_path / "threads"
    command = [
        "g++",
        "-std=c++17",
        "-O1",
        "-g",
        "-Wall",
        "-Wextra",
        "-Werror",
        "-ffp-contract=off",
        "-fsanitize=thread",
    ]
    source = str(Path(__file__).with_name("cuda_threads.cpp"))
    subprocess.run([*command, "-I", str(build.CUDA_FOLDER), source, "-o", str(program), "-lpthread"], check=True)
    done = subprocess.run([str(program)], capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, (done.stdout + done.stderr)[-4000:]


def _skip_without_sanitizer(folder: Path, compiler: str, sanitizer: str) -> None:
    """Skips where the compiler has no such library, or the kernel lays out memory as the sanitizer does not know it."""
    if not shutil.which(compiler):
        pytest.skip(f"{compiler} is not installed")
    empty = folder / "empty.c"
    empty.write_text("int main(void) { return 0; }\n")
    command = [compiler, f"-fsanitize={sanitizer}", str(empty), "-o", str(folder / "empty")]
    for step in (command, [str(folder / "empty")]):
        done = subprocess.run(step, capture_output=True, text=True)
        if done.returncode:
            pytest.skip(f"{compiler} cannot sanitize {sanitizer} here: {done.stderr.strip().splitlines()[-1]}")


@pytest.mark.arm
def test_64_bit_arm_computes_the_formulas(tmp_path: Path):
    emulator = next(filter(shutil.which, ("qemu-aarch64-static", "qemu-aarch64")), None)
    if emulator is None:
        pytest.skip("no emulator; install qemu-user-static")
    if not shutil.which(ARM):
        pytest.skip(f"no {ARM}; install gcc-aarch64-linux-gnu and libc6-dev-arm64-cross")
    program = compile_driver(tmp_path, ARM, "-march=armv8-a", "-static")
    run_driver(program, "values", seed=4, calls=30, under=(emulator,))
    run_driver(program, "faults", seed=5, calls=1, under=(emulator,))
