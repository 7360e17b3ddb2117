"""Runs on a user's images: what follows from the data set, and what a workdir remembers of it."""

import json
from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np
import pytest
from PIL import Image

from alexnet_jax.configs import default, own
from alexnet_jax.data.dataset import open_dataset
from alexnet_jax.data.preparing import make
from alexnet_jax.data.preparing.sources.folder import folder
from alexnet_jax.errors import UsageError
from alexnet_jax.experiment.data import small_crops
from alexnet_jax.hints import hints
from alexnet_jax.train import train_and_evaluate

pytestmark = pytest.mark.long

SMALL = {"network.width": 0.03, "batch_size": 8, "num_epochs": 1.0, "evaluate_every": 9.0}


def draw(root: Path, classes: tuple[str, ...], *, shade: int = 0) -> None:
    rng = np.random.default_rng(shade)
    for split, count in (("train", 8), ("validation", 3), ("test", 2)):
        for label, name in enumerate(classes):
            (root / split / name).mkdir(parents=True)
            for number in range(count):
                pixels = rng.integers(0, 100, (64, 64, 3), np.uint8) + np.uint8(60 * label + shade)
                Image.fromarray(pixels).save(root / split / name / f"{number}.png")


def prepare(root: Path, data_dir: Path, *, name: str = "pets", size: int = 64) -> None:
    make.prepare(
        folder(name, str(root), held_out=0.1, say=lambda line: None),
        make.Options(size=size),
        str(data_dir),
        record={"command": f"python -m alexnet_jax.prepare folder {name} --source_dir={root} --size={size}"},
        progress=lambda done, todo: None,
    )


