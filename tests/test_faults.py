"""What goes wrong around a run: signals, full disks, storage that fails, clocks, other layouts, hostile files."""

import fcntl
import json
import os
import pickle
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
import pytest
from etils import epath

from alexnet_jax import loop as loop_module
from alexnet_jax.data import records, statistics
from alexnet_jax.data.errors import ReaderDiedError
from alexnet_jax.errors import UsageError
from alexnet_jax.evaluation.error_rates import evaluate
from alexnet_jax.experiment import build as experiments
from alexnet_jax.experiment import feed
from alexnet_jax.experiment.settings import read_settings
from alexnet_jax.learning import step as steps
from alexnet_jax.learning.step import TrainState
from alexnet_jax.runtime.interruption import Interrupted
from alexnet_jax.train import train_and_evaluate
from alexnet_jax.workdir import checkpoint, manifest, metrics_log
from alexnet_jax.workdir.checkpoint import Checkpoints
from alexnet_jax.workdir.errors import SaveError
from alexnet_jax.workdir.progress import Progress
from tests.comparing import assert_same
from tests.conftest import ROOT
from tests.waiting import wait_until


class Whole(NamedTuple):
    workdir: Path
    state: TrainState
    losses: dict[int, float]  # by update


def listening(losses: dict[int, float], step: Callable) -> Callable:
    """A `Progress.step` that keeps the loss of every update."""

    def listen(self, number, metrics, **options):
        losses[number] = float(metrics.loss / metrics.count)
        step(self, number, metrics, **options)

    return listen


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, data_dir: str) -> Whole:
    """A run that nothing went wrong with."""
    from tests.configs import tiny

    workdir, losses = tmp_path_factory.mktemp("whole"), {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Progress, "step", listening(losses, Progress.step))
        state = train_and_evaluate(tiny.get_config(), str(workdir), data_dir)
    return Whole(workdir, state, losses)


@pytest.fixture
def terminate_in(monkeypatch: pytest.MonkeyPatch):
    """Arranges for a SIGTERM at a stage of the next run, once."""
    wanted: list[str] = []

    def reached(stage: str) -> None:
        if stage in wanted:
            wanted.clear()
            signal.raise_signal(signal.SIGTERM)

    def compiling(*args, **kwargs):
        reached("compilation")
        return step(*args, **kwargs)

    def evaluating(*args, views: int, **kwargs):
        reached("evaluation" if views == 1 else "last evaluation")
        return evaluate(*args, views=views, **kwargs)

    def saving(*args, **kwargs):
        save(*args, **kwargs)
        reached("save")

    step, evaluate, save = steps.train_step, loop_module.evaluate, Checkpoints.save
    monkeypatch.setattr(steps, "train_step", compiling)
    monkeypatch.setattr(loop_module, "evaluate", evaluating)
    monkeypatch.setattr(Checkpoints, "save", saving)
    return wanted.append


@pytest.mark.long
def test_sigterm_is_answered_with_a_whole_checkpoint(
    whole: Whole, tiny_config: Callable, data_dir: str, tmp_path: Path, terminate_in, capsys: pytest.CaptureFixture
):
    for stage, after in (("compilation", 1), ("evaluation", 4), ("save", 8), ("last evaluation", 12)):
        terminate_in(stage)
        with pytest.raises(Interrupted) as caught:
            train_and_evaluate(tiny_config(evaluate_every=0.5), str(tmp_path), data_dir)
        assert caught.value.code == 75
        assert f"saved after update {after}; the same command resumes here" in capsys.readouterr().out
        assert manifest.damage(epath.Path(tmp_path / "checkpoints" / str(after))) is None
        assert not (tmp_path / "result.json").exists()
    assert_same(whole.state, train_and_evaluate(tiny_config(evaluate_every=0.5), str(tmp_path), data_dir))
    other = tmp_path / "other"
    train_and_evaluate(tiny_config(evaluate_every=0.5), str(other), data_dir)
    assert evaluations(tmp_path) == evaluations(other) and [step for step, _ in evaluations(other)] == [4, 7, 10, 12]
    stopped, whole_run = (Checkpoints(epath.Path(folder / "checkpoints")) for folder in (tmp_path, other))
    assert stopped.is_evaluated(7) and stopped.is_evaluated(12) and stopped.best_step() == whole_run.best_step()
    stopped.close()
    whole_run.close()


