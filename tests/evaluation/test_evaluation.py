"""Predictions of a split, ensembles, errors by class, and the files of predictions."""

import csv
import dataclasses
import errno
import functools
import io
import json
from pathlib import Path
from unittest.mock import Mock

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from etils import epath

from alexnet_jax.data import preprocessing
from alexnet_jax.data.dataset import Dataset
from alexnet_jax.errors import UsageError
from alexnet_jax.evaluation import batches, ensemble, tables
from alexnet_jax.evaluation.predictions import Block, batch_size_of, predictions
from alexnet_jax.evaluation.report import Member, Report
from alexnet_jax.evaluation.tally import Tally, confusion, predicted_classes
from alexnet_jax.experiment import build, reading
from alexnet_jax.experiment.settings import read_settings
from alexnet_jax.learning.metrics import measure
from alexnet_jax.network import sharding
from alexnet_jax.network.forward import init_variables
from alexnet_jax.trained import Trained
from tests.configs import tiny

MEMBER = Member("run", 7, 1.0, {})

IMAGES = np.random.default_rng(0).integers(0, 256, (11, 64, 64, 3), np.uint8)
SOURCE = [{"image": image, "label": number % 2, "name": b"%d.png" % number} for number, image in enumerate(IMAGES)]
CLASSES = ("cat", "dog")


def net_of(seed: int = 0, *, name: str = "", mean: float = 120.0, scale: float = 0.02, **changes: object) -> Trained:
    """An untrained network, whose probabilities are far from equal."""
    config = tiny.get_config()
    config.network.width = 0.1
    config.update_from_flattened_dict({"batch_size": 4, "network.he_init": True} | changes)
    settings = read_settings(config)
    mesh, tower = build.build_mesh(settings), build.build_tower(settings, len(CLASSES))
    init = functools.partial(init_variables, tower, image_size=settings.dataset.crop_size)
    variables = jax.jit(init)(key=jax.random.key(seed))
    params, batch_stats = jax.device_put(variables, sharding.state_shardings(variables, mesh))
    colours = dict(mean=(mean, 110.0, 100.0), pixel_scale=scale)
    found = preprocessing.of_colour(CLASSES, image_size=64, crop_size=settings.dataset.crop_size, **colours)
    return Trained(name or f"run{seed}", 7, settings, tower, mesh, params, batch_stats, found)


def changed(network: Trained, **changes: object) -> Trained:
    return dataclasses.replace(network, preprocessing=dataclasses.replace(network.preprocessing, **changes))


@pytest.fixture(scope="module")
def members() -> list[Trained]:
    """Networks that differ in recipe, crop, mean, scale, width, and in the layout of their devices."""
    return [
        net_of(0),
        net_of(1, mean=90.0, batch_size=3, **{"dataset.crop_size": 48, "network.width": 0.2}),
        net_of(2, scale=0.01, batch_size=3, **{"network.recipe": "one_tower"}),
    ]


@pytest.mark.parametrize("views", [1, 10])
@pytest.mark.parametrize("batch_size", [2, 4, 40])
def test_predictions_are_those_of_each_image_in_order(members, batch_size, views):
    network = members[0]
    blocks = list(predictions(network, SOURCE, views=views, batch_size=batch_size))
    assert {len(block.examples) for block in blocks[:-1]} <= {batch_size}
    np.testing.assert_array_equal(np.concatenate([block.examples for block in blocks]), np.arange(11))
    np.testing.assert_array_equal(np.concatenate([block.labels for block in blocks]), np.arange(11) % 2)
    found = np.exp(np.concatenate([block.log_probs for block in blocks]))
    np.testing.assert_allclose(found, network.predict(IMAGES, views=views), atol=1e-5)


def test_a_batch_of_ten_views_holds_a_tenth_of_the_images(members, monkeypatch):
    monkeypatch.setattr(batches, "MIN_CROPS", 40)
    assert [batch_size_of(members[:1], views) for views in (1, 10)] == [40, 4]


