"""launch/slurm.sbatch on a real Slurm of one node with two pretended GPUs; needs root, slurm-wlm and munge.

python -m pytest -m slurm -n 0 tests/launch
"""

import os
import re
import secrets
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.waiting import wait_until

pytestmark = pytest.mark.slurm

ROOT = Path(__file__).parents[2]
CONFIG = """
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
SlurmUser=root
AuthType=auth/munge
CredType=cred/munge
AuthInfo=socket={folder}/munge.socket,cred_expire=5
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
KillOnBadExit=1
GresTypes=gpu
NodeName={host} NodeAddr=127.0.0.1 CPUs=2 Gres=gpu:2
PartitionName=test Nodes={host} Default=YES
"""  # cred_expire is also how long a requeued job waits. KillOnBadExit: the unkindest site.


@pytest.fixture(scope="module")
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., str]]:
    """Starts munged, slurmctld and slurmd on the loopback; gives what runs a command and returns its output."""
    missing = [name for name in ("munged", "slurmctld", "slurmd", "sbatch") if shutil.which(name) is None]
    if missing or os.geteuid() != 0:
        pytest.fail(f"missing: {', '.join(missing) or 'root'}; as root: apt-get install slurm-wlm munge")
    folder = tmp_path_factory.mktemp("slurm")
    folder.parent.chmod(0o755)  # munge wants to be reached by all
    folder.chmod(0o755)
    host = socket.gethostname().split(".")[0]
    for name in ("state", "spool"):
        (folder / name).mkdir()
    for name in ("gpu0", "gpu1"):
        (folder / name).touch()
    (folder / "slurm.conf").write_text(CONFIG.format(folder=folder, host=host, ports=free_ports(2)))
    (folder / "gres.conf").write_text(f"NodeName={host} Name=gpu File={folder}/gpu[0-1]\n")
    (folder / "munge.key").write_bytes(secrets.token_bytes(128))
    (folder / "munge.key").chmod(0o600)
    environment = os.environ | {"SLURM_CONF": str(folder / "slurm.conf")}
    environment["PATH"] = f"{Path(sys.executable).parent}:{environment['PATH']}"

    def call(*command: str) -> str:
        return subprocess.run(command, cwd=ROOT, env=environment, check=True, text=True, stdout=subprocess.PIPE).stdout

    daemons: list[subprocess.Popen] = []

    def start(*command: str) -> None:
        with (folder / f"{command[0]}.log").open("w") as log:
            daemons.append(subprocess.Popen(command, env=environment, stdout=log, stderr=log))

    munge = {"socket": "socket", "key-file": "key", "pid-file": "pid", "log-file": "log", "seed-file": "seed"}
    start("munged", "--foreground", "--force", *(f"--{flag}={folder}/munge.{name}" for flag, name in munge.items()))
    wait_until(lambda: (folder / "munge.socket").exists())
    start("slurmctld", "-D", "-c")
    start("slurmd", "-D")
    try:
        wait_until(
            lambda: "idle" in subprocess.run(("sinfo", "-h"), env=environment, capture_output=True, text=True).stdout
        )
        yield call
        call("scancel", "--partition=test")
        wait_until(lambda: call("squeue", "--noheader") == "")
    finally:
        for daemon in reversed(daemons):
            daemon.terminate()
            daemon.wait(60)


def free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


def field(slurm: Callable[..., str], job: str, name: str) -> str:
    return re.search(rf"\b{name}=(\S*)", slurm("scontrol", "show", "job", job))[1]


@pytest.fixture
def submit(slurm: Callable[..., str], tmp_path: Path, data_dir: str) -> Callable[..., str]:
    """Submits a run of two tasks with options of sbatch and flags of ours; returns the job's number."""

    def submit(*options: str, flags: tuple[str, ...] = ()) -> str:
        size = ("--cpus-per-task=1", f"--output={tmp_path}/log")
        ours = ("--config=tests/configs/tiny.py", f"--workdir={tmp_path}/run", f"--data_dir={data_dir}", *flags)
        return slurm("sbatch", "--parsable", *size, *options, "launch/slurm.sbatch", *ours).strip()

    return submit


def has_saved(folder: Path) -> bool:
    return any(path.name.isdigit() for path in (folder / "run" / "checkpoints").glob("*"))


def test_sigterm_requeues_and_the_run_resumes_and_finishes(slurm, submit, tmp_path: Path):
    job = submit(flags=("--config.num_epochs=60",))
    wait_until(lambda: has_saved(tmp_path), seconds=240)
    slurm("scancel", "--signal=TERM", job)  # what --signal does: to the tasks, not to the script
    wait_until(lambda: field(slurm, job, "Restarts") == "1", seconds=120)
    log = (tmp_path / "log").read_text()
    assert "Terminating StepId" not in log, "srun cut nobody off"
    step = re.search(r"saved after update (\S+); the same command resumes here", log)[1]
    wait_until(lambda: field(slurm, job, "JobState") in ("COMPLETED", "FAILED", "CANCELLED"), seconds=300)
    assert field(slurm, job, "ExitCode") == "0:0"
    text = (tmp_path / "log").read_text()
    assert text.startswith(log), "the log is appended to"
    assert f"resuming after update {step}\n" in text
    assert "finished: top-1 error" in text
    assert (tmp_path / "run" / "result.json").exists()


def test_sigterm_comes_ahead_of_the_limit_and_a_cancelled_job_stays_away(slurm, submit, tmp_path: Path):
    job = submit("--time=4", "--signal=TERM@90", flags=("--config.num_epochs=100000",))
    wait_until(lambda: field(slurm, job, "Restarts") == "1", seconds=330)
    text = (tmp_path / "log").read_text()
    assert re.search(r"saved after update \S+; the same command resumes here", text)
    assert "DUE TO TIME LIMIT" not in text
    wait_until(lambda: field(slurm, job, "JobState") == "RUNNING")
    wait_until(lambda: "resuming after update" in (tmp_path / "log").read_text(), seconds=120)
    slurm("scancel", job)
    wait_until(lambda: field(slurm, job, "JobState") == "CANCELLED", seconds=120)
    time.sleep(10)
    assert (field(slurm, job, "JobState"), field(slurm, job, "Restarts")) == ("CANCELLED", "1")


def test_a_mistake_ends_the_job(slurm, submit, tmp_path: Path):
    job = submit(flags=("--config.num_epochs=-1",))
    wait_until(lambda: field(slurm, job, "JobState") == "FAILED", seconds=120)
    assert (field(slurm, job, "ExitCode"), field(slurm, job, "Restarts")) == ("2:0", "0")
    assert "error: " in (tmp_path / "log").read_text()