def evaluations(workdir: Path) -> list[tuple[int, float]]:
    """Update and loss of each evaluation."""
    rows = metrics_log.read_rows(epath.Path(workdir))
    return [(row["step"], row["eval/loss"]) for row in rows if "eval/loss" in row]


def test_sigterm_among_the_imports_asks_for_another_start(tmp_path: Path, data_dir: str, command):
    run = command("main", "--config=tests/configs/tiny.py", f"--workdir={tmp_path / 'run'}", f"--data_dir={data_dir}")
    status = Path(f"/proc/{run.process.pid}/status")
    while True:
        caught = next(int(line.split()[1], 16) for line in status.read_text().splitlines() if line[:6] == "SigCgt")
        if caught >> (signal.SIGTERM - 1) & 1:
            break
        time.sleep(0.001)
    run.process.send_signal(signal.SIGTERM)
    assert run.finish() == (75, "", "")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(("number", "expected"), [(signal.SIGTERM, 75), (signal.SIGINT, 130)])
def test_a_signal_ends_the_wait_for_a_run_that_prepares_the_data(
    tmp_path: Path, command, number: signal.Signals, expected: int
):
    work = tmp_path / "data/elpv/64/.incomplete-1.0.0"
    work.mkdir(parents=True)
    with (work / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        flags = "--config=tests/configs/tiny.py", f"--workdir={tmp_path / 'run'}", f"--data_dir={tmp_path / 'data'}"
        run = command("main", *flags)
        assert run.process.stdout.readline().startswith("preparing elpv/64 in ")
        assert run.process.stdout.readline() == f"waiting for another run, which is preparing {work}\n"
        run.process.send_signal(number)
        assert run.finish(30) == (expected, "", "")


@pytest.mark.long
def test_a_second_run_is_refused_and_a_second_signal_leaves_at_once(tmp_path: Path, data_dir: str, command):
    flags = "--config=tests/configs/tiny.py", "--config.num_epochs=100000", f"--workdir={tmp_path}"
    run = command("main", *flags, f"--data_dir={data_dir}")
    wait_until((tmp_path / "checkpoints" / "7").exists, run.process)
    status, out, err = command("main", *flags, f"--data_dir={data_dir}").finish()
    assert (status, out) == (2, "")
    assert err.startswith(f"error: another run is at work in {tmp_path} (process {run.process.pid} on ")
    assert run.process.poll() is None
    run.process.send_signal(signal.SIGSTOP)  # so that both signals come before it can answer the first
    run.process.send_signal(signal.SIGTERM)
    run.process.send_signal(signal.SIGINT)
    run.process.send_signal(signal.SIGCONT)
    begun = time.monotonic()
    status, out, err = run.finish()
    assert (status in (75, 130), err) == (True, "")
    assert "saved after" not in out
    assert time.monotonic() - begun < 60  # it waits for no other update or save
    assert command("evaluate", f"--workdir={tmp_path}", f"--data_dir={data_dir}").finish()[0] == 0


@pytest.mark.long
def test_kill_9_in_a_save_changes_no_bit(whole: Whole, tiny_config: Callable, data_dir: str, tmp_path: Path, command):
    """At random moments: tests/test_soak.py."""
    flags = "--config=tests/configs/tiny.py", f"--workdir={tmp_path}", f"--data_dir={data_dir}"
    run = command("main", *flags, devices=jax.device_count())
    while not list(tmp_path.glob("checkpoints/*.orbax-checkpoint-tmp")):
        assert run.process.poll() is None, run.finish()
    run.process.kill()
    assert run.finish()[0] == -signal.SIGKILL
    assert not (tmp_path / "result.json").exists()
    assert_same(whole.state, train_and_evaluate(tiny_config(), str(tmp_path), data_dir))


@pytest.fixture
def small_files() -> Iterator[Callable[[bool], None]]:
    """Makes this process unable to write files of more than 20 kB: saves fail, and metrics do not."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield lambda on: resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, before[1]) if on else before)
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_failed_save_is_told_and_the_last_checkpoint_stays(
    whole: Whole,
    tiny_config: Callable,
    data_dir: str,
    tmp_path: Path,
    small_files: Callable,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
):
    """As on a full disk."""
    save = Checkpoints.save

    def failing_save(self, step, state, **keywords):
        small_files(step in (7, 10))
        try:
            save(self, step, state, **keywords)
        finally:
            small_files(False)

    monkeypatch.setattr(Checkpoints, "save", failing_save)
    with pytest.raises(UsageError, match=r"the checkpoint of update 7 could not be written: there is no room for"):
        train_and_evaluate(tiny_config(save_every=0.5, on_failed_save="stop"), str(tmp_path), data_dir)
    small_files(False)
    assert {path.name for path in (tmp_path / "checkpoints").iterdir()} == {"4"}
    assert manifest.damage(epath.Path(tmp_path / "checkpoints/4")) is None
    capsys.readouterr()

    state = train_and_evaluate(tiny_config(save_every=0.5), str(tmp_path), data_dir)
    out = capsys.readouterr().out
    assert "resuming after update 4" in out
    warnings = [line.split(": ")[1:3] for line in out.splitlines() if line.startswith("warning: ")]
    assert [first for first, _ in warnings] == [f"the checkpoint of update {n} could not be written" for n in (7, 10)]
    assert all(last.endswith("(File too large); the run goes on, and saves when next due") for _, last in warnings)
    assert {path.name for path in (tmp_path / "checkpoints").iterdir()} == {"4", "12"}
    assert_same(whole.state, state)


def test_a_run_whose_last_state_cannot_be_saved_is_not_finished(
    whole: Whole, tiny_config: Callable, data_dir: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    asked = []

    def full(folder, state):
        asked.append(folder)
        return "there is no room" if len(asked) in (2, 3, 4) else None  # at 7; at 12, once more; at 12, once more

    monkeypatch.setattr(checkpoint, "_no_room", full)
    with pytest.raises(UsageError, match="the checkpoint of update 12 could not be written: there is no room"):
        train_and_evaluate(tiny_config(), str(tmp_path), data_dir)
    assert not (tmp_path / "result.json").exists()
    assert_same(whole.state, train_and_evaluate(tiny_config(), str(tmp_path), data_dir))
    assert len(asked) == 5
    assert (tmp_path / "result.json").exists()
    assert manifest.damage(epath.Path(tmp_path / "checkpoints/12")) is None
    result = json.loads((tmp_path / "result.json").read_text())
    errors = json.loads((tmp_path / "checkpoints/12/metrics/metrics").read_text())
    assert errors == {name: result[f"{name}_1_views"] for name in ("top1", "loss")}, "the last one may be the best"


class Unreliable:
    """Records that can be read only once they were opened often enough."""

    def __init__(self, broken: bool):
        self.broken = broken

    def __len__(self) -> int:
        return 3

    def __getitem__(self, index: int) -> bytes:
        if self.broken:
            raise OSError(5, "Input/output error")
        return b""


@pytest.mark.parametrize(("failures", "pauses"), [(2, (0.5, 1.0, 2.0)), (100, records.WAITS)])
def test_reading_is_tried_again_and_then_given_up(
    failures: int, pauses: tuple[float, ...], monkeypatch: pytest.MonkeyPatch
):
    slept: list[float] = []
    monkeypatch.setattr(time, "sleep", slept.append)
    opened = iter([False] + [True] * failures + [False])
    monkeypatch.setattr(records, "Records", lambda parts: Unreliable(next(opened)))
    examples = records.Files("split 'train' of /data", (), None).open()
    examples._records.broken = True
    if failures == 100:
        message = (
            r"example 1 of split 'train' of /data cannot be read, tried for 32 s: .*Input/output error; check the"
            " storage, and run the same command again"
        )
        with pytest.raises(UsageError, match=message) as error:
            examples._read(1)
        assert error.value.status == 75
    else:
        assert examples._read(1) == b""
    assert tuple(slept) == pauses


@pytest.mark.long
def test_a_data_folder_that_vanishes_and_comes_back(
    whole: Whole,
    tiny_config: Callable,
    data_dir: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    before_each_batch: Callable,
):
    data, away = tmp_path / "data", tmp_path / "away"
    shutil.copytree(data_dir, data)
    monkeypatch.setattr(records, "WAITS", (0.1,) * 5)
    count, sleeps, returns = 0, 0, False

    def vanishing(experiment, fetched):
        nonlocal count
        count += 1
        if count == 3 or (returns and not sleeps):
            data.rename(away)  # a reader that has the file open would not notice
            experiment.train_source._records = Gone()

    class Gone:
        def __getitem__(self, index: int) -> bytes:
            raise OSError(116, "Stale file handle")

    sleep = time.sleep

    def sleeping(seconds: float) -> None:
        nonlocal sleeps
        if seconds == 0.1:
            sleeps += 1
            if returns and sleeps == 2:
                away.rename(data)
        sleep(seconds)

    before_each_batch(vanishing)
    monkeypatch.setattr(records.time, "sleep", sleeping)
    workdir = tmp_path / "run"
    with pytest.raises(UsageError, match=r"of split 'train\[:10%\]' of .* cannot be read, tried for .*check") as error:
        train_and_evaluate(tiny_config(), str(workdir), str(data))
    assert error.value.status == 75
    kept = max(int(path.name) for path in (workdir / "checkpoints").iterdir())
    assert kept == count - 1, "the updates before the batch that could not be read are kept"
    away.rename(data)
    returns, sleeps = True, 0
    state = train_and_evaluate(tiny_config(), str(workdir), str(data))
    assert sleeps >= 2
    assert_same(whole.state, state)


def test_a_clock_that_goes_backwards_changes_nothing(
    whole: Whole, tiny_config: Callable, data_dir: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    now, calls = time.time(), 0

    def backwards() -> float:
        nonlocal calls
        calls += 1
        return now - 3600 * calls

    monkeypatch.setattr(time, "time", backwards)
    monkeypatch.setattr(time, "time_ns", lambda: int(backwards() * 1e9))
    state = train_and_evaluate(tiny_config(), str(tmp_path), data_dir)
    assert calls > 5
    checkpoints = Checkpoints(epath.Path(tmp_path / "checkpoints"), read_only=True)
    assert checkpoints.steps() == [7, 12]
    checkpoints.close()
    assert_same(whole.state, state)


@pytest.mark.long
def test_a_run_moves_from_layout_to_layout(
    whole: Whole,
    tiny_config: Callable,
    data_dir: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    before_each_batch: Callable,
):
    losses: dict[int, float] = {}
    monkeypatch.setattr(Progress, "step", listening(losses, Progress.step))
    fetched = 0

    def leaving(experiment, number):
        nonlocal fetched
        fetched += 1
        if fetched in (4, 8):
            signal.raise_signal(signal.SIGTERM)

    before_each_batch(leaving)
    for mesh in ((2, 2), (1, 1)):
        config = tiny_config(**{"mesh.data": mesh[0], "mesh.tower": mesh[1]})
        with pytest.raises(Interrupted):
            train_and_evaluate(config, str(tmp_path / "moved"), data_dir)
    config = tiny_config(**{"mesh.data": 1, "mesh.tower": 2})
    moved = train_and_evaluate(config, str(tmp_path / "moved"), data_dir)
    assert sorted(losses) == sorted(whole.losses) == list(range(1, 13))
    for number, loss in whole.losses.items():
        assert losses[number] == pytest.approx(loss, abs=1e-5), number
    for a, b in zip(jax.tree.leaves(whole.state.params), jax.tree.leaves(moved.params), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)

    results = []
    for mesh in ((2, 2), (1, 1), (1, 2)):
        settings = read_settings(tiny_config(**{"mesh.data": mesh[0], "mesh.tower": mesh[1]}))
        experiment = experiments.build(settings, data_dir, say=print)
        checkpoints = Checkpoints(epath.Path(tmp_path / "moved" / "checkpoints"), read_only=True)
        network = checkpoints.restore(12, experiment.steps.target)
        checkpoints.close()
        form = dict(views=1, feed=feed.FromDisk(experiment), stop=lambda: False)
        results.append(evaluate(experiment, network.params, network.batch_stats, **form))
    for metrics in results:
        assert (metrics.top1, metrics.top5, metrics.count) == (results[0].top1, results[0].top5, results[0].count)
        assert float(metrics.loss) == pytest.approx(float(results[0].loss), rel=1e-6)


class Payload:
    """Unpickled, it makes a file."""

    def __init__(self, file: Path):
        self._file = file

    def __reduce__(self):
        return os.mkdir, (str(self._file),)


def test_nothing_in_a_checkpoint_or_a_data_set_is_run(
    whole: Whole, tmp_path: Path, data_dir: str, tiny_config: Callable
):
    struck = tmp_path / "struck"
    pickle.loads(pickle.dumps(Payload(struck)))
    assert struck.exists(), "the payload works"
    struck.rmdir()
    source = whole.workdir / "checkpoints" / "12"
    names = [path.relative_to(source) for path in source.rglob("*") if path.is_file() and path.name != manifest.FILE]
    for number, name in enumerate(names):
        folder = tmp_path / str(number)
        shutil.copytree(source, folder / "12")
        (folder / "12" / manifest.FILE).unlink()  # whoever puts the payload there makes the manifest fit
        (folder / "12" / name).write_bytes(pickle.dumps(Payload(struck)))
    # In a process of its own: readers that fail leave others at work, whose late answers would end up in other tests.
    code = (ROOT / "tests" / "restore_all.py").read_text()
    done = subprocess.run(
        [sys.executable, "-c", code, data_dir, *(str(tmp_path / str(number)) for number in range(len(names)))],
        capture_output=True,
        text=True,
        cwd=ROOT,
    )
    outcomes = done.stdout.split()
    assert len(outcomes) == len(names) and {"refused"} <= set(outcomes) <= {"refused", "restored"}, done.stderr
    assert not struck.exists()
    file = tmp_path / statistics.FILE_NAME
    with file.open("wb") as out:
        np.savez(out, mean_image=np.array([Payload(struck)], dtype=object))
    with pytest.raises(ValueError, match="allow_pickle"):
        statistics.load(epath.Path(tmp_path), 64)
    assert not struck.exists()


def test_an_error_of_the_data_keeps_its_line_and_status_though_the_save_that_follows_fails(
    tiny_config: Callable, data_dir: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
):
    def fetch(self, step, count):
        if step < 5:
            return made(self, step, count)
        raise ReaderDiedError(7, "SIGKILL")

    def wait(self):
        writing = self._writing
        waited(self)
        if writing is not None:
            raise SaveError(writing, "there is no room")

    made, waited = feed.FromDisk.fetch, Checkpoints.wait
    monkeypatch.setattr(feed.FromDisk, "fetch", fetch)
    monkeypatch.setattr(Checkpoints, "wait", wait)
    with pytest.raises(ReaderDiedError, match="worker process 7"):
        train_and_evaluate(tiny_config(save_every=100.0), str(tmp_path), data_dir)
    assert "warning: the checkpoint of update 5 could not be written: there is no room" in "".join(capsys.readouterr())
