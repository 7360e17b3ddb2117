"""Makes a data set ready for training.

    python -m alexnet_jax.prepare imagenet2012 --source_dir=DIR    # the official tar archives
    python -m alexnet_jax.prepare imagenet2010 --source_dir=DIR
    python -m alexnet_jax.prepare folder NAME --source_dir=DIR     # a tree SPLIT/CLASS/*.jpg
    python -m alexnet_jax.prepare tfds NAME                        # cifar10, imagenette, ...
    python -m alexnet_jax.prepare fashion_mnist --source_dir=DIR --size=28    # its IDX files, as Debian has them
    python -m alexnet_jax.prepare elpv/128                         # comes with this package

The result is `DATA_DIR/NAME/256`: ArrayRecord shards that TFDS opens, the statistics of the training split, and
`prepared.json` with the command, the versions and the counts. Killed and run again it continues.
"""

import dataclasses
import re
import shlex
import sys
import time

from absl import flags

from alexnet_jax import cli
from alexnet_jax.data.dataset import DEFAULT_DATA_DIR, open_dataset
from alexnet_jax.data.pipeline import threads
from alexnet_jax.data.preparing import make as preparation
from alexnet_jax.data.preparing.listing import Found
from alexnet_jax.data.preparing.shards import ENCODINGS
from alexnet_jax.errors import UsageError
from alexnet_jax.workdir import record as workdirs
from alexnet_jax.workdir.progress import duration

SOURCE_DIR = flags.DEFINE_string("source_dir", None, "Folder of the archives, or of the tree of images.")
DATA_DIR = flags.DEFINE_string("data_dir", None, "Folder of prepared data sets; default: TFDS's own.")
SIZE = flags.DEFINE_integer("size", 256, "Pixels along a side of the stored images.", lower_bound=8, upper_bound=4096)
ENCODING = flags.DEFINE_enum(
    "encoding", "jpeg", ENCODINGS, "jpeg: 35 KB an image of 256x256; raw: 197 KB, and nothing to decode in training."
)
ON_ERROR = flags.DEFINE_enum(
    "on_error", "stop", ["stop", "skip"], "Broken images. stop: list them at the end; skip: leave them out."
)
PROCESSES = flags.DEFINE_integer("processes", None, "Processes at work; default: one a core.", lower_bound=1)
PER_SHARD = flags.DEFINE_integer("per_shard", preparation.PER_SHARD, "Images of a file.", lower_bound=1)
HELD_OUT = flags.DEFINE_float(
    "held_out", 0.1, "folder: share of each class held out where there is no split but train.", 0.01, 0.5
)
PARTIAL = flags.DEFINE_bool("partial", False, "imagenet: take archives with fewer images than the official ones.")

COMMANDS = "imagenet2012, imagenet2010, fashion_mnist, folder NAME, tfds NAME, elpv/128"
LINE_EVERY = 10.0  # seconds, where the progress line cannot be redrawn


def main(command: str | None = None, name: str | None = None) -> int:
    """Makes the data set that the words name."""
    data_dir = DATA_DIR.value or DEFAULT_DATA_DIR
    if command is None:
        raise UsageError(f"what shall be prepared? Known: {COMMANDS}")
    if command.startswith("elpv/"):
        open_dataset(command, data_dir, say=print)
        print(f"{command} is ready in {data_dir}")
        return 0
    if "://" in data_dir:
        raise UsageError(f"--data_dir={data_dir} is not on this machine; prepare in a folder and copy it there")
    options = preparation.Options(
        size=SIZE.value,
        encoding=ENCODING.value,
        skip_broken=ON_ERROR.value == "skip",
        processes=PROCESSES.value or threads(),
        per_shard=PER_SHARD.value,
    )
    folder = preparation.place(name_of(command, name), options, data_dir)
    if folder.exists():
        print(f"{folder} is there already; remove it to prepare it anew")
        return 0
    record = {
        "command": "python -m alexnet_jax.prepare " + shlex.join(sys.argv[1:]),
        "versions": workdirs.versions(),
    }
    try:
        found = find(command, name)
        images = sum(map(len, found.splits.values()))
        print(f"{images:,} images of {len(found.class_names):,} classes in {', '.join(found.splits)}", flush=True)
        folder = preparation.prepare(found, options, data_dir, record=record, progress=Progress())
    except KeyboardInterrupt:
        print("\ninterrupted; the same command goes on where it was", file=sys.stderr)
        return 130
    print(f"{found.name}/{options.config} is ready in {folder}")
    return 0


def name_of(command: str, name: str | None) -> str:
    """What the data set will be called.

    Raises:
      UsageError: the words make no sense.
    """
    if command in ("imagenet2012", "imagenet2010", "fashion_mnist"):
        if name is not None:
            raise UsageError(f"{command} takes no name, and {name!r} was given")
        return command
    if command not in ("folder", "tfds"):
        raise UsageError(f"{command!r} cannot be prepared; known: {COMMANDS}")
    if name is None:
        raise UsageError(f"{command} wants a name: `python -m alexnet_jax.prepare {command} NAME`")
    own = re.sub("[^a-z0-9_]", "_", name.lower()) if command == "tfds" else name  # imagenette/full-size-v2
    if not re.fullmatch("[a-z][a-z0-9_]*", own):
        raise UsageError(f"{name!r} is no name for a data set; use small letters, digits and _, such as my_flowers")
    return own


def find(command: str, name: str | None) -> Found:
    """Lists the source's images."""
    from alexnet_jax.data.preparing.sources import folder, idx, imagenet
    from alexnet_jax.data.preparing.sources import tfds as copied

    if command == "tfds":
        found = copied.copied(str(name), SOURCE_DIR.value, say=print)
        return dataclasses.replace(found, name=name_of(command, name))
    if SOURCE_DIR.value is None:
        raise UsageError(f"--source_dir is missing; {command} wants the folder that holds the images")
    if command == "folder":
        return folder.folder(str(name), SOURCE_DIR.value, held_out=HELD_OUT.value, say=print)
    if command == "fashion_mnist":
        return idx.fashion_mnist(SOURCE_DIR.value)
    kinds = {"imagenet2012": imagenet.imagenet2012, "imagenet2010": imagenet.imagenet2010}
    return kinds[command](SOURCE_DIR.value, partial=PARTIAL.value, say=print)


class Progress:
    """A line with a bar, images/s and the time left; redrawn on a terminal, else repeated now and then."""

    def __init__(self) -> None:
        self._redraws = sys.stdout.isatty()
        self._begun = self._shown = time.monotonic()
        self._ended = False

    def __call__(self, done: int, todo: int) -> None:
        """Shows how far it is, where it is time to."""
        now = time.monotonic()
        early = now - self._shown < (0.2 if self._redraws else LINE_EVERY) and done < todo
        if early or self._ended:
            return
        self._shown, self._ended = now, done == todo
        rate = done / max(now - self._begun, 1e-9)
        left = duration((todo - done) / rate) if rate else "unknown"
        bar = f"[{'#' * (20 * done // max(todo, 1)):<20}] " if self._redraws else ""
        line = f"{bar}{done:,}/{todo:,} images  {rate:,.0f} images/s  left {left}"
        if self._redraws:
            print(f"\r{line:<79}", end="\n" if done == todo else "", flush=True)
        else:
            print(line, flush=True)


if __name__ == "__main__":
    cli.run(main, words=2)
