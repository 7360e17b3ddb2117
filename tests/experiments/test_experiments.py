"""The command, with workers that answer at once."""

import contextlib
import io
import json
import os
import re
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
from etils import epath

import alexnet_jax
from alexnet_jax.errors import NotFiniteError, UsageError
from alexnet_jax.experiments import ensemble as ensemble_module
from alexnet_jax.experiments import pool as pool_module
from alexnet_jax.experiments import run as run_module
from alexnet_jax.experiments import worker
from alexnet_jax.experiments.catalogue import EXPERIMENTS
from alexnet_jax.experiments.ensemble import measure_ensemble
from alexnet_jax.experiments.experiment import ensembles, grid, rows_of, without_rows
from alexnet_jax.experiments.pool import Pool, seconds_left
from alexnet_jax.experiments.rows import add_row, read_rows
from alexnet_jax.experiments.run import Run, config_of
from alexnet_jax.workdir.errors import OtherConfigError
from tests.waiting import wait_until

# A worker that answers each run with a row. `die`, `again`, `slow`, `brief`: runs for which it dies, asks for another
# start, waits for a signal, or waits half a second. `spoil`: its row cannot be written.
WORKER = """
    import json, os, sys, time
    for line in sys.stdin:
        run = json.loads(line)
        if run["name"] == "die":
            print("error: there is no data set", file=sys.stderr)
            sys.exit(2)
        if run["name"] == "slow":
            print("saved", file=sys.stderr, flush=True)
            time.sleep(60)
        result = {"top1_1_views": 0.2, "top1_10_views": 0.1}
        row = {"run": run["name"], "config": run["config"], "overrides": run["overrides"], "seed": run["seed"]}
        cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
        if run["name"] == "again":
            print("error: a worker died", file=sys.stderr)
            sys.exit(75)
        if run["name"] == "spoil":
            os.mkdir(sys.argv[1] + "/../rows/some.jsonl")  # no file can take its place
        if run["name"] == "brief":
            time.sleep(0.5)  # in which the other workers start
        seconds = None if run["name"] == "resumed" else 1.0
        print(json.dumps(row | {"result": result, "seconds": seconds, "cores": cores}), flush=True)
"""
COMMAND = """
    import sys
    from alexnet_jax import cli
    from alexnet_jax.experiments import __main__ as main, worker
    from alexnet_jax.experiments.experiment import Experiment, grid

    names = sys.argv.pop().split(",")
    follow = lambda rows: ["b"] if rows and "follow" in names else []
    runs = lambda rows: grid("some", "default", {name: {"num_epochs": 1.0} for name in names + follow(rows)}, range(2))
    main.EXPERIMENTS["some"] = Experiment("some", "Some", "nothing", runs, lambda rows: "", "")
    worker.command = lambda runs_dir, data_dir: [sys.executable, "-c", WORKER, str(runs_dir)]
    cli.run(main.main, words=None)
""".replace("WORKER", repr(textwrap.dedent(WORKER)))


def start(folder: Path, runs: str, *flags: str, hangup: signal.Handlers = signal.SIG_DFL) -> subprocess.Popen:
    """Starts the command with the handler `hangup` for SIGHUP: `nohup` runs the tests with SIGHUP ignored."""
    words = ["some", f"--results={folder}/rows", f"--runs={folder}/runs", *flags, runs]
    before = signal.signal(signal.SIGHUP, hangup)  # a child inherits it
    try:
        return subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(COMMAND), *words],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | {"JAX_PLATFORMS": "cpu"},
        )
    finally:
        signal.signal(signal.SIGHUP, before)


def command(folder: Path, runs: str, *flags: str, **options) -> tuple[int, str, str]:
    process = start(folder, runs, *flags, **options)
    out, errors = process.communicate(timeout=120)
    return process.returncode, out, errors


def wait_for(file: Path, words: str) -> None:
    wait_until(lambda: file.exists() and words in file.read_text())


def rows(folder: Path) -> set[tuple[str, int]]:
    return {(row["run"], row["seed"]) for row in read_rows(folder / "rows" / "some.jsonl")}


