"""Fields of the config that follow from the data set."""

import dataclasses
import shutil
from collections.abc import Callable
from pathlib import Path
from unittest.mock import Mock

import pytest

from alexnet_jax.configs import own
from alexnet_jax.data.dataset import Dataset, count_examples, open_dataset
from alexnet_jax.data.errors import DatasetError
from alexnet_jax.data.preparing.sources import elpv
from alexnet_jax.errors import UsageError
from alexnet_jax.experiment import follow
from alexnet_jax.experiment.settings import read_settings

NONE = dict.fromkeys(["dataset.train_split", "dataset.eval_split", "dataset.crop_size"])


def followed(tiny_config: Callable, examples: dict[str, int], **changes: object):
    settings = read_settings(tiny_config(**NONE | {f"dataset.{key}": value for key, value in changes.items()}))
    return follow.follow(settings, follow.Facts(3, examples, 160)).dataset


@pytest.mark.parametrize(
    ("splits", "expected"),
    [
        (["train", "test"], ("train", "test")),
        (["train", "validation"], ("train", "validation")),
        (["test", "train", "validation"], ("train", "validation")),
        (["training", "testing", "val"], ("training", "val")),
        (["train", "holdout"], ("train", "holdout")),
        *((["train", "test", name], ("train", name)) for name in ("dev", "valid", "val")),
    ],
)
def test_splits_crop_and_counts_follow(tiny_config: Callable, splits: list[str], expected: tuple[str, str]):
    data = followed(tiny_config, dict.fromkeys(splits, 40))
    assert (data.train_split, data.eval_split) == expected
    assert (data.crop_size, data.classes, data.train_images) == (140, 3, 40)


@pytest.mark.parametrize("train", ["train+validation", "validation+train", "train[:90%] + validation"])
def test_a_split_of_which_a_part_is_trained_on_is_no_test(tiny_config: Callable, train: str):
    three = dict.fromkeys(["train", "validation", "test"], 40)
    assert followed(tiny_config, three, train_split=train).eval_split == "test"
    with pytest.raises(UsageError, match="eval_split is None, and elpv/64 has the splits train, validation; name one"):
        followed(tiny_config, dict.fromkeys(["train", "validation"], 40), train_split=train)


def test_a_dry_run_needs_no_data_and_refuses_what_the_run_would(data_dir: str, tmp_path: Path):
    name = "elpv/64"
    assert follow.prepared("other", data_dir) is None
    assert isinstance(follow.prepared(name, data_dir), Dataset)
    shutil.copytree(Path(data_dir, name), tmp_path / "data" / name)
    folder = tmp_path / "data" / name / "1.0.0"
    (folder / "features.json").unlink()
    with pytest.raises(DatasetError, match=r"features\.json is missing"):
        follow.prepared(name, str(tmp_path / "data"))
    shutil.copytree(Path(data_dir, name), tmp_path / "data/elpv/32")
    with pytest.raises(DatasetError, match="has several forms; name one: elpv/32, elpv/64"):
        follow.prepared("elpv", str(tmp_path / "data"))


def test_another_data_set_has_its_own_splits(tiny_config: Callable, data_dir: str):
    settings = read_settings(tiny_config(**{"dataset.train_split": "train[:90%]", "dataset.eval_split": "train[90%:]"}))
    data = open_dataset("elpv/64", data_dir)
    for name, splits in (("elpv/64", ("train[:90%]", "train[90%:]")), ("other", ("train[:90%]", "train[90%:]"))):
        found = follow.on_data(settings, data, name).dataset
        assert (found.name, found.train_split, found.eval_split) == (name, *splits)
    here = dataclasses.replace(settings, dataset=dataclasses.replace(settings.dataset, name="pets"))
    found = follow.on_data(here, data, "elpv/64")
    assert (found.dataset.train_split, found.dataset.eval_split) == (None, None)
    assert follow.evaluation_split(found, data) == "test"


@pytest.mark.parametrize(
    ("splits", "expected"),
    [
        ({"test": 9}, "test"),
        ({"a": 9}, "a"),
        ({"train": 40, "val": 0, "test": 9}, "test"),
        ({"training": 40, "b": 3}, "b"),
        ({"train": 40}, None),
    ],
)
def test_a_data_set_to_evaluate_on_needs_no_training_split(tiny_config: Callable, splits: dict, expected: str | None):
    settings = read_settings(tiny_config(**NONE))
    data = Mock(Dataset, examples=splits)
    if expected is not None:
        assert follow.evaluation_split(settings, data) == expected
    else:
        with pytest.raises(UsageError, match="elpv/64 has no split but the training split; name the images") as error:
            follow.evaluation_split(settings, data)
        assert error.value.option == "split=train"


