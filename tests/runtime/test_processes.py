"""Several processes on this machine, joined by gloo, compute the numbers of one process and end together."""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable
from pathlib import Path
from unittest import mock

import jax
import numpy as np
import pytest
from etils import epath

from alexnet_jax.data import statistics
from alexnet_jax.errors import UsageError
from alexnet_jax.runtime import compat
from alexnet_jax.runtime import processes as module
from alexnet_jax.runtime.errors import JoinTimeoutError
from alexnet_jax.runtime.processes import first_difference
from alexnet_jax.runtime.watchdog import (
    HEARTBEAT_TIMEOUT,
    PHASE_TIMEOUT,
    SLOW_PHASE_TIMEOUT,
    STALL_TIMEOUT,
    Peer,
    find_failure,
    update,
)
from alexnet_jax.train import train_and_evaluate
from alexnet_jax.workdir import metrics_log, progress
from alexnet_jax.workdir import record as workdirs
from tests.conftest import ROOT
from tests.evaluation.test_evaluation import IMAGES, net_of

HOST = socket.gethostname()


class Processes:
    """`count` times `python -m tests.process COMMAND FLAGS`, each with the `extra` flags of its number."""

    def __init__(
        self,
        count: int,
        devices: int,
        *arguments: object,
        extra: dict[int, str] | None = None,
        start: tuple[str, ...] = ("-m", "tests.process"),
        **env: object,
    ):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            address = f"127.0.0.1:{free.getsockname()[1]}"
        cluster = {"JAX_COORDINATOR_ADDRESS": address, "JAX_NUM_PROCESSES": count, "JAX_NUM_CPU_DEVICES": devices}
        self.started = [
            subprocess.Popen(
                [sys.executable, *start, *map(str, arguments), *(extra or {}).get(index, "").split()],
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                cwd=ROOT,
                env=os.environ
                | {name: str(value) for name, value in (cluster | env | {"JAX_PROCESS_ID": index}).items()},
            )
            for index in range(count)
        ]

    def finish(self, seconds: float = 240, leave: int | None = None) -> list[tuple[int, str, str]]:
        """Status, standard output and standard error of each. Process `leave` is stopped, and killed at the end."""
        until = time.monotonic() + seconds
        for index, process in enumerate(self.started):
            if index != leave:
                process.wait(until - time.monotonic())
        self.kill()
        return [(process.returncode, *process.communicate()) for process in self.started]

    def kill(self) -> None:
        for process in self.started:
            process.kill()


@pytest.fixture
def processes():
    """Starts processes, and kills those that a failed test leaves behind."""
    started: list[Processes] = []

    def start(*arguments: object, **keywords: object) -> Processes:
        started.append(Processes(*arguments, **keywords))
        return started[-1]

    yield start
    for one in started:
        one.kill()


def sends(number: int, method: str, call: int) -> dict[str, object]:
    """The variables that make a process send itself a signal, for `tests/process.py`."""
    return {"SEND": int(number), "METHOD": method, "CALL": call}


def losses(workdir: Path) -> dict[int, float]:
    rows = map(json.loads, (workdir / "metrics.jsonl").read_text().splitlines())
    return {row["step"]: row["train/loss"] for row in rows if "train/loss" in row}


def steps(workdir: Path) -> list[int]:
    return sorted(int(path.name) for path in (workdir / "checkpoints").iterdir())


def reference(
    tiny_config: Callable, data_dir: str, workdir: Path, monkeypatch: pytest.MonkeyPatch, **mesh: int
) -> None:
    """Trains in this process and writes the loss of every update."""
    monkeypatch.setattr(progress, "LINE_EVERY", 0.0)
    monkeypatch.setattr(metrics_log, "ROW_EVERY", 0.0)
    config = tiny_config(num_epochs=1.0, **{f"mesh.{axis}": size for axis, size in mesh.items()})
    train_and_evaluate(config, str(workdir), data_dir)


