"""Model cards: what a run leaves, what hubs read, what a user's edits do; and the differences from 2012."""

import dataclasses
import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import pytest
import yaml
from etils import epath

import alexnet_jax
from alexnet_jax import train
from alexnet_jax.configs import imagenet2012
from alexnet_jax.experiment import build
from alexnet_jax.experiment.build import Experiment
from alexnet_jax.experiment.settings import read_settings
from alexnet_jax.model_card import card, differences, run_card
from alexnet_jax.model_card.card import Card, Errors
from alexnet_jax.model_card.differences import Difference
from alexnet_jax.network.recipes import RECIPES
from alexnet_jax.network.tower import Tower

CARD = Card(
    title='AlexNet: "a|b" `c`',
    summary="A network <b>of</b> [names].",
    license="CC BY-NC-SA 4.0",
    class_names=("sea_lion", "n01440764", "a|b"),
    data={"data set": "pets|x"},
    errors=(Errors("pets/64", "test", 10, 400, 0.1, 0.02, 0.3), Errors("pets/64", "test", 1, 400, 0.2)),
    differences=[Difference("batch_size", "32", "128")],
    limits=["None *known*."],
    versions={"jax": "0.10"},
)


def front_matter(text: str) -> dict[str, Any]:
    return yaml.safe_load(text.split("---\n")[1])


def table(text: str, title: str) -> list[list[str]]:
    lines = text.partition(f"## {title}\n")[2].partition("\n## ")[0].splitlines()
    return [re.split(r" ?(?<!\\)\| ?", line)[1:-1] for line in lines if line.startswith("|")]


def test_hubs_read_licence_tags_and_accuracies():
    found = front_matter(card.render(CARD, "run"))
    assert (found["license"], found["library_name"]) == ("cc-by-nc-sa-4.0", "alexnet_jax")
    assert found["pipeline_tag"] == "image-classification" and "jax" in found["tags"]
    (index,) = found["model-index"]
    assert index["name"] == CARD.title
    ten, one = index["results"]
    assert ten["dataset"] == {"name": "pets/64", "type": "pets", "split": "test"}
    assert [(metric["type"], metric["value"]) for metric in ten["metrics"]] == [("accuracy", 0.9), ("accuracy", 0.98)]
    assert [(metric["name"], metric["value"]) for metric in one["metrics"]] == [("top-1 accuracy, centre crop", 0.8)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", {"license": "unknown"}),
        ("MIT", {"license": "mit"}),
        ("CC BY 4.0", {"license": "cc-by-4.0"}),
        ("ask: the owner!", {"license": "other", "license_name": "ask-the-owner"}),
    ],
)
def test_licences_have_the_names_of_hubs(text: str, expected: dict[str, str]):
    rendered = card.render(dataclasses.replace(CARD, license=text), "run")
    assert {key: value for key, value in front_matter(rendered).items() if "license" in key} == expected
    assert [row[1] for row in table(rendered, "Data") if row[0] == "licence of the images"] == [text or "not recorded"]


@pytest.mark.parametrize(("count", "bound"), [(30, "9.5%"), (1, "95%"), (10_000, "0.03%")])
def test_no_error_among_a_few_images_is_no_rate_of_zero(count, bound):
    row = Errors("pets/64", "test", 1, count, 0.0, None, 0.1)
    text = card.render(dataclasses.replace(CARD, errors=(row,)), "run")
    assert f"No error among {count:,} images leaves room for an error rate of up to {bound} (95%" in text
    assert "standard error" not in text
    text = card.render(dataclasses.replace(CARD, errors=(dataclasses.replace(row, top1=1.0),)), "run")
    least = f"{100 - float(bound.rstrip('%')):.3g}%"
    assert f"Errors alone among {count:,} images leave room for a rate from {least} on (95%" in text
    assert "standard error" not in text


