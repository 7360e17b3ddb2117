"""What an experiment is: the paper's claim, the runs that test it, and how their rows become a table."""

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from alexnet_jax.drawing.canvas import Figure
from alexnet_jax.experiments.run import ENSEMBLE, Run, key_of

Rows = Sequence[Mapping[str, Any]]


@dataclasses.dataclass(frozen=True)
class Experiment:
    """An experiment, as data.

    Attributes:
      name: on the command line, and of its file of rows.
      title: in docs/results.md.
      claim: of the paper, with its section.
      runs: the runs that the rows so far call for; those that have rows may be among them.
      table: the rows as a table in Markdown.
      reading: conclusions from the rows and limits of the experiment, paragraphs for docs/results.md.
      pictures: name of the file, the figure, and its text for those who cannot see it.
    """

    name: str
    title: str
    claim: str
    runs: Callable[[Rows], list[Run]]
    table: Callable[[Rows], str]
    reading: str
    pictures: Callable[[Rows], Mapping[str, tuple[Figure, str]]] = lambda rows: {}


def rows_of(runs: Iterable[Run], rows: Rows) -> list[Mapping[str, Any]]:
    """The rows that these runs left, one for each run: a run may have been made twice, as on two machines.

    Others are of other values, such as those of `--set`, or lack what the run measures now.
    """
    by_key = {run.key: run for run in runs}
    first: dict[str, Mapping[str, Any]] = {}
    for row in rows:
        run = by_key.get(key_of(row))
        if run is not None and ("failed" in row or all(name in row for name in run.measure)):
            first.setdefault(run.key, row)
    return list(first.values())


def without_rows(runs: Sequence[Run], rows: Rows) -> list[Run]:
    """The runs that left no row yet."""
    done = {key_of(row) for row in rows_of(runs, rows)}
    return [run for run in runs if run.key not in done]


def grid(
    experiment: str,
    config: str,
    variants: Mapping[str, Mapping[str, Any]],
    seeds: Iterable[int],
    *,
    base: Mapping[str, Any] = {},
    **fields: Any,
) -> list[Run]:
    """A run for each variant and seed, seeds outermost: a break leaves whole seeds.

    Args:
      experiment: name.
      config: of all runs.
      variants: overrides by name.
      seeds: of each variant.
      base: overrides of all runs.
      fields: of `Run`.
    """
    return [
        Run(experiment, name, config, dict(base) | dict(changes), seed, **fields)
        for seed in seeds
        for name, changes in variants.items()
    ]


def ensembles(runs: Sequence[Run], rows: Rows, *, size: int) -> list[Run]:
    """A run for each variant whose first `size` seeds have rows: their ensemble, under the name `VARIANT, ensemble`."""
    done = {(row["run"], row["seed"]) for row in rows_of(runs, rows) if "result" in row}
    variants: dict[str, Run] = {}
    for run in runs:
        variants.setdefault(run.name, run)
    seeds = range(size)
    return [
        dataclasses.replace(run, name=run.name + ENSEMBLE, seed=0, measure=(), ensemble=tuple(seeds))
        for run in variants.values()
        if all((run.name, seed) in done for seed in seeds)
    ]
