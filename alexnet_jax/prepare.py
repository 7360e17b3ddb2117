"""Prepares a data set for training.

    python -m alexnet_jax.prepare imagenet2012 --source_dir=DIR    # with ILSVRC2012_img_train.tar and ..._img_val.tar
    python -m alexnet_jax.prepare imagenet2010 --source_dir=DIR
    python -m alexnet_jax.prepare folder NAME --source_dir=DIR     # a tree SPLIT/CLASS/*.jpg, or CLASS/*.jpg
    python -m alexnet_jax.prepare tfds NAME                        # cifar10, imagenette, ...
    python -m alexnet_jax.prepare fashion_mnist --source_dir=DIR --size=28    # the IDX files, as Debian has them
    python -m alexnet_jax.prepare elpv/160                         # of the package elpv-dataset, a requirement

The result is `DATA_DIR/NAME/256/1.0.0`, or `DATA_DIR/NAME/256_raw/1.0.0` with `--encoding=raw`: ArrayRecord shards that
TFDS opens, the statistics of the training split, and `prepared.json` with the command, the versions and the counts.
Killed and run again, the command resumes; images that have changed meanwhile are read again.
"""

import dataclasses
import math
import os
import re
import shlex
import shutil
import sys
import time
from pathlib import Path

if not __package__:  # `python alexnet_jax/prepare.py` puts this folder on the path; its parent holds the package
    sys.path[0] = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
if __name__ == "__main__":  # before the other imports
    from alexnet_jax import startup

    startup.leave_on_interrupt()

from absl import flags

from alexnet_jax import cli, startup
from alexnet_jax.data.errors import (
    BrokenImagesError,
    DatasetError,
    MissingSourceError,
    PartialArchiveError,
    UnwritableFolderError,
    WorkerDiedError,
)
from alexnet_jax.data.pipeline import usable_cores
from alexnet_jax.data.preparing import automatic, images
from alexnet_jax.data.preparing import make as preparation
from alexnet_jax.data.preparing.listing import Listing
from alexnet_jax.data.preparing.shards import ENCODINGS
from alexnet_jax.errors import UsageError, reason_of
from alexnet_jax.runtime import output
from alexnet_jax.workdir import record as workdirs
from alexnet_jax.workdir.progress import LINE_EVERY, REDRAW_EVERY, duration

SOURCE_DIR = flags.DEFINE_string("source_dir", None, "Folder of the archives, or of the tree of images.")
DATA_DIR = flags.DEFINE_string("data_dir", None, cli.DATA_DIR_HELP)
flags.register_validator(  # before the address is tried: a package that reaches the storage is of no help
    DATA_DIR,
    lambda folder: folder is None or "://" not in folder,
    "the folder is not on this machine; prepare in one that is, and copy the data set to that address",
)
SIZE = flags.DEFINE_integer("size", 256, "Pixels along a side of the stored images.", lower_bound=8, upper_bound=4096)
ENCODING = flags.DEFINE_enum(
    "encoding", "jpeg", ENCODINGS, "jpeg: 35 KB an image of 256x256; raw: 197 KB, and nothing to decode in training."
)
ON_ERROR = flags.DEFINE_enum(
    "on_error", "stop", ["stop", "skip"], "Broken images. stop: list them at the end; skip: leave them out."
)
MAX_PIXELS = flags.DEFINE_integer(
    "max_pixels",
    images.MAX_PIXELS,
    "Most pixels of an image; a larger one counts as broken. Decoding takes 3 bytes a pixel in each process. A large"
    " JPEG is decoded at reduced size, and counts as 1/4, 1/16 or 1/64 of its pixels.",
    lower_bound=1,
)
PROCESSES = flags.DEFINE_integer("processes", None, "Number of worker processes; default: one a core.", lower_bound=1)
PER_SHARD = flags.DEFINE_integer("per_shard", preparation.PER_SHARD, "Images in each file.", lower_bound=1)
HELD_OUT = flags.DEFINE_float(
    "held_out",
    None,
    "folder: share of each class held out where there is no split but train; default: a tenth.",
    0.01,
    0.5,
)
PARTIAL = flags.DEFINE_bool("partial", False, "imagenet: take archives with fewer images than the official ones.")