def assert_alike(workdir: Path, expected: Path) -> None:
    assert list(losses(expected)) == [1, 2, 3, 4, 5, 6]
    assert losses(workdir) == pytest.approx(losses(expected), rel=2e-6)
    found, result = (json.loads((folder / "result.json").read_text()) for folder in (workdir, expected))
    assert result["count"] == 50
    assert found == pytest.approx(result, rel=2e-6)


@pytest.mark.long
def test_a_tower_in_each_of_two_processes_trains_as_one_does_and_one_resumes_it(
    tiny_config: Callable, data_dir: str, tmp_path: Path, processes: Callable, monkeypatch: pytest.MonkeyPatch
):
    common = ["--config=tests/configs/tiny.py", "--config.num_epochs=1.0", f"--data_dir={data_dir}"]
    proxy = dict.fromkeys(("http_proxy", "https_proxy"), "http://127.0.0.1:9")  # the processes meet without it
    signals = sends(signal.SIGTERM, "fetch", 3)
    pair = processes(2, 1, "main", *common, f"--workdir={tmp_path}/pair", WHO=1, **signals, **proxy)
    reference(tiny_config, data_dir, tmp_path / "one", monkeypatch, data=1, tower=1)

    # SIGTERM to one process: all save after the same update and leave to be started again; process 0 alone speaks.
    results = pair.finish()
    assert [(status, err) for status, _, err in results] == [(75, "")] * 2, results
    assert "mesh data=1 tower=2" in results[0][1]
    assert results[0][1].splitlines()[-1] == "saved after update 4; the same command resumes here"
    assert results[1][1] == ""
    assert steps(tmp_path / "pair") == [4]

    # One process with two devices goes on. Its config is the same but for the mesh, which changes no number.
    reference(tiny_config, data_dir, tmp_path / "pair", monkeypatch, data=1, tower=2)
    assert_alike(tmp_path / "pair", tmp_path / "one")


@pytest.mark.long
def test_processes_that_differ_name_the_difference(data_dir: str, tmp_path: Path, processes: Callable):
    common = ["--config=tests/configs/tiny.py", f"--data_dir={data_dir}", f"--workdir={tmp_path}/run"]
    results = processes(2, 1, "main", *common, extra={1: "--config.momentum=0.8"}).finish()
    line = (
        f"error: the processes differ in config.momentum: 0.9 in process 0 ({HOST}), 0.8 in process 1 ({HOST});"
        " start all with the same command, packages and data\n"
    )
    assert results == [(2, "", line)] * 2
    assert not (tmp_path / "run").exists()


@pytest.mark.long
def test_an_error_of_one_process_ends_the_others_with_its_message(data_dir: str, tmp_path: Path, processes: Callable):
    common = ["--config=tests/configs/tiny.py", f"--data_dir={data_dir}", f"--workdir={tmp_path}/run"]
    first, second = processes(2, 1, "main", *common, extra={1: "--data_dir=/proc/data"}).finish()
    assert second[0] == 2
    assert second[2].startswith("error: /proc/data cannot be written: ")
    reason = second[2].removeprefix("error: ")
    assert first == (2, "", f"error: process 1 ({HOST}) stopped: {reason}")


def test_the_first_difference_is_named():
    same = {"host": "a", "config.seed": 0, "the version of jax": "1"}
    assert first_difference([same, same | {"host": "b"}]) == ""
    other = same | {"host": "c", "the version of jax": "2"}
    assert "the version of jax: 1 in process 0 (a), 2 in process 2 (c);" in first_difference([same, same, other])
    assert "config.x: None in process 0 (a), 1 in process 1 (a);" in first_difference([same, same | {"config.x": 1}])


def test_a_workdir_that_is_not_shared_is_noticed(tmp_path: Path):
    assert not workdirs.wait_for_config(epath.Path(tmp_path), patience=0.1)
    (tmp_path / workdirs.CONFIG_FILE).touch()
    assert workdirs.wait_for_config(epath.Path(tmp_path), patience=0.1)


