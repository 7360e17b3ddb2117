import dataclasses
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from alexnet_jax.data.dataset import open_dataset
from alexnet_jax.data.decoders import decode
from alexnet_jax.data.statistics import Statistics
from alexnet_jax.errors import UsageError
from alexnet_jax.evaluation import batches, error_rates
from alexnet_jax.experiment import build as experiment
from alexnet_jax.experiment.feed import FromDisk
from alexnet_jax.experiment.settings import read_settings
from alexnet_jax.learning.metrics import Metrics
from alexnet_jax.network import sharding


@pytest.mark.parametrize(
    ("batch_size", "asked", "shape"),
    [
        (32, {}, (2, 2)),  # four devices of a CPU: a pair of towers takes two
        (31, {}, (1, 2)),  # the most pairs that divide the batch
        (32, {"mesh.tower": 1}, (4, 1)),
        (30, {"mesh.tower": 1}, (3, 1)),
        (32, {"mesh.data": 1}, (1, 2)),
        (32, {"network.recipe": "one_tower"}, (4, 1)),
        (32, {"mesh.data": 1, "mesh.tower": 1}, (1, 1)),
        (32, {"network.bfloat16": True}, (4, 1)),  # a CPU cannot exchange it between devices
    ],
)
def test_what_the_mesh_leaves_open_is_chosen(tiny_config: Callable, batch_size: int, asked: dict, shape: tuple):
    mesh = experiment.build_mesh(read_settings(tiny_config(batch_size=batch_size, **asked)))
    assert (mesh.shape["data"], mesh.shape["tower"]) == shape


def test_a_batch_that_the_mesh_cannot_divide_is_refused(tiny_config: Callable):
    settings = read_settings(tiny_config(batch_size=31, **{"mesh.data": 2}))
    with pytest.raises(UsageError, match="batch_size is 31 and cannot be divided by the mesh's data axis of 2"):
        experiment.build_mesh(settings)


@pytest.mark.parametrize(
    ("batch_size", "processes", "data"),
    [(100, 4, 20), (128, 4, 32), (6, 3, 6), (None, 3, 30), (None, 7, 28)],
)
def test_the_data_axis_has_as_many_devices_of_each_process(
    monkeypatch: pytest.MonkeyPatch, batch_size: int | None, processes: int, data: int
):
    """Of 32 devices; without a batch, as in an evaluation, the axis need not divide any."""
    monkeypatch.setattr(jax, "process_count", lambda: processes)
    assert experiment._data_axis(32, 1, batch_size) == data


def test_a_batch_that_the_processes_cannot_share_is_refused(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(jax, "process_count", lambda: 3)
    with pytest.raises(
        UsageError, match="batch_size is 128 and cannot be shared evenly by 3 processes; use a multiple of"
    ):
        experiment._data_axis(24, 1, 128)
    assert experiment._data_axis(1, 2, 128) == 1  # which `make_mesh` refuses with its reason


def test_an_evaluation_takes_all_devices(tiny_config: Callable):
    settings = read_settings(tiny_config(batch_size=31, **{"mesh.tower": 1}))
    assert experiment.build_mesh(settings, trains=False).shape["data"] == len(jax.devices()) == 4


def test_images_of_one_colour_cannot_be_standardized(tiny_config, data_dir: str):
    data = open_dataset("elpv/64", data_dir)
    for mean, variance in ((0.0, 0.0), (99.0, -1e-12)):
        data.statistics = Statistics(np.full((64, 64, 3), mean), np.full((3, 3), variance))
        settings = read_settings(tiny_config(**{"photometry.standardize": True}))
        with pytest.raises(UsageError, match=r"all pixels of the training images of elpv/64 are equal, so that"):
            experiment.preprocessing_of(settings, data)
        experiment.preprocessing_of(read_settings(tiny_config(**{"photometry.standardize": False})), data)


def test_bfloat16_trains_on_a_cpu(tiny_config: Callable, data_dir: str):
    settings = read_settings(tiny_config(**{"network.bfloat16": True}))
    built = experiment.build(settings, data_dir, say=print)
    batches = experiment.training_batches(built, start_step=0)
    state, metrics = built.steps.train_step(
        built.steps.init(built.key), sharding.put_batch(next(batches), built.mesh), built.key
    )
    assert float(metrics.loss / metrics.count) == pytest.approx(math.log(2), abs=0.2)
    assert {leaf.dtype for leaf in jax.tree.leaves(state.params)} == {jnp.dtype("float32")}


def test_bfloat16_is_refused_where_the_compiler_would_abort(tiny_config: Callable):
    settings = read_settings(tiny_config(**{"network.bfloat16": True, "mesh.tower": 2}))
    with pytest.raises(UsageError, match=r"use config\.mesh\.tower=1"):
        experiment.build_mesh(settings)


@pytest.mark.parametrize("views", [1, 10])
@pytest.mark.parametrize("batch_size", [16, 70, 130])
def test_every_image_is_evaluated_once_whatever_the_batch(
    tiny_config: Callable, data_dir: str, batch_size: int, views: int, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(batches, "MIN_CROPS", 1)
    settings = read_settings(tiny_config(batch_size=batch_size, **{"mesh.data": 2, "mesh.tower": 1}))
    built = experiment.build(settings, data_dir, say=print)
    source = built.eval_source
    centres = [decode(source[place]["image"])[4:60, 4:60] for place in range(len(source))]  # 56 pixels of 64

    def first_pixels(params, batch_stats, batch):
        centre = batch.image.astype(jnp.float32)[..., 0, 0, 0].reshape(batch.image.shape[0], -1)[:, -1]
        weight = batch.mask.astype(jnp.float32)
        return Metrics(loss=(centre * weight).sum(), top1=weight.sum(), top5=weight.sum(), count=weight.sum())

    built = dataclasses.replace(built, steps=built.steps._replace(eval_step=first_pixels))
    found = error_rates.evaluate(built, None, None, views=views, feed=FromDisk(built), stop=lambda: False)
    assert found is not None and found.count == 50
    at = -1 if views == 10 else 0  # the last of ten views is the centre's mirror image
    assert found.loss == sum(float(centre[0, at, 0]) for centre in centres)


def test_every_bit_of_a_seed_counts(tiny_config: Callable, data_dir: str):
    def key_of(seed: int) -> tuple[int, ...]:
        built = experiment.build(read_settings(tiny_config(seed=seed)), data_dir, say=print)
        return tuple(np.asarray(jax.random.key_data(built.key)).tolist())

    assert key_of(5) == tuple(np.asarray(jax.random.key_data(jax.random.key(5))).tolist())
    assert len({key_of(seed) for seed in (5, 6, 5 + 2**32, 5 + 2**62)}) == 4