def test_a_card_shows_names_as_they_are():
    text = card.render(CARD, "my run's")
    assert table(text, "Errors")[2:] == [
        ["pets/64", "test", "400", "10 views", "10.00%", "2.00%", "0.3000"],
        ["pets/64", "test", "400", "centre crop", "20.00%", "", ""],
    ]
    assert "standard error of about 1.5 points" in text
    assert table(text, "Data")[2] == ["data set", r"pets\|x"]
    assert r"sea\_lion, tench (n01440764), a\|b." in text
    assert r"A network \<b\>of\</b\> \[names\]." in text
    assert "--workdir='my run'\"'\"'s' photo.jpg" in text, "a shell and Python read the name"
    assert """alexnet_jax.load("my run's")""" in text


def test_a_network_without_classifier_and_facts_has_a_card():
    text = card.render(Card("Convolutions", "Imported."), "run")
    assert "pipeline_tag" not in front_matter(text) and "model-index" not in front_matter(text)
    assert "no classifier" in text and "Not measured." in text and "## Training" not in text
    assert "predict" not in text and "--layer=conv5" in text
    same = card.render(dataclasses.replace(CARD, differences=()), "run")
    assert (
        "Nothing on record but the order: this is the training of net 145" in same and "one order of the images" in same
    )


@pytest.mark.parametrize("name", ["plain", "édité", "a'b c"])
def test_a_card_of_ours_is_replaced_and_an_edited_one_stays(tmp_path: Path, name: str):
    folder, said = epath.Path(tmp_path / name), []
    folder.mkdir()
    file, new = folder / "MODEL_CARD.md", folder / "MODEL_CARD.new.md"
    card.write(folder, CARD, say=said.append)
    card.write(folder, dataclasses.replace(CARD, summary="Second."), say=said.append)
    assert "Second." in file.read_text() and not new.exists() and said == []

    edited = file.read_text().replace("Second.", "Mine.")
    file.write_text(edited)
    card.write(folder, dataclasses.replace(CARD, summary="Third."), say=said.append)
    assert file.read_text() == edited and "Third." in new.read_text()
    assert said == [f"{file} has been edited and stays; the new model card is MODEL_CARD.new.md beside it"]
    both = new.read_text().replace("Third.", "Mine, too.")
    new.write_text(both)
    card.write(folder, CARD, say=said.append)
    assert (file.read_text(), new.read_text()) == (edited, both)
    assert said[1:] == [f"{file} and MODEL_CARD.new.md have been edited and stay; no model card is written"]
    file.unlink()
    card.write(folder, CARD, say=said.append)
    assert not card.is_edited(file) and len(said) == 2


@pytest.mark.parametrize("content", [b"", b"# mine", b"\xff\xfe", b"<!-- Written by alexnet_jax. -->"])
def test_a_file_of_the_user_is_an_edited_card(tmp_path: Path, content: bytes):
    file = epath.Path(tmp_path / "MODEL_CARD.md")
    file.write_bytes(content)
    assert card.is_edited(file)
    file.unlink()
    os.mkfifo(file)  # whose read would wait for ever
    assert card.is_edited(file)


def test_a_card_that_cannot_be_written_is_a_warning(tmp_path: Path):
    said: list[str] = []
    (tmp_path / "MODEL_CARD.md").mkdir()
    (tmp_path / "MODEL_CARD.new.md").mkdir()
    card.write(epath.Path(tmp_path), CARD, say=said.append)
    assert len(said) == 1 and said[0].startswith("warning: the model card cannot be written: ")


@pytest.fixture
def run(tiny_run: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_run, tmp_path / "run"))


