"""Rows as tables in Markdown: means with standard deviations, and differences with an interval."""

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
    """A mean difference between two networks.

    Attributes:
      mean: of `other - base`.
      margin: half of the 95 % confidence interval (Student's t); infinite where nothing is known of the deviation.
      seeds: of both networks; without pairs, of the other one.
    """

    mean: float
    margin: float
    seeds: int

    def words(self) -> str:
        """`+1.2 ± 0.4`, in points, or a dash without seeds."""
        if not self.seeds:
            return "-"
        text = f"{100 * self.mean:+z.1f}"  # z: never -0.0
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
    margin = _quantile(count - 1) * statistics.stdev(differences) / math.sqrt(count)
    return Difference(statistics.mean(differences), margin, count)


def _quantile(freedom: int) -> float:
    """Student's t, which leaves out 5 % on both sides together."""
    return float(stats.t.ppf((1 + CONFIDENCE) / 2, freedom))


class Deviation(NamedTuple):
    """The standard deviation over seeds that several networks have in common, if their deviations are alike.

    Attributes:
      value: root of the mean of their variances, weighted by their degrees of freedom.
      freedom: degrees of freedom: runs less networks.
    """

    value: float
    freedom: int


def pooled(groups: Iterable[Sequence[float]]) -> Deviation:
    """The common deviation of groups of errors; of infinite value where no group has two."""
    groups = [group for group in groups if len(group) > 1]
    freedom = sum(len(group) - 1 for group in groups)
    if not freedom:
        return Deviation(math.inf, 0)
    squares = sum((len(group) - 1) * statistics.variance(group) for group in groups)
    return Deviation(math.sqrt(squares / freedom), freedom)


def of_means(base: Sequence[float], other: Sequence[float], deviation: Deviation) -> Difference:
    """The difference between the means of two networks' errors, over all seeds of each."""
    if not base or not other:
        return Difference(math.nan, math.inf, 0)
    mean = statistics.mean(other) - statistics.mean(base)
    if not deviation.freedom:
        return Difference(mean, math.inf, len(other))
    margin = _quantile(deviation.freedom) * deviation.value * math.sqrt(1 / len(base) + 1 / len(other))
    return Difference(mean, margin, len(other))


def diverged(rows: Rows, name: str) -> str:
    """`, 1 diverged`; empty: no run of the name did."""
    count = sum(row["run"] == name and "failed" in row for row in rows)
    return f", {count} diverged" if count else ""


VIEWS = {9: "nine views", 10: "ten views", 1: "centre"}  # in the heads of tables


def errors(
    rows: Rows, names: Iterable[str], published: Mapping[str, str] = {}, *, all_views: Sequence[int] = (10, 1)
) -> str:
    """Errors of runs in percent.

    Args:
      rows: of the experiment.
      names: of runs, in the order of the table.
      published: figures of the paper by name.
      all_views: numbers of views, a column each.
    """
    lines = []
    for name in names:
        finished = of_run(rows, name)
        lines.append(
            [
                f"`{name}`",
                *(spread([_error(row, views) for row in finished]) for views in all_views),
                _count(finished) + diverged(rows, name),
                published.get(name, ""),
            ]
        )
    return table(["", *(f"{VIEWS[views]}, %" for views in all_views), "runs", "paper, %"], lines)


def _error(row: Mapping[str, Any], views: int) -> float:
    """Of 9 views, what `measures.nine_views` adds to a row."""
    return row["nine_views"] if views == 9 else row["result"][f"top1_{views}_views"]


def _count(rows: Rows) -> str:
    """How many runs; of an ensemble how many members."""
    members = [len(row["ensemble"]) for row in rows if "ensemble" in row]
    return f"{members[0]}, averaged" if members else f"{len(rows)}"


def ablations(rows: Rows, base: str, expected: Mapping[str, str]) -> str:
    """Differences from a network in percentage points, with what the paper expects beside the sign found.

    Args:
      rows: of the experiment.
      base: name of the whole network; the others lack a part of it. Its ensemble, if there is one, has a line too.
      expected: `+1.4`, `+`, `-` or a remark, by name of the others.
    """
    whole = of_run(rows, base)
    deviation = pooled(ten_views(of_run(rows, name)) for name in (base, *expected))
    lines = [[f"`{base}`", spread(ten_views(whole)), "", "", "", "", _count(whole) + diverged(rows, base)]]
    if together := of_run(rows, base + ENSEMBLE):
        [error] = ten_views(together)
        change = f"{100 * (error - statistics.mean(ten_views(whole))):+.1f}"
        lines.append([f"`{base}{ENSEMBLE}`", spread([error]), "", change, "-2.6 (table 2)", "", _count(together)])
    for name, sign in expected.items():
        others = of_run(rows, name)
        pairs, means = paired(whole, others), of_means(ten_views(whole), ten_views(others), deviation)
        seen = means.sign if means.seeds else ""
        seeds = f"{len(others)}{diverged(rows, name)}"
        lines.append([f"`{name}`", spread(ten_views(others)), pairs.words(), means.words(), sign, seen, seeds])
    head = ["", "ten views, %", "pairs of seeds, points", "all seeds, points", "expected", "measured", "seeds"]
    common = f"The deviation that all these networks have in common is {100 * deviation.value:.2f} points."
    return table(head, lines) + (f"\n\n{common}" if deviation.freedom else "")


def made(rows: Rows) -> str:
    """Where and when the rows were made: `12 runs on NVIDIA H100, 31 to 58 s each; JAX 0.11.2; 2026-11-27`.

    The time is that of the runs that were not resumed.
    """
    groups: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for row in (row for row in rows if "ensemble" not in row):
        groups.setdefault((row["device"], row["versions"]["jax"]), []).append(row)
    parts = []
    for (device, version), group in groups.items():
        finished = [row for row in group if "failed" not in row]
        seconds = sorted(row["seconds"] for row in finished if row["seconds"] is not None)
        some = f"{len(seconds)} of them without a break, " if len(seconds) < len(finished) else ""
        each = f", {some}{span(seconds, '{:,.0f}')} s each" if seconds else ""
        dates = span(sorted(row["date"] for row in group), "{}")
        parts.append(f"{len(group)} run{'s' * (len(group) > 1)} on {device}{each}; JAX {version}; {dates}")
    return ". ".join(parts)


def span(values: Sequence[Any], form: str) -> str:
    """The first and the last of sorted values, once where they read the same."""
    return " to ".join(dict.fromkeys(form.format(value) for value in (values[0], values[-1])))
