"""The processes of the fuzz tests end with the test that started them."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.conftest import ROOT

CLIENT = """
import sys
from pathlib import Path
from tests.fuzz import Commands

commands = Commands({"JAX_NUM_CPU_DEVICES": "2"})
commands("main", *sys.argv[2:], folder=Path(sys.argv[1]), trains=True, seconds=3600)
"""


def processes_below(folder: Path) -> list[int]:
    """The processes whose current folder is the folder."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if os.readlink(process / "cwd") == str(folder):
                found.append(int(process.name))
        except OSError:  # it has ended
            continue
    return found


@pytest.mark.long
def test_a_command_ends_with_a_client_that_is_killed(tmp_path: Path, data_dir: str):
    for name in ("cwd", "home", "tmp"):
        (tmp_path / name).mkdir()
    flags = f"--config={ROOT}/tests/configs/tiny.py", "--config.num_epochs=100000", f"--data_dir={data_dir}"
    workdir = tmp_path / "run"
    client = subprocess.Popen([sys.executable, "-c", CLIENT, tmp_path, *flags, f"--workdir={workdir}"], cwd=ROOT)
    deadline = time.monotonic() + 150
    while not (workdir / "checkpoints" / "7").exists():
        assert time.monotonic() < deadline and client.poll() is None
        time.sleep(0.1)
    (command,) = processes_below(tmp_path / "cwd")
    client.kill()
    assert client.wait() == -signal.SIGKILL
    while processes_below(tmp_path / "cwd"):
        assert time.monotonic() < deadline, f"process {command} is left"
        time.sleep(0.1)
