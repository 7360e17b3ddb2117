"""`figures`: the exhibits against plain computations, and the command as users start it."""

import dataclasses
import json
import re
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest

import alexnet_jax
from alexnet_jax import train
from alexnet_jax.data.dataset import open_dataset
from alexnet_jax.drawing.curves import Curve
from alexnet_jax.report import examination, kernels
from alexnet_jax.report import images as sections
from alexnet_jax.report import run as runs
from alexnet_jax.report.examination import Images
from tests import chromium


@pytest.fixture(scope="module")
def run(tmp_path_factory, data_dir):
    from tests.configs import tiny

    folder = tmp_path_factory.mktemp("run") / "tiny run"
    config = tiny.get_config()
    config.num_epochs = 1.0
    train.train_and_evaluate(config, str(folder), data_dir)
    return folder


@pytest.fixture(scope="module")
def network(run):
    return alexnet_jax.load(run)


@pytest.fixture(scope="module")
def images(data_dir):
    data = open_dataset("elpv/64", data_dir)
    return [
        Images(name, data.split(name), data.class_names, 56) for name in ("test[:50]", "train[:150]")
    ]  # a batch has 128


def test_an_examination_counts_every_image_and_ranks_the_mistakes(network, images):
    test, _ = images
    squares = np.stack([test.square(i) for i in range(50)])
    labels = np.array([test.source[i]["label"] for i in range(50)])
    probabilities = network.predict(squares)
    done = []
    found = examination.examine(network, test, seed=0, progress=done.append)
    assert done[-1] == 50
    assert found.tally.means()["top1"] == pytest.approx((probabilities.argmax(axis=1) != labels).mean())
    for true, said in np.ndindex(2, 2):
        assert found.matrix[true, said] == ((labels == true) & (probabilities.argmax(axis=1) == said)).sum()
    wrong = np.flatnonzero(probabilities.argmax(axis=1) != labels)
    expected = wrong[np.argsort(-probabilities[wrong].max(axis=1), kind="stable")][: examination.MISTAKES]
    assert [each.name for each in found.mistakes] == [test.title(int(i)) for i in expected]
    assert len(found.chosen) == 8 and len({each.name for each in found.chosen}) == 8
    names = [test.title(i) for i in range(50)]
    for each in found.chosen:
        index = names.index(each.name)
        assert each.truth == test.class_names[labels[index]]
        np.testing.assert_array_equal(each.pixels, squares[index][4:60, 4:60])
        np.testing.assert_allclose(each.probabilities, np.sort(probabilities[index])[::-1], rtol=1e-5)
        assert each.probabilities == [float(f"{value:.6g}") for value in each.probabilities], "six digits, as predict"


def test_probabilities_that_are_not_finite_are_counted_and_not_drawn(network, images):
    huge = dataclasses.replace(network, params=jax.tree.map(lambda leaf: leaf * 1e25, network.params))
    found = examination.examine(huge, images[0], seed=0, progress=lambda done: None)
    assert (found.tally.undefined, found.wrong, found.chosen, found.mistakes) == (50, 50, [], [])
    assert found.matrix.sum() == 0


def test_another_seed_chooses_other_images(network, images):
    chosen = [
        [each.name for each in examination.examine(network, images[0], seed=seed, progress=print).chosen]
        for seed in (0, 0, 1)
    ]
    assert chosen[0] == chosen[1] != chosen[2]


def test_neighbours_are_the_nearest_by_brute_force(network, images):
    test, train_images = images
    found = examination.find(network, test, train_images, seed=0, progress=lambda done: None)
    assert (found.layer, found.searched, len(found.queries)) == ("fc7", 150, 5)
    database = network.features(np.stack([train_images.square(i) for i in range(150)]), "fc7").astype(np.float64)
    names = [test.title(i) for i in range(50)]
    for query in found.queries:
        feature = network.features(test.square(names.index(query.name)), "fc7").astype(np.float64)
        distances = np.linalg.norm(database - feature, axis=1)
        nearest = np.argsort(distances, kind="stable")[:6]
        assert [each.name for each in query.neighbours] == [train_images.title(int(i)) for i in nearest]
        np.testing.assert_allclose([each.distance for each in query.neighbours], distances[nearest], rtol=1e-4)
        assert [each.truth for each in query.neighbours] == [train_images.truth(int(i)) for i in nearest]
    labels = [train_images.truth(i) for i in range(150)]
    assert found.chance == pytest.approx(np.mean([labels.count(query.truth) / 150 for query in found.queries]))


