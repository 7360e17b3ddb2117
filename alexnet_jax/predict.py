"""The likeliest classes of pictures, after a trained network.

    python -m alexnet_jax.predict --workdir=runs/elpv cell.png                   # a file
    python -m alexnet_jax.predict --workdir=runs/elpv cells --views=10           # a folder, with the folders in it
    python -m alexnet_jax.predict --workdir=runs/elpv - < cell.png               # standard input: one picture
    python -m alexnet_jax.predict --workdir=runs/elpv cells --csv > cells.csv
    python -m alexnet_jax.predict --workdir=runs/elpv cells --picture=cells.png

Standard output has a block of lines for each picture; with --json one JSON object a line (JSON Lines), with --csv one
row. The true class of a picture is known if a folder in its name, as given or found, has the name of a class: in
`cells/a/1.png` this may be `cells` or `a`. Pictures that cannot be read, or whose probabilities are not finite, are
named on standard error, and the others go on. --picture replaces none of the pictures.

Exit status: 0, all pictures were predicted; 1, some were not; 2, none was, or the command is wrong.
"""

import io
import os
import sys
from collections.abc import Callable, Iterator, Sequence

if not __package__:  # `python alexnet_jax/predict.py` puts this folder on the path; its parent holds the package
    sys.path[0] = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
if __name__ == "__main__":  # before the other imports
    from alexnet_jax import startup

    startup.leave_on_interrupt()

from absl import flags
from etils import epath

from alexnet_jax import cli, cli_network, paths
from alexnet_jax.answers import STDIN, answered, as_json, as_row, as_text, header, names_of
from alexnet_jax.answers import read as read_pictures
from alexnet_jax.data import geometry
from alexnet_jax.data.folder_listing import Seen
from alexnet_jax.drawing import canvas, predictions
from alexnet_jax.drawing.predictions import Answer
from alexnet_jax.errors import UsageError
from alexnet_jax.hints import hints
from alexnet_jax.progress_line import progress_line
from alexnet_jax.trained import choose_batch_size

flags.adopt_module_key_flags(cli_network)  # so that --help lists them
TOP = flags.DEFINE_integer("top", 5, "How many of the likeliest classes are shown, at most.", lower_bound=1)
VIEWS = flags.DEFINE_enum("views", "1", list(map(str, geometry.VIEWS)), geometry.VIEWS_HELP)
JSON = flags.DEFINE_bool("json", False, "Print one JSON object a picture, each on a line.")
CSV = flags.DEFINE_bool("csv", False, "Print one row a picture, below a row with the names of the columns.")
PICTURE = flags.DEFINE_string("picture", None, "PNG or SVG file with the first pictures and bars of probabilities.")

DRAWN = 48  # pictures of --picture: twelve rows
SOME_BROKEN = 1  # exit status


class Tally:
    """Counts of pictures; it names those that cannot be predicted, once each, on standard error.

    Attributes:
      broken: could not be read, or have probabilities that are not finite.
      known: have a true class.
      wrong: of the known ones, how many have another likeliest class.
      done: were answered.
    """

    def __init__(self) -> None:
        self.broken = self.known = self.wrong = self.done = 0

    def add_broken(self, line: str) -> None:
        """Counts what cannot be predicted, and prints the line that names it."""
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
            yield f"{self.broken:,} could not be read or predicted"


@hints()
def main(*words: str) -> int:
    """Prints the likeliest classes of the pictures that the words name."""
    words = tuple(word if word == STDIN else paths.expand_home(word) for word in words)
    file = check_flags(words)
    tally = Tally()
    total = count_pictures(words, tally)
    left_out = tally.broken  # folders, which `total` does not count
    network = cli_network.open_network()
    network.need_classifier()
    write = writer(min(TOP.value, len(network.classes)))
    shows = sys.stdout is None or not sys.stdout.isatty()  # on a terminal, the answers themselves show the progress
    progress = progress_line("predicted", total) if shows else lambda done: None
    drawn: list[Answer] = []
    views = int(VIEWS.value)
    size = choose_batch_size(total, views)
    pictures = read_pictures(names_of(words, Seen()), network.preprocessing.image_size, tally.add_broken)
    for block in answered(network, pictures, tally.add_broken, batch_size=size, views=views, top=TOP.value):
        cli.print_results("".join(map(write, block)))
        for answer in block:
            tally.count(answer)
        drawn += block[: DRAWN - len(drawn)] if file else []
        progress(tally.done + tally.broken - left_out)
    if not tally.done:
        raise UsageError("no picture could be read or predicted")
    for line in tally.lines():
        cli_network.say(line)
    if file:
        cli_network.write_output(file, canvas.as_bytes(predictions.draw(drawn), file.suffix.lower()))
        if tally.done > len(drawn):
            cli_network.say(f"{file} shows the first {len(drawn)} of {tally.done:,} pictures")
    return SOME_BROKEN if tally.broken else 0


def count_pictures(words: Sequence[str], tally: Tally) -> int:
    """How many pictures the words name. Lines name what is left out, and folders without a picture.

    Raises:
      UsageError: there is none.
    """
    seen = Seen(cli_network.say)
    counts = [sum(1 for _ in names_of([word], seen)) for word in words]
    for line in seen.lines():
        cli_network.say(line)
    for folder, reason in seen.unreadable:
        tally.add_broken(f"{folder} cannot be read: {reason}")
    if not any(counts):
        raise UsageError(f"there is no picture in {', '.join(words)}")
    unreadable = [folder for folder, _ in seen.unreadable]
    for word, count in zip(words, counts, strict=True):
        if not count and word not in unreadable:
            tally.add_broken(f"there is no picture in {word}")
    return sum(counts)


def check_flags(words: Sequence[str]) -> epath.Path | None:
    """The file of `--picture`, if there is one; checks words and flags before the work.

    Raises:
      UsageError: there is no word, flags contradict each other, or the picture cannot be drawn or written,
        or would replace one that is read.
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
    cli_network.check_is_no_picture("--picture", PICTURE.value, file, words)
    canvas.need_matplotlib()
    return file


def writer(top: int) -> Callable[[Answer], str]:
    """The form of an answer on standard output, as the flags have it.

    Args:
      top: how many classes an answer has.
    """
    if CSV.value and isinstance(sys.stdout, io.TextIOWrapper):  # names of files may hold any bytes
        sys.stdout.reconfigure(encoding="utf-8", errors="surrogateescape")
    if JSON.value:
        return as_json
    if CSV.value:
        cli.print_results(header(top))
        return as_row
    return as_text


if __name__ == "__main__":
    cli.run(main, words=None)