def test_a_finished_run_has_a_card_with_its_facts(run: Path):
    text = (run / "MODEL_CARD.md").read_text()
    result = json.loads((run / "result.json").read_text())
    assert [row[2:] for row in table(text, "Errors")[2:]] == [
        ["50", views, f"{result[f'top1_{n}_views']:.2%}", f"{result[f'loss_{n}_views']:.4f}"]
        for n, views in ((1, "centre crop"), (10, "10 views"))
    ]
    data = dict(table(text, "Data")[2:])
    assert data["input of the network"] == (
        "crops of 56 x 56 pixels, values 0 to 255, minus the mean of the training images, divided by the standard"
        " deviation of the pixels"
    )
    assert data["licence of the images"] == "CC BY-NC-SA 4.0" and data["training images"] == r"197 (train\[:10%\])"
    training = dict(table(text, "Training")[2:])
    assert training["updates"] == "3, of 32 images" and "of JAX" in training["machine"]
    assert "images a second" in training["time"]
    assert data["evaluation images"] == r"50 (test\[:50\])" and data["stored images"].startswith("64 x 64 pixels")
    assert (training["epochs"], training["seed"]) == ("0.5", "0")
    limits = text.partition("## Limits\n")[2].partition("\n## ")[0]
    assert "* 197 training images are few for this network." in limits
    assert "* The licence of the images is CC BY-NC-SA 4.0." in limits and "is not recorded" not in limits
    different = {row[0]: row[1:] for row in table(text, "What differs from 2012")[2:]}
    assert different["images an update"] == ["32", "128"] and "momentum" not in different
    assert str(run.parent) not in text, "no path of this machine"
    assert front_matter(text)["license"] == "cc-by-nc-sa-4.0"


def text_of(run: Path, experiment: Experiment) -> str:
    """The card of an experiment, with the result of another one."""
    result = json.loads((run / "result.json").read_text())
    return card.render(run_card.card_of(epath.Path(run), experiment, result, trained_here=True), "run")


def test_the_card_of_crops_that_are_standardized_one_by_one_says_so(run: Path, data_dir: str, tiny_config: Callable):
    experiment = build.build(read_settings(tiny_config(**{"photometry.each_image": True})), data_dir, say=print)
    data = dict(table(text_of(run, experiment), "Data")[2:])
    assert data["input of the network"].endswith("minus its own mean, divided by its own standard deviation plus 4")


def test_the_card_says_that_evaluation_images_were_trained_on(run: Path, data_dir: str, tiny_config: Callable):
    said: list[str] = []
    config = tiny_config(**{"dataset.eval_split": "train[5%:10%]+test[:50]"})
    experiment = build.build(read_settings(config), data_dir, say=said.append)
    assert [line[:57] for line in said] == ["warning: 99 of the 149 images of config.dataset.eval_spli"]
    assert "* 99 of the 149 evaluation images are training images too." in text_of(run, experiment)