def test_a_large_batch_of_training_is_none_of_an_evaluation(members):
    network = members[0]
    large = dataclasses.replace(network.settings, batch_size=8192)
    mock = Mock(Trained, settings=large, mesh=network.mesh)
    assert [batch_size_of([mock], views) for views in (1, 10)] == [2048, 204], "1024 crops on each of two devices"


def test_members_of_all_kinds_are_averaged(members, monkeypatch):
    monkeypatch.setattr(batches, "MIN_CROPS", 9)
    assert [tuple(network.mesh.shape.values()) for network in members] == [(2, 2), (1, 2), (3, 1)], "of data and tower"
    weights = ensemble.read_weights("3,2,1", 3)
    blocks = list(ensemble.predictions(members, weights, SOURCE, views=1))
    np.testing.assert_array_equal(np.concatenate([mean.examples for mean, _ in blocks]), np.arange(11))
    expected = [network.predict(IMAGES) for network in members]
    for number, alone in enumerate(expected):
        found = np.concatenate([parts[number].log_probs for _, parts in blocks])
        np.testing.assert_allclose(np.exp(found), alone, atol=1e-5)
    assert np.abs(expected[0] - expected[1]).max() > 0.05, "the members differ"
    mean = np.exp(np.concatenate([mean.log_probs for mean, _ in blocks]))
    np.testing.assert_allclose(mean, (3 * expected[0] + 2 * expected[1] + expected[2]) / 6, atol=1e-5)


def test_the_members_share_the_processes_that_read(members, monkeypatch):
    asked: list[int | None] = []

    def started(wanted, **_):
        asked.append(wanted)

    monkeypatch.setattr(reading, "open_workers", started)
    assert len(list(ensemble.predictions(members, np.full(3, 1 / 3), SOURCE))) == 1
    assert asked == [None]


def test_the_mean_of_probabilities_too_small_for_float32_is_finite():
    one, other = np.log(np.float32([[0.5, 0.5]])), np.float32([[-200.0, 0.0]])
    mean = ensemble.combine([other, other], np.array([0.25, 0.75]))
    np.testing.assert_allclose(mean, other, rtol=1e-6, atol=1e-12)
    np.testing.assert_allclose(ensemble.combine([one, other], np.array([0.5, 0.5])), np.log([[0.25, 0.75]]), rtol=1e-6)
    assert ensemble.combine([one], np.array([1.0])) is one, "one network's numbers are its own"


@pytest.mark.parametrize(
    ("text", "members", "message"),
    [
        ("0.6,x", 2, "something else than numbers; write for example 0.6,0.4"),
        ("", 1, "something else than numbers"),
        ("1,,1", 2, "something else than numbers"),
        ("1", 2, "there are 2 networks and 1 weight .1.; give a weight for each"),
        ("1,2,3", 2, "there are 2 networks and 3 weights .1,2,3.; give"),
        ("1,0", 2, "not positive and finite"),
        ("1,-1", 2, "not positive and finite"),
        ("nan,1", 2, "not positive and finite"),
        ("1,inf", 2, "not positive and finite"),
        ("1,1e999", 2, "not positive and finite"),
        ("1e-320,1e308", 2, "too small beside another"),
    ],
)
def test_wrong_weights_are_one_line(text: str, members: int, message: str):
    with pytest.raises(UsageError, match=message) as error:
        ensemble.read_weights(text, members)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("text", "expected"),
    [(None, [0.5, 0.5]), ("0.6,0.4", [0.6, 0.4]), (" 3 , 1 ", [0.75, 0.25]), ("1e308,1e308", [0.5, 0.5])],
)
def test_weights_add_up_to_one(text, expected):
    np.testing.assert_allclose(ensemble.read_weights(text, 2), expected)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            dict(class_names=("dog", "cat")),
            "other has other classes than run0: class 0 is 'dog' and 'cat'; the",
        ),
        (dict(class_names=("cat", "dog", "cow")), "other has other classes than run0: 3 and 2; the members"),
        (dict(class_names=()), "other has no classifier"),
        (
            dict(image_size=128),
            "on stored images of 64 pixels and other on 128.*predictions of each alone",
        ),
    ],
)
def test_members_that_no_data_set_serves_are_refused(members, changes, message):
    other = dataclasses.replace(changed(members[1], **changes), name="other")
    with pytest.raises(UsageError, match=message):
        ensemble.check_members([members[0], other])


