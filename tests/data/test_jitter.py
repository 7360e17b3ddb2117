import numpy as np
from PIL import Image

from alexnet_jax.data import geometry

RNG = np.random.default_rng(0)
IMAGE = np.asarray(
    Image.fromarray(RNG.integers(0, 256, (16, 16, 3)).astype(np.uint8)).resize((128, 128), Image.Resampling.BICUBIC)
)


def crop(seed=0, **options):
    return geometry.jittered_crop(IMAGE, 112, np.random.default_rng(seed), **options)


def test_without_jitter_it_is_the_crop_of_2012():
    assert np.array_equal(crop(rotation=0.0, scale=0.0), geometry.random_crop(IMAGE, 112, np.random.default_rng(0)))


def test_a_little_jitter_changes_little():
    """Offsets are drawn first, so that the same seed shows the same part."""
    plain, tilted = crop(rotation=0.0, scale=0.0).astype(int), crop(rotation=0.01, scale=0.0001).astype(int)
    assert np.abs(plain - tilted).max() <= 2


def test_a_quarter_turn_is_a_rotation():
    class Quarter(np.random.Generator):
        """Centre offset, then 90 degrees."""

        def integers(self, low, high, endpoint):
            return (low + high) // 2

        def uniform(self, low, high):
            return high if high == 90.0 else 0.0

    turned = geometry.jittered_crop(IMAGE, 112, Quarter(np.random.PCG64()), rotation=90.0, scale=0.0)
    centre = geometry.center_crop(IMAGE, 112)
    assert np.abs(turned.astype(int) - np.rot90(centre, -1).astype(int)).max() <= 1


def test_enlarging_shows_the_middle_and_reducing_mirrors_the_border():
    class Middle(np.random.Generator):
        sign = 1

        def integers(self, low, high, endpoint):
            return (low + high) // 2

        def uniform(self, low, high):
            return self.sign * high if high == 1 else 0.0

    def middle_of(sign):
        rng = Middle(np.random.PCG64())
        rng.sign = sign
        return rng

    large = geometry.jittered_crop(IMAGE, 112, middle_of(1), rotation=0.0, scale=1.0)
    middle = Image.fromarray(IMAGE[36:92, 36:92]).resize((112, 112), Image.Resampling.BILINEAR)
    assert np.abs(large[4:-4, 4:-4].astype(int) - np.asarray(middle)[4:-4, 4:-4]).max() <= 3
    small = geometry.jittered_crop(IMAGE, 112, middle_of(-1), rotation=0.0, scale=1.0)
    assert small.shape == (112, 112, 3) and (small == 0).all(-1).mean() < 0.01


def test_every_draw_is_a_crop():
    crops = [crop(seed, rotation=180.0 - 1e-9, scale=0.5) for seed in range(50)]
    assert {image.shape for image in crops} == {(112, 112, 3)} and crops[0].dtype == np.uint8
    assert len({image.tobytes() for image in crops}) == 50