def test_each_run_leaves_one_row_and_is_not_made_again(tmp_path: Path):
    status, out, _ = command(tmp_path, "a,b", "--jobs=2")
    assert status == 0 and rows(tmp_path) == {("a", 0), ("b", 0), ("a", 1), ("b", 1)}
    line, _, _ = out.partition("\n")
    start_of_line = f"some: 4 of 4 runs to make; workers log to {tmp_path}/runs/worker*-"
    assert line.startswith(start_of_line) and re.fullmatch(r"\d+\.log", line.removeprefix(start_of_line))
    assert "ten views 10.0% in 0:01" in out and "3 runs left" in out
    before = (tmp_path / "rows" / "some.jsonl").read_text()
    with open(tmp_path / "rows" / "some.jsonl", "a") as file:
        file.write('{"run": "b", "se')  # as of a process that was killed
    status, out, _ = command(tmp_path, "a,b")
    assert status == 0 and "all 4 runs have rows" in out
    assert (tmp_path / "rows" / "some.jsonl").read_text().startswith(before)
    status, out, _ = command(tmp_path, "a,b,resumed")
    assert "resumed, seed 0: centre 20.0%, ten views 10.0%; 1 run left" in out
    assert status == 0 and ("resumed", 1) in rows(tmp_path) and len(read_rows(tmp_path / "rows" / "some.jsonl")) == 6


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="this system cannot bind processes to cores")
def test_runs_at_once_share_the_cores(tmp_path: Path):
    all_cores = sorted(os.sched_getaffinity(0))

    def cores(*flags: str) -> list[list[int]]:
        folder = tmp_path / "_".join(flags)
        assert command(folder, "brief", *flags)[0] == 0
        return [row["cores"] for row in read_rows(folder / "rows" / "some.jsonl")]

    assert cores() == cores(f"--jobs={len(all_cores) + 1}") == [all_cores] * 2
    if len(all_cores) > 1:
        first, second = cores("--jobs=2")
        assert sorted(first + second) == all_cores


@pytest.mark.parametrize(
    ("made", "left", "jobs", "minutes"),
    [
        (1, 9, 1, 90),  # of 10 minutes each
        (1, 9, 2, 10 * 8.5 / 1.5),  # the other job's run is half made
        (8, 1, 8, 10 * 0.5 / 8.5),
        (10, 0, 4, 0),
    ],
)
def test_the_time_left_counts_the_runs_under_way(made: int, left: int, jobs: int, minutes: float):
    assert seconds_left(600, made=made, left=left, jobs=jobs) == pytest.approx(60 * minutes)


def test_a_run_with_other_values_is_another_run(tmp_path: Path):
    assert command(tmp_path, "a")[0] == 0
    assert command(tmp_path, "a", "--set=num_epochs=2.5", "--set=dataset.eval_split=test[:9]")[0] == 0
    found = [row["overrides"] for row in read_rows(tmp_path / "rows" / "some.jsonl")]
    assert found == 2 * [{"num_epochs": 1.0}] + 2 * [{"num_epochs": 2.5, "dataset.eval_split": "test[:9]"}]


def test_with_other_values_no_run_follows_from_rows(tmp_path: Path):
    assert command(tmp_path, "follow")[0] == 0
    assert rows(tmp_path) == {(name, seed) for name in ("follow", "b") for seed in range(2)}
    status, out, _ = command(tmp_path, "follow", "--set=num_epochs=2.5")
    assert status == 0 and "2 of 2 runs to make" in out


@pytest.mark.parametrize("flag", ["seed=3", "name=x"])
def test_what_each_run_has_of_its_own_cannot_be_set(forked, tmp_path: Path, flag: str):
    """All seeds would be one, and their rows look like repeats without spread."""
    status, _, err = forked("experiments", "elpv", f"--results={tmp_path}", f"--runs={tmp_path}/runs", f"--set={flag}")
    assert status == 2 and f"--set={flag}: each run of an experiment has its own {flag[:4]}; set another" in err


ADD = """
import sys
from pathlib import Path
from alexnet_jax.experiments.rows import add_row

for number in range(50):
    add_row(Path(sys.argv[1]), {"run": sys.argv[2], "config": "c", "overrides": {}, "seed": number})
"""


def test_two_commands_add_rows_to_one_file(tmp_path: Path):
    file = tmp_path / "rows.jsonl"
    adding = [subprocess.Popen([sys.executable, "-c", ADD, str(file), name]) for name in "ab"]
    assert [process.wait(60) for process in adding] == [0, 0]
    assert sorted((row["run"], row["seed"]) for row in read_rows(file)) == [(n, i) for n in "ab" for i in range(50)]
    file.write_text(file.read_text() + '{"cut": "of')
    add_row(file, {"run": "c", "config": "c", "overrides": {}, "seed": 0})
    assert len(read_rows(file)) == 101


