"""Commands with odd values of every flag, config field and environment variable: one line, a status, no litter."""

import json
import os
import random
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.conftest import ROOT
from tests.fuzz import SOME_BROKEN, STATUSES, Commands, Result, check

SEED = 20261127
IN_SOAK = 12  # values of each flag and field; one in the gate
CONFIG = f"--config={ROOT}/tests/configs/tiny.py"

# FOLDER, FILE, LOOP and so on become paths below the case's folder.
VALUES = (
    *("", " ", "None", "nan", "inf", "-inf", "-1", "0", "-0.0", "1", "2", "0.5", "1e-30", "1e30", "1e400", "9" * 30),
    *("2147483648", "9223372036854775808", "True", "maybe", "((0, 1),)", "((0, 'a'),)", "((", "[]", "{}", "()"),
    *("(None,)", "1_0", "0x10", "\u0663", "\u00fcn\u00efc\u00f6d\u00e9 \u2603", "\udcff", "a\nb", "a\tb", "%s%n{}"),
    *("x" * 300, "x" * 5000, "~", "~/x", "~nobody-at-all/x", ".", "..", "FILE", "FILE/x", "FOLDER", "NOTHING/x"),
    *("LOOP", "LOOP/x", "DANGLING", "/proc/nowhere", "/dev/null", "/dev/full", "/proc/self/mem", "LOCKED", "LOCKED/x"),
    *("train", "train[:0%]", "train[", "train+test", "elpv", "elpv/0", "elpv/301", "elpv/" + "9" * 50, "../elpv/64"),
)
WORDY = (
    "verbosity",
    "logtostderr",
    "alsologtostderr",
    "stderrthreshold",
    "logger_levels",
)  # ask for lines of libraries
NOT_OURS = (
    "flagfile",
    "undefok",
    "pdb",
    "run_with_pdb",
    "help",
    "helpfull",
    "helpshort",
    "helpxml",
    "?",
    "log_dir",
    *WORDY,
)
PATHS = ("workdir", "data_dir", "source_dir", "output", "to", "picture", "confusion", "predictions")
WORD = "a word"  # in place of the name of a flag: the value is a word of the command line
ENDINGS = {  # of files that flags name; other endings are refused
    "output": ("", ".npz", ".parquet"),
    "to": ("", ".safetensors", ".onnx", ".stablehlo", ".caffemodel"),
    "picture": ("", ".png", ".svg"),
    "confusion": ("", ".csv", ".png", ".svg"),
    "predictions": ("", ".csv"),
}
# Addresses and spellings of paths, for the flags and words that name one.
PLACES = (
    *("gs://bucket/x", "s3://bucket/x", "http://localhost:9/x", "file:///nowhere/x", "nothing://x", "C:\\x", "://"),
    *("FOLDER/", "FILE/", "NOTHING/", "./x/", "x//y/../z", "a b", " a", "a ", "~nobody-at-all", "x.png", "-", "--"),
    *("//x", "FOLDER\n", "\u202e", "e\u0301", "\u00e9", "x" * 255, "x/" * 3000, "LOOP/../x", "DANGLING/"),
)

# The commands with the arguments without which nothing more is read. {data}: prepared data; {run}: a finished run.
STARTS: dict[str, tuple[str, ...]] = {
    "main": (CONFIG, "--data_dir={data}", "--workdir={folder}/run"),
    "main --dry_run": (CONFIG, "--dry_run"),
    "evaluate": ("--workdir={run}", "--data_dir={data}"),
    "prepare folder": ("folder", "mine", "--source_dir={source}", "--data_dir={folder}/data", "--size=8"),
    "predict": ("--workdir={run}", "{source}/train/a/0.png"),
    "features": ("--workdir={run}", "{source}/train", "--output={folder}/cwd/features.npz"),
    "figures": ("--workdir={run}", "--data_dir={data}", "--output={folder}/cwd/figures"),
    "convert export": ("export", "--workdir={run}", "--to={folder}/cwd/out.safetensors"),
    "convert import": ("import", "{weights}", "--workdir={folder}/cwd/imported"),
    "benchmark run": ("run", CONFIG, "--data_dir={data}"),
    "benchmark start": ("start", CONFIG),
    "benchmark input": ("input",),
    "benchmark step": ("step",),
}
# The same without a word that names something.
WORDS = {
    "predict": ("--workdir={run}",),
    "features": ("--workdir={run}", "--output={folder}/cwd/features.npz"),
    "convert export": ("--workdir={run}", "--to={folder}/cwd/out.safetensors"),
    "convert import": ("import", "--workdir={folder}/cwd/imported"),
    "prepare folder": ("folder", "--source_dir={source}", "--data_dir={folder}/data", "--size=8"),
    "prepare tfds": ("tfds", "--source_dir={source}", "--data_dir={folder}/data", "--size=8"),
    "prepare": ("--data_dir={folder}/data", "--size=8"),
    "benchmark": (),
}
RESULTS = {  # of a start, which it may write
    "features": {"cwd/features.npz"},
    "figures": {"cwd/figures"},
    "convert export": {"cwd/out.safetensors", "cwd/out.safetensors.README.md"},
    "convert import": {"cwd/imported"},
}

