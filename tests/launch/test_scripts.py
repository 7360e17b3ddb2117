"""The launch scripts without the machines: lint, heads, dry runs, and the published schemas."""

import os
import re
import shlex
import stat
import string
import subprocess
import sys
import time
from pathlib import Path

import kubernetes_validate
import pytest
import yaml
from kubeflow_trainer_api.models import JobsetV1alpha2JobSet

ROOT = Path(__file__).parents[2]
LAUNCH = ROOT / "launch"
SCRIPTS = sorted([*LAUNCH.glob("*.sh"), *LAUNCH.glob("*.sbatch")])
TOOLS = Path(sys.executable).parent
TPU_VM = {"NAME": "a", "ZONE": "b", "ACCELERATOR": "c", "RUNTIME": "d", "WORKDIR": "gs://bucket/run"}
GKE = {"RUN": "first", "IMAGE": "host/image:1", "CONFIG": "configs/default.py", "BUCKET": "bucket", "NODES": "4"}
GKE |= {"GPU_TYPE": "nvidia-l4", "GPUS": "8", "TPU_TYPE": "tpu-v6e-slice", "TPU_TOPOLOGY": "4x4", "TPUS": "4"}


def test_shellcheck_has_nothing_to_say():
    files = [*SCRIPTS, ROOT / ".ci" / "run"]
    run = subprocess.run([TOOLS / "shellcheck", *files], capture_output=True, text=True)
    assert (run.returncode, run.stdout, run.stderr) == (0, "", "")


def test_the_image_is_linted_and_not_root():
    run = subprocess.run([TOOLS / "hadolint", LAUNCH / "Dockerfile"], capture_output=True, text=True)
    assert (run.returncode, run.stdout, run.stderr) == (0, "", "")
    lines = (LAUNCH / "Dockerfile").read_text().splitlines()
    assert re.fullmatch(
        r"FROM python:3\.12\.\d+-slim-bookworm", next(line for line in lines if line.startswith("FROM"))
    )
    first = {
        name: next(i for i, line in enumerate(lines) if line.startswith(f"COPY {name}"))
        for name in ("requirements.txt", "alexnet_jax", "configs")
    }
    install = next(i for i, line in enumerate(lines) if "pip install" in line)
    assert first["requirements.txt"] < install < first["alexnet_jax"] < first["configs"]
    assert [line for line in lines if line.startswith("USER")] == ["USER 1000"]


@pytest.mark.parametrize("file", SCRIPTS, ids=lambda file: file.name)
def test_a_script_introduces_itself(file: Path):
    lines = file.read_text().splitlines()
    head = "\n".join(lines[: next(i for i, line in enumerate(lines) if not line.startswith("#"))])
    assert lines[0] == "#!/usr/bin/env bash"
    assert re.match(r"# (Runs|Creates) ", lines[1])
    assert re.search(r"^# Needs: ", head, re.MULTILINE)
    assert f"launch/{file.name}" in head, "an example"
    assert "set -euo pipefail" in lines
    variables = re.search(r"^# Variables: (.*(\n#   .*)*)", head, re.MULTILINE)
    assert variables
    names = re.findall(r"\b[A-Z]{4,}\b", variables[1])
    table = next(line for line in (LAUNCH / "README.md").read_text().splitlines() if f"| `{file.name}` |" in line)
    assert names
    assert [name for name in names if f"`{name}`" not in table] == []


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        (["local.sh"], ["JAX_PROCESS_ID=0", "JAX_PROCESS_ID=1", "--distributed=on"]),
        (["slurm.sbatch"], ["srun", "--gpu-bind=none", "--distributed=on", "scontrol requeue JOB"]),
        (["tpu_vm.sh", "create"], ["create a", "--accelerator-type=c"]),
        (["tpu_vm.sh", "copy"], ["git archive", "scp", "--worker=all"]),
        (["tpu_vm.sh", "run"], ["--worker=all", "--distributed=on", "--workdir=gs://bucket/run"]),
        (["tpu_vm.sh", "stop"], ["kill -s TERM"]),
        (["tpu_vm.sh", "fetch"], ["gcloud storage cp --recursive gs://bucket/run runs/"]),
        (["tpu_vm.sh", "delete"], ["delete a"]),
    ],
    ids=" ".join,
)
def test_a_dry_run_prints_the_commands_and_runs_none(tmp_path: Path, command: list[str], expected: list[str]):
    for name in ("srun", "scontrol", "gcloud", "git", "env", "mkdir"):
        stand_in(tmp_path / name, 'echo "called: $0" >&2; exit 1')
    script, *action = command
    run = subprocess.run(
        ["bash", LAUNCH / script, *action, "--dry_run", *["--config=a b"] * ("--distributed=on" in expected)],
        env=os.environ | TPU_VM | {"PATH": f"{tmp_path}:{os.environ['PATH']}", "PORT": "1234"},
        capture_output=True,
        text=True,
    )
    assert (run.returncode, run.stderr) == (0, "")
    printed = run.stdout.replace("'\\''", "").replace("'", "")
    for part in expected:
        assert part in printed
    if "--distributed=on" in expected:
        assert "--config=a b" in printed