def test_no_run_starts_after_the_seconds(tmp_path: Path):
    status, out, _ = command(tmp_path, "a,b", "--seconds=0")
    assert status == os.EX_TEMPFAIL and not rows(tmp_path) and "0 runs made, 4 left; the same command resumes" in out


def test_a_run_that_fails_ends_the_command_with_its_error(tmp_path: Path):
    status, _, errors = command(tmp_path, "a,die,b")
    assert status == 2 and rows(tmp_path) == {("a", 0)}
    assert "error: the run 'die' with seed 0 ended with status 2: error: there is no data set (" in errors
    assert "Traceback" not in errors


def test_a_run_that_asks_for_another_start_is_named_and_counted(tmp_path: Path):
    status, out, errors = command(tmp_path, "a,again")
    assert status == os.EX_TEMPFAIL and rows(tmp_path) == {("a", 0), ("a", 1)} and "2 left" in out
    assert "the run 'again' with seed 0 ended with status 75: error: a worker died (" in errors


def test_rows_that_cannot_be_written_are_an_error_before_a_run_starts(forked, tmp_path: Path):
    (tmp_path / "rows").write_text("a file")
    status, out, errors = forked("experiments", "elpv", f"--results={tmp_path}/rows", f"--runs={tmp_path}/runs")
    assert (status, out) == (2, "")
    assert errors.startswith(f"error: {tmp_path}/rows/elpv.jsonl cannot be ") and errors.count("\n") == 1
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("place", ["a file", "below a file"])
def test_a_folder_that_cannot_be_made_for_the_runs_is_one_line(tmp_path: Path, place: str):
    runs = tmp_path / "taken"
    runs.write_text("")
    status, _, errors = command(tmp_path, "a", f"--runs={runs if place == 'a file' else runs / 'runs'}")
    assert status == 2 and errors.count("\n") == 1
    assert errors.startswith(f"error: {runs}") and errors.endswith("name another folder in --runs\n")


def test_two_commands_have_logs_of_their_own(tmp_path: Path):
    """Else the error of one would quote the progress of the other."""
    processes = [start(tmp_path, "a,brief") for _ in range(2)]
    for process in processes:
        process.communicate(timeout=60)
    logs = {f"worker0-{process.pid}.log" for process in processes}
    assert {path.name for path in (tmp_path / "runs").glob("worker*.log")} == logs


def test_a_worker_whose_command_is_gone_before_it_looks_ends():
    gone = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, text=True)
    script = "import sys, time; from alexnet_jax.experiments import worker; worker._end_with(int(sys.argv[1]))"
    ended = subprocess.run([sys.executable, "-c", f"{script}; time.sleep(60)", gone.stdout.strip()], timeout=50)
    assert ended.returncode == -signal.SIGTERM


def test_a_row_that_cannot_be_written_ends_the_command_and_counts_for_nothing(tmp_path: Path):
    status, out, errors = command(tmp_path, "spoil")
    assert status == 2 and "seed" not in out
    assert "some.jsonl cannot be " in errors and "Traceback" not in errors


def test_a_hangup_that_nohup_has_ignored_ends_nothing(tmp_path: Path):
    process = start(tmp_path, "a,brief", hangup=signal.SIG_IGN)
    assert process.stdout is not None and any("a, seed 0" in line for line in process.stdout)
    process.send_signal(signal.SIGHUP)
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 0 and "all 4 runs have rows" in out


def test_of_two_hangups_the_workers_hear_one():
    pool = Pool(jobs=1, runs_dir=Path(), data_dir=None, until=0.0, add=lambda row: None)
    worker = mock.Mock()
    pool._workers = [worker]
    for number in (signal.SIGHUP, signal.SIGHUP):
        pool.stop(number)
    worker.send_signal.assert_called_once_with(signal.SIGTERM)
    pool.stop(signal.SIGTERM)
    assert worker.send_signal.call_count == 2  # a second SIGTERM ends them at once


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_reaches_the_workers_and_leaves_the_rows(tmp_path: Path, number: signal.Signals):
    process = start(tmp_path, "a,slow")
    assert process.stdout is not None and any("a, seed 0" in line for line in process.stdout)
    process.send_signal(number)
    out, _ = process.communicate(timeout=60)
    assert process.returncode == os.EX_TEMPFAIL and rows(tmp_path) == {("a", 0)} and "3 left" in out


