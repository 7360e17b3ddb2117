"""Every field of the config reaches the program that it is for."""

import json
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import alexnet_jax
from alexnet_jax.data.batch import Shard
from alexnet_jax.data.dataset import open_dataset
from alexnet_jax.experiment import build
from alexnet_jax.experiment.schedules import Schedule
from alexnet_jax.experiment.settings import read_settings
from alexnet_jax.learning import optimizer
from alexnet_jax.report.examination import Images
from alexnet_jax.train import train_and_evaluate

LAYERS = {"conv1": ["kernel", "bias"], "conv1_norm": ["scale", "bias"], "fc8": ["kernel", "bias"]}


def test_the_batches_of_training_follow_the_config(tiny_config: Callable):
    changes = {
        "batch_size": 24,
        "seed": 7,
        "jitter.rotation": 3.0,
        "jitter.scale": 0.25,
        "jitter.symmetries": 8,
        "dataset.crop_group": 4,
    }
    plan = build.train_plan(read_settings(tiny_config(**changes)), Shard(1, 2), 40)
    wanted = {key.rpartition(".")[2]: value for key, value in changes.items()}
    assert vars(plan) == wanted | {"shard": Shard(1, 2), "crop_size": 40, "mirrored": True}


def test_the_steps_follow_the_config(tiny_config: Callable, data_dir: str, monkeypatch: pytest.MonkeyPatch):
    given: dict = {}

    def build_steps(**arguments):
        given.update(arguments)
        return made(**arguments)

    made = build.build_steps
    monkeypatch.setattr(build, "build_steps", build_steps)
    changes = {
        "jitter.rotation": 0.0,
        "jitter.scale": 0.25,
        "jitter.symmetries": 8,
        "photometry.each_image": True,
        "photometry.standardize": True,
        "photometry.noise": ((0, 0.25),),
        "label_smoothing": 0.125,
    }
    experiment = build.build(read_settings(tiny_config(**changes)), data_dir, say=print)
    assert given["cut"].keywords == {"crop_size": 56, "jitter": True, "symmetries": 8}
    assert given["label_smoothing"] == 0.125
    statistics = experiment.data.statistics
    photometry = given["photometry"].keywords
    assert float(photometry["noise"](jnp.int32(0))) == 0.25
    preprocessing = photometry["preprocessing"]
    assert preprocessing.each_image and preprocessing.crop_size == 56
    np.testing.assert_array_equal(preprocessing.mean_image, statistics.mean_image.astype(np.float32))
    np.testing.assert_allclose(preprocessing.pixel_scale, 1 / statistics.pixel_std)
    # Of pixels as they are stored, while each crop is divided by its deviation before the noise.
    np.testing.assert_allclose(
        photometry["color_directions"], statistics.color_directions / statistics.pixel_std, rtol=1e-6
    )
    build.build(read_settings(tiny_config(**changes | {"photometry.each_image": False})), data_dir, say=print)
    directions = given["photometry"].keywords["color_directions"]
    np.testing.assert_allclose(directions, statistics.color_directions, rtol=1e-6)


def test_the_optimizer_follows_the_config(tiny_config: Callable, monkeypatch: pytest.MonkeyPatch):
    given: dict = {}
    made = optimizer.krizhevsky_sgd

    def krizhevsky_sgd(rates, **options):
        given.update(options, rates=rates)
        return made(rates, **options)

    monkeypatch.setattr(optimizer, "krizhevsky_sgd", krizhevsky_sgd)
    config = tiny_config(momentum=0.75, nesterov=True, clip_norm=3.0, lars_trust=0.5, weight_decay=0.25)
    with config.unlocked():
        config.rates["all"] = dict(kernel=((0, 0.5),), bias=((0, 0.25),))
        config.rates["conv1"] = dict(kernel=((0, 0.125),), bias=((0, 0.0625),))
        config.weight_decays["conv1"] = 0.75
    settings = read_settings(config)
    build.build_optimizer(settings, LAYERS, Schedule(settings, 10.0))
    rates = jax.tree.map(lambda rate: float(rate(jnp.int32(0))), given.pop("rates"))
    assert rates == {
        "conv1": {"kernel": 0.125, "bias": 0.0625},
        "conv1_norm": {"scale": 0.125, "bias": 0.0625},
        "fc8": {"kernel": 0.5, "bias": 0.25},
    }
    assert given.pop("weight_decay") == {
        "conv1": {"kernel": 0.75, "bias": 0.75},
        "conv1_norm": {"scale": 0.75, "bias": 0.75},
        "fc8": {"kernel": 0.25, "bias": 0.25},
    }
    assert given == {"momentum": 0.75, "nesterov": True, "clip_norm": 3.0, "trust": 0.5}


def test_a_trained_network_sees_what_the_evaluation_of_its_run_saw(
    tiny_config: Callable, data_dir: str, tmp_path: Path
):
    """With what the default config has and the tests' config has not."""
    changes = {"photometry.each_image": True, "jitter.symmetries": 8, "num_epochs": 1.0}
    train_and_evaluate(tiny_config(**changes), str(tmp_path), data_dir)
    result = json.loads((tmp_path / "result.json").read_text())
    data = open_dataset("elpv/64", data_dir)
    images = Images("test", data.split("test[:50]"), data.class_names, 56)
    network = alexnet_jax.load(tmp_path)
    assert network.preprocessing.each_image
    probabilities = network.predict(np.stack([images.square(number) for number in range(50)]))
    labels = np.array([images.source[number]["label"] for number in range(50)])
    assert (probabilities.argmax(axis=1) != labels).mean() == pytest.approx(result["top1_1_views"])
    assert -np.log(probabilities[range(50), labels]).mean() == pytest.approx(result["loss_1_views"], rel=1e-5)


@pytest.mark.parametrize(("rotation", "scale", "jitter"), [(3.0, 0.0, True), (0.0, 0.25, True), (0.0, 0.0, False)])
def test_devices_interpolate_crops_that_are_rotated_or_scaled(
    tiny_config: Callable, data_dir: str, monkeypatch: pytest.MonkeyPatch, rotation: float, scale: float, jitter: bool
):
    given: dict = {}
    made = build.build_steps
    monkeypatch.setattr(build, "build_steps", lambda **arguments: given.update(arguments) or made(**arguments))
    settings = read_settings(tiny_config(**{"jitter.rotation": rotation, "jitter.scale": scale}))
    build.build(settings, data_dir, say=print)
    assert given["cut"].keywords["jitter"] is jitter


@pytest.mark.parametrize(("asked", "count"), [({}, 2), ({"mesh.tower": 1}, 1), ({"mesh.data": 2}, 4)])
def test_a_cpu_makes_the_devices_that_the_mesh_asks_for(tiny_config: Callable, asked: dict, count: int):
    assert build.cpu_devices(read_settings(tiny_config(**asked))) == count