ENVIRONMENT = {
    "JAX_PLATFORMS": ("cuda", "nothing", "cpu,nothing", "tpu", "\u2603", " "),
    "JAX_NUM_CPU_DEVICES": ("0", "-1", "many", "1e3", "1.5", "9" * 30, " "),
    "JAX_COMPILATION_CACHE_DIR": ("FILE", "LOOP", "/proc/nowhere", "", "NOTHING/x", "x" * 300, "~nobody-at-all/x"),
    "JAX_ENABLE_COMPILATION_CACHE": ("0", "maybe", "", "2"),
    "JAX_ENABLE_X64": ("1", "maybe"),
    "JAX_DEBUG_NANS": ("1", "maybe"),
    "JAX_DISABLE_JIT": ("1", "maybe"),
    "JAX_CHECK_TRACER_LEAKS": ("1", "maybe"),
    "JAX_DEFAULT_DEVICE": ("gpu", "cpu", "cpu:7", ""),
    "JAX_DEFAULT_PRNG_IMPL": ("rbg", "nothing"),
    "JAX_THREEFRY_PARTITIONABLE": ("0", "maybe"),
    "JAX_NUMPY_DTYPE_PROMOTION": ("strict", "nothing"),
    "JAX_NUMPY_RANK_PROMOTION": ("raise", "nothing"),
    "JAX_TRANSFER_GUARD": ("disallow", "nothing"),
    "JAX_CPU_COLLECTIVES_IMPLEMENTATION": ("none", "mpi"),
    "JAX_COMPILATION_CACHE_MAX_SIZE": ("x", "0"),
    "JAX_LOG_COMPILES": ("maybe",),
    "JAX_DEFAULT_MATMUL_PRECISION": ("nothing",),
    "JAX_TRACEBACK_FILTERING": ("nothing",),
    "JAX_LOGGING_LEVEL": ("loud",),
    "JAX_PLATFORM_NAME": ("gpu", "nothing"),
    "JAX_DUMP_IR_TO": ("/proc/nowhere", "FILE"),
    "JAX_NO_EXECUTION": ("1",),
    "JAX_NO_TRACING": ("1",),
    "JAX_ARRAY_GARBAGE_COLLECTION_GUARD": ("fatal",),
    "JAX_PGLE_PROFILING_RUNS": ("x",),
    "JAX_DEBUG_INFS": ("1",),
    "JAX_CPU_ENABLE_ASYNC_DISPATCH": ("0", "x"),
    "JAX_RAISE_PERSISTENT_CACHE_ERRORS": ("1",),
    "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": ("x", "-1"),
    "JAX_PROCESS_ID": ("0", "x", "-1", "7"),
    "JAX_NUM_PROCESSES": ("1", "x", "-1", "0"),
    "JAX_COORDINATOR_ADDRESS": ("localhost", "", "nowhere.invalid:1", "\u2603"),
    "TFDS_DATA_DIR": ("FILE", "LOOP", "/proc/nowhere", "", "~nobody-at-all/x", "LOCKED"),
    "EPATH_USE_TF": ("1", "x"),
    "MPLBACKEND": ("nothing", "TkAgg"),
    "MPLCONFIGDIR": ("FILE", "/proc/nowhere"),
    "MATPLOTLIBRC": ("FILE", "/nowhere"),
    "PILLOW_BLOCK_SIZE": ("x",),
    "TENSORSTORE_LOG": ("x",),
    "XLA_FLAGS": ("--nothing=1", "nothing", "/proc/nowhere", "--xla_force_host_platform_device_count=x", " "),
    "XLA_PYTHON_CLIENT_PREALLOCATE": ("maybe",),
    "XLA_PYTHON_CLIENT_MEM_FRACTION": ("x", "-1"),
    "TF_CPP_MIN_LOG_LEVEL": ("3",),
    "CC": ("nothing", "FILE", "FOLDER", "", "gcc 'unfinished", "false"),
    "CFLAGS": ("--nothing",),
    "HOME": ("FILE", "LOOP", "/proc/nowhere", "", "LOCKED"),
    "XDG_CACHE_HOME": ("FILE", "", "relative", "/proc/nowhere"),
    "TMPDIR": ("FILE", "/proc/nowhere"),
    "http_proxy": ("http://127.0.0.1:9", "nothing", "\u2603"),
    "SLURM_JOB_ID": ("1", "x", ""),
    "SLURM_NTASKS": ("x", "1"),
    "OMPI_MCA_orte_hnp_uri": ("x", ""),
    "MALLOC_ARENA_MAX": ("x", "-1", "0"),
    "GLIBC_TUNABLES": ("nothing", "glibc.malloc.arena_max=x"),
    "OMP_NUM_THREADS": ("x", "-1", "0", "100000"),
    "OPENBLAS_NUM_THREADS": ("x", "-1"),
    "PYTHONHASHSEED": ("1", "random"),
    "PYTHONOPTIMIZE": ("2",),
    "PYTHONWARNINGS": ("error::FutureWarning",),
    "LC_ALL": ("C", "nothing"),
    "COLUMNS": ("0", "x"),
    "TERM": ("nothing",),
}