def data_set() -> Dataset:
    data = Dataset.__new__(Dataset)
    data.class_names, data.image_size = list(CLASSES), 64
    return data


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (dict(class_names=("cat", "cow")), "class 1 is 'dog' and was 'cow'; name a data set with the same classes"),
        (dict(class_names=("cat",)), "has 2 classes and the run's data set 1"),
        (dict(image_size=128), "has images of 64 pixels and the run's data set of 128; prepare it with 128 pixels"),
    ],
)
def test_a_data_set_that_does_not_fit_is_refused(members, changes, message):
    with pytest.raises(UsageError, match=f"pets .*{message}"):
        ensemble.check_data(changed(members[0], **changes), data_set(), "pets")
    ensemble.check_data(members[0], data_set(), "pets")


def test_sums_are_those_of_the_metrics_in_any_blocks():
    rng = np.random.default_rng(1)
    labels = rng.integers(0, 7, 50)
    log_probs = np.log(rng.dirichlet(np.ones(8), 50)).astype(np.float32)
    log_probs[3] = log_probs[3, 0]  # a tie of all classes
    log_probs[4, 2] = np.nan
    tally = Tally(8)
    for part in (slice(0, 20), slice(20, 49), slice(49, 50)):
        tally.add(labels[part], log_probs[part])
    whole = measure(jnp.asarray(log_probs), jnp.asarray(labels), jnp.ones(50, bool))
    means = tally.means()
    assert (means["top1"], means["top5"]) == pytest.approx((float(whole.top1) / 50, float(whole.top5) / 50))
    assert list(means) == ["loss", "top1", "top5"]
    errors = tally.by_class(tally.top1)
    assert errors[7] is None, "no image of it"
    assert np.dot([error or 0 for error in errors], tally.count) / 50 == pytest.approx(means["top1"])
    assert tally.undefined == 1
    matrix = tally.confusion()
    assert matrix.sum() == 49 and matrix.sum(axis=1).tolist()[7] == 0
    assert predicted_classes(log_probs)[4] == -1


@pytest.mark.parametrize(("classes", "names"), [(5, ["loss", "top1"]), (6, ["loss", "top1", "top5"])])
def test_a_top5_error_needs_six_classes(classes, names):
    tally = Tally(classes)
    tally.add(np.array([0]), np.full((1, classes), -np.log(classes), np.float32))
    assert list(tally.means()) == names
    assert (tally.top5 is None) == (classes < 6)


def test_confusions_are_counted_by_true_and_predicted_class():
    matrix = confusion(np.array([0, 0, 1, 2, 2, 2]), np.array([0, 1, 1, 0, 0, -1]), 3)
    assert matrix.tolist() == [[1, 1, 0], [0, 1, 0], [2, 0, 0]]


def test_predictions_are_written_as_they_come_and_named_at_the_end(tmp_path: Path):
    file = epath.Path(tmp_path / "ä.csv")
    names = ("a, b", 'q"ü')
    source = [{"name": "bild ä.png".encode()}, {"name": b"\xff"}, {}]
    block = Block(np.arange(3), np.array([0, 1, 1]), np.log(np.float32([[0.25, 0.75], [0.9, 0.1], [np.nan, 1]])))
    with tables.prediction_rows(file, names, source) as write:
        sizes = []
        for _ in range(200):
            write(block)
            sizes.append((tmp_path / "ä.csv.part").stat().st_size)
        assert not file.exists()
    assert len(set(sizes)) > 3, "the rows do not stay in memory"
    with (tmp_path / "ä.csv").open(newline="", encoding="utf-8") as opened:
        found = list(csv.reader(opened))
    assert found[0] == ["name", "label", "prediction", "p(a, b)", 'p(q"ü)']
    assert [row[:3] for row in found[1:4]] == [
        ["bild ä.png", "a, b", 'q"ü'],
        ["\ufffd", 'q"ü', "a, b"],
        ["2", 'q"ü', ""],
    ]
    assert [float(text) for text in found[1][3:]] == pytest.approx([0.25, 0.75])
    assert len(found) == 601


