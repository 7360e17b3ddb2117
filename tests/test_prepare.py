"""The command that prepares data sets: from the command line, killed and started again."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import tensorflow_datasets as tfds
from absl import flags
from absl.testing import flagsaver
from PIL import Image

from alexnet_jax import cli
from alexnet_jax import prepare as module
from tests.waiting import children, is_gone, wait_until

SIZE = 16


class Ended(NamedTuple):
    returncode: int
    stdout: str
    stderr: str


@pytest.fixture
def prepare(monkeypatch, capsys):
    """Runs the command in this process, which has the imports already."""

    def run(*arguments: str, cwd: Path) -> Ended:
        monkeypatch.chdir(cwd)
        monkeypatch.setattr(sys, "argv", ["prepare", *arguments])
        with flagsaver.flagsaver(), pytest.raises(SystemExit) as ended:
            cli.run(module.main, words=2)
        flags.FLAGS.unparse_flags()
        return Ended(ended.value.code, *capsys.readouterr())

    return run


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
    return subprocess.Popen(
        command, cwd=cwd, env=environment(), text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )


@pytest.mark.long
def test_killed_by_force_then_interrupted_and_run_again(tree, tmp_path, prepare):
    arguments = ["folder", "pets", f"--source_dir={tree}", "--data_dir=data", f"--size={SIZE}"]
    arguments += ["--per_shard=3"]
    (tmp_path / "whole").mkdir()
    run = prepare(*arguments, "--processes=1", cwd=tmp_path / "whole")
    assert run.returncode == 0, run.stderr
    assert "120/120 images" in run.stdout and "no split but 'train': 12 images are held out" in run.stdout
    result = Path("data") / "pets" / str(SIZE) / "1.0.0"

    killed = tmp_path / "killed"
    killed.mkdir()
    process = start(*arguments, "--processes=2", cwd=killed)
    summaries = killed / result.parent / ".incomplete-1.0.0" / "summaries"
    wait_until(lambda: len(list(summaries.glob("*.npz"))) >= 3, process)
    workers = children(process.pid)
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=60)  # workers that lived on would keep the pipes open
    assert workers and not (killed / result).exists()
    wait_until(lambda: all(map(is_gone, workers)))

    process = start(*arguments, "--processes=2", cwd=killed)
    kept = len(list(summaries.glob("*.npz")))
    wait_until(lambda: len(list(summaries.glob("*.npz"))) >= kept + 2, process)
    process.send_signal(signal.SIGINT)
    output = process.communicate(timeout=60)
    assert process.returncode == 130 and "interrupted; the same command resumes" in output[1], output

    again = prepare(*arguments, "--processes=1", cwd=killed)
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
    assert module.name_of(*words) == name


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "which data set? Known: imagenet2012, imagenet2010, fashion_mnist, folder NAME, tfds NAME"),
        (["imagenet"], "'imagenet' cannot be prepared; known: imagenet2012"),
        (["folder"], "folder needs a name"),
        (["folder", "My Set"], "'My Set' is no name for a data set"),
        (["imagenet2012"], "--source_dir is missing; name the folder that holds the images of imagenet2012"),
        (["imagenet2012", "--source_dir=/nowhere"], "/nowhere/ILSVRC2012_img_train.tar is missing; image-net.org has"),
        (["imagenet2012", "--source_dir=/nowhere"], "; --source_dir names the folder of the source"),
        (["imagenet2012", "--source_dir=~/nowhere"], "error: /home/user/nowhere/ILSVRC2012_img_train.tar is missing"),
        (["fashion_mnist", "--source_dir=~"], "error: /home/user/train-images-idx3-ubyte.gz is missing"),
        (["folder", "pets", "--source_dir=~"], "error: /home/user cannot be read: No such file or directory"),
        (["tfds", "mnistt", "--data_dir=data"], "TFDS cannot open 'mnistt'"),
        (["tfds", "mnistt"], "--source_dir names a folder of TFDS that holds the data set"),
        (["folder", "pets", "extra"], "'extra' is not a flag"),
        (["folder", "pets", "--data_dir=gs://bucket/data"], "not on this machine; prepare in one that is, and copy"),
        (["folder", "pets", "--encoding=png"], "encoding"),
        (["elpv/999"], "elpv/999: the photographs of ELPV have 300x300 pixels; ask for a size from 8 to 300"),
        (["elpv", "--size=512"], "elpv/512: the photographs of ELPV have 300x300 pixels"),
        (["elpv/64", "--size=128"], "elpv/64 has 64 pixels and --size is 128; leave out one of the two"),
        (["elpv/64_raw", "--encoding=jpeg"], "elpv/64_raw is raw and --encoding is jpeg; leave one out"),
        (["folder", "elpv", "--source_dir=broken"], "'elpv' is the name of the photographs that come with"),
        (["elpv/64", "--source_dir=broken"], "elpv has no use for --source_dir, a flag of imagenet2012, "),
        (["folder", "pets", "--source_dir=broken", "--partial"], "folder has no use for --partial, a flag of imag"),
        (["fashion_mnist", "--source_dir=broken", "--held_out=0.2"], "no use for --held_out, a flag of folder; leave"),
        (["folder", "pets", "--source_dir=broken", "--held_out=nan"], "--held_out is nan and should be a share"),
        (["elpv/64", "mine"], "elpv takes no name; leave out 'mine'"),
        (
            ["folder", "pets", "--source_dir=broken", "--data_dir=./broken/"],
            "would be broken/pets/256/1.0.0, within --source_dir=broken, and be taken for images when the command",
        ),
        (
            ["folder", "pets", "--source_dir=.", "--data_dir=broken/out"],
            "/256/1.0.0, within --source_dir=., and be",
        ),
        (["elpv/64", "--data_dir=file"], "cannot be written: Not a directory; name another folder with --data_dir"),
        (["folder", "pets", "--source_dir=broken", "--processes=1"], "or leave them out with --on_error=skip"),
        (
            ["folder", "pets", "--source_dir=broken", "--max_pixels=50", "--processes=1"],
            "larger than --max_pixels=50 want a larger limit",
        ),
    ],
)
def test_mistakes_are_a_line_with_the_flag_that_helps(arguments, message, tmp_path, prepare, monkeypatch):
    monkeypatch.setenv("HOME", "/home/user")
    (tmp_path / "file").touch()
    for kind in ("a", "b"):
        (tmp_path / "broken/train" / kind).mkdir(parents=True)
        Image.new("RGB", (20, 20)).save(tmp_path / "broken/train" / kind / "whole.png")
        (tmp_path / "broken/train" / kind / "broken.jpg").touch()
    status, _, error = prepare(*arguments, cwd=tmp_path)
    assert status == 2
    assert error.startswith("error: ") and error.count("\n") == 1 and message in error


@pytest.mark.parametrize(
    ("columns", "line"),
    [
        (80, "[##########          ] 640,000/1,280,000 images  left 0:10  64,000 images/s"),
        (60, "640,000/1,280,000 images  left 0:10  64,000 images/s"),
        (30, "640,000/1,280,000 images  lef"),
    ],
)
def test_the_progress_line_fits_the_terminal(monkeypatch, capsys, columns: int, line: str):
    monkeypatch.setenv("COLUMNS", str(columns))
    now = iter((0.0, 10.0))
    monkeypatch.setattr(module.time, "monotonic", lambda: next(now))
    with monkeypatch.context() as patch:
        patch.setattr(module.sys.stdout, "isatty", lambda: True)
        progress = module.Progress()
    progress(640_000, 1_280_000)
    assert capsys.readouterr().out == f"\r{line:<{columns - 1}}"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no disk that is always full")
def test_a_full_disk_of_the_log_keeps_no_data_set_from_being_made(tree, tmp_path):
    words = ["folder", "pets", f"--source_dir={tree}", f"--data_dir={tmp_path}", f"--size={SIZE}", "--processes=1"]
    with open("/dev/full", "w") as full:
        run = subprocess.run(
            [sys.executable, "-m", "alexnet_jax.prepare", *words],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            env=environment(),
        )
    assert "pets/16 is ready in" in run.stderr and (tmp_path / "pets/16/1.0.0/prepared.json").exists()
    assert run.returncode == 2
    assert run.stderr.endswith("\nerror: standard output cannot be written: No space left on device\n")


def test_elpv_with_the_size_in_its_name_below_the_home_folder(tmp_path, prepare, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    arguments = ["elpv/8", "--data_dir=~/sets", "--encoding=raw", "--processes=1"]
    status, output, error = prepare(*arguments, cwd=tmp_path)
    folder = tmp_path / "sets/elpv/8_raw/1.0.0"
    assert (status, error) == (0, "")
    assert output.startswith("2,624 images of 2 classes in train, test\n")
    assert output.endswith(f"elpv/8_raw is ready in {folder}\n")
    record = json.loads((folder / "prepared.json").read_text())
    assert record["command"].endswith("elpv/8 '--data_dir=~/sets' --encoding=raw --processes=1")
    assert record["splits"]["test"]["images"] == 654


def test_flags_reach_the_preparation(tmp_path, prepare):
    for kind in ("a", "b"):
        (tmp_path / "tree/train" / kind).mkdir(parents=True)
        for number in range(4):
            Image.new("RGB", (20, 20)).save(tmp_path / f"tree/train/{kind}/{number}.png")
        (tmp_path / f"tree/train/{kind}/broken.jpg").touch()
    words = ["folder", "pets", "--source_dir=tree", "--data_dir=data", "--size=8", "--processes=1"]
    status, out, err = prepare(*words, "--on_error=skip", "--held_out=0.4", cwd=tmp_path)
    assert status == 0, err
    assert "4 images are held out as 'validation'" in out and "left out 2 broken images" in out