def test_the_card_has_the_time_of_all_updates_and_the_versions_of_the_run(
    run: Path, data_dir: str, tiny_config: Callable
):
    lines = {"step": 1, "train/loss": 1.0}, {"step": 3, "train/loss": 1.0, "train/images_per_second": 0.64}
    (run / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    text = text_of(run, build.build(read_settings(tiny_config(num_epochs=0.5)), data_dir, say=print))
    # Two updates of 32 images at 0.64 images a second take 100 s, and three 150 s.
    assert dict(table(text, "Training")[2:])["time"].startswith("2:30 for the updates, at 1 images a second;")
    assert "trained from random initial values" in text
    assert f"alexnet\\_jax {alexnet_jax.__version__} " in text.partition("## Versions")[2]
    config = json.loads((run / "config.json").read_text())
    config["versions"] = {"jax": "0.0.1"}
    (run / "config.json").write_text(json.dumps(config))
    (run / "MODEL_CARD.md").unlink()
    train.train_and_evaluate(tiny_config(num_epochs=0.5), str(run), data_dir)
    text = (run / "MODEL_CARD.md").read_text()
    assert text.partition("## Versions")[2].strip().startswith("* jax 0.0.1\n")


@pytest.mark.parametrize(
    ("schedule", "sentence"),
    [
        ("run", "The errors are those after the last update. No checkpoint was chosen by them."),
        (
            "plateau",
            "The learning rate followed the error of the evaluation images, so this error is a little too small.",
        ),
    ],
)
def test_the_card_says_what_the_evaluation_images_decided(
    schedule: str, sentence: str, run: Path, data_dir: str, tiny_config: Callable
):
    settings = read_settings(
        tiny_config(schedule=schedule, **{"rates.all.kernel": ((0, 0.01),), "rates.all.bias": ((0, 0.02),)})
    )
    text = text_of(run, build.build(settings, data_dir, say=print))
    decided = [line for line in text.splitlines() if "No checkpoint was" in line or "followed the error" in line]
    assert len(decided) == 1 and sentence in decided[0]


def test_a_run_that_goes_on_or_is_asked_again_has_a_right_card(run: Path, data_dir: str, tiny_config: Callable):
    file = run / "MODEL_CARD.md"
    whole = file.read_text()
    config = tiny_config(num_epochs=0.5)
    train.train_and_evaluate(config, str(run), data_dir)
    assert file.read_text() == whole, "nothing was done"
    file.unlink()
    train.train_and_evaluate(config, str(run), data_dir)
    again = file.read_text()
    assert table(again, "Errors") == table(whole, "Errors") and "| machine |" not in again
    assert "* alexnet" in again.partition("## Versions")[2]
    (run / "result.json").unlink()  # as after a kill before the last file
    train.train_and_evaluate(config, str(run), data_dir)
    sections = "Errors", "Data", "What differs from 2012"
    assert [table(file.read_text(), title) for title in sections] == [table(whole, title) for title in sections]
    assert "| machine |" in file.read_text()


def test_a_run_that_goes_on_names_its_data_set_as_its_config_does(run: Path, data_dir: str, tiny_config: Callable):
    """Though it opens the form of the data set that it began with: `elpv/64`."""
    (run / "result.json").unlink()
    recorded = json.loads((run / "config.json").read_text())
    recorded["config"]["dataset"]["name"] = "elpv"
    (run / "config.json").write_text(json.dumps(recorded))
    train.train_and_evaluate(tiny_config(num_epochs=0.5, **{"dataset.name": "elpv"}), str(run), data_dir)
    text = (run / "MODEL_CARD.md").read_text()
    assert "\n# AlexNet (original) on elpv\n" in text and table(text, "Errors")[2][0] == "elpv"
    assert json.loads((run / "config.json").read_text())["config"]["dataset"]["name"] == "elpv"


def test_a_result_of_an_earlier_version_shows_no_top5_error_of_two_classes(
    run: Path, data_dir: str, tiny_config: Callable
):
    experiment = build.build(read_settings(tiny_config(num_epochs=0.5)), data_dir, say=print)
    result = json.loads((run / "result.json").read_text()) | {"top5_1_views": 0.0, "top5_10_views": 0.0}
    card = run_card.card_of(epath.Path(run), experiment, result, trained_here=True)
    assert [row.top5 for row in card.errors] == [None, None]


def test_the_card_names_the_licence_behind_the_network_it_started_from(
    run: Path, data_dir: str, tiny_config: Callable, tmp_path: Path
):
    card.write(epath.Path(tmp_path), dataclasses.replace(CARD, license="Terms of access"), say=print)
    result = json.loads((run / "result.json").read_text())

    def limits(**changes) -> str:
        experiment = build.build(read_settings(tiny_config(num_epochs=0.5, **changes)), data_dir, say=print)
        return "\n".join(run_card.card_of(epath.Path(run), experiment, result, trained_here=True).limits)

    for folder, licence in (
        (str(tmp_path), "Terms of access"),
        (f"{tmp_path}/gone", "not recorded here"),
        ("gs://nowhere/gone", "not recorded here"),
    ):
        found = limits(init_from=folder)
        assert f"started from the network {Path(folder).name}, and the licence" in found
        assert found.endswith(f"may bind this one too: {licence}.")
    assert "started from" not in limits()


def test_the_time_of_a_run_is_that_of_all_its_sessions(tmp_path: Path):
    rows = [
        {"step": 1, "train/loss": 1.0},
        {"step": 11, "train/loss": 1.0, "train/images_per_second": 20.0},
        {"step": 11, "eval/loss": 1.0},
        {"step": 12, "train/loss": 1.0},  # the first update of the next session
        {"step": 22, "train/loss": 1.0, "train/images_per_second": 40.0},
        {"step": 30, "train/loss": 1.0, "train/images_per_second": None},
    ]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows) + "{cut o")
    assert run_card.time_of_updates(epath.Path(tmp_path), 4) == (20, 10 * 4 / 20 + 10 * 4 / 40)
    assert run_card.time_of_updates(epath.Path(tmp_path / "none"), 4) == (0, 0.0)