MATPLOTLIB = {"home/.cache/matplotlib", "home/.config/matplotlib"}  # its fonts and settings, as of every program


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory, data_dir: str, commands: Commands) -> dict[str, str]:
    """A finished run and a tree of images."""
    folder = tmp_path_factory.mktemp("places")
    prepare_folder(folder)
    random_bytes = np.random.default_rng(0)
    for name in ("a", "b"):
        (folder / "source" / "train" / name).mkdir(parents=True)
        for number in range(3):
            pixels = random_bytes.integers(0, 256, (9, 9, 3), np.uint8)
            Image.fromarray(pixels).save(folder / "source" / "train" / name / f"{number}.png")
    run = commands(
        "main", CONFIG, "--config.num_epochs=0.3", f"--data_dir={data_dir}", f"--workdir={folder}/run",
        folder=folder, trains=True,
    )  # fmt: skip
    assert (run.status, run.err) == (0, "")
    weights = f"{folder}/run.safetensors"
    written = commands("convert", "export", f"--workdir={folder}/run", f"--to={weights}", folder=folder)
    assert (written.status, written.err) == (0, "")
    return {"data": data_dir, "run": str(folder / "run"), "source": str(folder / "source"), "weights": weights}


def prepare_folder(folder: Path) -> None:
    """The folders of one case, and the paths that values name."""
    for name in ("cwd", "home", "tmp", "odd/FOLDER", "odd/LOCKED"):
        (folder / name).mkdir(parents=True)
    (folder / "odd/FILE").write_bytes(b"\0 a file")
    (folder / "odd/LOOP").symlink_to("LOOP")
    (folder / "odd/DANGLING").symlink_to("nothing at all")
    (folder / "odd/LOCKED").chmod(0)  # of no effect on root


def place(value: str, folder: Path) -> str:
    """The value with a path in place of FILE and so on."""
    return re.sub(r"^(FILE|FOLDER|LOOP|DANGLING|LOCKED|NOTHING)(?=/|$)", rf"{folder}/odd/\1", value)


