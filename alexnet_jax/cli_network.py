"""What the commands share that start from a trained network: their flags, and the network of a workdir."""

import sys
from collections.abc import Callable, Sequence

from absl import flags
from etils import epath

from alexnet_jax import cli, trained
from alexnet_jax.errors import UsageError
from alexnet_jax.experiment import build as experiments
from alexnet_jax.experiment.settings import read_settings
from alexnet_jax.network.native import build as native
from alexnet_jax.trained import Trained
from alexnet_jax.workdir import record

WORKDIR = flags.DEFINE_multi_string("workdir", None, "Workdir of a training run, or of imported weights.")
CHECKPOINT = flags.DEFINE_string("checkpoint", "last", "last, best (by validation error), or the number of a step.")
DATA_DIR = flags.DEFINE_string("data_dir", None, "Folder of prepared data sets; default: TFDS's own.")
NATIVE = flags.DEFINE_enum("native", "auto", ["auto", "off"], native.HELP)


def folders() -> list[epath.Path]:
    """The workdirs that `--workdir` names, at least one.

    Raises:
      UsageError: the flag is missing.
    """
    if not WORKDIR.value:
        raise UsageError("--workdir is missing; name the workdir of a training run")
    return [epath.Path(cli.absolute(name)) for name in WORKDIR.value]


def folder() -> epath.Path:
    """The one workdir that `--workdir` names.

    Raises:
      UsageError: the flag is missing, or given several times.
    """
    found = folders()
    if len(found) > 1:
        raise UsageError("--workdir is given several times; this command takes one, and `evaluate` takes several")
    return found[0]


def start(workdirs: Sequence[epath.Path]) -> None:
    """Starts JAX on the devices that the networks of the workdirs use, and says which form of the operations runs.

    Raises:
      UsageError: a workdir holds no run.
    """
    settings = [read_settings(record.read_config(workdir)).on_any_mesh() for workdir in workdirs]
    line = cli.start(cpu_devices=max(map(experiments.cpu_devices, settings)), native=NATIVE.value)
    if line:
        say(line)


def open_network() -> Trained:
    """Starts JAX, and opens the network of the one workdir.

    Raises:
      UsageError: as in `folder` and `trained.open_workdir`.
    """
    workdir = folder()
    start([workdir])
    return trained.open_workdir(workdir, CHECKPOINT.value, data_dir=DATA_DIR.value)


def say(line: str) -> None:
    """Prints a line on standard error, beside the result on standard output."""
    print(line, file=sys.stderr, flush=True)


def progress(what: str, of: int | None) -> Callable[[int], None]:
    """Shows `what done/of` on one line of a terminal, and nothing elsewhere.

    Args:
      what: such as `evaluated`.
      of: how many there are; None: not known.
    """

    def show(done: int) -> None:
        if sys.stderr.isatty():
            end = "\n" if done == of else ""
            print(f"\r{what} {done:,}{'' if of is None else f'/{of:,}'} images", end=end, file=sys.stderr, flush=True)

    return show
