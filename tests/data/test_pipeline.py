import io
import itertools

import numpy as np
import pytest
from PIL import Image

from alexnet_jax.data import geometry
from alexnet_jax.data.pipeline import Shard, decode, eval_batches, train_batches


def drawn(count: int, size: int = 12) -> list[dict]:
    """Coloured squares as PNG, labelled by their number."""
    source = []
    for number in range(count):
        pixels = np.random.default_rng(number).integers(0, 256, (size, size, 3), np.uint8)
        file = io.BytesIO()
        Image.fromarray(pixels).save(file, "PNG")
        source.append({"image": file.getvalue(), "label": number})
    return source


SOURCE = drawn(10)
SIZES = {"batch_size": 4, "crop_size": 8}


def train(steps: int, start: int = 0, shard: Shard | None = None, seed: int = 0):
    batches = train_batches(SOURCE, seed=seed, start_step=start, shard=shard or Shard(), **SIZES)
    return list(itertools.islice(batches, steps))


def test_every_epoch_shows_every_image_once_in_a_new_order():
    labels = np.concatenate([batch.label for batch in train(15)])
    epochs = labels.reshape(6, 10)
    assert all(sorted(epoch) == list(range(10)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 6


def test_a_batch_is_a_function_of_seed_and_step():
    whole = train(12)
    for start in (1, 5, 11):
        for before, after in zip(whole[start:], train(12 - start, start=start), strict=True):
            assert all((a == b).all() for a, b in zip(before, after, strict=True))
    other_seed = train(12, seed=1)
    assert not all((a.label == b.label).all() for a, b in zip(whole, other_seed, strict=True))


@pytest.mark.parametrize("start", [0, 3])
def test_shards_are_parts_of_the_same_batches(start: int):
    whole = train(6, start=start)
    parts = [train(6, start=start, shard=Shard(index, 2)) for index in range(2)]
    for batch, halves in zip(whole, zip(*parts, strict=True), strict=True):
        for field in ("image", "label", "mask"):
            np.testing.assert_array_equal(getattr(batch, field), np.concatenate([getattr(h, field) for h in halves]))


def test_crops_differ_from_visit_to_visit_and_are_crops():
    seen = {}
    for batch in train(40):
        for image, label in zip(batch.image, batch.label, strict=True):
            seen.setdefault(int(label), []).append(image)
    stored = decode(SOURCE[3]["image"])
    possible = {
        view.tobytes()
        for y, x in itertools.product(range(5), range(5))
        for view in (stored[y : y + 8, x : x + 8], stored[y : y + 8, x : x + 8][:, ::-1])
    }
    crops = {image.tobytes() for image in seen[3]}
    assert crops <= possible
    assert len(crops) > 8


@pytest.mark.parametrize("views", [1, 10])
@pytest.mark.parametrize("batch_size", [1, 3, 4, 10, 16])
def test_evaluation_shows_every_image_once(batch_size: int, views: int):
    batches = list(eval_batches(SOURCE, batch_size=batch_size, views=views, shard=Shard(), crop_size=8))
    mask = np.concatenate([batch.mask for batch in batches])
    labels = np.concatenate([batch.label for batch in batches])
    images = np.concatenate([batch.image for batch in batches])
    assert all(len(batch.label) == batch_size for batch in batches)
    assert list(labels[mask]) == list(range(10))
    np.testing.assert_array_equal(images[mask][4], geometry.views_of(decode(SOURCE[4]["image"]), 8, views))


def test_evaluation_shards_make_the_whole():
    whole = list(eval_batches(SOURCE, batch_size=4, views=1, shard=Shard(), crop_size=8))
    parts = [list(eval_batches(SOURCE, batch_size=4, views=1, shard=Shard(i, 2), crop_size=8)) for i in range(2)]
    for batch, halves in zip(whole, zip(*parts, strict=True), strict=True):
        np.testing.assert_array_equal(batch.mask, np.concatenate([half.mask for half in halves]))
        np.testing.assert_array_equal(batch.image, np.concatenate([half.image for half in halves]))