COMMANDS = "imagenet2012, imagenet2010, fashion_mnist, folder NAME, tfds NAME, elpv/SIZE"


def main(command: str | None = None, name: str | None = None) -> int:
    """Prepares the data set that the words name."""
    if command is None:
        raise UsageError(f"which data set? Known: {COMMANDS}")
    options = preparation.Options(
        size=SIZE.value,
        encoding=ENCODING.value,
        skip_broken=ON_ERROR.value == "skip",
        processes=PROCESSES.value or usable_cores(),
        per_shard=PER_SHARD.value,
        max_pixels=MAX_PIXELS.value,
    )
    try:
        return _prepare(command, name, options)
    except DatasetError as error:
        advice = advice_on(error, command, options)
        raise UsageError(f"{error}; {advice}" if advice else str(error)) from error
    except KeyboardInterrupt:
        print("\ninterrupted; the same command resumes", file=sys.stderr)
        return startup.INTERRUPTED


def _prepare(command: str, name: str | None, options: preparation.Options) -> int:
    form = automatic.options_of(f"elpv/{options.size}" if command == "elpv" else command)
    if form is not None:  # elpv/160: the name has the size
        if SIZE.present and form.size != options.size:
            raise UsageError(f"{command} has {form.size} pixels and --size is {options.size}; leave out one of the two")
        if ENCODING.present and "_" in command and form.encoding != options.encoding:
            raise UsageError(f"{command} is {form.encoding} and --encoding is {options.encoding}; leave one out")
        encoding = form.encoding if "_" in command else options.encoding
        command, options = "elpv", dataclasses.replace(options, size=form.size, encoding=encoding)
    plain = name_of(command, name)
    check_flags(command)
    folder = preparation.place(plain, options, DATA_DIR.value)
    try:
        is_there = folder.exists()
    except OSError as error:  # such as a folder above that may not be read
        raise UnwritableFolderError(folder, reason_of(error)) from error
    if is_there:
        output.say(f"{folder} is there already; remove it to prepare it anew")
        return 0
    source = os.path.realpath(SOURCE_DIR.value) if command == "folder" and SOURCE_DIR.value is not None else None
    if source is not None and Path(os.path.realpath(folder)).is_relative_to(source):
        raise UsageError(
            f"the data set would be {folder}, within --source_dir={SOURCE_DIR.value}, and be taken for images when the"
            " command runs again; name another folder with --data_dir"
        )
    record = {
        "command": "python -m alexnet_jax.prepare " + shlex.join(sys.argv[1:]),
        "versions": workdirs.versions(),
    }
    try:
        listing = list_images(command, name)
    except OSError as error:
        raise MissingSourceError(f"{error.filename or SOURCE_DIR.value} cannot be read: {reason_of(error)}") from error
    count = sum(map(len, listing.splits.values()))
    output.say(f"{count:,} images of {len(listing.class_names):,} classes in {', '.join(listing.splits)}")
    folder = preparation.prepare(
        listing,
        options,
        DATA_DIR.value,
        record=record,
        progress=Progress(),
        say=output.say,
        wait=command == "elpv",  # launch scripts may prepare on each node of a shared disk
    )
    output.say(f"{listing.name}/{options.config} is ready in {folder}")
    return 0


def check_flags(command: str) -> None:
    """Checks that each flag that is given is of use.

    Raises:
      UsageError: the source reads no such flag, or its value is no number.
    """
    if HELD_OUT.value is not None and math.isnan(HELD_OUT.value):
        raise UsageError("--held_out is nan and should be a share from 0.01 to 0.5")
    for flag, commands in (
        (SOURCE_DIR, ("imagenet2012", "imagenet2010", "fashion_mnist", "folder", "tfds")),
        (HELD_OUT, ("folder",)),
        (PARTIAL, ("imagenet2012", "imagenet2010")),
    ):
        if flag.present and command not in commands:
            raise UsageError(f"{command} has no use for --{flag.name}, a flag of {', '.join(commands)}; leave it out")