def test_a_capped_search_takes_images_from_the_whole_split(images):
    part = images[1].evenly(7)
    assert [part.title(i) for i in range(7)] == [images[1].title(i * 150 // 7) for i in range(7)]
    assert images[1].evenly(150) is images[1]


def test_curves_leave_out_what_is_no_number():
    rows = [
        {"epoch": 0.5, "a": 1},
        {"epoch": 1.0, "a": None},
        {"epoch": 1.5},
        {"epoch": None, "a": 2},
        {"epoch": 1.7, "a": float("nan")},
        {"epoch": 1.8, "a": "3"},
        {"epoch": 2.0, "a": 3.5},
    ]
    assert runs.curve_of(rows, "a", "label") == Curve("label", [0.5, 2.0], [1, 3.5])
    assert runs.curves_exhibit([{"epoch": 1.0, "b": 2}], "cosine") is None


def test_confusions_in_words():
    matrix = np.array([[5, 1], [0, 3]])
    assert sections.confusion_in_words(matrix, ["cat", "dog"], np.array([6, 4])) == (
        "Predicted, of 6 cat: 5 as cat, 1 as dog; of 4 dog: 0 as cat, 3 as dog."
    )
    many = np.eye(50, dtype=int)
    many[3, 7] = 4
    words = sections.confusion_in_words(many, [f"c{i}" for i in range(50)], many.sum(axis=1))
    assert words == "50 classes. The commonest confusions: c3 as c7, 4."


@pytest.fixture(scope="module")
def made(run, data_dir):
    """What the command prints, and the folder that it makes."""
    from tests.conftest import Command

    status, out, err = Command(
        "figures", f"--workdir={run}", f"--data_dir={data_dir}", "--train_images=50", "--json"
    ).finish()
    assert status == 0, err
    return json.loads(out), run / "figures", err


PICTURES = {
    "kernels",
    "kernels_grey",
    "loss",
    "error",
    "learning_rate",
    "predictions",
    "neighbours",
    "confusion",
    "mistakes",
}


def test_the_command_makes_every_figure_as_png_and_svg(made, run):
    found, folder, err = made
    names = {f"{name}{suffix}" for name in PICTURES for suffix in (".png", ".svg")} | {"index.html"}
    assert {path.name for path in folder.iterdir()} == names
    assert found["files"] == [str(folder / Path(file).name) for file in found["files"]] and len(found["files"]) == len(
        names
    )
    assert found["left_out"] == [] and "left out" not in err
    assert all((folder / name).read_bytes().startswith(b"\x89PNG") for name in names if name.endswith(".png"))
    result = json.loads((run / "result.json").read_text())
    assert found["errors"]["top1"] == pytest.approx(result["top1_1_views"])
    assert found["errors"]["count"] == 50 and found["errors"]["images"] == "elpv/64 test[:50]"
    assert len(found["towers"]["colour_share"]) == 2 and 0 < found["towers"]["p_value"] <= 1


def test_the_page_of_the_command_has_the_facts(made, run):
    text = (made[1] / "index.html").read_text()
    result = json.loads((run / "result.json").read_text())
    assert "<title>AlexNet: tiny run</title>" in text
    assert f"top\N{NON-BREAKING HYPHEN}1 {100 * result['top1_10_views']:.2f} %, 50 images" in text
    assert "50 images of elpv/64 test[:50]" in text, "of the errors that were measured now"
    assert "recipe" in text and "original, two towers, width 0.03" in text
    assert all(
        f"<h2>{title}" in text for title in ("Kernels", "Curves", "Predictions", "Nearest", "Confusions", "Worst")
    )
    assert "permutation test" in text and "50 of the 197 images of elpv/64 train[:10%], at even distances" in text
    assert re.search(r'alt="loss in nats: training from \d\.\d+ at epoch ', text)
    assert "<dt>input</dt><dd>crops of 56 pixels from images of 64</dd>" in text
    assert "<dt>checkpoint</dt><dd>after update 6</dd>" in text
    ends = f"validation {result['top1_1_views']:.4g}; ten views, at the end {result['top1_10_views']:.4g}."
    assert re.search(rf"error in share of the images: training from [^;]*; {re.escape(ends)}", text)
    assert "http" not in re.sub(r'"data:[^"]*"|http-equiv', "", text)


@pytest.mark.skipif(chromium.program() is None, reason=chromium.REASON)
def test_the_page_of_the_command_in_a_browser(made, tmp_path):
    page = made[1] / "index.html"
    with chromium.browser(tmp_path / "profile") as browser:
        for width, dark in ((1280, False), (375, False), (375, True)):
            browser.open(page, width=width, dark=dark)
            assert (browser.complaints(), browser.requests()) == ([], [page.as_uri()])
            assert browser.value("document.documentElement.scrollWidth") <= width
            assert browser.value("[...document.images].every(image => image.alt && image.naturalWidth > 0)")
            (tmp_path / f"{width}{dark}.png").write_bytes(browser.screenshot())


def test_without_data_set_and_metrics_the_kernels_are_drawn(run, tmp_path, command):
    workdir = tmp_path / "imported"
    shutil.copytree(run, workdir, ignore=shutil.ignore_patterns("figures", "metrics.jsonl", "result.json", "data.json"))
    config = (workdir / "config.json").read_text()
    (workdir / "config.json").write_text(config.replace("elpv/64", "cells/64"))
    flags = (f"--workdir={workdir}", "--data_dir=/proc/nowhere", f"--output={tmp_path / 'out'}", "--towers")
    status, out, err = command("figures", *flags).finish()
    assert status == 0, err
    first, second, *_ = left_out = [line for line in err.splitlines() if line.startswith("left out: ")]
    assert len(left_out) == 2
    assert first.startswith("left out: curves: the workdir has no metrics in metrics.jsonl")
    assert second.startswith("left out: predictions, neighbours, confusions and mistakes: ")
    assert "; --dataset names the data set and --data_dir the folder" in second
    lines = out.splitlines()
    assert lines[0].startswith("tower 1: mean colour share 0.") and lines[1].startswith("tower 2: ")
    assert lines[2].startswith("The towers differ by 0.") and lines[3].startswith("The colour share of a kernel is ")
    assert lines[4:] == ["pictures: kernels, kernels_grey (.png and .svg)", f"page: {tmp_path}/out/index.html"]
    assert "Left out" in (tmp_path / "out" / "index.html").read_text()


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (
            ["--output=FOLDER/file"],
            "figures cannot be written to FOLDER/file: it is not a folder; name another folder with",
        ),
        (
            ["--output=/proc/nowhere"],
            "to /proc/nowhere: [Errno 2] No such file or directory: '/proc/nowhere'; name another folder with --output",
        ),
        (
            ["--output=FOLDER/site"],
            "to FOLDER/site: its index.html is of another program, and would be replaced; name another folder with",
        ),
        (["--split=nonsense"], "has no split 'nonsense'; it has train, test"),
        (["--train_images=0"], "flag --train_images=0: "),
    ],
)
def test_mistakes_are_one_line(run, data_dir, tmp_path, forked, flags, message):
    (tmp_path / "file").write_text("")
    (tmp_path / "site").mkdir()
    (tmp_path / "site/index.html").write_text("mine")
    flags = [flag.replace("FOLDER", str(tmp_path)) for flag in flags]
    status, out, err = forked("figures", f"--workdir={run}", f"--data_dir={data_dir}", *flags)
    assert (status, out) == (2, "")
    [line] = [line for line in err.splitlines() if not line.startswith("C operations")]
    assert line.startswith("error: ") and message.replace("FOLDER", str(tmp_path)) in line
    assert [file.read_text() for file in (tmp_path / "site").iterdir()] == ["mine"]


def test_grey_images_are_known_by_their_mean():
    grey = np.repeat(np.random.default_rng(0).uniform(90, 130, (8, 8, 1)), 3, axis=2)
    assert kernels.is_grey(grey)
    assert not kernels.is_grey(grey + np.array([0, 0, 9.0]))
    assert not kernels.is_grey(np.full((8, 8, 3), 127.5))  # not taken from images
