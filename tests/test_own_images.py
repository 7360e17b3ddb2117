"""The way of docs/your-own-images.md, whose commands are read from the page and run in a reduced form."""

import json
import os
import re
import shutil
import subprocess
import sys
import textwrap
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from tests.conftest import ROOT
from tests.fuzz import Commands, Result

PAGE = ROOT / "docs/your-own-images.md"
DRAW = ROOT / "docs/draw_pictures.py"


def blocks() -> list[list[str]]:
    """The commands of each block of the page."""
    found = re.findall(r"^( *)```sh\n(.*?)^\1```", PAGE.read_text(), re.DOTALL | re.MULTILINE)
    return [textwrap.dedent(text).splitlines() for _, text in found]


def reduced(command: str) -> str:
    """The command with fewer and smaller pictures, a narrower network and a shorter run."""
    if "draw_pictures.py" in command:
        command = re.sub(r"--count=\d+", "", command).replace('.py" ', '.py" --count=8 ')
    elif "alexnet_jax.prepare" in command:
        command = command.replace("--size=128", "--size=64")
    elif "alexnet_jax.main" in command:
        command += " --config.num_epochs=2 --config.network.width=0.03"
    return command


def test_the_page_installs_what_there_is():
    install = blocks()[0]
    assert 'pip install "${ALEXNET}[figures]"' in install
    assert "figures" in tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]


@pytest.mark.long
def test_every_command_of_the_page_runs_in_a_folder_of_its_own(tmp_path: Path):
    commands = [command for block in blocks()[1:] for command in block]
    modules = set(re.findall(r"alexnet_jax\.(\w+)", " ".join(commands)))
    assert modules == {"prepare", "main", "evaluate", "predict", "figures"}
    (tmp_path / "here").mkdir()
    environment = os.environ | {
        "ALEXNET": str(ROOT),
        "PYTHONPATH": str(ROOT),
        "TFDS_DATA_DIR": str(tmp_path / "data"),
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    }
    said = {}
    for command in commands:
        result = subprocess.run(
            ["bash", "-ec", reduced(command)],
            cwd=tmp_path / "here",
            env=environment,
            capture_output=True,
            text=True,
            timeout=300,
        )
        said[command] = result.stdout + result.stderr
        assert result.returncode == 0, f"{reduced(command)}\n{said[command]}"
        assert "Traceback" not in said[command] and "warning" not in said[command].lower(), said[command]
    results_are_there(tmp_path / "here", said)


def results_are_there(folder: Path, said: dict[str, str]) -> None:
    assert [len(list((folder / "shapes" / name).iterdir())) for name in ("circle", "cross", "triangle")] == [8, 8, 8]
    assert json.loads((folder / "runs/shapes/result.json").read_text())["count"] == 3
    config = json.loads((folder / "runs/few/config.json").read_text())["config"]
    assert (config["init_from"], config["fresh"]) == ("runs/shapes", ["fc8"])
    assert (folder / "runs/shapes4/checkpoints").is_dir()
    assert (folder / "unseen.csv").read_text().count("\n") == 25
    with Image.open(folder / "new.png") as image:
        assert image.width > 1000
    assert "<html" in (folder / "runs/shapes/figures/index.html").read_text()
    text = "\n".join(said.values())
    for line in (
        "no folder 'train': the 3 folders of shapes are used as the classes of 'train'",
        "no split but 'train': 3 images are held out as 'validation'",
        "there is no configs/own.py here; --config is the installed ",
        "pictures in folders named as a class are wrong",
        "new/circle/001.png  (folder: circle)\n",
    ):
        assert line in text
        shown = re.sub(r"\b3 images", "30 images", line).partition(" ~")[0]
        assert shown in PAGE.read_text(), f"the page does not show {shown!r}"


def draw(*arguments: object) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, DRAW, *map(str, arguments)], capture_output=True, text=True, timeout=60)


def test_the_same_seed_draws_the_same_pictures_and_another_seed_others(tmp_path: Path):
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        assert draw(tmp_path / name, "--count=2", f"--seed={seed}").returncode == 0
    first, same, other = ((tmp_path / name / "cross/002.png").read_bytes() for name in "abc")
    assert first == same != other
    assert len(list((tmp_path / "a").rglob("*.png"))) == 6


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--count=0"], "--count=0 is no number of pictures"),
        (["--classes", "blob"], "invalid choice: 'blob'"),
    ],
)
def test_what_cannot_be_drawn_is_one_line(tmp_path: Path, arguments: list[str], message: str):
    result = draw(tmp_path / "a", *arguments)
    assert result.returncode == 2 and message in result.stderr.splitlines()[-1]
    (tmp_path / "file").write_text("")
    result = draw(tmp_path / "file")
    assert result.returncode == 1 and result.stderr.startswith("error: ") and result.stderr.count("\n") == 1


@pytest.fixture
def dry_run(commands: Commands) -> Callable[..., Result]:
    def run(folder: Path, *arguments: str) -> Result:
        return commands.whole("main", *arguments, "--dry_run", folder=folder)

    return run


def test_an_installed_config_is_found_from_every_folder_and_a_users_file_comes_first(dry_run: Callable, tmp_path: Path):
    found = dry_run(tmp_path, "--config=configs/cifar10.py:relu")
    assert found.status == 0
    line = f"there is no configs/cifar10.py here; --config is the installed {ROOT}/configs/cifar10.py\n"
    assert found.err == line
    separate = dry_run(tmp_path, "--config", "configs/cifar10.py:relu")
    assert (separate.out, separate.err) == (found.out, line)
    (tmp_path / "configs").mkdir()
    text = "from alexnet_jax.configs import default\n\n\ndef get_config():\n    return default.get_config()\n"
    (tmp_path / "configs/cifar10.py").write_text(text)
    mine = dry_run(tmp_path, "--config=configs/cifar10.py")
    assert mine.out.startswith("elpv: ") and mine.err == ""
    missing = dry_run(tmp_path, "--config=configs/cifar100.py")
    assert missing.status == 2 and "'configs/cifar100.py'" in missing.err


def test_a_dry_run_reads_init_from_where_the_run_would(dry_run: Callable, tmp_path: Path):
    flags = ("--config=configs/default.py", "--config.init_from=nothing", f"--workdir={tmp_path}/run")
    refused = dry_run(tmp_path, *flags)
    assert (refused.status, refused.err.count("\n")) == (2, 2)
    assert "config.init_from is 'nothing', and there are no checkpoints" in refused.err
    (tmp_path / "run/checkpoints/1").mkdir(parents=True)
    assert dry_run(tmp_path, *flags).status == 0  # the run resumes


def test_a_dry_run_of_a_run_has_the_form_that_it_began_with(dry_run: Callable, tmp_path: Path, data_dir: str):
    for size in ("64", "32"):
        shutil.copytree(Path(data_dir, "elpv/64"), tmp_path / "data/shapes" / size)
    flags = ("--config=configs/own.py:shapes", f"--data_dir={tmp_path}/data", f"--workdir={tmp_path}/run")
    refused = dry_run(tmp_path, *flags)
    assert refused.status == 2 and "has several forms; name one: shapes/32, shapes/64" in refused.err
    (tmp_path / "run/checkpoints/1").mkdir(parents=True)
    (tmp_path / "run/data.json").write_text('{"name": "shapes/64/1.0.0"}')
    resumed = dry_run(tmp_path, *flags)
    assert resumed.status == 0, resumed.err
