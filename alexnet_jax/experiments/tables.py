"""Rows as tables in Markdown: means with standard deviations, and differences seed by seed with an interval."""

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from scipy import stats

from alexnet_jax.experiments.experiment import Rows
from alexnet_jax.experiments.run import ENSEMBLE

CONFIDENCE = 0.95


def table(head: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    """A table in Markdown."""
    rows = [head, ["---"] * len(head), *lines]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def of_run(rows: Rows, name: str) -> Rows:
    """The finished rows of a name, by seed."""
    return sorted((row for row in rows if row["run"] == name and "result" in row), key=lambda row: row["seed"])


def ten_views(rows: Rows) -> list[float]:
    """The errors with ten views, in [0, 1]."""
    return [row["result"]["top1_10_views"] for row in rows]


def spread(values: Sequence[float], digits: int = 1, scale: float = 100.0) -> str:
    """`19.8 ± 0.5`: mean and standard deviation; of one value the value alone; of none a dash."""
    if not values:
        return "-"
    mean = f"{scale * statistics.mean(values):.{digits}f}"
    return mean if len(values) == 1 else f"{mean} ± {scale * statistics.stdev(values):.{digits}f}"


class Difference(NamedTuple):
    """A mean difference between two networks, seed by seed.

    Attributes:
      mean: of `other - base`.
      margin: half of the 95 % confidence interval (Student's t over the seeds); infinite for one seed.
      seeds: that both have.
    """

    mean: float
    margin: float
    seeds: int

    def words(self) -> str:
        """`+1.2 ± 0.4`, in points, or a dash without seeds."""
        if not self.seeds:
            return "-"
        text = f"{100 * self.mean:+.1f}"
        return text if math.isinf(self.margin) else f"{text} ± {100 * self.margin:.1f}"

    @property
    def sign(self) -> str:
        """`+` or `-` where the interval leaves out 0, else `?`."""
        return "?" if not self.seeds or abs(self.mean) <= self.margin else "+" if self.mean > 0 else "-"


def paired(base: Rows, other: Rows) -> Difference:
    """The difference of the error with ten views, between rows with the same seed."""
    ours, theirs = ({row["seed"]: row["result"]["top1_10_views"] for row in rows} for rows in (base, other))
    differences = [theirs[seed] - ours[seed] for seed in sorted(ours.keys() & theirs.keys())]
    count = len(differences)
    if count < 2:
        return Difference(differences[0] if differences else math.nan, math.inf, count)
    quantile = stats.t.ppf((1 + CONFIDENCE) / 2, count - 1)
    margin = quantile * statistics.stdev(differences) / math.sqrt(count)
    return Difference(statistics.mean(differences), float(margin), count)


def diverged(rows: Rows, name: str) -> str:
    """`, 1 diverged`; empty: no run of the name did."""
    count = sum(row["run"] == name and "failed" in row for row in rows)
    return f", {count} diverged" if count else ""


def errors(rows: Rows, names: Iterable[str], published: Mapping[str, str] = {}) -> str:
    """Errors of runs in percent, ten views and centre crop.

    Args:
      rows: of the experiment.
      names: of runs, in the order of the table.
      published: figures of the paper by name.
    """
    lines = []
    for name in names:
        found = of_run(rows, name)
        lines.append(
            [
                f"`{name}`",
                *(spread([row["result"][f"top1_{views}_views"] for row in found]) for views in (10, 1)),
                _count(found) + diverged(rows, name),
                published.get(name, ""),
            ]
        )
    return table(["", "ten views, %", "centre, %", "runs", "paper, %"], lines)


def _count(rows: Rows) -> str:
    """How many runs; of an ensemble how many members."""
    members = [len(row["ensemble"]) for row in rows if "ensemble" in row]
    return f"{members[0]}, averaged" if members else f"{len(rows)}"


def ablations(rows: Rows, base: str, expected: Mapping[str, str]) -> str:
    """Differences from a network in percentage points, with the sign that the paper expects beside the one found.

    Args:
      rows: of the experiment.
      base: name of the whole network; the others lack a part of it. Its ensemble, if there is one, has a line too.
      expected: `+`, `-` or a remark, by name of the others.
    """
    whole = of_run(rows, base)
    lines = [[f"`{base}`", spread(ten_views(whole)), "", "", "", _count(whole) + diverged(rows, base)]]
    if together := of_run(rows, base + ENSEMBLE):
        [error] = ten_views(together)
        change = error - statistics.mean(ten_views(whole))
        lines.append([f"`{base}{ENSEMBLE}`", spread([error]), f"{100 * change:+.1f}", "- (5)", "", _count(together)])
    for name, sign in expected.items():
        found = of_run(rows, name)
        difference = paired(whole, found)
        seen = difference.sign if difference.seeds else ""
        seeds = f"{difference.seeds}{diverged(rows, name)}"
        lines.append([f"`{name}`", spread(ten_views(found)), difference.words(), sign, seen, seeds])
    legend = (
        "Expected and found: the sign of the change of the error, `none` for no change, and `?` where the interval"
        " holds 0 and the sign is not known. In brackets: the section of the paper behind the expected sign."
    )
    return (
        f"{table(['', 'ten views, %', 'difference, points (95 %)', 'expected', 'found', 'seeds'], lines)}\n\n{legend}"
    )


def made(rows: Rows) -> str:
    """Where and when the rows were made: `12 runs on NVIDIA H100, 31 to 58 s each; JAX 0.11.2; 2026-11-27`.

    The time is that of the runs that were not resumed.
    """
    groups: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for row in (row for row in rows if "ensemble" not in row):
        groups.setdefault((row["device"], row["versions"]["jax"]), []).append(row)
    parts = []
    for (device, version), group in groups.items():
        seconds = sorted(row["seconds"] for row in group if row["seconds"] is not None)
        some = f"{len(seconds)} of them without a break, " if len(seconds) < len(group) else ""
        each = f", {some}{_span(seconds, '{:,.0f}')} s each" if seconds else ""
        dates = _span(sorted(row["date"] for row in group), "{}")
        parts.append(f"{len(group)} run{'s' * (len(group) > 1)} on {device}{each}; JAX {version}; {dates}")
    return ". ".join(parts)


def _span(values: Sequence[Any], form: str) -> str:
    """The first and the last of sorted values, once where they read the same."""
    return " to ".join(dict.fromkeys(form.format(value) for value in (values[0], values[-1])))
