import dataclasses
import json
import shutil
from pathlib import Path

import pytest

from alexnet_jax.errors import UsageError
from alexnet_jax.experiments import initialisation, summary, tables
from alexnet_jax.experiments.catalogue import EXPERIMENTS
from alexnet_jax.experiments.rows import add_row, read_rows
from tests.conftest import ROOT

MADE = {
    "seconds": 12.0,
    "device": "a GPU",
    "versions": {"jax": "0.11.2"},
    "date": "2026-11-27",
    "curve": [],
    "weighted": 0.2,
}


def row(run, **fields):
    result = {"top1_10_views": 0.125, "top1_1_views": 0.15}
    key = {"run": run.name, "config": run.config, "overrides": run.overrides, "seed": run.seed}
    return key | {"result": result} | MADE | fields


def unwrapped(text: str) -> str:
    return " ".join(text.split())


def test_a_page_without_rows_says_how_to_make_them(tmp_path: Path):
    summary.write(tmp_path / "results")
    page = (tmp_path / "results.md").read_text()
    for name, experiment in EXPERIMENTS.items():
        assert f"## {experiment.title}\n" in page
        assert f"Not measured yet: `python -m alexnet_jax.experiments {name}` makes the runs" in page
    assert max(map(len, page.splitlines())) <= 120


def test_the_page_in_docs_is_that_of_its_rows(tmp_path: Path):
    shutil.copytree(ROOT / "docs/results", tmp_path / "results")
    summary.write(tmp_path / "results")
    made, there = (path.read_text() for path in (tmp_path / "results.md", ROOT / "docs/results.md"))
    assert made == there, "run python -m alexnet_jax.experiments --summary"


def test_figures_of_a_start_in_prose_are_those_of_the_rows():
    rows = read_rows(ROOT / "docs/results/initialisation.jsonl")
    paper, code = (tables.of_run(rows, name) for name in ("paper", "original"))
    shrinking = [sum(row["signal"][layer] for row in paper) for layer in ("conv2", "conv4")]
    assert 11.5 < shrinking[0] / shrinking[1] < 12.5, "a twelfth"
    from_step = [sorted(initialisation.below_guessing(row["losses"]) or 0 for row in each) for each in (paper, code)]
    begins = "after {} to {} updates, in place of {} to {}".format(*(step for each in from_step for step in each[::2]))
    assert begins in (ROOT / "docs/variants.md").read_text()


def test_figures_of_other_runs_in_prose_are_those_of_the_rows():
    page = unwrapped((ROOT / "docs/results.md").read_text())
    rows = [row for row in read_rows(ROOT / "docs/results/elpv.jsonl") if row["run"] == "default"]
    before = [row for row in rows if "weighted" not in row]
    centre = tables.spread([row["result"]["top1_1_views"] for row in before])
    assert len(before) == 5 and len(rows) == 10
    assert f"had {tables.spread(tables.ten_views(before))} % with ten views, and {centre} % at the centre" in page
    assert f"the ten runs have {tables.spread(tables.ten_views(rows))} % with ten views" in page

    whole = tables.of_run(read_rows(ROOT / "docs/results/ablations_cifar10.jsonl"), "original")
    first, again = (
        [row for row in whole if row["seed"] < 2 and row["date"] == day] for day in ("2026-11-27", "2026-11-29")
    )
    words = ["{:.1f} and {:.1f}".format(*(100 * error for error in tables.ten_views(made))) for made in (first, again)]
    assert f"have {words[1]} % with ten views; in the table they have {words[0]}." in page

    rows = read_rows(ROOT / "docs/results/response_norm.jsonl")
    with_norm, without = (tables.of_run(rows, name) for name in ("11pct", "no_norm"))
    ten = tables.paired(with_norm, without)
    one = tables.paired(
        *(
            [row | {"result": {"top1_10_views": row["result"]["top1_1_views"]}} for row in made]
            for made in (with_norm, without)
        )
    )
    assert ten.sign == one.sign == "?"
    assert f"{-100 * ten.mean:.1f} points smaller with ten views and {100 * one.mean:.1f} points larger with" in page


