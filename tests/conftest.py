"""Strict arithmetic, checked shapes, four CPU devices, and a small prepared data set."""

import itertools
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import jax
import jaxtyping
import pytest

import tests.typecheck  # noqa: F401  (the hook's name must be importable)

jax.config.update("jax_num_cpu_devices", 4)
jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")
jaxtyping.install_import_hook("alexnet_jax", "tests.typecheck.check")

os.environ.pop("PYTHONUNBUFFERED", None)  # commands are tested as most users start them
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:  # as a shell starts background jobs; commands would inherit it
    signal.signal(signal.SIGINT, signal.default_int_handler)

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="session", autouse=True)
def compiled(tmp_path_factory: pytest.TempPathFactory) -> None:
    """What tests and commands compile is kept for this session's others, and is none of the user's."""
    from alexnet_jax.runtime import compilation_cache

    shared = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        shared = shared.parent
    os.environ["JAX_COMPILATION_CACHE_DIR"] = str(shared / "compiled")
    compilation_cache.use(compilation_cache.default_folder())


@pytest.fixture(scope="session")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> str:
    """ELPV at 64x64, prepared once for all workers (other workers wait for the first)."""
    from alexnet_jax.data.preparing import automatic

    shared = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        shared = shared.parent
    folder = str(shared / "data")
    automatic.ensure("elpv/64", folder, say=print)
    return folder


@pytest.fixture(scope="session")
def tiny_run(tmp_path_factory: pytest.TempPathFactory, data_dir: str) -> Path:
    """The workdir of a short run that has ended. Tests that change a workdir copy it first."""
    from alexnet_jax.train import train_and_evaluate
    from tests.configs import tiny

    folder = tmp_path_factory.mktemp("tiny_run")
    config = tiny.get_config()
    config.num_epochs = 0.5
    train_and_evaluate(config, str(folder), data_dir)
    return folder


@pytest.fixture(scope="session")
def network(tiny_run: Path):
    """The network of `tiny_run`, ready for pictures."""
    import alexnet_jax

    return alexnet_jax.load(tiny_run)


@pytest.fixture(scope="session")
def squares(data_dir: str):
    """The images of the evaluation split of `tiny_run`, as stored, and their labels."""
    import numpy as np

    from alexnet_jax.data.dataset import open_dataset
    from alexnet_jax.data.decoders import decode

    source = open_dataset("elpv/64", data_dir).split("test[:50]")
    return np.stack([decode(source[i]["image"]) for i in range(50)]), np.array([source[i]["label"] for i in range(50)])


@pytest.fixture
def tiny_config() -> Callable:
    """Makes a config small enough for a test: `tiny_config(num_epochs=2.0)`."""

    def make(**overrides: object):
        from tests.configs import tiny

        config = tiny.get_config()
        config.update_from_flattened_dict(overrides)
        return config

    return make


@pytest.fixture
def before_each_batch(monkeypatch: pytest.MonkeyPatch):
    """Calls a function with the experiment and the number of batches fetched so far, before each fetch of training."""
    from alexnet_jax.experiment import build

    def arrange(act: Callable) -> None:
        made = build.training_batches

        def batches(experiment, **options):
            inner = made(experiment, **options)
            for number in itertools.count():
                act(experiment, number)
                yield next(inner)

        monkeypatch.setattr(build, "training_batches", batches)

    yield arrange
    monkeypatch.undo()


class Command:
    """A running `python -m alexnet_jax.NAME`, as a user starts it."""

    def __init__(self, module: str, *arguments: object, devices: int = 2, **environment: str):
        self.process = subprocess.Popen(
            [sys.executable, "-m", f"alexnet_jax.{module}", *map(str, arguments)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            env=os.environ | {"JAX_NUM_CPU_DEVICES": str(devices), "PYTHONUNBUFFERED": "1"} | environment,
        )

    def finish(self, seconds: float = 180) -> tuple[int, str, str]:
        """Exit status, standard output and standard error."""
        out, err = self.process.communicate(timeout=seconds)
        return self.process.returncode, out, err


@pytest.fixture(scope="session")
def commands():
    """Commands that end by themselves, in processes that are forked after the imports."""
    from tests.fuzz import Commands

    started = Commands({"JAX_NUM_CPU_DEVICES": "2"})
    yield started
    started.close()


@pytest.fixture(scope="session")
def forked(commands):
    """The result of a command in the repository."""
    return commands.whole


@pytest.fixture
def command():
    """Starts commands, and ends those that a failed test leaves behind."""
    started: list[Command] = []

    def start(module: str, *arguments: object, devices: int = 2, **environment: str) -> Command:
        started.append(Command(module, *arguments, devices=devices, **environment))
        return started[-1]

    yield start
    for one in started:
        if one.process.poll() is None:
            one.process.kill()
            one.process.communicate()