def test_a_reader_that_leaves_ends_the_runs(tmp_path: Path):
    with start(tmp_path, "a,slow,b") as process:
        assert process.stdout is not None and process.stderr is not None
        process.stdout.close()
        errors = process.stderr.read()
    assert process.returncode == os.EX_TEMPFAIL and "Traceback" not in errors
    assert ("b", 1) not in rows(tmp_path)


def test_folders_below_the_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    status, _, errors = command(tmp_path, "a", "--results=~/there", "--runs=~/runs")
    assert status == 0, errors
    assert (tmp_path / "there/some.jsonl").exists() and (tmp_path / "runs").exists()


@pytest.mark.parametrize("flag", ["runs", "results"])
def test_an_address_is_no_folder(forked, flag: str):
    status, _, errors = forked("experiments", "elpv", f"--{flag}=gs://bucket/there")
    assert status == 2 and f"--{flag}=gs://bucket/there: the folder is not on this machine; name one that is" in errors


def test_a_field_within_a_number_is_named():
    with pytest.raises(UsageError, match=r"a field of batch_size\.x\.y is not in default"):
        config_of(Run("e", "a", "default", {"batch_size.x.y": 1}, 0))


def test_a_field_that_no_config_has_is_named():
    for field in ("nosuch.x", "num_epochs.x"):
        with pytest.raises(UsageError, match=f"a field of {field} is not in default"):
            run_module.config_of(Run("e", "a", "default", {field: 1}, 0))


def test_an_unknown_experiment_is_named_beside_the_known_ones(forked):
    status, _, errors = forked("experiments", "figure2")
    assert status == 2 and "there is no experiment 'figure2'; known: " in errors and "figure1" in errors


def test_a_damaged_row_is_named(forked, tmp_path: Path):
    for text, words in (
        ('{"run"\n{}\n', "is no JSON"),
        ('{"run": "a", "seed": 0}\n', "is no row"),
        ("[]\n", "is no row"),
    ):
        (tmp_path / "elpv.jsonl").write_text(text)
        status, _, errors = forked("experiments", "elpv", f"--results={tmp_path}", f"--runs={tmp_path}/runs")
        assert status == 2 and "line 1 of" in errors and words in errors


def test_rows_survive_the_line_ends_of_another_system(tmp_path: Path):
    file, row = tmp_path / "some.jsonl", dict(run="a", config="default", overrides={}, seed=0)
    file.write_bytes((json.dumps(row) + "\r\n").encode() * 3)
    add_row(file, row | {"seed": 1})
    assert [found["seed"] for found in read_rows(file)] == [0, 0, 0, 1]


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_every_run_has_a_config_and_a_name_of_its_own(name: str):
    runs = EXPERIMENTS[name].runs([])
    assert len({run.key for run in runs}) == len({(run.name, run.seed) for run in runs}) == len(runs)
    assert len({run.folder for run in runs}) == len(runs)
    for run in runs:
        assert run.experiment == name
        config = config_of(run)
        assert config.seed == run.seed
        for key, value in run.overrides.items():
            found = json.loads(json.dumps(config.to_dict()))
            for part in key.split("."):
                found = found[part]
            assert found == json.loads(json.dumps(value))


def test_a_run_of_two_experiments_is_trained_once():
    shared = EXPERIMENTS["retrieval"].runs([])
    trained = {run.folder: config_of(run) for run in EXPERIMENTS["ablations_cifar10"].runs([])}
    assert len(shared) == 3
    for run in shared:
        assert run.folder == f"ablations_cifar10/original-seed{run.seed}"
        assert config_of(run).to_dict() == trained[run.folder].to_dict()


def test_the_key_of_a_run_does_not_depend_on_json():
    one = Run("e", "a", "default", {"photometry.noise": ((0, 0.1),)}, 3)
    again = Run(**json.loads(json.dumps({**vars(one), "overrides": dict(one.overrides)})))
    assert one.key == again.key