def peer(**changes: object) -> Peer:
    return Peer(
        **{"host": "h", "place": 9, "phase": "update 3", "timeout": PHASE_TIMEOUT, "heard": 1000.0, "moved": 1000.0}
        | changes
    )


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({}, None),
        ({"heard": 1000 - HEARTBEAT_TIMEOUT - 1}, "process 1 (h) has sent no heartbeat for 60 s"),
        ({"place": 8, "passed": 1000 - PHASE_TIMEOUT + 1}, None),
        ({"place": 8, "passed": 1000 - PHASE_TIMEOUT - 1}, "process 1 (h) hangs: for 90 s it is at update 3,"),
        ({"place": 8, "passed": 1000 - 1, "moved": 1000 - PHASE_TIMEOUT - 1}, None),  # it is the last to have compiled
        ({"place": 0, "passed": 1000 - PHASE_TIMEOUT - 1, "timeout": SLOW_PHASE_TIMEOUT}, None),
        ({"place": 0, "passed": 1000 - SLOW_PHASE_TIMEOUT - 1, "timeout": SLOW_PHASE_TIMEOUT}, "process 1 (h) hangs"),
        ({"moved": 1000 - STALL_TIMEOUT - 1}, None),
    ],
)
def test_the_watchdog_names_the_process_that_is_dead_or_hangs(changes: dict, line: str | None):
    found = find_failure({0: peer(), 1: peer(**changes), 2: peer()}, 1000.0)
    assert found is None if line is None else found is not None and found.startswith(line)


def test_the_last_to_compile_does_not_hang_and_a_process_left_behind_does():
    peers = {index: Peer() for index in range(2)}
    found = []
    for beat, (now, places) in enumerate([(0, (7, 7)), (200, (7, 7)), (205, (9, 7)), (290, (9, 7)), (296, (9, 7))], 1):
        update(peers, {index: [beat, "h", place, "update 9", 90.0] for index, place in enumerate(places)}, float(now))
        found.append(find_failure(peers, float(now)))
    assert found[:4] == [None] * 4
    assert str(found[4]).startswith("process 1 (h) hangs")
    for now in (300, 350, 360):  # process 0 sends no more heartbeats
        beats = {0: [5, "h", 9, "update 9", 90.0], 1: [now, "h", 10, "update 10", 90.0]}
        update(peers, beats, float(now))
    assert str(find_failure(peers, 360.0)).startswith("process 0 (h) has sent no heartbeat")


def test_the_watchdog_ends_a_run_in_which_no_process_moves():
    peers = {index: peer(heard=1000 + STALL_TIMEOUT) for index in range(3)}
    assert find_failure(peers, 1000 + STALL_TIMEOUT - 1) is None
    assert str(find_failure(peers, 1000 + STALL_TIMEOUT + 1)).startswith(
        "no process has moved for 600 s; process 0 (h) is at update 3"
    )


@pytest.mark.parametrize("stream", [None, "full"])
def test_a_failure_is_told_though_standard_output_is_closed_or_full(monkeypatch: pytest.MonkeyPatch, stream):
    watchdog = mock.Mock(end_run=mock.Mock(side_effect=SystemExit))
    monkeypatch.setattr(module, "_watchdog", watchdog)
    full = mock.Mock(flush=mock.Mock(side_effect=OSError(28, "No space left on device")))
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", full if stream else None)
        with pytest.raises(SystemExit):
            module.fail(UsageError("wrong"), "error: wrong", 2)
    line, reason, status = watchdog.end_run.call_args.args
    assert (line, status) == ("error: wrong", 2) and reason.endswith("stopped: wrong")


