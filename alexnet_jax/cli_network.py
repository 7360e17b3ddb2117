"""What the commands share that start from a trained network: their flags, and the network of a workdir."""

import contextlib
import os
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path

from absl import flags
from etils import epath

from alexnet_jax import cli, loading, paths
from alexnet_jax.data import preprocessing, statistics
from alexnet_jax.data.folder_listing import ENDINGS
from alexnet_jax.errors import UsageError, reason_of
from alexnet_jax.experiment import build
from alexnet_jax.experiment.settings import settings_of
from alexnet_jax.network.native import build as native
from alexnet_jax.runtime import output, processes
from alexnet_jax.trained import Trained
from alexnet_jax.workdir import record
from alexnet_jax.workdir.atomic import part_of, write_atomically, writing

READ_AGAIN = {preprocessing.FILE_NAME: "run", statistics.FILE_NAME: "data set"}  # whose file would be replaced

WORKDIR = flags.DEFINE_multi_string(
    "workdir", None, "Workdir of a training run, or of imported weights; `evaluate` takes several."
)
CHECKPOINT = flags.DEFINE_string(
    "checkpoint",
    "last",
    "last; best: the checkpoint with the smallest error in an evaluation, on the test split where no other split is"
    " held out; or the number of a step.",
)
DATA_DIR = flags.DEFINE_string("data_dir", None, cli.DATA_DIR_HELP)
NATIVE = flags.DEFINE_enum("native", "auto", ["auto", "off"], native.HELP)


def folders() -> list[epath.Path]:
    """The workdirs that `--workdir` names, at least one.

    Raises:
      UsageError: the flag is missing.
    """
    if not WORKDIR.value:
        raise UsageError("--workdir is missing; name the workdir of a training run")
    return [epath.Path(paths.absolute(name)) for name in WORKDIR.value]


def folder() -> epath.Path:
    """The one workdir that `--workdir` names.

    Raises:
      UsageError: the flag is missing, or given several times.
    """
    workdirs = folders()
    if len(workdirs) > 1:
        raise UsageError("--workdir is given several times; this command takes one, and `evaluate` takes several")
    return workdirs[0]


def start(workdirs: Sequence[epath.Path]) -> str:
    """Starts JAX on the devices that the networks of the workdirs use.

    Returns:
      The line that says which form of the operations runs, for `say` after whatever may be wrong with the command line.

    Raises:
      UsageError: a workdir holds no run.
    """
    settings = [settings_of(record.read_config(workdir)).on_any_mesh() for workdir in workdirs]
    return cli.start(cpu_devices=max(map(build.cpu_devices, settings)), native=NATIVE.value)


def open_network() -> Trained:
    """Starts JAX, and opens the network of the one workdir.

    Raises:
      UsageError: as in `folder` and `loading.open_workdir`.
    """
    workdir = folder()
    line = start([workdir])
    network = loading.open_workdir(workdir, CHECKPOINT.value, data_dir=DATA_DIR.value)
    say(line)
    return network


def output_file(flag: str, name: str, kinds: Sequence[str]) -> epath.Path:
    """The file that a flag names for a result, checked before the work that the result takes.

    Args:
      flag: such as `--predictions`.
      name: of the file, as the flag has it.
      kinds: the suffixes that it may have, such as `.csv`.

    Raises:
      UsageError: the suffix is another one, a run or a data set needs the file, or no file can be written there.
    """
    file = epath.Path(paths.absolute(name))
    if file.suffix.lower() not in kinds:
        raise UsageError(f"{flag}={name} does not end in {' or '.join(kinds)}; the ending selects the format")
    if "://" in str(file):
        return file
    if os.path.isdir(file):
        raise UsageError(f"{flag}={name} is a folder; name a file in it")
    if os.path.lexists(file) and not os.path.isfile(file):
        raise UsageError(f"{flag}={name} is not a file; name a file")
    file = epath.Path(os.path.realpath(file))  # a link stays
    if os.path.exists(file) and file.name in READ_AGAIN:
        raise UsageError(f"{flag}={name} is a file of a {READ_AGAIN[file.name]}, which needs it; name another file")
    if os.path.exists(file) and not os.access(file, os.W_OK):
        raise UsageError(f"{flag}={name} is there and write-protected; name another file")
    try:
        with tempfile.TemporaryFile(dir=file.parent), contextlib.suppress(FileNotFoundError):
            os.stat(part_of(file))  # its name may be too long
    except OSError as error:
        raise UsageError(f"{flag}={name} cannot be written: {reason_of(error)}; name another file") from error
    return file


def check_is_no_picture(flag: str, name: str, file: epath.Path, words: Iterable[str]) -> None:
    """Checks that an output file is not an input picture, and that no later command would read it as one.

    Args:
      flag: such as `--picture`.
      name: of the file, as the flag has it.
      file: as `output_file` returns it.
      words: files and folders of pictures.

    Raises:
      UsageError: the file is an input picture, or has a picture's suffix and lies in an input folder.
    """
    for word in words:
        real = os.path.realpath(word)
        if real == str(file):
            raise UsageError(f"{flag}={name} is one of the pictures; name another file")
        if file.suffix.lower() in ENDINGS and Path(real) in Path(file).parents:
            raise UsageError(f"{flag}={name} lies in {word}, whose pictures are read; name a file in another folder")


def say(line: str) -> None:
    """Prints a line on standard error, beside the result on standard output; of several processes, the first does.

    Nothing is printed for an empty line.
    """
    if line and processes.index() == 0:
        output.warn(line)


def write_output(file: epath.Path, content: str | bytes) -> None:
    """Writes a file whole, or not at all.

    Raises:
      UsageError: the file cannot be written.
    """
    with writing(file):
        write_atomically(file, content)