def test_2012_does_not_differ_from_itself():
    assert differences.from_2012(differences.settings_of_2012()) == []
    found = differences.from_2012(read_settings(imagenet2012.get_config()))
    assert [difference.what for difference in found] == ["successive images that share a crop and a flip"]


@pytest.mark.parametrize("recipe", sorted(RECIPES))
def test_every_recipe_differs_in_words(recipe: str):
    settings = differences.settings_of_2012()
    network = dataclasses.replace(settings.network, recipe=recipe)
    found = differences.from_2012(dataclasses.replace(settings, network=network))
    assert (found == []) == (recipe == "original")
    assert all(difference.here != difference.then and difference.what for difference in found)
    assert len(found) != 1, "the name, and the difference itself"


def test_every_field_has_words_or_changes_no_number():
    fields: set[str] = set()
    for name, value in dataclasses.asdict(differences.settings_of_2012()).items():
        if name not in differences.LAYERWISE:
            fields |= {f"{name}.{inner}" for inner in value} if isinstance(value, dict) else {name}
    without = {  # where and when things happen, or which of the data are which
        *("name", "seed", "evaluate_every", "save_every", "on_failed_save", "mesh.data", "mesh.tower"),
        *("dataset.train_split", "dataset.eval_split", "dataset.on_device", "dataset.workers"),
    }
    assert fields == set(differences.WORDS) | without
    of_tower = {field.name for field in dataclasses.fields(Tower)} - differences.NOT_OF_A_RECIPE
    assert of_tower == set(differences.TOWER_WORDS)


def test_rates_and_tables_are_in_words(tiny_config: Callable):
    config = tiny_config(**{"weight_decay": 0.0, "init_from": "/home/me/runs/first/"})
    config.unlock()
    config.weight_decays.fc8, config.weight_decays.fc7 = 0.1, 0.0005
    config.rates.fc8 = {"kernel": ((0, 0.5), (0.25, 0.1)), "bias": ((0, 0.028),)}
    found = {what: (here, then) for what, here, then in differences.from_2012(read_settings(config))}
    assert found["learning rate of kernels of fc8"][0] == "0.5, from 0.25 on 0.1"
    assert found["learning rate of kernels"] == ("0.014", "0.01, from 25 on 0.001, from 51 on 0.0001, from 79 on 1e-05")
    assert found["weight decay"] == ("0", "0.0005") and found["weight decay of fc8"] == ("0.1", "0.0005")
    assert "weight decay of fc7" not in found
    assert found["starts from the parameters of"] == ("first", "none"), "no path of this machine"
    assert found["initial values of He et al. 2015"] == ("yes", "no")


@pytest.mark.parametrize("classes", [6, 1000])
def test_each_number_of_views_has_its_own_top5_error(classes: int):
    dataset = SimpleNamespace(name="pets/64", eval_split="test")
    experiment = Mock(Experiment, settings=SimpleNamespace(dataset=dataset))
    result = {"count": 50, "top1_1_views": 0.4, "top5_1_views": 0.3, "loss_1_views": 2.0}
    result |= {"top1_10_views": 0.2, "top5_10_views": 0.1, "loss_10_views": 1.0}
    found = run_card._errors(experiment, result, classes)
    assert [(row.views, row.top1, row.top5, row.loss) for row in found] == [(1, 0.4, 0.3, 2.0), (10, 0.2, 0.1, 1.0)]