def stand_in(file: Path, body: str) -> None:
    """An executable shell script."""
    file.write_text(f"#!/bin/bash\n{body}\n")
    file.chmod(file.stat().st_mode | stat.S_IXUSR)


def test_a_tpu_vm_runs_and_stops_what_it_is_told(tmp_path: Path):
    """The commands for the workers, executed here."""
    (tmp_path / "venv" / "bin").mkdir(parents=True)
    (tmp_path / "alexnet").mkdir()
    stand_in(
        tmp_path / "venv" / "bin" / "python",
        'trap "echo stopped; exit 75" TERM; printf "%s\\n" "$@"; for _ in {1..1200}; do sleep 0.05; done',
    )
    stand_in(
        tmp_path / "gcloud",
        f'cd {tmp_path}; for word in "$@"; do case "$word" in'
        " --command=tail*) until (($(wc -l <alexnet/run.log) >= $(<lines))); do sleep 0.1; done; cat alexnet/run.log;;"
        ' --command=*) bash -c "${word#*=}";; esac; done',
    )
    environment = os.environ | TPU_VM | {"PATH": f"{tmp_path}:{os.environ['PATH']}"}

    def tpu_vm(*words: str) -> str:
        return subprocess.run(
            [LAUNCH / "tpu_vm.sh", *words], env=environment, check=True, text=True, capture_output=True
        ).stdout

    words = ["-u", "-m", "alexnet_jax.main", "--distributed=on", "--workdir=gs://bucket/run", "--config=a b"]
    (tmp_path / "lines").write_text(str(len(words)))  # for which the stand-in of `tail` waits
    log = tpu_vm("run", "--config=a b")
    assert log.splitlines() == words
    again = subprocess.run([LAUNCH / "tpu_vm.sh", "run"], env=environment, text=True, capture_output=True)
    assert (again.returncode, again.stdout) == (2, "")
    assert again.stderr == "error: a run is under way here; show it by log, end it by stop\n"
    tpu_vm("stop")
    (tmp_path / "lines").write_text(str(len(words) + 1))
    assert tpu_vm("log") == log + "stopped\n"
    ended = (tmp_path / "alexnet" / "pid").read_text().strip()
    while Path("/proc", ended).exists():  # until the system has seen its end
        time.sleep(0.1)
    (tmp_path / "lines").write_text(str(2 * len(words) + 1))
    assert tpu_vm("run", "--config=a b") == log + "stopped\n" + log
    tpu_vm("stop")


@pytest.mark.parametrize(
    ("script", "environment", "message"),
    [
        ("local.sh", {"PROCESSES": "0"}, "error: PROCESSES is '0', not a number from 1"),
        ("slurm.sbatch", {"SLURM_GPUS_PER_TASK": "1"}, "error: --gpus-per-task hides GPUs"),
        ("slurm.sbatch", {"SLURM_GPUS_ON_NODE": "8", "SLURM_NTASKS_PER_NODE": "2"}, "error: 2 tasks and 8 GPUs"),
        ("slurm.sbatch", {"SLURM_ARRAY_JOB_ID": "7"}, "error: a job array starts one run several times"),
        ("slurm.sbatch", {"RESTARTS": "few"}, "error: RESTARTS is 'few', not a number"),
        ("tpu_vm.sh", {}, "error: NAME is not set"),
        ("tpu_vm.sh", TPU_VM | {"WORKDIR": "runs"}, "error: WORKDIR is 'runs', not a gs:// address"),
        ("tpu_vm.sh", TPU_VM, "error: '' is none of create, copy"),
    ],
)
def test_mistakes_are_one_line_and_status_2(script: str, environment: dict[str, str], message: str):
    run = subprocess.run(["bash", LAUNCH / script], env=os.environ | environment, capture_output=True, text=True)
    assert (run.returncode, run.stdout) == (2, "")
    assert run.stderr.startswith(message)
    assert run.stderr.count("\n") == 1


@pytest.fixture(params=["gpu", "tpu"])
def jobset(request: pytest.FixtureRequest) -> dict:
    """What `envsubst` and `kubectl apply -l accelerator=...` send."""
    text = string.Template((LAUNCH / "gke_jobset.yaml").read_text().replace("$(", "$$("))
    [found] = [
        one
        for one in yaml.safe_load_all(text.substitute(GKE))
        if one["metadata"]["labels"]["accelerator"] == request.param
    ]
    return found


def test_the_jobset_is_as_its_api_has_it(jobset: dict):
    assert (jobset["apiVersion"], jobset["kind"]) == ("jobset.x-k8s.io/v1alpha2", "JobSet")
    # The models, made from the published OpenAPI, check types and required fields; a field unknown to them is lost.
    assert JobsetV1alpha2JobSet.from_dict(jobset).to_dict() == jobset
    for replicated in jobset["spec"]["replicatedJobs"]:
        job = {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "train"}, **replicated["template"]}
        kubernetes_validate.validate(job, "1.33", strict=True)


