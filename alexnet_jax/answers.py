"""Answers of a network about pictures that the command line names, and their forms: text, JSON, rows of a table."""

import contextlib
import functools
import itertools
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TypeAlias

import numpy as np
from jaxtyping import UInt8

from alexnet_jax import strict_json
from alexnet_jax.data.folder_listing import Seen
from alexnet_jax.data.imagenet_names import readable
from alexnet_jax.data.picture_batches import read_ahead
from alexnet_jax.data.picture_files import composed, pictures_below
from alexnet_jax.data.pictures import read_picture
from alexnet_jax.data.preparing.images import MAX_BYTES
from alexnet_jax.drawing.predictions import Answer, likeliest
from alexnet_jax.evaluation.tables import csv_line
from alexnet_jax.paths import in_one_line
from alexnet_jax.trained import Trained, pad

STDIN = "-"  # the name of the picture on standard input


Named: TypeAlias = tuple[str, UInt8[np.ndarray, "size size 3"]]  # a picture's name, as given or found, and its square


def names_of(words: Iterable[str], seen: Seen) -> Iterator[str]:
    """The pictures that the words name, one after the other; the number of pictures takes no memory."""
    for word in words:
        if word != STDIN and os.path.isdir(word):
            yield from pictures_below(word, seen)
        else:
            yield word


def read(names: Iterable[str], size: int, broken: Callable[[str], None]) -> Iterator[Named]:
    """The pictures as squares of `size` pixels, in order, read in advance by threads.

    Args:
      names: of files; `-` is standard input.
      size: pixels along a side.
      broken: takes the line that names a picture that cannot be read.
    """
    with_input = ((name, _standard_input() if name == STDIN else None) for name in names)
    square_of = functools.partial(_square_of, size=size)
    with contextlib.closing(read_ahead(with_input, square_of, lambda error: broken(str(error)), size=size)) as reading:
        for (name, _), pixels in reading:
            yield name, pixels


def _standard_input() -> bytes:
    """Its bytes, read by the thread that takes the names: Ctrl-C interrupts no other one's wait."""
    return sys.stdin.buffer.read(MAX_BYTES + 1) if sys.stdin else b""


def _square_of(named: tuple[str, bytes | None], size: int) -> UInt8[np.ndarray, "size size 3"]:
    name, data = named
    return read_picture(name, size) if data is None else read_picture(data, size, name="standard input")


def answered(
    network: Trained, pictures: Iterator[Named], broken: Callable[[str], None], *, batch_size: int, views: int, top: int
) -> Iterator[list[Answer]]:
    """The pictures with their likeliest classes, a batch at a time; all batches run one program.

    Args:
      network: with a classifier.
      pictures: as `read` gives them.
      broken: takes the line that names a picture whose probabilities are not finite.
      batch_size: pictures of a batch; the last one is padded.
      views: of a picture, one of `geometry.VIEWS`.
      top: how many classes an answer has, at most.
    """
    folders = {composed(name): name for name in network.classes}
    while batch := list(itertools.islice(pictures, batch_size)):
        squares = pad(np.stack([pixels for _, pixels in batch]), batch_size)
        log_probs = network.log_probs(squares, views=views)[: len(batch)]
        sound = np.isfinite(log_probs).all(axis=1)
        for row in np.flatnonzero(~sound):
            name = in_one_line(batch[row][0])
            broken(f"{name} has probabilities that are not finite: the numbers of the network overflow")
        batch, log_probs = list(itertools.compress(batch, sound)), log_probs[sound]
        yield [
            Answer(name, pixels, *likeliest(row, network.classes, top), truth=truth_of(name, folders))
            for (name, pixels), row in zip(batch, log_probs, strict=True)
        ]


def truth_of(name: str, classes: Mapping[str, str]) -> str | None:
    """The class of the nearest folder in a picture's name that is named as a class; None: there is no such folder.

    Args:
      name: of the picture, as given or found. The folders above, which it does not have, say nothing of the picture.
      classes: by the name of a folder in Unicode's composed form; some systems store names in the other form.
    """
    if name == STDIN:
        return None
    folders = (composed(folder.name) for folder in Path(os.path.normpath(name)).parents)
    return next((classes[folder] for folder in folders if folder in classes), None)


def as_text(answer: Answer) -> str:
    """A line with the name, and one for each class."""
    truth = "" if answer.truth is None else f"  (folder: {readable(answer.truth)})"
    pairs = zip(answer.classes, answer.probabilities, strict=True)
    return f"{in_one_line(answer.name)}{truth}\n" + "".join(
        f"  {value:7.2%}  {readable(class_name)}\n" for class_name, value in pairs
    )


def as_json(answer: Answer) -> str:
    """One object on a line; `class` is the name in the data set, `name` the one for people."""
    pairs = zip(answer.classes, answer.probabilities, strict=True)
    likeliest = [
        {"class": class_name, "name": readable(class_name), "probability": value} for class_name, value in pairs
    ]
    image = answer.name.encode("utf-8", "backslashreplace").decode()  # a lone surrogate is no text for other readers
    return strict_json.dumps({"image": image, "label": answer.truth, "predictions": likeliest}) + "\n"


def as_row(answer: Answer) -> str:
    """One row of a table."""
    pairs = zip(map(readable, answer.classes), answer.probabilities, strict=True)
    label = "" if answer.truth is None else readable(answer.truth)
    return csv_line([answer.name, label, *itertools.chain.from_iterable(pairs)])


def header(top: int) -> str:
    """The names of the columns of a table.

    Args:
      top: how many classes a row has.
    """
    pairs = ((f"class_{place}", f"probability_{place}") for place in range(1, top + 1))
    return csv_line(["image", "label", *itertools.chain.from_iterable(pairs)])