def test_a_broken_off_evaluation_leaves_no_file(tmp_path: Path):
    file = epath.Path(tmp_path / "predictions.csv")

    def interrupted() -> None:
        with tables.prediction_rows(file, CLASSES, SOURCE) as write:
            write(Block(np.arange(1), np.array([0]), np.log(np.float32([[0.25, 0.75]]))))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert list(tmp_path.iterdir()) == []
    with (
        pytest.raises(UsageError, match=r"/dev/full/predictions.csv cannot be written: Not a directory"),
        tables.prediction_rows(epath.Path("/dev/full/predictions.csv"), CLASSES, SOURCE),
    ):
        pass
    with pytest.raises(OSError, match="Too many open files"), tables.prediction_rows(file, CLASSES, SOURCE):
        raise OSError(errno.EMFILE, "Too many open files")  # by the evaluation: the file is not to blame
    assert list(tmp_path.iterdir()) == []


def test_errors_by_class_of_a_report():
    """Class 0 is at the sixth place, class 1 at the second, and class 2 first; the others have no example."""
    ranks = {0: [7, 6, 5, 4, 3, 0, 1, 2], 1: [7, 1, 5, 4, 3, 0, 6, 2], 2: [2, 1, 5, 4, 3, 0, 6, 7]}
    labels = np.array([0, 1, 1, 2])
    probs = np.full((4, 8), 0.0)
    for row, label in enumerate(labels):
        probs[row, ranks[int(label)]] = np.array([8, 7, 6, 5, 4, 3, 2, 1]) / 36
    tally = Tally(8)
    tally.add(labels, np.log(probs).astype(np.float32))
    report = Report([MEMBER], tally, [f"class {number}" for number in range(8)], 1, "pets/64", "test")
    rows = json.loads(report.as_json(per_class=True))["per_class"]
    assert [(row["count"], row["top1"], row["top5"]) for row in rows] == [
        (1, 1.0, 1.0),
        (2, 1.0, 0.0),
        (1, 0.0, 0.0),
        *[(0, None, None)] * 5,
    ]
    lines = report.as_text(per_class=True).splitlines()
    assert lines[0].startswith("step 7  1 view  top-1 error 75.00%  top-5 error 25.00%")
    assert [line.split() for line in lines[1:4]] == [
        ["class", "images", "top-1", "error", "top-5", "error"],
        ["class", "0", "1", "100.00%", "100.00%"],
        ["class", "1", "2", "100.00%", "0.00%"],
    ]


def test_the_lines_of_an_ensemble():
    tally = Tally(2)
    tally.add(np.array([0]), np.log(np.float32([[0.75, 0.25]])))
    members = [
        Member("a", 7, 0.75, {"loss": 1.0, "top1": 0.5}),
        Member("b", 1234, 0.25, {"loss": 2.0, "top1": 0.25}),
    ]
    report = Report(members, tally, ["x", "y"], 10, "pets/64", "test")
    assert report.as_text(per_class=False).splitlines() == [
        "a  step 7  weight 0.75  top-1 error 50.00%  loss 1.0000",
        "b  step 1,234  weight 0.25  top-1 error 25.00%  loss 2.0000",
        "ensemble of 2  10 views  top-1 error 0.00%  loss 0.2877  1 images of pets/64 test",
    ]


def test_a_confusion_file_has_true_classes_in_rows():
    matrix = confusion(np.array([0, 0, 0, 1]), np.array([0, 1, 1, 1]), 2)
    found = list(csv.reader(io.StringIO(tables.confusion_rows(matrix, ("cat", "dog")).decode())))
    assert found == [["true class", "cat", "dog"], ["cat", "1", "2"], ["dog", "0", "1"]]
