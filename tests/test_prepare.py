"""The command that prepares data sets: from the command line, killed and started again."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image

SIZE = 16


def prepare(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "alexnet_jax.prepare", *arguments]
    return subprocess.run(command, cwd=cwd, env=environment(), text=True, capture_output=True, check=False, timeout=300)


def environment() -> dict[str, str]:
    return os.environ | {"PYTHONPATH": str(Path(__file__).parent.parent)}


def content(path: Path) -> dict[str, bytes]:
    return {str(file.relative_to(path)): file.read_bytes() for file in sorted(path.rglob("*")) if file.is_file()}


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    path, rng = tmp_path_factory.mktemp("tree"), np.random.default_rng(0)
    for kind in ("cat", "dog"):
        (path / "train" / kind).mkdir(parents=True)
        for number in range(60):
            pixels = rng.integers(0, 256, (300, 400, 3), np.uint8)
            Image.fromarray(pixels).save(path / "train" / kind / f"{number}.jpg")
    return path


def start(*arguments: str, cwd: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "alexnet_jax.prepare", *arguments]
    # What a shell starts in the background ignores Ctrl-C, and so would its children.
    command = ["env", "--default-signal=INT", *command]
    return subprocess.Popen(
        command, cwd=cwd, env=environment(), text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )


def wait_for(process: subprocess.Popen[str], summaries: Path, count: int) -> None:
    """Until so many shards are finished."""
    deadline = time.monotonic() + 120
    while not (summaries.exists() and len(list(summaries.glob("*.npz"))) >= count):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.005)


def children(pid: int) -> list[int]:
    tasks = Path(f"/proc/{pid}/task").glob("*/children")
    return [int(child) for task in tasks for child in task.read_text().split()]


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_killed_by_force_then_interrupted_and_run_again(tree, tmp_path):
    arguments = ["folder", "pets", f"--source_dir={tree}", "--data_dir=data", f"--size={SIZE}"]
    arguments += ["--per_shard=3", "--processes=2"]
    (tmp_path / "whole").mkdir()
    run = prepare(*arguments, cwd=tmp_path / "whole")
    assert run.returncode == 0, run.stderr
    assert "120/120 images" in run.stdout and "no split but 'train': 12 images are held out" in run.stdout
    result = Path("data") / "pets" / str(SIZE) / "1.0.0"

    killed = tmp_path / "killed"
    killed.mkdir()
    process = start(*arguments, cwd=killed)
    summaries = killed / result.parent / ".incomplete-1.0.0" / "summaries"
    wait_for(process, summaries, 3)
    workers = children(process.pid)
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=60)  # workers that lived on would keep the pipes open
    assert workers and not (killed / result).exists()
    time.sleep(0.1)
    assert not any(map(alive, workers)), "workers outlive a killed run"

    process = start(*arguments, cwd=killed)
    wait_for(process, summaries, len(list(summaries.glob("*.npz"))) + 2)
    process.send_signal(signal.SIGINT)
    told = process.communicate(timeout=60)
    assert process.returncode == 130 and "interrupted; the same command goes on" in told[1], told

    again = prepare(*arguments, cwd=killed)
    assert again.returncode == 0, again.stderr
    assert "120/120 images" not in again.stdout, "finished shards are kept"
    assert content(killed / result) == content(tmp_path / "whole" / result)
    builder = tfds.builder_from_directory(killed / result)
    assert {name: split.num_examples for name, split in builder.info.splits.items()} == {"train": 108, "validation": 12}

    once_more = prepare(*arguments, cwd=killed)
    assert once_more.returncode == 0 and "is there already" in once_more.stdout


@pytest.mark.parametrize(
    ("words", "name"),
    [
        (("imagenet2012", None), "imagenet2012"),
        (("folder", "my_set2"), "my_set2"),
        (("tfds", "imagenette/full-size-v2"), "imagenette_full_size_v2"),
        (("tfds", "cifar10:3.0.2"), "cifar10_3_0_2"),
    ],
)
def test_names(words, name):
    from alexnet_jax.prepare import name_of

    assert name_of(*words) == name


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "what shall be prepared? Known: imagenet2012, imagenet2010, fashion_mnist, folder NAME, tfds NAME"),
        (["imagenet"], "'imagenet' cannot be prepared; known: imagenet2012"),
        (["folder"], "folder wants a name"),
        (["folder", "My Set"], "'My Set' is no name for a data set"),
        (["imagenet2012"], "--source_dir is missing"),
        (["imagenet2012", "--source_dir=/nowhere"], "/nowhere/ILSVRC2012_img_train.tar is missing"),
        (["tfds", "mnistt", "--data_dir=data"], "TFDS cannot open 'mnistt'"),
        (["folder", "pets", "extra"], "'extra' is not a flag"),
        (["folder", "pets", "--data_dir=gs://bucket/data"], "not on this machine; prepare in a folder and copy"),
        (["folder", "pets", "--encoding=png"], "encoding"),
        (["elpv/99"], "no data set 'elpv/99'"),
    ],
)
def test_mistakes_are_told_in_a_line(arguments, message, tmp_path, monkeypatch, capsys):
    from absl import flags

    from alexnet_jax import prepare as module

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["prepare", *arguments])
    before = flags.FLAGS.flag_values_dict()
    try:
        with pytest.raises(SystemExit) as ended:
            cli.run(module.main, words=2)
    finally:
        flags.FLAGS.unparse_flags()
        for name in ("source_dir", "data_dir", "encoding"):
            flags.FLAGS[name].value = before[name]
    assert ended.value.code == 2
    told = capsys.readouterr().err
    assert told.startswith("error: ") and told.count("\n") == 1 and message in told
