"""Predictions and confusions as CSV files."""

import contextlib
import csv
import io
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np
from etils import epath
from jaxtyping import Int

from alexnet_jax.data.filling import name_of
from alexnet_jax.data.pipeline import Source
from alexnet_jax.evaluation.predictions import Block
from alexnet_jax.evaluation.tally import predicted_classes
from alexnet_jax.workdir.atomic import open_atomically, writing

ADVICE = "make room, or name another file"  # where a file cannot be written


@contextlib.contextmanager
def prediction_rows(
    file: epath.Path, class_names: Sequence[str], source: Source
) -> Iterator[Callable[[Block], object]]:
    """A file of predictions, written as they come. It has its name when all are written.

    A row has the image's name as the data set has it, or its place in the split where it has no names; the true class;
    the likeliest class, empty where a probability is not finite; and the probability of each class, `p(CLASS)`.

    Args:
      file: to write.
      class_names: in the order of the labels.
      source: the split, which has the names.

    Yields:
      A function that writes a block.

    Raises:
      UsageError: the file cannot be written.
    """
    with contextlib.ExitStack() as stack:  # an error of the caller removes the part that is written
        with writing(file, ADVICE):
            opened = stack.enter_context(open_atomically(file))
            opened.write(_csv([("name", "label", "prediction", *(f"p({name})" for name in class_names))]))

        def write(block: Block) -> None:
            content = _csv(_rows_of(block, class_names, source))
            with writing(file, ADVICE):
                opened.write(content)

        yield write
        with writing(file, ADVICE):
            stack.close()


def _rows_of(block: Block, class_names: Sequence[str], source: Source) -> Iterator[Sequence[str]]:
    predicted = predicted_classes(block.log_probs)
    probabilities = np.exp(block.log_probs.astype(np.float64)).tolist()
    for index, label, guess, row in zip(block.examples, block.labels, predicted, probabilities, strict=True):
        guessed = class_names[guess] if guess >= 0 else ""
        name = name_of(source[int(index)])
        yield str(index) if name is None else name, class_names[label], guessed, *map("%.7g".__mod__, row)


def confusion_rows(matrix: Int[np.ndarray, "classes classes"], class_names: Sequence[str]) -> bytes:
    """A CSV file of how many images of each true class (rows) were predicted as each class (columns)."""
    rows = ((name, *counts) for name, counts in zip(class_names, matrix.tolist(), strict=True))
    return _csv([("true class", *class_names), *rows])


def _csv(rows: Iterable[Sequence[Any]]) -> bytes:
    return "".join(map(csv_line, rows)).encode("utf-8", "replace")


def csv_line(cells: Iterable[Any]) -> str:
    """A row of a CSV file. A cell with a carriage return is quoted, which Python does for its line's own end alone."""
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\r\n").writerow(cells)
    return text.getvalue().removesuffix("\r\n") + "\n"