def test_a_page_has_a_table_for_each_experiment_and_its_pictures(tmp_path: Path):
    curve = {"curve": [[1.0, 0.5, 1.4], [2.0, 0.2, 0.6]]}
    extra = {
        "figure1": curve,
        **dict.fromkeys(("response_norm", "response_norm_520"), curve | {"nine_views": 0.2}),
        "ablations_cifar10": {"towers": {"colour_share": [0.4, 0.1], "p_value": 0.01}},
        "initialisation": {"signal": {"conv1": 12.0}, "losses": [[500, 2.3], [2000, 1.1]]},
        "retrieval": {"codes": {"exact distances in fc7": [1.0, 1.0, 0.7]}},
    }
    for name, experiment in EXPERIMENTS.items():
        for run in experiment.runs([]):
            add_row(tmp_path / "results" / f"{name}.jsonl", row(run, **extra.get(name, {})))
    summary.write(tmp_path / "results")
    page = (tmp_path / "results.md").read_text()
    assert "Not measured" not in page
    assert "| `11pct` | 20.0 ± 0.0 | 12.5 ± 0.0 | 15.0 ± 0.0 | 3 | 11 |" in page
    assert "| relu | 0.001 | 1.8 | 1 of 1 |" in page and "![Training error" in page
    for name in ("figure1", "response_norm", "response_norm_520", "initialisation", "large_batch"):
        assert (tmp_path / "results" / f"{name}.png").read_bytes().startswith(b"\x89PNG")
    assert "runs on a GPU, 12 s each; JAX 0.11.2; 2026-11-27." in page
    assert "| 0 | 0.100 | 0.400 | 0.01 |" in page  # the greyer tower first
    assert "The towers differ (p below 0.05) in 5 of 5 runs." in unwrapped(page)
    assert max(len(line) for line in page.splitlines() if line[:1] not in "|!") <= 120
    rows = [json.loads(line) for line in (tmp_path / "results" / "figure1.jsonl").read_text().splitlines()]
    assert len(rows) == len(EXPERIMENTS["figure1"].runs([]))


def test_rows_of_other_values_and_diverged_runs_leave_the_page_sound(tmp_path: Path):
    """As of trials with `--set`, and of a network that diverges from its initial values."""
    folder = tmp_path / "results"
    for run in EXPERIMENTS["elpv"].runs([]):
        add_row(folder / "elpv.jsonl", row(run))
        add_row(folder / "elpv.jsonl", row(run, result={"top1_10_views": 0.9, "top1_1_views": 0.9}))  # made twice
        trial = dataclasses.replace(run, overrides=dict(run.overrides) | {"num_epochs": 0.1})
        add_row(folder / "elpv.jsonl", row(trial, result={"top1_10_views": 0.5, "top1_1_views": 0.5}))
    for name in ("initialisation", "retrieval"):
        for number, run in enumerate(EXPERIMENTS[name].runs([])):
            diverged = {key: value for key, value in row(run).items() if key != "result"} | {"failed": "not finite"}
            measured = row(run, signal={"conv1": 12.0}, losses=[[500, 2.3], [2000, 1.1]])
            add_row(folder / f"{name}.jsonl", measured if name == "initialisation" and number == 1 else diverged)
    summary.write(folder)
    page = (tmp_path / "results.md").read_text()
    assert "| `default` | 12.5 ± 0.0 | 15.0 ± 0.0 | 5 |" in page
    assert "the error of `default` with ten views is 20.0 ± 0.0 %; that of a program that" in unwrapped(page)
    assert "answers 'functional' is 36.8 %." in unwrapped(page)  # (178 + 73 / 3 + 26 * 2 / 3) / (the same + 377)
    assert "Not complete yet: `python -m alexnet_jax.experiments elpv` makes 2 more runs." in unwrapped(page)
    assert "| `paper` | 12.000 |" in page and "python -m alexnet_jax.experiments retrieval` makes the runs" in page


def test_a_page_that_cannot_be_written_is_one_error(tmp_path: Path):
    with pytest.raises(UsageError, match=f"{tmp_path}/nowhere/.*results.md.* cannot be written: No such file"):
        summary.write(tmp_path / "nowhere" / "results")


def test_the_page_gives_the_time_of_runs_without_a_break(tmp_path: Path):
    first, *others = EXPERIMENTS["elpv"].runs([])
    for run in others:
        add_row(tmp_path / "results" / "elpv.jsonl", row(run, seconds=None))
    summary.write(tmp_path / "results")
    assert f"`elpv`: {len(others)} runs on a GPU; JAX 0.11.2" in (tmp_path / "results.md").read_text()
    add_row(tmp_path / "results" / "elpv.jsonl", row(first))
    summary.write(tmp_path / "results")
    assert f"`elpv`: {len(others) + 1} runs on a GPU, 1 of them without a break, 12 s each; JAX" in unwrapped(
        (tmp_path / "results.md").read_text()
    )


def test_the_page_of_the_working_directory_lies_beside_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "rows").mkdir()
    monkeypatch.chdir(tmp_path / "rows")
    summary.write(Path())
    assert (tmp_path / "rows.md").exists() and not list((tmp_path / "rows").iterdir())
