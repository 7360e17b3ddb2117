"""Batches cut on the device beside those that the pipeline reads."""

import itertools

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from alexnet_jax.data import geometry, resident
from alexnet_jax.data.batch import Shard
from alexnet_jax.data.filling import EvalPlan, Randomness, TrainPlan
from alexnet_jax.data.pipeline import eval_batches, train_batches


def examples(count: int, size: int) -> list[dict]:
    rng = np.random.default_rng(count)
    return [
        {"image": rng.integers(0, 256, (size, size, 3), np.uint8), "label": int(rng.integers(9))} for _ in range(count)
    ]


def on_device(source, *, seed: int, steps: range, **options):
    loaded = jax.device_put(resident.load(source))
    crop_size, image_size = options["crop_size"], loaded.image.shape[1]
    jitter = bool(options.get("rotation") or options.get("scale"))
    randomness = Randomness(seed, len(source))
    plan = TrainPlan(seed=seed, **options)
    crops = resident.draw_crops(randomness, plan, steps=steps, image_size=image_size)
    form = dict(crop_size=crop_size, jitter=jitter, symmetries=plan.symmetries)
    cut = jax.jit(lambda crops: resident.cut(loaded, crops, **form))
    return [jax.device_get(cut(resident.Crops(*each))) for each in zip(*crops, strict=True)]


def from_disk(source, *, steps: range, **options):
    return list(itertools.islice(train_batches(source, TrainPlan(**options), start_step=steps.start), len(steps)))


@settings(max_examples=12, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    count=st.integers(1, 40),
    size=st.integers(8, 40),
    start=st.integers(0, 1000),
    group=st.sampled_from([1, 3, 32]),
    shard=st.sampled_from([Shard(), Shard(0, 2), Shard(1, 2)]),
    symmetries=st.sampled_from([1, 2, 4, 8]),
    data=st.data(),
)
def test_crops_and_flips_have_the_same_bytes(seed, count, size, start, group, shard, symmetries, data):
    options = dict(
        seed=seed,
        batch_size=6,
        shard=shard,
        crop_size=data.draw(st.integers(1, size)),
        crop_group=group,
        symmetries=symmetries,
        steps=range(start, start + 2),
    )
    source = examples(count, size)
    for ours, theirs in zip(on_device(source, **options), from_disk(source, **options), strict=True):
        for name in ("image", "label", "mask"):
            np.testing.assert_array_equal(getattr(ours, name), getattr(theirs, name))


@settings(max_examples=12, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    size=st.integers(8, 40),
    rotation=st.sampled_from([0.0, 5.0, 45.0, 180.0]),
    scale=st.sampled_from([0.0, 0.15, 2.0]),
    data=st.data(),
)
def test_rotated_and_scaled_crops_differ_by_a_level_at_most(seed, size, rotation, scale, data):
    crop = data.draw(st.integers(2, size))
    options = dict(
        seed=seed, batch_size=6, shard=Shard(), crop_size=crop, rotation=rotation, scale=scale, steps=range(2)
    )
    source = examples(7, size)
    for ours, theirs in zip(on_device(source, **options), from_disk(source, **options), strict=True):
        difference = np.abs(ours.image.astype(int) - theirs.image.astype(int)).max(axis=-1)
        # A place that lies on the border to within a rounding may be black in one of the two.
        black, black_there = ((each.image == 0).all(axis=-1) for each in (ours, theirs))
        assert (difference[black == black_there] <= 1).all()
        assert np.mean(black != black_there) < 1e-3
        np.testing.assert_array_equal(ours.label, theirs.label)


@pytest.mark.parametrize("count", [1, 9, 10])
@pytest.mark.parametrize("size", [9, 10, 16])
def test_views_are_those_of_the_host(count, size):
    images = np.stack([example["image"] for example in examples(3, 16)])
    expected = np.stack([geometry.views_of(image, size, count) for image in images])
    np.testing.assert_array_equal(geometry.views_of(jax.numpy.asarray(images), size, count), expected)


@pytest.mark.parametrize("views", [1, 10])
def test_evaluation_batches_hold_each_example_once(views):
    source = examples(7, 16)
    loaded = jax.device_put(resident.load(source))
    theirs = list(eval_batches(source, EvalPlan(4, Shard(), 9, views)))
    for number, batch in enumerate(theirs):
        first = jax.numpy.int32(4 * number)
        ours = resident.eval_batch(loaded, first, batch_size=4, views=views, crop_size=9)
        np.testing.assert_array_equal(ours.mask, batch.mask)
        np.testing.assert_array_equal(ours.image[batch.mask], batch.image[batch.mask])
        np.testing.assert_array_equal(ours.label[batch.mask], batch.label[batch.mask])
    assert len(theirs) == 2


def test_loading_tells_how_far_it_is(monkeypatch):
    monkeypatch.setattr(resident, "PART", 2)
    seen = []
    source = examples(5, 8)
    loaded = resident.load(source, say=seen.append)
    assert seen == [2, 4, 5]
    assert [int(label) for label in loaded.label] == [example["label"] for example in source]
