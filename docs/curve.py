"""Draws the training curves of runs: `python -m docs.curve docs/curve.png runs/a runs/b ...`. Needs matplotlib."""

import json
import sys
from pathlib import Path

import matplotlib.pyplot as plt


def column(workdir: Path, name: str) -> tuple[list[float], list[float]]:
    """Epochs and values of one metric, from `metrics.jsonl`."""
    rows = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    rows = [row for row in rows if name in row]
    return [row["epoch"] for row in rows], [row[name] for row in rows]


def main(picture: str, *workdirs: str) -> None:
    """A panel with the training loss and a panel with the held-out error, with a line for each run."""
    figure, (loss, error) = plt.subplots(1, 2, figsize=(9, 3.2), layout="constrained")
    for number, workdir in enumerate(map(Path, workdirs)):
        loss.plot(*column(workdir, "train/loss"), color=f"C{number}", linewidth=1)
        epochs, errors = column(workdir, "eval/top1")
        error.plot(epochs, [100 * value for value in errors], color=f"C{number}", label=f"seed {number}")
        end, (final,) = column(workdir, "final/top1_10_views")
        error.plot(end, [100 * final], "o", color=f"C{number}")
    loss.set(xlabel="epoch", ylabel="training loss, nats", ylim=(0, None))
    error.set(xlabel="epoch", ylabel="held-out error, %", ylim=(0, 35))
    error.axhline(31.2, color="gray", linestyle=":", linewidth=1, label="always 'functional'")
    error.legend(title="centre crop; dots: ten views", fontsize=8, title_fontsize=8)
    for panel in (loss, error):
        panel.spines[["top", "right"]].set_visible(False)
    figure.savefig(picture, dpi=110)


if __name__ == "__main__":
    main(*sys.argv[1:])
