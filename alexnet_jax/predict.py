"""The likeliest classes of pictures, after a trained network.

    python -m alexnet_jax.predict --workdir=runs/elpv cell.png                   # a file
    python -m alexnet_jax.predict --workdir=runs/elpv cells --views=10           # a folder, with the folders in it
    python -m alexnet_jax.predict --workdir=runs/elpv - < cell.png               # standard input: one picture
    python -m alexnet_jax.predict --workdir=runs/elpv cells --csv > cells.csv
    python -m alexnet_jax.predict --workdir=runs/elpv cells --picture=cells.png

Standard output has a block of lines for each picture; with --json one JSON object a line (JSON Lines), with --csv one
row. The true class of a picture is known where it lies in a folder that is named as a class. Pictures that cannot be
read are named on standard error, and the others go on.

Exit status: 0, all pictures were read; 1, some were not; 2, none was, or the command is wrong.
"""

import csv
import io
import itertools
import os
import sys
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

if not __package__:  # `python alexnet_jax/predict.py` puts this folder on the path; its parent holds the package
    sys.path[0] = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))

import numpy as np
from absl import flags
from etils import epath
from jaxtyping import UInt8

from alexnet_jax import cli, cli_network, strict_json
from alexnet_jax.data.imagenet_names import readable
from alexnet_jax.data.picture_files import Skipped, pictures_below
from alexnet_jax.data.pictures import NotAPictureError, read_picture
from alexnet_jax.data.preparing.images import MAX_BYTES
from alexnet_jax.drawing import canvas, predictions
from alexnet_jax.drawing.predictions import Answer
from alexnet_jax.errors import UsageError
from alexnet_jax.hints import hints
from alexnet_jax.trained import BATCH, Trained

TOP = flags.DEFINE_integer("top", 5, "How many of the likeliest classes are shown, at most.", lower_bound=1)
VIEWS = flags.DEFINE_enum("views", "1", ["1", "10"], "1: the centre crop; 10: the paper's ten views, averaged.")
JSON = flags.DEFINE_bool("json", False, "Print one JSON object a picture, each on a line.")
CSV = flags.DEFINE_bool("csv", False, "Print one row a picture, below a row with the names of the columns.")
PICTURE = flags.DEFINE_string("picture", None, "PNG or SVG file with the first pictures and bars of probabilities.")

DRAWN = 48  # pictures of --picture: twelve rows
STDIN = "-"
SOME_BROKEN = 1  # exit status


class Read(NamedTuple):
    """A picture, read.

    Attributes:
      name: as given on the command line, or found in a folder given there.
      pixels: the square that a data set would store.
    """

    name: str
    pixels: UInt8[np.ndarray, "size size 3"]


class Tally:
    """Counts of pictures; it names those that cannot be read, once each, on standard error.

    Attributes:
      broken: could not be read.
      known: have a true class.
      wrong: of the known ones, how many have another likeliest class.
      done: were answered.
    """

    def __init__(self) -> None:
        self.broken = self.known = self.wrong = self.done = 0

    def tell(self, line: str) -> None:
        """Names what cannot be read."""
        self.broken += 1
        cli_network.say(f"error: {line}")

    def count(self, answer: Answer) -> None:
        """Counts an answered picture."""
        self.done += 1
        self.known += answer.truth is not None
        self.wrong += answer.truth is not None and answer.classes[0] != answer.truth

    def lines(self) -> Iterator[str]:
        """The counts in words, where they are of interest."""
        if self.known:
            yield (
                f"{self.wrong:,} of {self.known:,} pictures in folders named as a class are wrong"
                f" ({self.wrong / self.known:.2%})"
            )
        if self.broken:
            yield f"{self.broken:,} could not be read"


@hints()
def main(*words: str) -> int:
    """Prints the likeliest classes of the pictures that the words name."""
    file = check_flags(words)
    skipped = Skipped()
    total = sum(1 for _ in names_of(words, skipped))
    for line in skipped.lines():
        cli_network.say(line)
    tally = Tally()
    for folder, reason in skipped.unreadable:
        tally.tell(f"{folder} cannot be read: {reason}")
    if not total:
        raise UsageError(f"there is no picture in {', '.join(words)}")
    net = cli_network.open_network()
    net.need_classifier()
    write = writer(min(TOP.value, len(net.classes)))
    shows = sys.stdout is None or not sys.stdout.isatty()  # on a terminal, the answers themselves show the progress
    progress = cli_network.progress("predicted", total) if shows else lambda done: None
    drawn: list[Answer] = []
    pictures = read(names_of(words, Skipped()), net.preprocessing.image_size, tally)
    for answers in answered(net, pictures, batch_size(total, int(VIEWS.value))):
        cli_network.print_results("".join(map(write, answers)))
        for answer in answers:
            tally.count(answer)
        drawn += answers[: DRAWN - len(drawn)] if file else []
        progress(tally.done + tally.broken)
    for line in tally.lines():
        cli_network.say(line)
    if file and drawn:
        cli_network.write_output(file, canvas.as_bytes(predictions.draw(drawn), file.suffix.lower()))
        if tally.done > len(drawn):
            cli_network.say(f"{file} shows the first {len(drawn)} of {tally.done:,} pictures")
    if not tally.done:
        raise UsageError("no picture could be read")
    return SOME_BROKEN if tally.broken else 0