LOSE = """
import os, sys, time
from alexnet_jax import cli
from alexnet_jax.runtime import processes, watchdog

watchdog.HEARTBEAT_INTERVAL = 0.5
watchdog.SLOW_PHASE_TIMEOUT = 8.0  # a busy machine may send a heartbeat, and with it the phase, seconds late

def main():
    processes.start("on")
    processes.enter("opening the data set", slow=True)
    if processes.index() == int(os.environ["WHO"]):
        time.sleep(1)
        if "SIGNAL" in os.environ:
            os.kill(os.getpid(), int(os.environ["SIGNAL"]))
        time.sleep(10_000)
    processes.agree({})

cli.run(main)
"""


@pytest.mark.long
def test_the_death_of_process_0_is_named_before_jax_aborts_the_others(processes: Callable):
    _, second = processes(2, 1, start=("-c", LOSE), WHO=0, SIGNAL=int(signal.SIGKILL)).finish()
    assert second[0] == 75, second
    last = second[2].splitlines()[-1]
    line = r"error: process 0 \(127\.0\.0\.1:\d+\) is dead: nothing listens at its address; the same command .*"
    assert re.fullmatch(line, last)


@pytest.mark.long
def test_a_hang_before_the_first_update_is_named(processes: Callable):
    line = f"error: process 1 ({HOST}) hangs: for 8 s it is at opening the data set, the others are ahead; the same"
    for status, _, err in processes(2, 1, start=("-c", LOSE), WHO=1).finish():
        assert status == 75
        assert err.splitlines()[-1].startswith(line), err


SHARE = """
import os

from alexnet_jax import cli
from alexnet_jax.runtime import processes

def main():
    processes.start("on")
    shared, number = os.environ["FOLDER"], processes.index()
    folders = [f"{shared}/new", "/proc/nowhere", f"{shared}/{number}", "gs://a/b", f"gs://a/{number}"]
    folders.append("gs://a/b" if number else f"{shared}/new")
    print(*map(processes.have_in_common, folders), os.listdir(f"{shared}/new"))

cli.run(main)
"""


@pytest.mark.long
def test_processes_know_whether_a_folder_is_one_for_all(processes: Callable, tmp_path: Path):
    for status, out, err in processes(2, 1, start=("-c", SHARE), FOLDER=str(tmp_path)).finish():
        assert (status, out) == (0, "True False False True False False []\n"), err


PREDICT = """
import json

from alexnet_jax import cli
from alexnet_jax.runtime import processes
from tests.evaluation.test_evaluation import IMAGES, net_of

def main():
    processes.start("on")
    net = net_of(**{"mesh.data": None, "mesh.tower": None})  # as `load` has it
    number = processes.index()
    found = net.predict(IMAGES[3 * number : 3 * number + 3]), net.features(IMAGES[number])[0]
    print(json.dumps([array.tolist() for array in found]))

cli.run(main)
"""


def test_each_process_has_the_predictions_of_its_own_pictures(processes: Callable):
    network = net_of(**{"mesh.data": 1, "mesh.tower": 1})
    for status, _, err in processes(2, 1, start=("-c", PREDICT)).finish():
        assert status == 2 and "lie in two processes, which then see the same pictures; give each process two" in err
    for number, (status, out, err) in enumerate(processes(2, 2, start=("-c", PREDICT)).finish()):
        assert status == 0, err
        probabilities, features = json.loads(out.splitlines()[-1])
        np.testing.assert_allclose(probabilities, network.predict(IMAGES[3 * number : 3 * number + 3]), atol=1e-5)
        np.testing.assert_allclose(features, network.features(IMAGES[number])[0], atol=1e-4)


