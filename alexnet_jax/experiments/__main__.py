"""Makes experiments of many runs: `python -m alexnet_jax.experiments NAME`. See `--list`.

Each finished run adds a row to docs/results/NAME.jsonl. Runs that have rows are skipped, and interrupted runs
resume. `--summary` writes docs/results.md and its pictures from the rows.
"""

import dataclasses
import json
import math
import signal
import time
from pathlib import Path

if __name__ == "__main__":  # before the other imports
    from alexnet_jax import startup

    startup.leave_on_interrupt()

from absl import flags

from alexnet_jax import cli, paths
from alexnet_jax.errors import TEMPORARY, UsageError
from alexnet_jax.experiments.catalogue import EXPERIMENTS
from alexnet_jax.experiments.experiment import Experiment, without_rows
from alexnet_jax.experiments.pool import Pool, seconds_left
from alexnet_jax.experiments.rows import Row, add_row, check_folder, read_rows
from alexnet_jax.experiments.run import Run
from alexnet_jax.hints import hints
from alexnet_jax.runtime import output
from alexnet_jax.workdir.progress import duration

RESULTS = flags.DEFINE_string("results", "docs/results", "Folder of the rows.")
RUNS = flags.DEFINE_string("runs", "runs/experiments", "Folder of the workdirs.")
for _flag in (RESULTS, RUNS):  # before the address is tried: a package that reaches the storage is of no help
    flags.register_validator(
        _flag, lambda folder: "://" not in folder, "the folder is not on this machine; name one that is"
    )
DATA_DIR = flags.DEFINE_string("data_dir", None, cli.DATA_DIR_HELP)
JOBS = flags.DEFINE_integer("jobs", 1, "Runs at a time.", lower_bound=1)
SECONDS = flags.DEFINE_float("seconds", None, "Start no run after so many seconds.", lower_bound=0)
LIST = flags.DEFINE_bool("list", False, "Print the experiments and how many of their runs have rows, and end.")
SUMMARY = flags.DEFINE_bool("summary", False, "Write docs/results.md and its pictures from the rows, and end.")
SET = flags.DEFINE_multi_string(
    "set",
    [],
    "FIELD=VALUE: another value, as JSON, for a field of all runs, such as --set=num_epochs=0.01. These are other runs,"
    " which the tables leave out; ensembles and longer runs, which follow from rows, are not made. Name another"
    " folder of workdirs with --runs.",
)


STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


@hints()
def main(*names: str) -> int:
    """Makes the experiments of the names. Returns the exit status."""
    if LIST.value:
        cli.print_results("".join(f"{_line(experiment)}\n" for experiment in EXPERIMENTS.values()))
        return 0
    if SUMMARY.value:
        from alexnet_jax.experiments import summary  # which needs matplotlib

        summary.write(Path(paths.expand_home(RESULTS.value)))
        return 0
    unknown = sorted(set(names) - set(EXPERIMENTS))
    if unknown or not names:
        problem = f"there is no experiment {unknown[0]!r}" if unknown else "no experiment is named"
        raise UsageError(f"{problem}; known: {', '.join(EXPERIMENTS)}")
    until = math.inf if SECONDS.value is None else time.monotonic() + SECONDS.value
    for name in names:
        if status := _make(EXPERIMENTS[name], until):
            return status
    return 0


def _make(experiment: Experiment, until: float) -> int:
    """Makes the runs that have no rows yet. Returns the exit status: 0 where all runs have rows."""
    file = Path(paths.expand_home(RESULTS.value)) / f"{experiment.name}.jsonl"
    rows = read_rows(file)
    check_folder(file)
    runs_dir = Path(paths.expand_home(RUNS.value))
    begun, made = time.monotonic(), 0
    runs: list[Run] = []

    def print_line(text: str) -> None:
        output.write(f"{experiment.name}: {text}", stop=lambda: pool.stop(signal.SIGTERM))

    def add(row: Row) -> None:
        nonlocal made
        add_row(file, row)
        rows.append(row)
        made += 1
        left = len(without_rows(runs, rows))
        seconds = seconds_left(time.monotonic() - begun, made=made, left=left, jobs=JOBS.value)
        print_line(f"{_result_of(row)}; {left} run{'s' * (left != 1)} left, about {duration(seconds)}")

    pool = Pool(
        jobs=JOBS.value,
        runs_dir=runs_dir.absolute(),
        data_dir=DATA_DIR.value,
        until=until,
        add=add,
    )
    # `nohup` has SIGHUP ignored.
    heard = [number for number in STOP_SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]
    before = {number: signal.signal(number, pool.stop) for number in heard}
    try:
        while True:  # the rows may call for more runs
            runs, count = _runs(experiment, rows), made
            missing = without_rows(runs, rows)
            if missing:
                print_line(f"{len(missing)} of {len(runs)} runs to make; workers log to {pool.log('*')}")
            pool.make(missing)
            if pool.stopped is not None or made == count:
                break
    finally:
        pool.close()
        for number, handler in before.items():
            signal.signal(number, handler)
    left = len(without_rows(runs, rows))
    cli.print_results(
        f"{experiment.name}: {made} run{'s' * (made != 1)} made, {left} left; the same command resumes\n"
        if left
        else f"{experiment.name}: all {len(runs)} runs have rows in {file}\n"
    )
    return TEMPORARY if left else 0


def _runs(experiment: Experiment, rows: list[Row]) -> list[Run]:
    """The runs; with the values of `--set`, those that follow from no row."""
    changes = dict(map(_change, SET.value))
    runs = experiment.runs([] if changes else rows)
    return [dataclasses.replace(run, overrides=dict(run.overrides) | changes) for run in runs]


def _change(text: str) -> tuple[str, object]:
    field, equals, value = text.partition("=")
    if field in ("seed", "name"):
        raise UsageError(f"--set={text}: each run of an experiment has its own {field}; set another field")
    try:
        return field, json.loads(value)
    except ValueError:
        if not equals:
            raise UsageError(f"--set={text} is not FIELD=VALUE") from None
        return field, value


def _result_of(row: Row) -> str:
    words = {"top1_1_views": "centre", "top1_10_views": "ten views"}
    parts = [f"{words[name]} {value:.1%}" for name, value in row.get("result", {}).items() if name in words]
    errors = ", ".join(parts) or row["failed"]
    time_taken = "" if row["seconds"] is None else f" in {duration(row['seconds'])}"
    return f"{row['run']}, seed {row['seed']}: {errors}{time_taken}"


def _line(experiment: Experiment) -> str:
    rows = read_rows(Path(paths.expand_home(RESULTS.value)) / f"{experiment.name}.jsonl")
    runs = experiment.runs(rows)
    made = len(runs) - len(without_rows(runs, rows))
    return f"{experiment.name:18}{made:4} of {len(runs):3} runs  {experiment.title}"


if __name__ == "__main__":
    cli.run(main, words=None)
