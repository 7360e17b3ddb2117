"""The library of the C kernels: compilers, the cache, and the switch between C and the plain form."""

import ctypes
import functools
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from alexnet_jax.network import layers
from alexnet_jax.network.native import build, cache
from alexnet_jax.network.native import compiler as compiling
from alexnet_jax.network.native.nvrtc import Nvrtc
from tests.conftest import ROOT


@pytest.fixture(scope="module")
def compiler() -> compiling.Compiler:
    try:
        return compiling.find_compiler()
    except compiling.BuildError as error:
        pytest.skip(str(error))


@pytest.fixture
def builds(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[Path]:
    """The sources that were compiled, with a compiler that is quick: it copies one library."""
    made: list[Path] = []
    compiled = tmp_path / "compiled.so"
    (tmp_path / "empty.c").write_text("int alexnet_jax_empty;\n")
    subprocess.run(["cc", "-shared", "-fPIC", str(tmp_path / "empty.c"), "-o", str(compiled)], check=True)
    run = compiling.run

    def copy(command: list[str]) -> str:
        if "-o" not in command:
            return run(command)
        made.append(Path(command[-1]))
        shutil.copy(compiled, command[-1])
        return ""

    monkeypatch.setattr(build, "run", copy)
    return made


def libraries(cache: Path) -> list[Path]:
    return sorted(cache.glob("*.so"))


def test_the_library_has_every_operation(compiler: compiling.Compiler, tmp_path: Path):
    library = build.load_library(compiler, tmp_path / "cache")
    for name in build.OPERATIONS:
        assert isinstance(library[build.target(name)], ctypes._CFuncPtr)
    assert len(libraries(tmp_path / "cache")) == 1


def test_a_library_is_built_once(compiler: compiling.Compiler, builds: list, tmp_path: Path):
    for _ in range(2):
        build.load_library(compiler, tmp_path / "cache")
        assert len(builds) == 1
    (file,) = (tmp_path / "cache").iterdir()
    assert file.suffix == ".so"


def damage(how: str, file: Path, other: Path) -> None:
    content = file.read_bytes()
    file.unlink()  # this process has mapped the file, and a mapped file that is cut short is fatal
    match how:
        case "cut short":
            file.write_bytes(content[: len(content) // 2])
        case "with one bit flipped":
            place = len(content) // 2
            file.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
        case "swapped":
            shutil.copy(other, file)
        case "empty":
            file.write_bytes(b"")


@pytest.mark.parametrize("how", ["cut short", "with one bit flipped", "swapped", "empty"])
def test_a_damaged_library_is_built_again_and_never_loaded(
    how: str, compiler: compiling.Compiler, builds: list, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    build.load_library(compiler, tmp_path / "cache")
    (file,) = libraries(tmp_path / "cache")
    good = file.read_bytes()
    (tmp_path / "other.c").write_text("int other;\n")
    subprocess.run(["cc", "-shared", "-fPIC", str(tmp_path / "other.c"), "-o", str(tmp_path / "other.so")], check=True)
    damage(how, file, tmp_path / "other.so")
    loaded = []

    class Recorder(ctypes.CDLL):
        def __init__(self, path: str):
            loaded.append(Path(path).read_bytes())
            super().__init__(path)

    monkeypatch.setattr(ctypes, "CDLL", Recorder)
    build.load_library(compiler, tmp_path / "cache")
    assert loaded == [good]
    assert len(builds) == 2
    assert [library.read_bytes() for library in libraries(tmp_path / "cache")] == [good]


@pytest.mark.parametrize("change", ["a source", "the compiler's flags", "the processor"])
def test_another_key_is_another_library(
    change: str, compiler: compiling.Compiler, builds: list, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    build.load_library(compiler, tmp_path / "cache")
    if change == "a source":
        shutil.copytree(build.FOLDER, tmp_path / "sources")
        with open(tmp_path / "sources" / "pool.c", "a") as file:
            file.write("// changed\n")
        monkeypatch.setattr(build, "FOLDER", tmp_path / "sources")
    elif change == "the compiler's flags":
        compiler = compiling.Compiler((*compiler.command, "-g"), compiler.macros)
    else:
        compiler = compiling.Compiler(compiler.command, {**compiler.macros, "__OTHER__": "1"})
    build.load_library(compiler, tmp_path / "cache")
    assert len(builds) == 2
    assert len(libraries(tmp_path / "cache")) == 2


def test_the_libraries_used_last_stay(compiler: compiling.Compiler, builds: list, tmp_path: Path):
    folder = tmp_path / "cache"
    build.load_library(compiler, folder)
    (used,) = libraries(folder)
    for i in range(cache.LIBRARIES + 3):  # the first two as an older version names them
        digest = "" if i < 2 else f"-{i:064x}"
        other = folder / f"{i:064x}{digest}.so"
        other.write_text("")
        os.utime(other, (1000 + i, 1000 + i))
    (folder / "another.so").write_text("of someone else")
    dead, writes, foreign = (folder / f"{name}.part" for name in ("a" * 32, "b" * 32, "film.mp4"))
    for file, age in ((dead, 4000), (writes, 0), (foreign, 4000)):
        file.write_text("half")
        os.utime(file, (time.time() - age,) * 2)
    os.utime(used, (500, 500))
    build.load_library(compiler, folder)  # which uses it
    assert used.stat().st_mtime > time.time() - 60
    build.load_library(compiling.Compiler((*compiler.command, "-g"), compiler.macros), folder)
    found = libraries(folder)
    assert used in found
    assert folder / "another.so" in found
    assert len(found) == cache.LIBRARIES + 1
    assert not (folder / f"{4:064x}-{4:064x}.so").exists()
    assert (folder / f"{5:064x}-{5:064x}.so").exists()
    assert not dead.exists() and writes.exists() and foreign.exists()


def test_a_library_in_the_folder_at_hand_is_loaded(
    compiler: compiling.Compiler, builds: list, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """By its path: the system looks a bare name up elsewhere."""
    monkeypatch.chdir(tmp_path)
    before = jax.config.jax_compilation_cache_dir
    jax.config.update("jax_compilation_cache_dir", ".")
    try:
        for _ in range(2):
            build.load_library(compiler, build.cache_folder())
    finally:
        jax.config.update("jax_compilation_cache_dir", before)
    assert len(builds) == 1


def test_a_cache_that_cannot_be_written_is_no_error(compiler: compiling.Compiler, builds: list, tmp_path: Path):
    (tmp_path / "cache").write_text("a file where a folder would be")
    assert build.load_library(compiler, tmp_path / "cache") is not None
    assert build.load_library(compiler, None) is not None
    assert len(builds) == 2


@pytest.mark.parametrize(
    ("name", "macros", "line"),
    [
        ("cc", {"__GNUC__": "12", "__GNUC_MINOR__": "2", "__AVX512F__": "1", "__AVX2__": "1"}, "gcc 12.2, AVX-512"),
        (
            "cc",
            {"__GNUC__": "4", "__clang__": "1", "__clang_major__": "14", "__clang_minor__": "0"},
            "clang 14.0, sun4",
        ),
        ("tcc", {"__SSE2__": "1"}, "tcc, SSE2"),
    ],
)
def test_a_compiler_is_named_with_its_version_and_instructions(
    name: str, macros: dict, line: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(compiling.platform, "machine", lambda: "sun4")
    assert str(compiling.Compiler((name, "-O3"), macros)) == line


@pytest.mark.parametrize(
    ("compiler", "reason"),
    [
        ("/nowhere/cc", "no C compiler: /nowhere/cc cannot be run: No such file or directory"),
        ("false", "the C compiler false fails: status 1"),
        ("cc --not-a-flag", "the C compiler cc fails: cc: error: unrecognized command-line option"),
        ("'cc", 'no C compiler: CC is "\'cc": No closing quotation'),
    ],
)
def test_a_compiler_that_does_not_work_is_named(compiler: str, reason: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("CC", compiler)
    with pytest.raises(compiling.BuildError) as caught:
        compiling.find_compiler()
    assert str(caught.value).startswith(reason)


def test_a_compiler_that_takes_long_is_named_again_and_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture
):
    slow = tmp_path / "slow"
    slow.write_text("#!/bin/sh\nexec sleep 60\n")
    slow.chmod(0o700)
    for name, seconds in (("SILENT_FOR", 0.5), ("LINE_EVERY", 1.0), ("TIMEOUT", 2.0)):
        monkeypatch.setattr(compiling, name, seconds)
    begun = time.monotonic()
    with pytest.raises(compiling.BuildError, match=f"the C compiler {slow} has not ended after 2 s"):
        compiling.run([str(slow)])
    assert 1.9 < time.monotonic() - begun < 20, "and ends"
    assert capfd.readouterr().err.count(f"waiting for the C compiler {slow} for ") == 2


def test_without_a_compiler_the_plain_form_runs():
    """In a process of its own, since operations are registered once a process."""
    program = """
import jax
from alexnet_jax.network import layers
from alexnet_jax.network.native import build, cache
from alexnet_jax.network.native import compiler as compiling
print(build.available(), build.load().line)
pool = jax.jit(lambda x: layers.max_pool(x, size=3, stride=2))
assert "alexnet_jax" not in pool.lower(jax.numpy.zeros((1, 6, 6, 2))).as_text()
print(build.available(), build.load_once() is build.load())
"""
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=ROOT,
        capture_output=True,
        text=True,
        env=os.environ | {"PATH": "", "CC": ""},
    )
    assert done.stderr == ""
    assert done.stdout.splitlines() == [
        "False C operations: none (no C compiler: neither cc, gcc nor clang is installed); training takes twice as"
        " long; install gcc or clang, or name a C compiler in CC",
        "False True",
    ]


def test_off_switches_the_operations_off_and_auto_on_again():
    x = jnp.ones((2, 6, 6, 4))

    def in_c() -> bool:
        return (
            "alexnet_jax_max_pool" in jax.jit(functools.partial(layers.max_pool, size=3, stride=2)).lower(x).as_text()
        )

    try:
        assert build.load("off") == build.Status(None, "C operations: off; the plain form in JAX runs")
        assert not build.available()
        assert not in_c()
        assert build.load_once().platform is None, "a library's call does not overrule a command's"
    finally:
        status = build.load()
    assert build.available() == in_c() == (status.platform is not None)
    if status.platform is not None:
        np.testing.assert_equal(status.line, f"C operations: {compiling.find_compiler()}")


def test_an_accelerator_has_no_c_operations_and_no_line(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(build, "_status", build.load())
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert build.load() == build.Status(None, "")
    assert not build.available()


def test_a_mode_is_auto_or_off():
    with pytest.raises(ValueError, match="the mode is 'on', expected auto or off"):
        build.load("on")


def test_the_key_of_a_cuda_library_has_all_that_it_is_made_of(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, compiler: compiling.Compiler
):
    keys, folder = [], build.FOLDER
    monkeypatch.setattr(build, "_cached", lambda key, folder, make: keys.append(key) or ctypes.CDLL(None))
    cases: list[dict] = [{}, {"version": "12.9"}, {"architecture": "sm_80"}, {"options": ("--std=c++17",)}]
    cases += [{"changed": file} for file in ("call.h", "cuda/kernels.cu", "cuda/norm.h", "cuda/launch.c")]
    for number, case in enumerate(cases):
        sources = shutil.copytree(folder, tmp_path / str(number))
        if changed := case.get("changed"):
            (sources / changed).write_text((sources / changed).read_text() + "\n")
        monkeypatch.setattr(build, "FOLDER", sources)
        monkeypatch.setattr(build, "CUDA_FOLDER", sources / "cuda")
        monkeypatch.setattr(build, "NVRTC_OPTIONS", case.get("options", ("--std=c++17", "--fmad=false")))
        nvrtc = mock.MagicMock(spec=Nvrtc, __str__=lambda self, case=case: case.get("version", "13.0"))
        build.load_cuda_library(compiler, nvrtc, case.get("architecture", "sm_90"), None)
    assert len(set(keys)) == len(cases)
