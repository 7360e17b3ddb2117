"""What rows hold beside errors, of a real run."""

import dataclasses
from pathlib import Path

import jax
import numpy as np
import pytest

from alexnet_jax.data.dataset import open_dataset
from alexnet_jax.data.decoders import decode
from alexnet_jax.data.preparing.sources import elpv
from alexnet_jax.experiment.build import key_of_seed
from alexnet_jax.experiments import measures
from alexnet_jax.learning.step import stream
from alexnet_jax.network.forward import init_variables
from alexnet_jax.network.specialisation import specialisation
from alexnet_jax.retrieval import code_trial
from alexnet_jax.trained import Trained
from tests.comparing import metrics_of


def test_curves_are_those_of_the_run(tiny_run: Path):
    evaluations = [row for row in metrics_of(tiny_run) if "eval/top1" in row]
    assert evaluations and [epoch for epoch, _, _ in measures.curve(tiny_run, None)] == [
        row["epoch"] for row in evaluations
    ]
    training = [[row["step"], row["train/loss"]] for row in metrics_of(tiny_run) if "train/loss" in row]
    np.testing.assert_allclose(measures.losses(tiny_run, None), training, atol=1e-5)


def test_nine_views_are_averaged_as_predictions_are(tiny_run: Path, network: Trained, data_dir: str, squares):
    images, labels = squares
    wrong = network.predict(images, views=9).argmax(axis=1) != labels
    assert 0 < wrong.mean() < 1 and measures.nine_views(tiny_run, data_dir) == wrong.mean()


def test_published_errors_weigh_a_cell_by_its_probability(tiny_run: Path, network: Trained, data_dir: str, squares):
    source = open_dataset("elpv/64", data_dir).split("test[:50]")
    probability = {name: value for name, value, _ in elpv.read_labels()}
    defect = np.array([probability[source[number]["name"].decode()] for number in range(50)])
    assert {0, 1} < set(defect), "the split has cells of uncertain label"
    answers = network.predict(squares[0], views=10).argmax(axis=1)
    wrong = np.where(answers == 0, defect, defect == 0)  # a missed cell counts its probability, a false alarm 1
    expected = wrong.sum() / np.where(defect > 0, defect, 1).sum()
    assert 0 < expected < 1 and measures.weighted(tiny_run, data_dir) == pytest.approx(expected, abs=1e-5)


def test_towers_are_those_of_the_last_state(tiny_run: Path, network: Trained):
    found = measures.towers(tiny_run, None)
    expected = specialisation(np.asarray(network.params["conv1"]["kernel"]), seed=0).facts()
    assert found["p_value"] == expected["p_value"] and len(found["colour_share"]) == 2
    assert found["colour_share"] == pytest.approx(expected["colour_share"], abs=1e-5)


def test_the_signal_is_that_of_the_initial_values(tiny_run: Path, network: Trained, data_dir: str, monkeypatch):
    monkeypatch.setattr(measures, "IMAGES", 4)
    found = measures.signal(tiny_run, data_dir)
    assert list(found) == [layer.name for layer in network.tower.layers]
    assert all(np.isfinite(value) and value > 0 for value in found.values())

    source, size = open_dataset("elpv/64", data_dir).split("train[:10%]"), network.preprocessing.crop_size
    images = np.stack([decode(source[number]["image"]) for number in range(measures.IMAGES)])
    params, stats = init_variables(network.tower, stream(key_of_seed(0), "init"), size)
    first = dataclasses.replace(network, params=params, batch_stats=stats)
    assert found["fc8"] == pytest.approx(float(first.features(images, "fc8").std()), rel=1e-3)
    nothing = jax.tree.map(jax.numpy.zeros_like, network.params)
    monkeypatch.setattr(measures, "init_variables", lambda *_: (nothing, {}))
    assert set(measures.signal(tiny_run, data_dir).values()) == {0.0}


def test_codes_are_measured_on_queries_that_no_code_has_seen(tiny_run: Path, data_dir: str, monkeypatch):
    monkeypatch.setattr(measures, "DATABASE_AND_QUERIES", ("train[:60]", "test[:9]"))
    options = code_trial.Options
    monkeypatch.setattr(code_trial, "Options", lambda **given: options(**given | {"updates": 3}))
    found = measures.codes(tiny_run, data_dir)
    assert found["exact distances in fc7"][:2] == [1.0, 1.0]
    assert found["any order"][:2] == [pytest.approx(10 / 60, abs=1e-5), 1.0]
    for shares in found.values():
        assert len(shares) == 3 and all(0 <= share <= 1 for share in shares)
    assert set(found) == {
        "autoencoder on fc7",
        "autoencoder on pixels",
        "random hyperplanes in fc7",
        "exact distances in pixels",
        "exact distances in fc7",
        "any order",
    }
