"""Batches are functions of `(seed, step)`: nothing else shows, neither shards nor where a run began."""

import io
import itertools
import subprocess
import sys
import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from alexnet_jax.data import decoders, geometry
from alexnet_jax.data.batch import Shard
from alexnet_jax.data.filling import EvalPlan, Randomness, TrainPlan
from alexnet_jax.data.pipeline import eval_batches, train_batches

SIZE, CROP = 12, 8


class Places:
    """Examples with row, column and the example's number as the three colours; the number is also the label."""

    def __init__(self, count: int):
        self.count = count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int):
        image = np.empty((SIZE, SIZE, 3), np.uint8)
        image[:, :, 0], image[:, :, 1], image[:, :, 2] = np.arange(SIZE)[:, None], np.arange(SIZE), index
        return {"image": image, "label": index}


def take(count, source, *, seed=0, batch_size=12, start_step=0, shard=Shard(), **options):  # noqa: B008
    plan = TrainPlan(batch_size, shard, CROP, seed, **options)
    return list(itertools.islice(train_batches(source, plan, start_step=start_step), count))


def same(a, b) -> bool:
    return all(np.array_equal(x, y) for x, y in zip(a, b, strict=True))


@pytest.mark.parametrize("symmetries", [1, 2, 8])
@pytest.mark.parametrize("shard", [Shard(), Shard(1, 3)])
def test_a_device_can_mirror_the_crops(symmetries, shard):
    options = dict(seed=3, start_step=5, shard=shard, crop_group=2, rotation=4.0, scale=0.1, symmetries=symmetries)
    whole, plain = (take(3, Places(40), mirrored=mirrored, **options) for mirrored in (True, False))
    plan = TrainPlan(12, shard, CROP, 3, 4.0, 0.1, crop_group=2, symmetries=symmetries)
    flipped = [plan.flips(Randomness(3, 40), number) for number in range(5, 8)]
    assert np.any(flipped) == (symmetries > 1) and not np.all(flipped)
    for ours, theirs, flips in zip(whole, plain, flipped, strict=True):
        assert same(
            theirs._replace(image=np.where(flips[:, None, None, None], theirs.image[:, :, ::-1], theirs.image)), ours
        )


def crop_of(image) -> tuple[int, int, bool]:
    left, right = int(image[0, 0, 1]), int(image[0, -1, 1])
    return int(image[0, 0, 0]), min(left, right), left > right


@settings(max_examples=25, deadline=None)
@given(
    count=st.integers(1, 40), start=st.integers(0, 50), seed=st.integers(0, 2**32 - 1), group=st.sampled_from([1, 5])
)
def test_a_batch_does_not_depend_on_where_the_run_began(count, start, seed, group):
    source = Places(count)
    through = take(start % 7 + 2, source, seed=seed, start_step=start - start % 7, crop_group=group)
    afresh = take(2, source, seed=seed, start_step=start, crop_group=group)
    assert all(map(same, through[start % 7 :], afresh))


@settings(max_examples=25, deadline=None)
@given(count=st.integers(1, 40), parts=st.sampled_from([1, 2, 3, 4, 6, 12]), group=st.sampled_from([1, 5, 32]))
def test_shards_are_the_parts_of_the_global_batch(count, parts, group):
    source = Places(count)
    whole = take(3, source, crop_group=group)
    shards = [take(3, source, shard=Shard(index, parts), crop_group=group) for index in range(parts)]
    for number in range(3):
        for field in range(3):
            joined = np.concatenate([shard[number][field] for shard in shards])
            np.testing.assert_array_equal(joined, whole[number][field])