@pytest.fixture(scope="module")
def pets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of data sets: `pets` with two classes, and data sets that differ from it."""
    place = tmp_path_factory.mktemp("users")
    draw(place / "pets", ("cat", "dog"))
    draw(place / "renamed", ("cat", "ant"))
    draw(place / "others", ("cat", "dog"), shade=1)
    for other in ("data", "renamed-data", "others-data"):
        prepare(place / {"data": "pets"}.get(other, other.partition("-")[0]), place / other)
    prepare(place / "others", place / "data", name="others")
    prepare(place / "renamed", place / "data", name="renamed")
    return place


def config_of(made, **changes):
    made.update_from_flattened_dict(SMALL | changes)
    return made


@pytest.fixture(scope="module")
def run(pets: Path) -> Path:
    """The workdir of a run on `pets`, whose config names the data set alone."""
    config = config_of(default.get_config(), **{"dataset.name": "pets", "dataset.crop_size": 56})
    train_and_evaluate(config, str(pets / "run"), str(pets / "data"))
    return pets / "run"


def test_a_name_is_enough(run: Path, pets: Path):
    config = json.loads((run / "config.json").read_text())["config"]
    assert (config["name"], config["dataset"]["train_split"], config["dataset"]["eval_split"]) == (
        "pets",
        "train",
        "validation",
    )
    assert (config["dataset"]["classes"], config["dataset"]["train_images"]) == (2, 16)
    assert json.loads((run / "data.json").read_text())["classes"] == ["cat", "dog"]


def test_the_config_for_users_images_takes_the_crop_from_the_data(pets: Path, tmp_path: Path, capsys):
    train_and_evaluate(config_of(own.get_config("pets")), str(tmp_path), str(pets / "data"))
    config = json.loads((tmp_path / "config.json").read_text())["config"]
    assert (config["name"], config["dataset"]["crop_size"]) == ("pets", 56)
    output = capsys.readouterr().out
    assert output.startswith("pets: 2 updates of 8 images of pets, ")
    assert "crops of" not in output
    with pytest.raises(UsageError, match=r"needs the name of a prepared data set: --config=configs/own\.py:NAME"):
        own.get_config()


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ("renamed-data", "class 0 is 'cat' there and 'ant' here"),
        ("others-data", "the training images differ"),
    ],
)
def test_other_data_are_refused(run: Path, pets: Path, data: str, message: str):
    config = config_of(default.get_config(), **{"dataset.name": "pets", "dataset.crop_size": 56})
    with pytest.raises(UsageError, match=f"{message}.*; prepare that run's data set again, name another --w"), hints():
        train_and_evaluate(config, str(run), str(pets / data))


def test_evaluation_on_any_split_and_data_set(run: Path, pets: Path, forked):
    def evaluate(*flags: str, data: str = "data") -> tuple[int, str, str]:
        status, out, err = forked("evaluate", f"--workdir={run}", f"--data_dir={pets / data}", *flags)
        return status, out, err.splitlines()[-1]

    started = [
        evaluate("--split=test", "--json"),
        evaluate("--split=train[:3]+test", "--dataset=others"),
        evaluate("--split=tset"),
        evaluate("--dataset=renamed"),
        evaluate(data="renamed-data"),
    ]
    found = json.loads(started[0][1])
    assert (found["dataset"], found["split"], found["count"]) == ("pets/64", "test", 4)
    assert started[1][1].endswith("  7 images of others train[:3]+test\n")
    for (status, out, err), message in zip(
        started[2:],
        (
            "has no split 'tset'; it has ",
            "renamed has other classes than the run's data set: class 0 is 'ant' and was 'cat'; name a data",
            "has other data than the data set here: class 0 is 'cat' there and 'ant' here; prepare that run's data",
        ),
        strict=True,
    ):
        assert (status, out) == (2, "") and message in err


@pytest.mark.parametrize(("crop", "share"), [(32, "25%"), (37, "33%"), (38, None), (56, None)])
def test_small_crops_are_named_with_the_command_that_mends_them(pets: Path, crop: int, share: str | None):
    """Less than two thirds of 224 / 256 of the side."""
    line = small_crops(open_dataset("pets", str(pets / "data")), "pets", crop)
    assert (line is None) == (share is None)
    if line is not None and share is not None:
        wanted = round(crop * 256 / 224)
        assert f"crops of {crop} pixels see {share} of the area of stored images of 64" in line
        assert f"prepare folder pets --source_dir={pets}/pets --size={wanted}` and" in line
        assert f"--config.dataset.name=pets/{wanted} store smaller images, or --config.dataset.crop_size=56" in line


def test_a_finished_run_goes_on_with_more_epochs(tiny_config: Callable, data_dir: str, tmp_path: Path, capsys):
    """To the bit as the longer run, where the past is the same."""
    short = {"schedule": "epochs"}
    train_and_evaluate(tiny_config(num_epochs=1.0, **short), str(tmp_path / "grown"), data_dir)
    grown = train_and_evaluate(tiny_config(num_epochs=2.0, **short), str(tmp_path / "grown"), data_dir)
    whole = train_and_evaluate(tiny_config(num_epochs=2.0, **short), str(tmp_path / "whole"), data_dir)
    assert "resuming after update 6" in capsys.readouterr().out
    assert json.loads((tmp_path / "grown/result.json").read_text()) == json.loads(
        (tmp_path / "whole/result.json").read_text()
    )
    for one, other in zip(jax.tree.leaves(grown), jax.tree.leaves(whole), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("changes", [{"schedule": "cosine"}, {"schedule": "epochs", "num_epochs": 0.2}])
def test_a_run_whose_past_would_change_shows_the_way(tiny_config: Callable, data_dir: str, tmp_path: Path, changes):
    """More epochs of a cosine, and fewer epochs."""
    train_and_evaluate(tiny_config(**changes | {"num_epochs": 0.4}), str(tmp_path), data_dir)
    advice = rf"name another --workdir; --config.init_from={tmp_path} starts from that run's parameters. A run resumes"
    with (
        pytest.raises(UsageError, match=rf"num_epochs \(0.4 there, 0.[26] here\); {advice} here with more epochs"),
        hints(),
    ):
        train_and_evaluate(tiny_config(**{"num_epochs": 0.6, **changes}), str(tmp_path), data_dir)


@pytest.mark.parametrize("config", ["imagenet2012", "default"])
def test_none_and_plain_numbers_on_the_command_line(config: str, command):
    """For every field that may be None, whatever its default is, and for every table."""
    fields = ["name", "clip_norm", "lars_trust", "init_from", "mesh.data", "mesh.tower"]
    fields += [f"dataset.{name}" for name in ("train_split", "eval_split", "classes", "train_images", "crop_size")]
    fields += ["dataset.on_device", "dataset.workers", "evaluate_every", "save_every"]
    fields += ["num_epochs"] if config == "default" else []  # the rates of 2012 change after more epochs than ELPV gets
    flags = [f"--config.{field}=None" for field in fields] + ["--config.photometry.noise=0.2"]
    run = command("main", f"--config=configs/{config}.py", "--config.dataset.name=elpv/128", *flags, "--dry_run")
    status, out, err = run.finish()
    assert (status, err) == (0, "")
    recipe = "no_dropout" if config == "default" else "original"
    assert out.startswith(f"elpv: recipe {recipe}, 2 towers, elpv/128 (2 classes, 1,970 training images)")
    assert "112x112x3" in out and "colour noise: 0.2 from update 0" in out