def check_flags(words: Sequence[str]) -> epath.Path | None:
    """The file of `--picture`, if there is one; checks words and flags before the work.

    Raises:
      UsageError: there is no word, flags contradict each other, or the picture cannot be drawn or written.
    """
    if not words:
        raise UsageError("no picture is named; name files, folders, or - for standard input")
    if words.count(STDIN) > 1:
        raise UsageError("- is given several times, and standard input holds one picture")
    if JSON.value and CSV.value:
        raise UsageError("--json and --csv are both given; choose one")
    if PICTURE.value is None:
        return None
    file = cli_network.output_file("--picture", PICTURE.value, canvas.SUFFIXES)
    canvas.need_matplotlib()
    return file


def names_of(words: Iterable[str], skipped: Skipped) -> Iterator[str]:
    """The pictures that the words name, one after the other; the number of pictures takes no memory."""
    for word in words:
        if word != STDIN and os.path.isdir(word):
            yield from pictures_below(word, skipped)
        else:
            yield word


def read(names: Iterable[str], size: int, tally: Tally) -> Iterator[Read]:
    """The pictures as squares of `size` pixels; `tally` takes those that cannot be read."""
    for name in names:
        try:
            if name == STDIN:
                picture: str | bytes = sys.stdin.buffer.read(MAX_BYTES + 1) if sys.stdin else b""
                yield Read(name, read_picture(picture, size, name="standard input"))
            else:
                yield Read(name, read_picture(name, size))
        except NotAPictureError as error:
            tally.tell(str(error))


def batch_size(total: int, views: int) -> int:
    """A power of two that holds all pictures, or as many as are predicted at once: few sizes mean few programs."""
    return min(max(1, BATCH // views), 1 << (total - 1).bit_length())


def answered(net: Trained, pictures: Iterator[Read], size: int) -> Iterator[list[Answer]]:
    """The pictures with their likeliest classes, a batch of `size` at a time; all batches run one program."""
    folders = {unicodedata.normalize("NFC", name): name for name in net.classes}
    while batch := list(itertools.islice(pictures, size)):
        squares = np.zeros((size, *batch[0].pixels.shape), np.uint8)
        squares[: len(batch)] = [picture.pixels for picture in batch]
        log_probs = net.log_probs(squares, views=int(VIEWS.value))[: len(batch)]
        likeliest = np.argsort(-log_probs, axis=1, kind="stable")[:, : TOP.value]
        yield [
            Answer(
                name=picture.name,
                pixels=picture.pixels,
                classes=[net.classes[label] for label in labels],
                probabilities=[float(f"{np.exp(row[label]):.6g}") for label in labels],
                truth=truth_of(picture.name, folders),
            )
            for picture, row, labels in zip(batch, log_probs, likeliest, strict=True)
        ]


def truth_of(name: str, classes: Mapping[str, str]) -> str | None:
    """The class of the nearest folder around a picture that is named as a class; None: there is no such folder.

    Args:
      name: of the picture.
      classes: by the name of a folder in Unicode's composed form; some systems store names in the other form.
    """
    if name == STDIN:
        return None
    folders = (unicodedata.normalize("NFC", folder.name) for folder in Path(os.path.abspath(name)).parents)
    return next((classes[folder] for folder in folders if folder in classes), None)


def writer(top: int) -> Callable[[Answer], str]:
    """The form of an answer on standard output, as the flags have it.

    Args:
      top: how many classes an answer has.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):  # names of files may hold any bytes
        if CSV.value:
            sys.stdout.reconfigure(encoding="utf-8", errors="surrogateescape")
        else:
            sys.stdout.reconfigure(errors="backslashreplace")
    if JSON.value:
        return as_json
    if CSV.value:
        pairs = ((f"class_{place}", f"probability_{place}") for place in range(1, top + 1))
        cli_network.print_results(_row(["image", "label", *itertools.chain.from_iterable(pairs)]))
        return as_row
    return as_text


def as_text(answer: Answer) -> str:
    """A line with the name, and one for each class."""
    name = "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in answer.name)
    truth = "" if answer.truth is None else f"  (folder: {readable(answer.truth)})"
    pairs = zip(answer.classes, answer.probabilities, strict=True)
    return f"{name}{truth}\n" + "".join(f"  {value:7.2%}  {readable(class_name)}\n" for class_name, value in pairs)


def as_json(answer: Answer) -> str:
    """One object on a line; `class` is the name in the data set, `name` the one for people."""
    pairs = zip(answer.classes, answer.probabilities, strict=True)
    likeliest = [
        {"class": class_name, "name": readable(class_name), "probability": value} for class_name, value in pairs
    ]
    return strict_json.dumps({"image": answer.name, "label": answer.truth, "predictions": likeliest}) + "\n"


def as_row(answer: Answer) -> str:
    """One row of a table."""
    pairs = zip(map(readable, answer.classes), answer.probabilities, strict=True)
    label = "" if answer.truth is None else readable(answer.truth)
    return _row([answer.name, label, *itertools.chain.from_iterable(pairs)])


def _row(cells: Iterable[object]) -> str:
    file = io.StringIO()
    csv.writer(file, lineterminator="\n").writerow(cells)
    return file.getvalue()


if __name__ == "__main__":
    cli.run(main, words=None)