@settings(max_examples=20, deadline=None)
@given(count=st.integers(2, 40), seed=st.integers(0, 1000))
def test_each_epoch_holds_every_example_once(count, seed):
    labels = np.concatenate([batch.label for batch in take(4 * count // 12 + 1, Places(count), seed=seed)])
    epochs = labels[: 4 * count].reshape(4, count)
    assert (np.sort(epochs) == np.arange(count)).all()
    if count > 12:
        assert len({tuple(epoch) for epoch in epochs}) == 4


def test_seeds_differ():
    a, b = (take(1, Places(40), seed=seed)[0] for seed in (1, 2))
    assert not np.array_equal(a.label, b.label)
    assert [crop_of(image) for image in a.image] != [crop_of(image) for image in b.image]


def test_no_crop_is_drawn_twice_and_none_follows_from_the_order():
    ours, theirs = (Randomness(seed, 40).crops(np.arange(3 * Randomness.BLOCK)) for seed in (1, 2))
    assert len(np.unique(np.concatenate([ours, theirs]).ravel())) == 2 * ours.size
    order = np.random.default_rng((1, Randomness.ORDER, 0)).random(ours.shape)
    assert not np.isin(order, ours).any()


def test_order_and_crops_are_those_of_earlier_versions():
    """A run that an earlier version began goes on with the batches that it would have had."""
    randomness = Randomness(7, 10)
    assert randomness.examples(np.arange(20)).tolist() == [8, 0, 7, 1, 3, 6, 2, 4, 5, 9, 8, 2, 4, 1, 3, 7, 9, 0, 6, 5]
    expected = [[0.7701409510034741, 0.1119272443176843], [0.9353723483221246, 0.5497063489136043]]
    np.testing.assert_allclose(randomness.crops(np.array([0, 2000]))[:, :2], expected, rtol=1e-12)


def test_crops_and_flips_are_what_they_should_be():
    batches = take(200, Places(40))
    crops = [crop_of(image) for batch in batches for image in batch.image]
    assert {top for top, _, _ in crops} == {left for _, left, _ in crops} == set(range(SIZE - CROP + 1))
    assert 0.45 < np.mean([flip for _, _, flip in crops]) < 0.55
    for batch in batches[:5]:
        assert batch.image.dtype == np.uint8 and batch.label.dtype == np.int32 and batch.mask.all()
        for image, label in zip(batch.image, batch.label, strict=True):
            top, left, flip = crop_of(image)
            columns = np.arange(left, left + CROP)
            assert (image[:, :, 0] == np.arange(top, top + CROP)[:, None]).all()
            assert (image[:, :, 1] == (columns[::-1] if flip else columns)).all()
            assert (image[:, :, 2] == label).all()


def test_crop_group():
    """Of 2012: 32 consecutive images of the sequence have one crop, wherever batches begin."""
    crops = [crop_of(image) for batch in take(32, Places(40), crop_group=32) for image in batch.image]
    groups = [crops[start : start + 32] for start in range(0, len(crops), 32)]
    assert all(len(set(group)) == 1 for group in groups)
    assert len({group[0] for group in groups}) > 8
    alone = [crop_of(image) for batch in take(32, Places(40)) for image in batch.image]
    assert len(set(alone[:32])) > 8


@settings(max_examples=25, deadline=None)
@given(count=st.integers(1, 40), parts=st.sampled_from([1, 2, 3]), views=st.sampled_from([1, 9, 10]))
def test_evaluation_sees_every_example_once(count, parts, views):
    source = Places(count)
    shards = [list(eval_batches(source, EvalPlan(12, Shard(index, parts), CROP, views))) for index in range(parts)]
    assert {len(shard) for shard in shards} == {-(-count // 12)}
    for field, expected in ((1, np.arange(count)), (2, np.ones(count, bool))):
        joined = np.concatenate(
            [np.concatenate([batch[field] for batch in step]) for step in zip(*shards, strict=True)]
        )
        np.testing.assert_array_equal(joined, np.concatenate([expected, np.zeros(-count % 12, expected.dtype)]))
    first = shards[0][0]
    assert first.image.shape == (12 // parts, views, CROP, CROP, 3)
    np.testing.assert_array_equal(first.image[0], geometry.views_of(source[0]["image"], CROP, views))
    assert all((batch.image[~batch.mask] == 0).all() for shard in shards for batch in shard)


def photo(quality: int = 95) -> bytes:
    """Smooth colours, as a photograph has them."""
    rng = np.random.default_rng(0)
    image = Image.fromarray(rng.integers(0, 256, (12, 12, 3), np.uint8)).resize((256, 256), Image.Resampling.BICUBIC)
    file = io.BytesIO()
    image.save(file, "JPEG", quality=quality)
    return file.getvalue()


def test_decoders_agree():
    reference = decoders.pillow(photo()).astype(int)
    found = decoders.decode(photo())
    assert found.shape == (256, 256, 3) and found.dtype == np.uint8
    assert np.abs(found - reference).max() <= 2  # the standard lets two decoders differ by 1 before colours are mixed


def test_what_is_no_jpeg_is_decoded():
    file = io.BytesIO()
    Image.new("RGB", (9, 7), (1, 2, 3)).save(file, "PNG")
    assert (decoders.decode(file.getvalue()) == (1, 2, 3)).all()


def test_a_batch_in_use_is_left_alone():
    batches = train_batches(Places(40), TrainPlan(12, Shard(), CROP, seed=0), start_step=0)
    first = next(batches)
    copy = first.image.copy()
    for _ in range(20):
        next(batches)
    np.testing.assert_array_equal(first.image, copy)


def test_what_goes_wrong_in_a_thread_is_raised():
    source = [{"image": b"not an image", "label": 0}]
    with pytest.raises(Exception, match="cannot identify image file"):
        take(1, source)


def test_threads_end_with_the_batches():
    before = set(threading.enumerate())
    batches = train_batches(Places(40), TrainPlan(12, Shard(), CROP, seed=0), start_step=0)
    next(batches)
    threads = set(threading.enumerate()) - before
    assert threads
    batches.close()
    for thread in threads:
        thread.join(5)
    assert not any(thread.is_alive() for thread in threads)


LEFT_OPEN = """
import numpy as np
from alexnet_jax.data.batch import Shard
from alexnet_jax.data.filling import TrainPlan
from alexnet_jax.data.pipeline import train_batches
source = [{"image": np.zeros((256, 256, 3), np.uint8), "label": 0}] * 100
batches = train_batches(source, TrainPlan(512, Shard(), 224, seed=0), start_step=0)
next(batches)
raise SystemExit(3)
"""


def test_a_run_that_ends_in_the_middle_leaves_no_thread():
    run = subprocess.run([sys.executable, "-c", LEFT_OPEN], check=False, timeout=60, capture_output=True, text=True)
    assert run.returncode == 3 and not run.stderr


def resident() -> int:
    """Bytes of memory in use by this process."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096


def test_memory_stays_the_same_over_50_epochs():
    source = [{"image": photo(), "label": 0}] * 24
    batches = train_batches(source, TrainPlan(24, Shard(), 224, seed=0), start_step=0)
    used = []
    for epoch, _ in zip(range(50), batches, strict=False):
        if epoch % 10 == 9:
            used.append(resident())
    assert max(used[1:]) - used[0] < 12 * 24 * 224 * 224  # four batches; a leak of every batch would be forty