@pytest.mark.parametrize(("number", "expected"), [(signal.SIGTERM, (75, "")), (signal.SIGINT, (130, "interrupted\n"))])
def test_a_signal_ends_the_wait_for_other_processes(tmp_path: Path, number: int, expected: tuple, command: Callable):
    slurm = {"JOB_ID": 1, "STEP_NODELIST": "localhost", "NTASKS": 2, "PROCID": 0, "LOCALID": 0, "STEP_NUM_NODES": 1}
    variables = {f"SLURM_{name}": str(value) for name, value in slurm.items()}
    run = command("main", "--config=tests/configs/tiny.py", f"--workdir={tmp_path}/run", **variables)
    assert re.fullmatch(r"waiting for 1 of 2 processes at localhost:\d+\n", run.process.stderr.readline())
    run.process.send_signal(number)
    status, out, err = run.finish(30)
    assert (status, err) == expected
    assert out == ""


@pytest.mark.parametrize(("proxy", "address"), [("", "a:1"), ("http://b:9", "a:1 through grpc_proxy=http://b:9")])
def test_a_wait_is_repeated_until_it_is_given_up(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture, proxy: str, address: str
):
    joined = threading.Event()
    for name in list(os.environ):
        if name.startswith(("JAX_COORD", "JAX_NUM_PROC", "JAX_PROCESS")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("grpc_proxy", proxy)
    monkeypatch.setattr(jax.distributed, "initialize", lambda **_: joined.wait())
    for name, seconds in (("FIRST_LINE", 0.0), ("LINE_EVERY", 0.1), ("JOIN_TIMEOUT", 1.0)):
        monkeypatch.setattr(module, name, seconds)
    monkeypatch.setattr(module, "_joining", False)  # a wait that was given up stays one; restored after the test
    monkeypatch.setattr(module, "count", lambda: 4)
    monkeypatch.setattr(module, "index", lambda: 2)
    monkeypatch.setattr(compat, "coordinator_address", lambda: "a:1")
    with pytest.raises(
        JoinTimeoutError, match="process 2: after 1 s not all processes have met at " + address
    ) as caught:
        module.start("on")
    joined.set()
    assert caught.value.status == 75
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) > 3 and set(lines) == {f"waiting for up to 3 of 4 processes at {address}"}
    monkeypatch.setattr(module, "_joining", False)