def test_an_ensemble_is_called_for_when_all_its_members_have_rows():
    runs = grid("e", "default", {"a": {}, "b": {}}, range(3), measure=("curve",))
    key = {"config": "default", "overrides": {}}
    key |= {"curve": []}
    rows = [key | {"run": run.name, "seed": run.seed, "result": {}} for run in runs if (run.name, run.seed) != ("a", 1)]
    rows.append(key | {"run": "a", "seed": 1, "result": {}, "overrides": {"num_epochs": 0.1}})
    [run] = ensembles(runs, rows, size=3)
    assert (run.name, run.seed, run.ensemble, run.measure) == ("b, ensemble", 0, (0, 1, 2), ())
    assert [(member.name, member.seed, member.folder) for member in run.members] == [
        ("b", seed, f"e/b-seed{seed}") for seed in range(3)
    ]
    failed = key | {"run": "a", "seed": 1, "failed": "the loss is not finite"}
    assert [run.name for run in ensembles(runs, [*rows, failed], size=3)] == ["b, ensemble"]
    assert [run.name for run in ensembles(runs, [*rows, {**failed, "result": {}}], size=3)] == [
        "a, ensemble",
        "b, ensemble",
    ]


def test_a_row_without_what_its_run_measures_is_made_again():
    [run] = grid("e", "default", {"a": {}}, [0], measure=("curve",))
    row = {"run": "a", "config": "default", "overrides": {}, "seed": 0}
    old, new, failed = row | {"result": {}}, row | {"result": {}, "curve": []}, row | {"failed": "not finite"}
    assert without_rows([run], [old]) == [run] and rows_of([run], [old]) == []
    assert without_rows([run], [old, new]) == [] and rows_of([run], [old, new]) == [new]
    assert without_rows([run], [failed]) == [] and rows_of([run], [failed]) == [failed]


def test_an_ensemble_is_the_mean_of_its_members(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, tiny_run: Path, data_dir: str, squares
):
    nets = [alexnet_jax.load(tiny_run), alexnet_jax.load(tiny_run)]
    nets[1].params["fc8"]["kernel"] *= -3.0  # the other member predicts something else
    folders = [tmp_path / "one", tmp_path / "other"]
    monkeypatch.setattr(run_module, "_train", lambda member, runs_dir, data_dir: folders[member.seed - 4])
    by_folder = dict(zip(map(str, folders), nets, strict=True))
    monkeypatch.setattr(ensemble_module, "load", lambda workdir, data_dir: by_folder[workdir])
    run = Run("e", "a, ensemble", "default", {}, 0, measure=("curve",), ensemble=(4, 5))
    row = run_module.perform(run, runs_dir=tmp_path, data_dir=data_dir)
    images, labels = squares
    for views in (1, 10):
        alone = [network.predict(images, views=views) for network in nets]
        together = np.mean(alone, axis=0)
        assert len({tuple(probs.argmax(axis=1)) for probs in (*alone, together)}) > 1
        loss = -np.log(together[range(len(labels)), labels]).mean()
        assert row["result"][f"loss_{views}_views"] == pytest.approx(loss, abs=2e-5)
        assert row["result"][f"top1_{views}_views"] == (together.argmax(axis=1) != labels).mean()
    assert (row["run"], row["ensemble"], row["result"]["count"]) == ("a, ensemble", [4, 5], 50)


def test_a_diverging_run_leaves_a_row_and_the_worker_goes_on(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capfd):
    def perform(run, **_):
        if run.seed == 0:
            raise NotFiniteError("the loss of update 7 is not finite")
        return {"seed": run.seed}

    runs = [Run("e", "a", "default", {}, seed) for seed in (0, 1)]
    monkeypatch.setattr(worker, "perform", perform)
    monkeypatch.setattr(worker, "_end_with", lambda parent: None)
    monkeypatch.setattr(worker.cli, "start", lambda **_: None)
    monkeypatch.setattr(worker.os, "dup2", lambda *_: None)  # standard output stays
    monkeypatch.setattr(sys, "stdin", io.StringIO("".join(map(worker.line_of, runs))))
    worker.main("1", str(tmp_path))
    first, second = map(json.loads, capfd.readouterr().out.splitlines())
    assert "update 7" in first["failed"] and first["seconds"] is None and "result" not in first
    assert (first["run"], first["seed"], second["seed"]) == ("a", 0, 1)