def name_of(command: str, name: str | None) -> str:
    """The name of the data set to prepare.

    Raises:
      UsageError: the words make no sense.
    """
    if command in ("imagenet2012", "imagenet2010", "fashion_mnist", "elpv"):
        if name is not None:
            raise UsageError(f"{command} takes no name; leave out {name!r}")
        return command
    if command not in ("folder", "tfds"):
        raise UsageError(f"{command!r} cannot be prepared; known: {COMMANDS}")
    if name is None:
        raise UsageError(f"{command} needs a name: `python -m alexnet_jax.prepare {command} NAME`")
    plain = re.sub("[^a-z0-9_]", "_", name.lower()) if command == "tfds" else name  # imagenette/full-size-v2
    if not re.fullmatch("[a-z][a-z0-9_]*", plain):
        raise UsageError(f"{name!r} is no name for a data set; use small letters, digits and _, such as my_flowers")
    if plain == "elpv":  # a run that names it prepares it, and would take these images for it
        raise UsageError("'elpv' is the name of the photographs that come with this package; use another name")
    return plain


def list_images(command: str, name: str | None) -> Listing:
    """Lists the images of the source.

    Raises:
      UsageError: --source_dir is missing.
      SourceError: the source is not what the command expects.
    """
    from alexnet_jax.data.preparing.sources import elpv, folder, idx, imagenet
    from alexnet_jax.data.preparing.sources.tfds import tfds_dataset

    if command == "elpv":
        return elpv.elpv()
    source_dir = SOURCE_DIR.value
    if command == "tfds":
        listing = tfds_dataset(str(name), source_dir, say=output.say)
        return dataclasses.replace(listing, name=name_of(command, name))
    if source_dir is None:
        raise UsageError(f"--source_dir is missing; name the folder that holds the images of {command}")
    if command == "folder":
        return folder.folder(str(name), source_dir, held_out=HELD_OUT.value, say=output.say)
    if command == "fashion_mnist":
        return idx.fashion_mnist(source_dir)
    kinds = {"imagenet2012": imagenet.imagenet2012, "imagenet2010": imagenet.imagenet2010}
    return kinds[command](source_dir, partial=PARTIAL.value, say=output.say)


def advice_on(error: DatasetError, command: str, options: preparation.Options) -> str:
    """The flags that help against an error; empty where none does."""
    match error:
        case MissingSourceError() if command == "tfds":
            return "--source_dir names a folder of TFDS that holds the data set"
        case MissingSourceError():
            return "--source_dir names the folder of the source"
        case PartialArchiveError():
            return "or prepare a part with --partial"
        case BrokenImagesError() if error.too_large:
            return (
                f"or leave them out with --on_error=skip; images larger than --max_pixels={options.max_pixels} want a"
                " larger limit, and 3 bytes of memory a pixel and process"
            )
        case BrokenImagesError():
            return "or leave them out with --on_error=skip"
        case UnwritableFolderError():
            return "name another folder with --data_dir"
        case WorkerDiedError():
            fewer = f"fewer than --processes={error.processes} or " if error.processes > 1 else ""
            return f"where memory was short, with {fewer}a smaller --max_pixels"
    return ""


class Progress:
    """A line with a bar, images/s and the time left; redrawn on a terminal, else repeated every ten seconds."""

    def __init__(self) -> None:
        self._redraws = sys.stdout.isatty()
        self._start = self._shown = time.monotonic()
        self._ended = False

    def __call__(self, done: int, todo: int) -> None:
        """Shows the progress, where the last line is old enough."""
        now = time.monotonic()
        early = now - self._shown < (REDRAW_EVERY if self._redraws else LINE_EVERY) and done < todo
        if early or self._ended:
            return
        self._shown, self._ended = now, done == todo
        rate = done / max(now - self._start, 1e-9)
        left = duration((todo - done) / rate) if rate else "unknown"
        line = f"{done:,}/{todo:,} images  left {left}  {rate:,.0f} images/s"
        if not self._redraws:
            output.say(line)
            return
        columns = shutil.get_terminal_size().columns - 1  # a wrapped line stays on the screen
        bar = f"[{'#' * (20 * done // max(todo, 1)):<20}] "
        line = bar + line if len(bar + line) <= columns else line[:columns]
        output.say(f"\r{line:<{columns}}", end="\n" if done == todo else "")


if __name__ == "__main__":
    cli.run(main, words=2)