def test_the_number_of_training_images_is_that_of_the_data_set(tiny_config: Callable):
    config = tiny_config(**{"dataset.train_split": "train[:10%]", "dataset.train_images": 1_281_167})
    settings = follow.follow(read_settings(config), follow.Facts(2, {"train": 330, "test": 9}, 160))
    assert settings.dataset.train_images == 33


def test_what_the_config_says_stays(tiny_config: Callable):
    data = followed(tiny_config, {"train": 40, "test": 9}, eval_split="train[:10%]", crop_size=100, train_split="test")
    assert (data.train_split, data.eval_split, data.crop_size, data.train_images) == ("test", "train[:10%]", 100, 9)


@pytest.mark.parametrize(
    ("splits", "message"),
    [
        (["a", "b"], "config.dataset.train_split is None, and elpv/64 has the splits a, b; name one, or parts of one"),
        (
            ["train"],
            r"eval_split is None, and elpv/64 has the splits train; name one, or parts of one for training and"
            r" evaluation, such as config.dataset.train_split='train\[10%:\]' and"
            r" config.dataset.eval_split='train\[:10%\]'$",
        ),
    ],
)
def test_splits_that_cannot_follow(tiny_config: Callable, splits: list[str], message: str):
    with pytest.raises(UsageError, match=message):
        followed(tiny_config, dict.fromkeys(splits, 40))


@pytest.mark.parametrize(
    ("train", "evaluation", "shared"),
    [
        ("train", "test", 0),
        ("train[10%:]", "train[:10%]", 0),
        ("train", "train[:10%]", 4),
        ("test+train[:20]", "train[15:25]+test[8:]", 6),
    ],
)
def test_evaluation_images_that_are_training_images_are_a_warning(
    tiny_config: Callable, train: str, evaluation: str, shared: int
):
    facts = follow.Facts(3, {"train": 40, "test": 9}, 160)

    def check(schedule: str) -> str | None:
        splits = {"dataset.train_split": train, "dataset.eval_split": evaluation}
        return follow.check_held_out(
            follow.follow(read_settings(tiny_config(schedule=schedule, **splits)), facts), facts
        )

    found = check("run")
    if not shared:
        assert found is None and check("plateau") is None
        return
    assert found and found.startswith(
        f"warning: {shared} of the {count_examples(evaluation, facts.examples)} images of config.dataset.eva"
    )
    assert f"[10%:]' and config.dataset.eval_split='{train.partition('+')[0]}[:10%]'" in found
    with pytest.raises(UsageError, match=f"'plateau' needs a validation set, and {shared} of the"):
        check("plateau")


def test_facts_that_are_known_without_the_data(data_dir: str):
    assert follow.known_facts("elpv/64") == follow.facts_of(open_dataset("elpv/64", data_dir))
    assert follow.known_facts("flowers") is None
    assert follow.known_facts("elpv/64_raw") == follow.known_facts("elpv/64")
    assert elpv.CLASSES == ["functional", "defective"]


def test_counts_of_parts(data_dir: str):
    facts = follow.facts_of(open_dataset("elpv/64", data_dir))
    for split in ("train", "train[:10%]", "train[25%:]", "train[100:200]", "train+test", "train[:3]+test[-2:]"):
        assert count_examples(split, facts.examples) == len(open_dataset("elpv/64", data_dir).split(split)), split
    with pytest.raises(UsageError, match="there is no split 'trian'; there are train, test, and parts such as"):
        count_examples("trian", facts.examples)


@pytest.mark.parametrize(
    ("images", "epochs"), [(54, 272), (270, 122), (1970, 45), (40_000, 10), (54_000, 10), (1_200_000, 10)]
)
def test_epochs_follow_from_the_number_of_training_images(images: int, epochs: int):
    config = own.get_config("elpv/64")
    settings = follow.follow(read_settings(config), follow.Facts(2, {"train": images, "test": 9}, 160))
    assert (settings.num_epochs, settings.evaluate_every, settings.save_every) == (epochs, epochs / 10, epochs / 10)


def test_epochs_that_the_config_says_stay(tiny_config: Callable):
    config = tiny_config(**{**NONE, "num_epochs": 7.0, "evaluate_every": None, "save_every": 2.0})
    settings = follow.follow(read_settings(config), follow.Facts(2, {"train": 40, "test": 9}, 160))
    assert (settings.num_epochs, settings.evaluate_every, settings.save_every) == (7, 0.7, 2)


def test_a_warm_up_longer_than_the_epochs_that_follow_is_refused(tiny_config: Callable):
    config = tiny_config(**{**NONE, "num_epochs": None, "warmup_epochs": 50.0})
    settings = read_settings(config)
    follow.follow(settings, follow.Facts(2, {"train": 40, "test": 9}, 160))
    with pytest.raises(UsageError, match=r"warmup_epochs is 50\.0 and must be at least 0 and less than 45"):
        follow.follow(settings, follow.Facts(2, {"train": 1970, "test": 9}, 160))