def listing(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


def check_tidy(folder: Path, named: set[str], case: object) -> None:
    """Nothing is written but what the case names."""
    new = {path for path in listing(folder) if path.split("/")[0] in ("cwd", "home", "tmp")} - {"cwd", "home", "tmp"}
    if new & MATPLOTLIB:
        named = named | MATPLOTLIB | {"home/.cache", "home/.config"}
    litter = {path for path in new if not any(path == name or path.startswith(f"{name}/") for name in named)}
    assert not litter, f"{case}: {sorted(litter)}"


def flags_of(commands: Commands, folder: Path) -> list[tuple[str, str]]:
    """Starts and names of all flags and fields: `("main", "config.seed")`."""
    found = []
    for start in STARTS:
        module = start.split()[0]
        config = [CONFIG] if module in ("main", "benchmark") else []
        known = json.loads(commands(module, *config, folder=folder, describes=True).out)
        found += [(start, name) for name in known["ours"]]
        found += [(start, name) for name in known["libraries"] if start == "main" and name not in NOT_OURS]
        found += [(start, f"config.{name}") for name in known["fields"] if module == "main"]
    assert {("predict", "picture"), ("features", "queries"), ("figures", "split")} <= set(found)
    assert {("main", "workdir"), ("main", "config.rates.all.kernel"), ("prepare folder", "size")} <= set(found)
    return found


def cases_of(flags: list[tuple[str, str]], draw: random.Random, *, values: int) -> Iterator[tuple[str, str, str]]:
    """A start, the name of a flag or `WORD`, and a value."""
    yield ("main", "config", "/dev/full")  # filled the memory
    for start, name in [*flags, *((start, WORD) for start in WORDS)]:
        names_path = name in PATHS or name == WORD or name in ("mean", "classes", "queries")
        known = (*VALUES, *PLACES, *PLACES) if names_path else VALUES
        for value in draw.sample(known, values):
            yield start, name, value + draw.choice(ENDINGS.get(name, ("",)) if start != "figures" else ("",))


def fuzz(commands: Commands, places: dict[str, str], tmp_path: Path, *, values: int) -> None:
    describing = tmp_path / "describing"
    prepare_folder(describing)
    failures = []
    for number, (start, name, value) in enumerate(
        cases_of(flags_of(commands, describing), random.Random(SEED), values=values)
    ):
        folder = tmp_path / str(number)
        prepare_folder(folder)
        texts = WORDS[start] if name == WORD else STARTS[start]
        arguments = [text.format(folder=folder, **places) for text in texts if not text.startswith(f"--{name}=")]
        odd = place(value, folder) if name == WORD else f"--{name}={place(value, folder)}"
        result = commands(start.split()[0], *arguments, odd, folder=folder, trains=name in ENDINGS)
        case = (start, f"--{name}={value!r}"[:100])
        named = {"cwd/runs", *RESULTS.get(start, ())}
        if name in PATHS:
            named |= {"cwd/" + os.path.normpath(value).split("/")[0]} | ({"cwd"} if value == "." else set())
            named |= {"home"} if value.startswith("~") else set()
            named |= {path.strip() for path in listing(folder) if path.startswith("cwd/") and name in ENDINGS}
        if start in ("benchmark start", "main --dry_run") and name == "data_dir":
            named |= {"home"}
        try:
            check(result, case, statuses=(*STATUSES, SOME_BROKEN) if start in ("predict", "features") else STATUSES)
            check_tidy(folder, named, case)
        except AssertionError as error:
            failures.append(str(error))
    assert not failures, f"{len(failures)} cases\n\n" + "\n\n".join(failures[:30])


def test_odd_values_of_flags_and_fields(commands: Commands, places: dict[str, str], tmp_path: Path):
    fuzz(commands, places, tmp_path, values=1)


@pytest.mark.soak
def test_more_odd_values_of_flags_and_fields(commands: Commands, places: dict[str, str], tmp_path: Path):
    fuzz(commands, places, tmp_path, values=IN_SOAK)


def fuzz_environment(places: dict[str, str], tmp_path: Path, cases: list[tuple[str, str, str]]) -> None:
    failures = []
    for number, (start, name, value) in enumerate(cases):
        folder = tmp_path / str(number)
        prepare_folder(folder)
        arguments = [text.format(folder=folder, **places) for text in STARTS[start]]
        arguments += ["--config.num_epochs=0.3"] if start == "main" else []
        environment = {"PYTHONPATH": str(ROOT), "JAX_NUM_CPU_DEVICES": "2", "HOME": f"{folder}/home"}
        environment |= {"TMPDIR": f"{folder}/tmp", name: place(value, folder)}
        try:
            done = subprocess.run(
                [sys.executable, "-m", f"alexnet_jax.{start.split()[0]}", *arguments],
                capture_output=True,
                text=True,
                errors="replace",
                cwd=folder / "cwd",
                env=os.environ | environment,
                timeout=120,
                stdin=subprocess.DEVNULL,
            )
            check(Result(done.returncode, done.stdout, done.stderr), (start, name, value))
            paths = "JAX_COMPILATION_CACHE_DIR", "TFDS_DATA_DIR", "XDG_CACHE_HOME", "HOME"
            named = {"cwd", "home"} if name in paths else RESULTS.get(start, set())
            check_tidy(folder, named, (start, name, value))
        except (AssertionError, subprocess.TimeoutExpired) as error:
            failures.append(str(error))
    assert not failures, f"{len(failures)} cases\n\n" + "\n\n".join(failures[:30])


IN_TURN = ("evaluate", "main", "main --dry_run", "prepare folder", "predict", "figures", "convert export")
ALL = [(name, value) for name, values in ENVIRONMENT.items() for value in values]


def test_odd_environments(places: dict[str, str], tmp_path: Path):
    drawn = random.Random(SEED).sample(ALL, 3)
    cases = [(start, *case) for start, case in zip(IN_TURN, [("JAX_NUM_CPU_DEVICES", "many"), *drawn], strict=False)]
    fuzz_environment(places, tmp_path, cases)


@pytest.mark.soak
@pytest.mark.parametrize("start", IN_TURN)
def test_all_odd_environments(start: str, places: dict[str, str], tmp_path: Path):
    fuzz_environment(places, tmp_path, [(start, *case) for case in ALL])
