"""Files and folders that may not be read or written: one line with the reason, no advice to remove what is sound."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.conftest import ROOT
from tests.fuzz import Commands, Result, check

CONFIG = (f"--config={ROOT}/tests/configs/tiny.py", "--config.num_epochs=0.3")
# Root may read everything. Without these two rights root owns files as other users do.
BOUND = ["setpriv", "--bounding-set=-dac_override,-dac_read_search", "--inh-caps=-dac_override,-dac_read_search"]


@pytest.fixture(scope="module")
def commands() -> Iterator[Commands]:
    """Commands without root's rights on files."""
    within = BOUND if os.geteuid() == 0 else []
    if within and (shutil.which("setpriv") is None or subprocess.run([*within, "true"]).returncode):
        pytest.skip("root reads every file, and there is no `setpriv` (util-linux) that takes this right away")
    started = Commands({"JAX_NUM_CPU_DEVICES": "2"}, within=within)
    yield started
    started.close()


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory, data_dir: str, commands: Commands) -> Path:
    """`source`, a tree of images, `data`, a data set, and `run`, a run on it."""
    folder = tmp_path_factory.mktemp("places")
    for name in ("cwd", "home", "tmp"):
        (folder / name).mkdir()
    pixels = np.random.default_rng(0)
    for name in ("a", "b"):
        (folder / "source" / "train" / name).mkdir(parents=True)
        for number in range(3):
            image = Image.fromarray(pixels.integers(0, 256, (9, 9, 3), np.uint8))
            image.save(folder / "source" / "train" / name / f"{number}.png")
    (folder / "idx").mkdir()
    (folder / "idx" / "train-images-idx3-ubyte.gz").write_bytes(b"")
    shutil.copytree(data_dir, folder / "data")
    shutil.copy(ROOT / "tests/configs/tiny.py", folder / "mine.py")
    flags = (*CONFIG, f"--data_dir={folder}/data", f"--workdir={folder}/run")
    result = commands("main", *flags, folder=folder, trains=True)
    assert (result.status, result.err) == (0, "")
    return folder


TRAIN = ("main", *CONFIG, "--data_dir={}/data", "--workdir={}/run")
EVALUATE = ("evaluate", "--data_dir={}/data", "--workdir={}/run")
PREPARE = ("prepare", "folder", "mine", "--size=8", "--processes=1")
PREDICT = ("predict", "--workdir={}/run", "{}/source/train/a/1.png")
FEATURES = ("features", "--workdir={}/run", "{}/source/train", "--output={}/f.npz")
FIGURES = ("figures", "--workdir={}/run", "--data_dir={}/data", "--output={}/figures")
EXPORT = ("convert", "export", "--workdir={}/run", "--to={}/x.safetensors")
FROM = (*PREPARE, "--source_dir={}/source", "--data_dir={}/made")

