"""launch/local.sh: several processes as one command."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.waiting import wait_until

SCRIPT = Path(__file__).parents[2] / "launch" / "local.sh"

INTERPRETER = f"""#!{sys.executable}
import os, signal, sys, time
me = os.environ["JAX_PROCESS_ID"]
def say(*words):
    os.write(1, (" ".join(words) + "\\n").encode())  # at once: the lines of two processes do not mix
def leave(number, _):
    say(me, "got", str(number))
    time.sleep(0.3)
    sys.exit({{15: 75, 2: 130}}[number])
for number in (signal.SIGTERM, signal.SIGINT):
    signal.signal(number, signal.SIG_IGN if "deaf" in sys.argv else leave)
variables = [os.environ[name] for name in ("JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_LOCAL_DEVICE_IDS")]
say(me, *variables, *sys.argv[1:])
if me == "1" and sys.argv[-1] == "killed":
    os.kill(os.getpid(), signal.SIGKILL)
if sys.argv[-1] in ("waits", "killed") and not (me == "1" and "fails" in sys.argv):
    time.sleep(60)
sys.exit(7 if me == "1" and "fails" in sys.argv else 0)
"""


@pytest.fixture
def start(tmp_path: Path):
    """Starts the script with an interpreter that trains nothing."""
    interpreter = tmp_path / "python"
    interpreter.write_text(INTERPRETER)
    interpreter.chmod(0o755)
    started = []

    def start(*arguments: str, **environment: str) -> subprocess.Popen:
        variables = {"PYTHON": str(interpreter), "PORT": "1234"} | environment
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        # Where pytest runs in the background, Ctrl-C is ignored, which a shell's trap cannot change.
        command = ["env", "--default-signal=INT", SCRIPT, *arguments]
        run = subprocess.Popen(command, env=os.environ | variables, text=True, **pipes)
        started.append(run)
        return run

    yield start
    for run in started:
        if run.poll() is None:
            run.terminate()
            run.wait(60)
        run.stdout.close()
        run.stderr.close()


def test_each_process_is_told_its_place(start):
    run = start("--config=a b", PROCESSES="3")
    out, err = run.communicate(timeout=60)
    common = "-u -m alexnet_jax.main --distributed=on --config=a b"
    # Process n has device n: a GPU each.
    assert sorted(out.splitlines()) == [f"{number} 127.0.0.1:1234 3 {number} {common}" for number in range(3)]
    assert (run.returncode, err) == (0, "")


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 75), (signal.SIGINT, 130)])
def test_a_signal_reaches_each_process_once(start, number: signal.Signals, status: int):
    run = start("waits")
    assert {run.stdout.readline()[0], run.stdout.readline()[0]} == {"0", "1"}
    run.send_signal(number)
    out, _ = run.communicate(timeout=60)
    assert sorted(out.splitlines()) == [f"0 got {number}", f"1 got {number}"]
    assert run.returncode == status


@pytest.mark.parametrize(("how", "status"), [(["fails", "waits"], 7), (["killed"], 137)])
def test_the_rest_is_killed_when_one_has_failed(start, how: list[str], status: int):
    begun = time.monotonic()
    run = start("deaf", *how, GRACE="1")
    _, err = run.communicate(timeout=60)
    assert run.returncode == status
    assert err == f"process 1 left with status {status}; the others have 1 seconds\n"
    assert time.monotonic() - begun < 30


def test_a_failure_is_one_line_where_the_others_leave_by_themselves(start, tmp_path: Path):
    """Many times: the line of bash about the end of the timer came once in six."""
    script = tmp_path / "late"
    script.write_text('#!/bin/sh\n[ "$JAX_PROCESS_ID" = 1 ] || sleep 0.2\nexit 2\n')
    script.chmod(0o755)
    runs = [start(PYTHON=str(script)) for _ in range(20)]
    errors = {run.communicate(timeout=60)[1] for run in runs}
    assert errors == {"process 1 left with status 2; the others have 30 seconds\n"}


@pytest.mark.long
def test_a_run_in_two_processes_saves_on_sigterm(tmp_path: Path, data_dir: str, start):
    flags = ("--config=tests/configs/tiny.py", "--config.num_epochs=100000", f"--workdir={tmp_path}/run")
    run = start(*flags, f"--data_dir={data_dir}", PYTHON=sys.executable, PORT="")
    wait_until(lambda: any(path.name.isdigit() for path in (tmp_path / "run" / "checkpoints").glob("*")), run)
    run.send_signal(signal.SIGTERM)
    out, err = run.communicate(timeout=120)
    assert run.returncode == 75, err
    assert "data=1 tower=2" in out.splitlines()[0]
    assert out.splitlines()[-1].endswith("; the same command resumes here")