def test_a_cluster_of_one_process_takes_all_gpus():
    """A shell that Slurm started is one, with all GPUs of the job, and JAX would take the first alone."""
    program = """
        import jax
        from alexnet_jax.runtime import processes

        processes.start("auto")
        print(processes.count(), jax.config.values["jax_cuda_visible_devices"])
    """
    slurm = {"JOB_ID": str(os.getpid()), "STEP_NODELIST": "localhost", "NTASKS": "1", "PROCID": "0", "LOCALID": "0"}
    variables = {f"SLURM_{name}": value for name, value in slurm.items()} | {"SLURM_STEP_NUM_NODES": "1"}
    for more, expected in (({}, "1 all"), ({"JAX_LOCAL_DEVICE_IDS": "1"}, "1 1")):
        run = subprocess.run(
            [sys.executable, "-c", textwrap.dedent(program)],
            env=os.environ | variables | more,
            cwd=ROOT,
            text=True,
            capture_output=True,
        )
        assert run.stdout.strip() == expected, run.stderr


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({"SLURM_STEP_TASKS_PER_NODE": "1(x2)"}, "all"),
        ({"SLURM_STEP_TASKS_PER_NODE": "4(x2)"}, "0"),
        ({"SLURM_STEP_TASKS_PER_NODE": "1,2"}, "0"),
        ({"OMPI_COMM_WORLD_LOCAL_SIZE": "1"}, "all"),
        ({"OMPI_COMM_WORLD_LOCAL_SIZE": "2"}, "0"),
        ({"SLURM_STEP_TASKS_PER_NODE": "1(x2)", "JAX_LOCAL_DEVICE_IDS": "0"}, "0"),
        ({}, "0"),
    ],
)
def test_the_only_process_of_a_machine_takes_all_gpus(monkeypatch, variables, expected):
    def join(*numbers):
        for name in ("jax_cuda_visible_devices", "jax_rocm_visible_devices"):
            jax.config.update(name, "0")  # as JAX does with the first process of a machine

    for name in ("SLURM_STEP_TASKS_PER_NODE", "OMPI_COMM_WORLD_LOCAL_SIZE", "JAX_LOCAL_DEVICE_IDS"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(module, "_join", join)
    monkeypatch.setattr(module, "count", lambda: 2)
    monkeypatch.setattr(module.compat, "coordination_client", lambda: None)
    try:
        module.start("on")
        found = [jax.config.values[f"jax_{vendor}_visible_devices"] for vendor in ("cuda", "rocm")]
    finally:
        for name in ("jax_cuda_visible_devices", "jax_rocm_visible_devices"):
            jax.config.update(name, "all")
    assert found == [expected] * 2


@pytest.mark.parametrize("mode", ["auto", "on"])
def test_an_mpi_that_jax_does_not_know_does_not_become_many_single_runs(monkeypatch, mode):
    def join(*numbers):
        raise ValueError("coordinator_address should be defined.")

    monkeypatch.setattr(module, "_join", join)
    for name in module.VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("OMPI_COMM_WORLD_SIZE", "4")
    with pytest.raises(UsageError, match=r"^OMPI_COMM_WORLD_SIZE is 4, and this JAX does not .*; set JAX_COORDINATOR_"):
        module.start(mode)
    monkeypatch.setenv("OMPI_COMM_WORLD_SIZE", "1")
    if mode == "auto":
        module.start(mode)


def test_a_missing_or_incomplete_cluster_is_one_line():
    program = """
        import os
        from alexnet_jax.runtime import processes
        from alexnet_jax.errors import UsageError

        def attempt(mode, **environment):
            for name in processes.VARIABLES:
                os.environ.pop(name, None)
            os.environ.update(environment)
            try:
                processes.start(mode)
                print("alone" if processes.count() == 1 else "joined")
            except UsageError as error:
                print(error)

        attempt("auto")
        attempt("on")
        attempt("auto", JAX_NUM_PROCESSES="2")
        attempt("on", JAX_COORDINATOR_ADDRESS="127.0.0.1:1", JAX_NUM_PROCESSES="2", JAX_PROCESS_ID="first")
        attempt("auto", JAX_COORDINATOR_ADDRESS="127.0.0.1:1", JAX_NUM_PROCESSES="2", JAX_PROCESS_ID="2")
        attempt("off", JAX_COORDINATOR_ADDRESS="127.0.0.1:1", JAX_NUM_PROCESSES="2", JAX_PROCESS_ID="2")
    """
    run = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)], capture_output=True, text=True, cwd=ROOT, check=True
    )
    lines = run.stdout.splitlines()
    assert lines[0] == "alone"
    none = "JAX recognises no cluster here; set"
    assert lines[1].startswith(f"{none} JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES, JAX_PROCESS_ID, or start under")
    assert lines[2].startswith(f"{none} JAX_COORDINATOR_ADDRESS, JAX_PROCESS_ID, or start under")
    assert lines[3] == "JAX_PROCESS_ID is 'first' and should be a whole number"
    assert lines[4].startswith("the other processes cannot be joined: process_id and num_processes must be nonnegative")
    assert lines[5] == "alone"