CASES = [
    ("mine.py", ("main", "--config={}/mine.py", "--dry_run"), "--config names a file that cannot be read: [Errno 13]"),
    ("run", EVALUATE, "{}/run cannot be read: Permission denied; make it readable"),
    ("run", TRAIN, "{}/run cannot be written: [Errno 13] Permission denied: '{}/run/lock'; name another with"),
    ("run", (*TRAIN, "--workdir={}/run/below"), "{}/run/below cannot be written: [Errno 13] Permission denied"),
    ("run/config.json", EVALUATE, "{}/run/config.json cannot be read: Permission denied; make it readable"),
    ("run/config.json", TRAIN, "{}/run/config.json cannot be read: Permission denied; make it readable"),
    ("run/data.json", EVALUATE, "{}/run/data.json cannot be read: Permission denied; make it readable"),
    ("run/data.json", TRAIN, "{}/run/data.json cannot be read: Permission denied; make it readable"),
    ("run/lock", TRAIN, "{}/run cannot be written: [Errno 13] Permission denied: '{}/run/lock'; name another"),
    ("run/preprocessing.npz", EVALUATE, "{}/run/preprocessing.npz cannot be read: Permission denied; make it readable"),
    ("run/preprocessing.npz", PREDICT, "{}/run/preprocessing.npz cannot be read: Permission denied; make it readable"),
    ("run", PREDICT, "{}/run cannot be read: Permission denied; make it readable"),
    ("run", FEATURES, "{}/run cannot be read: Permission denied; make it readable"),
    ("run", FIGURES, "{}/run cannot be read: Permission denied; make it readable"),
    ("run", EXPORT, "{}/run cannot be read: Permission denied; make it readable"),
    ("run/checkpoints", PREDICT, "{}/run/checkpoints cannot be read: Permission denied; make it readable"),
    ("source/train/a/1.png", PREDICT, "{}/source/train/a/1.png cannot be read: Permission denied"),
    ("source/train", (*PREDICT[:2], "{}/source"), "there is no picture in {}/source"),
    ("source/train", FEATURES, "there is no picture in the folder {}/source/train"),
    ("idx", (*PREDICT, "--picture={}/idx/p.png"), "--picture={}/idx/p.png cannot be written: Permission denied"),
    ("idx", (*EVALUATE, "--predictions={}/idx/p.csv"), "--predictions={}/idx/p.csv cannot be written: Permission"),
    ("idx", (*FEATURES, "--output={}/idx/f.npz"), "--output={}/idx/f.npz cannot be written: Permission denied"),
    ("idx", (*FIGURES, "--output={}/idx"), "figures cannot be written to {}/idx: [Errno 13] Permission denied"),
    ("idx", (*EXPORT, "--to={}/idx/x.onnx"), "--to={}/idx/x.onnx cannot be written: Permission denied"),
    ("idx", ("evaluate", "--workdir={}/idx/run"), "{}/idx/run cannot be read: Permission denied; make it readable"),
    ("idx", (*TRAIN, "--workdir={}/new", "--config.init_from={}/idx/run"), "{}/idx/run/checkpoints cannot be read: "),
    ("idx", ("convert", "import", "{}/idx/x.pth", "--workdir={}/new"), "{}/idx/x.pth cannot be read: Permission"),
    ("run/checkpoints", EVALUATE, "{}/run/checkpoints cannot be read: Permission denied; make it readable"),
    ("run/checkpoints", TRAIN, "{}/run/checkpoints cannot be read: Permission denied; make it readable"),
    (
        "run/checkpoints",
        (*TRAIN, "--workdir={}/new", "--config.init_from={}/run"),
        "{}/run/checkpoints cannot be read: ",
    ),
    ("run/checkpoints/2", EVALUATE, "{}/run/checkpoints/2 is damaged: MANIFEST cannot be read (Permission denied)"),
    ("run/checkpoints/2/_CHECKPOINT_METADATA", EVALUATE, "_CHECKPOINT_METADATA cannot be read (Permission denied)"),
    ("source", FROM, "{}/source cannot be read: Permission denied; make the folder readable"),
    ("source/train", FROM, "{}/source/train cannot be read: Permission denied; make the folder readable"),
    ("source/train/a", FROM, "{}/source/train/a cannot be read: Permission denied; make the folder readable"),
    ("source/train/a/1.png", FROM, "1 image is broken: train/a/1.png (cannot be read: Permission denied)"),
    ("idx", (*FROM, "--data_dir={}/idx"), "{}/idx/mine/8/1.0.0 cannot be written: Permission denied; name another"),
    ("idx", (*FROM, "--data_dir={}/idx/x"), "{}/idx/x/mine/8/1.0.0 cannot be written: Permission denied; name another"),
    ("idx", ("prepare", "imagenet2012", "--source_dir={}/idx"), "{}/idx/ILSVRC2012_img_train.tar cannot be read: Perm"),
    ("data/elpv/64", TRAIN, "{}/data/elpv/64/.incomplete-1.0.0 cannot be written: Permission denied; name another"),
    ("data/elpv/64/1.0.0/statistics.npz", EVALUATE, "1.0.0/statistics.npz cannot be read: Permission denied; make it"),
    ("data/elpv/64/1.0.0/features.json", EVALUATE, "1.0.0/features.json cannot be read: Permission denied; make it"),
    (
        "data/elpv/64/1.0.0/elpv-test.array_record-00000-of-00001",
        EVALUATE,
        "1.0.0/elpv-test.array_record-00000-of-00001 cannot be read: Permission denied; make it readable",
    ),
    ("data/elpv/64/1.0.0", EVALUATE, "{}/data/elpv/64/1.0.0 cannot be read: Permission denied"),
    (
        "idx/train-images-idx3-ubyte.gz",
        ("prepare", "fashion_mnist", "--source_dir={}/idx", "--data_dir={}/made"),
        "{}/idx/train-images-idx3-ubyte.gz cannot be read: Permission denied",
    ),
]


@pytest.mark.parametrize(("locked", "command", "message"), CASES, ids=lambda value: str(value)[:30])
def test_a_path_that_may_not_be_read_is_one_line(
    commands: Commands, places: Path, locked: str, command: tuple[str, ...], message: str
):
    result = run_locked(commands, places, locked, command)
    assert result.status == 2, result
    check(result, command)
    assert message.format(*[places] * 3) in result.err
    assert "remove" not in result.err


def run_locked(commands: Commands, places: Path, locked: str, command: tuple[str, ...]) -> Result:
    mode = (places / locked).stat().st_mode
    (places / locked).chmod(0)
    try:
        module, *arguments = (word.replace("{}", str(places)) for word in command)
        return commands(module, *arguments, folder=places, trains=True)
    finally:
        (places / locked).chmod(mode)