def test_a_workdir_of_other_values_is_one_error_with_advice_that_works(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    def train(config, workdir, data_dir):
        raise OtherConfigError(epath.Path(workdir), {"num_epochs": (120.0, 45.0)})

    monkeypatch.setattr(run_module, "train_and_evaluate", train)
    with pytest.raises(UsageError, match=r"there, 45.0 here\); remove this folder, or .* in --runs") as raised:
        run_module.perform(Run("e", "a", "default", {}, 0), runs_dir=tmp_path, data_dir=None)
    assert not isinstance(raised.value, OtherConfigError)  # whose hint names flags of `main`


def test_a_run_that_was_resumed_has_no_seconds(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    def train(config, workdir, data_dir):
        (Path(workdir) / "checkpoints" / "1").mkdir(parents=True, exist_ok=True)
        (Path(workdir) / "result.json").write_text('{"top1_1_views": 0.25}')

    monkeypatch.setattr(run_module, "train_and_evaluate", train)
    made = [run_module.perform(Run("e", "a", "default", {}, 0), runs_dir=tmp_path, data_dir=None) for _ in range(2)]
    assert [row["result"] for row in made] == [{"top1_1_views": 0.25}] * 2
    assert made[0]["seconds"] < 60 and made[1]["seconds"] is None


@pytest.mark.long
def test_a_worker_ends_with_the_command_that_started_it(tmp_path: Path, data_dir: str):
    words = ["elpv", f"--results={tmp_path}/rows", f"--runs={tmp_path}/runs", f"--data_dir={data_dir}"]
    small = {"dataset.name": "elpv/64", "dataset.crop_size": 56, "network.width": 0.03, "save_every": 1000.0}
    sets = [f"--set={field}={value}" for field, value in small.items()]
    parent = subprocess.Popen(
        [sys.executable, "-m", "alexnet_jax.experiments", *words, *sets],
        stdout=subprocess.DEVNULL,
        env=os.environ | {"JAX_PLATFORMS": "cpu"},
    )
    log = tmp_path / "runs" / f"worker0-{parent.pid}.log"
    wait_for(log, "first update")
    tasks = Path(f"/proc/{parent.pid}/task").glob("*/children")  # a thread started the worker
    [worker] = [int(child) for task in tasks for child in task.read_text().split()]
    try:
        parent.kill()
        parent.wait()
        wait_for(log, "saved after update")
        while Path(f"/proc/{worker}/stat").exists() and " Z " not in Path(f"/proc/{worker}/stat").read_text():
            time.sleep(0.1)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(worker, signal.SIGKILL)


@pytest.mark.long
def test_a_real_run_leaves_its_errors_and_its_curve(tmp_path: Path, data_dir: str):
    small = {"dataset.name": "elpv/64", "dataset.train_split": "train[:64]", "dataset.eval_split": "test[:50]"}
    small |= {"dataset.crop_size": 56, "network.width": 0.03, "num_epochs": 4.0, "evaluate_every": 2.0}
    sets = [f"--set={field}={value}" for field, value in small.items()]
    words = ["elpv", f"--results={tmp_path}/rows", f"--runs={tmp_path}/runs", f"--data_dir={data_dir}", "--seconds=1"]
    run = subprocess.run(
        [sys.executable, "-m", "alexnet_jax.experiments", *words, *sets],
        capture_output=True,
        text=True,
        env=os.environ | {"JAX_PLATFORMS": "cpu"},
        timeout=300,
    )
    assert run.returncode == os.EX_TEMPFAIL, run.stderr
    [row] = read_rows(tmp_path / "rows" / "elpv.jsonl")
    assert row["result"]["count"] == 50 and row["result"]["step"] == 8
    assert [epoch for epoch, _, _ in row["curve"]] == [2.0, 4.0]
    assert row["curve"][-1][1] == row["result"]["top1_1_views"]
    assert row["overrides"]["num_epochs"] == 4.0 and row["device"].startswith("CPU, ")
    [workdir] = (tmp_path / "runs" / "elpv").iterdir()
    together = measure_ensemble([workdir, workdir], data_dir)  # the average of a network with itself
    assert together == pytest.approx({name: value for name, value in row["result"].items() if name != "step"}, abs=1e-4)


def test_a_reader_that_leaves_ends_the_list_quietly(tmp_path):
    with start(tmp_path, "one", "--list") as process:
        assert process.stdout is not None and process.stderr is not None
        process.stdout.close()  # as `head` does, before the list is there
        errors = process.stderr.read()
    assert (process.returncode, errors) == (141, "")


def test_runs_at_once_share_the_memory_of_a_gpu(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("XLA_PYTHON_CLIENT_MEM_FRACTION", "0.9")
    environment = pool_module._environment(2)
    assert environment["XLA_CLIENT_MEM_FRACTION"] == "0.450"
    assert environment["XLA_PYTHON_CLIENT_PREALLOCATE"] == "false"
    assert "XLA_PYTHON_CLIENT_MEM_FRACTION" not in environment and pool_module._environment(1) is os.environ