@pytest.mark.soak
def test_any_number_of_processes_trains_and_evaluates_like_one(
    tiny_config: Callable, data_dir: str, tmp_path: Path, processes: Callable, monkeypatch: pytest.MonkeyPatch
):
    common = ["--config=tests/configs/tiny.py", "--config.num_epochs=1.0", f"--data_dir={data_dir}"]
    square = ["--config.mesh.data=2", "--config.mesh.tower=2", f"--workdir={tmp_path}/four"]
    square += ["--config.dataset.workers=1"]  # the devices of all processes mirror the crops
    pair = processes(2, 1, "main", *common, f"--workdir={tmp_path}/pair")
    four = processes(2, 2, "main", *common, *square, WHO=1, **sends(signal.SIGTERM, "fetch", 4))
    reference(tiny_config, data_dir, tmp_path / "one", monkeypatch, data=1, tower=1)
    assert [(status, err) for status, _, err in four.finish()] == [(75, "")] * 2
    assert steps(tmp_path / "four") == [4]
    rest = processes(4, 1, "main", *common, *square)
    assert [(status, err) for status, _, err in pair.finish()] == [(0, "")] * 2
    evaluation = processes(2, 1, "evaluate", f"--workdir={tmp_path}/pair", f"--data_dir={data_dir}", "--json")
    results = rest.finish()
    assert [(status, err) for status, _, err in results] == [(0, "")] * 4, results
    assert "resuming after update 4" in results[0][1]
    assert [out for _, out, _ in results[1:]] == [""] * 3
    for name in ("pair", "four"):
        assert_alike(tmp_path / name, tmp_path / "one")

    results = evaluation.finish()
    assert [status for status, _, _ in results] == [0, 0], results
    assert re.fullmatch(r"C operations: .*\n", results[0][2]) and results[1][2] == ""
    found, result = json.loads(results[0][1]), json.loads((tmp_path / "one/result.json").read_text())
    assert (found["count"], found["loss"]) == (50, pytest.approx(result["loss_1_views"], rel=2e-6))
    assert results[1][1] == ""


@pytest.mark.soak
@pytest.mark.parametrize("who", [0, 1])
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP, 0])
def test_a_process_that_dies_or_hangs_ends_the_others_by_name(
    data_dir: str, tmp_path: Path, processes: Callable, number: int, who: int
):
    run = processes(
        3,
        1,
        "main",
        "--config=tests/configs/tiny.py",
        "--config.num_epochs=10000",
        "--config.network.recipe=one_tower",
        "--config.batch_size=30",
        f"--data_dir={data_dir}",
        f"--workdir={tmp_path}",
        HEARTBEAT_TIMEOUT=10,
        PHASE_TIMEOUT=15,
        WHO=who,
        **sends(number, "fetch", 5),
    )
    results = run.finish(leave=None if number == 0 else who)
    expected = f"process {who} ({HOST}) hangs: for 15 s it is at fetching images for update 5, the others are ahead"
    if number:
        expected = f"process {who} ({'127.0.0.1' if who == 0 else HOST}"
    for index, (status, _, err) in enumerate(results):
        if index != who or number == 0:
            assert status == 75, results
            assert expected in err.splitlines()[-1], results
            assert err.splitlines()[-1].endswith("the same command resumes from the last checkpoint")


@pytest.mark.soak
def test_a_run_that_is_suspended_as_a_whole_goes_on(data_dir: str, tmp_path: Path, processes: Callable):
    common = ["main", "--config=tests/configs/tiny.py", "--config.num_epochs=10000", f"--data_dir={data_dir}"]
    run = processes(2, 1, *common, f"--workdir={tmp_path}", HEARTBEAT_TIMEOUT=8, PHASE_TIMEOUT=10)

    def wait_for(step: int) -> int:
        until = time.monotonic() + 150
        while not (tmp_path / "metrics.jsonl").exists() or max(losses(tmp_path), default=0) < step:
            assert time.monotonic() < until
            assert [process.poll() for process in run.started] == [None, None], run.finish()
            time.sleep(0.2)
        return max(losses(tmp_path))

    wait_for(3)
    for number in (signal.SIGSTOP, signal.SIGCONT):
        for process in run.started:
            process.send_signal(number)
        time.sleep(20)
    step = wait_for(4)
    wait_for(step + 3)
    run.started[1].terminate()
    assert [(status, err) for status, _, err in run.finish()] == [(75, "")] * 2