def test_the_jobset_restarts_all_but_mistakes(jobset: dict):
    policy = jobset["spec"]["failurePolicy"]
    assert policy["maxRestarts"] > 0
    assert [(rule["action"], rule["onJobFailureReasons"]) for rule in policy["rules"]] == [
        ("FailJobSet", ["PodFailurePolicy"])
    ]
    [replicated] = jobset["spec"]["replicatedJobs"]
    job = replicated["template"]["spec"]
    [rule] = job["podFailurePolicy"]["rules"]
    [container] = job["template"]["spec"]["containers"]
    assert rule == {
        "action": "FailJob",
        "onExitCodes": {"containerName": container["name"], "operator": "In", "values": [2]},
    }
    assert (job["completionMode"], job["parallelism"], job["completions"], job["backoffLimit"]) == ("Indexed", 4, 4, 0)
    pod = job["template"]["spec"]
    assert pod["restartPolicy"] == "Never", "a pod failure policy demands it"
    assert pod["terminationGracePeriodSeconds"] >= 300
    assert "--distributed=on" in container["args"]
    selected = {"gpu": ["cloud.google.com/gke-accelerator"]}
    selected["tpu"] = ["cloud.google.com/gke-tpu-accelerator", "cloud.google.com/gke-tpu-topology"]
    assert sorted(pod["nodeSelector"]) == selected[jobset["metadata"]["labels"]["accelerator"]]


def test_each_gpu_pod_is_told_its_place(jobset: dict):
    [replicated] = jobset["spec"]["replicatedJobs"]
    [container] = replicated["template"]["spec"]["template"]["spec"]["containers"]
    env = {
        each["name"]: each.get("value") or each["valueFrom"]["fieldRef"]["fieldPath"]
        for each in container.get("env", [])
    }
    if jobset["metadata"]["labels"]["accelerator"] == "tpu":  # where the pods' TPU knows
        assert "JAX_PROCESS_ID" not in env
        return
    assert env["COORDINATOR"] == "metadata.annotations['jobset.sigs.k8s.io/coordinator']"
    assert (env["JAX_COORDINATOR_ADDRESS"], env["JAX_NUM_PROCESSES"]) == ("$(COORDINATOR):8476", GKE["NODES"])
    assert env["JAX_PROCESS_ID"] == "metadata.annotations['batch.kubernetes.io/job-completion-index']"
    assert env["JAX_PLATFORMS"] == "cuda" and container["resources"]["limits"] == {"nvidia.com/gpu": int(GKE["GPUS"])}


@pytest.mark.parametrize(
    ("status", "count", "again"),
    [(75, 0, True), (75, 50, False), (137, 3, True), (253, 0, False), (2, 0, False), (0, 0, False), (130, 0, False)],
)
def test_slurm_queues_a_job_again_that_is_not_finished(tmp_path: Path, status: int, count: int, again: bool):
    """75 asks for it, 128 and more are of a killed task, and 253 is want of memory."""
    stand_in(tmp_path / "srun", f"exit {status}")
    stand_in(tmp_path / "scontrol", 'echo "scontrol $*"')
    variables = {"SLURM_JOB_ID": "7", "SLURM_RESTART_COUNT": str(count), "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    run = subprocess.run(["bash", LAUNCH / "slurm.sbatch"], env=os.environ | variables, capture_output=True, text=True)
    assert run.returncode == status
    assert ("scontrol requeue 7\n" in run.stdout) == again
    assert ("was queued again 50 times; sbatch resumes it" in run.stderr) == (count == 50)


def test_a_tpu_vm_takes_arguments_where_they_have_a_use():
    words = ["bash", LAUNCH / "tpu_vm.sh", "--dry_run"]
    create = subprocess.run([*words, "create", "--data-disk=source=d"], env=os.environ | TPU_VM, capture_output=True)
    assert b"--data-disk=source=d" in create.stdout and create.returncode == 0
    stop = subprocess.run([*words, "stop", "now"], env=os.environ | TPU_VM, capture_output=True)
    assert (stop.returncode, stop.stderr) == (2, b"error: 'stop' takes no arguments, and now is given\n")


@pytest.mark.parametrize(("variables", "more"), [({}, []), ({"PREEMPTIBLE": "true"}, ["--spot"])])
def test_a_tpu_vm_is_a_spot_vm_on_request_alone(variables: dict, more: list):
    words = ["bash", LAUNCH / "tpu_vm.sh", "create", "--dry_run"]
    run = subprocess.run(words, env=os.environ | TPU_VM | variables, capture_output=True, text=True, check=True)
    assert shlex.split(run.stdout)[5:] == ["a", "--zone=b", "--accelerator-type=c", "--version=d", *more]