@pytest.mark.soak
@pytest.mark.parametrize("call", [1, 2], ids=["centre", "ten views"])
def test_a_signal_in_an_evaluation_is_everybodys(data_dir: str, tmp_path: Path, processes: Callable, call: int):
    common = ["main", "--config=tests/configs/tiny.py", f"--data_dir={data_dir}", f"--workdir={tmp_path}"]
    common += ["--config.num_epochs=1.0", "--config.batch_size=16"]
    results = processes(2, 1, *common, WHO=1, **sends(signal.SIGTERM, "evaluate", call)).finish()
    assert [(status, err) for status, _, err in results] == [(75, "")] * 2, results
    assert results[0][1].splitlines()[-1] == "saved after update 12; the same command resumes here"
    assert steps(tmp_path) == [12]
    results = processes(2, 1, *common).finish()
    assert [(status, err) for status, _, err in results] == [(0, "")] * 2, results
    assert json.loads((tmp_path / "result.json").read_text())["count"] == 50


@pytest.mark.soak
def test_a_loss_that_is_not_finite_stops_all(data_dir: str, tmp_path: Path, processes: Callable):
    rates = "((0, 1e30),)"
    flags = [f"--config.rates.all.{leaf}={rates}" for leaf in ("kernel", "bias")]
    common = ["main", "--config=tests/configs/tiny.py", f"--data_dir={data_dir}", f"--workdir={tmp_path}"]
    for status, _, err in processes(2, 1, *common, *flags).finish():
        assert status == 2
        assert "is not finite; there is no checkpoint yet; lower the learning rate" in err
        assert err.count("\n") == 1


@pytest.mark.soak
def test_an_error_in_one_process_ends_the_others_with_it(data_dir: str, tmp_path: Path, processes: Callable):
    """Process 1 cannot read its part of the data in the middle of the run."""
    common = ["main", "--config=tests/configs/tiny.py", f"--data_dir={data_dir}", f"--workdir={tmp_path}"]
    results = processes(2, 1, *common, WHO=1, SEND="error", METHOD="fetch", CALL=4).finish()
    assert [status for status, _, _ in results] == [1, 1], results
    assert results[0][2].splitlines()[-1] == f"error: process 1 ({HOST}) stopped: OSError: unreadable"
    assert "Traceback" in results[1][2]


@pytest.mark.soak
def test_a_data_set_that_differs_is_named(data_dir: str, tmp_path: Path, processes: Callable):
    """Each host may have a local copy of the data. A copy that differs is an error."""
    run = processes(
        2,
        1,
        "main",
        "--config=tests/configs/tiny.py",
        f"--workdir={tmp_path}/run",
        extra={0: f"--data_dir={data_dir}", 1: f"--data_dir={changed_copy(data_dir, tmp_path)}"},
    )
    for status, _, err in run.finish():
        assert status == 2
        assert "the processes differ in the digest of the data set's statistics: " in err
        assert err.count("\n") == 1


def changed_copy(data_dir: str, tmp_path: Path) -> Path:
    copy = tmp_path / "data"
    shutil.copytree(data_dir, copy)
    folder = epath.Path(next(copy.rglob("dataset_info.json")).parent)
    before = statistics.load(folder, 64)
    statistics.save(statistics.Statistics(before.mean_image + 1, before.covariance), folder)
    return copy


@pytest.mark.parametrize(("processes", "devices"), [(1, 4), (2, 2), (3, 2), (4, 1)])
def test_the_devices_of_a_cpu_are_shared_by_the_processes(monkeypatch, processes: int, devices: int):
    asked: dict[str, object] = {}
    monkeypatch.delenv("JAX_NUM_CPU_DEVICES", raising=False)
    monkeypatch.setattr(module, "count", lambda: processes)
    monkeypatch.setattr(module.jax, "config", mock.Mock(update=asked.__setitem__))
    monkeypatch.setattr(module.jax, "devices", list)
    monkeypatch.setattr(module.allocator, "keep_memory", lambda: True)
    module.make_devices(4)
    assert asked == {"jax_num_cpu_devices": devices}
