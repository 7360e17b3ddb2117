"""How much of an image reaches the logits before training: which recipes can begin to learn, and with which pixels."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from alexnet_jax.network import forward as forwards
from alexnet_jax.network.tower import make_tower

LAYERS = ("conv1", "conv2", "conv3", "conv4", "conv5", "fc6", "fc7", "fc8")

# Standard deviation before the activation, layer by layer, of one synthetic image, measured in a program of its own.
# recipe, pixels divided by their deviation: expected
TABLE = {
    ("original", False): (13.7, 3.7, 3.6, 3.0, 3.6, 4.0, 1.1, 0.46),
    ("paper", False): (13.7, 3.6, 1.2, 0.32, 0.43, 1.1, 0.47, 0.34),
    ("paper", True): (0.18, 0.05, 0.26, 0.07, 0.39, 1.1, 0.46, 0.34),
}
PIXEL_STD = 74.0  # of ImageNet's RGB values, C2/make-data/input_meta


def photograph(seed):
    """An image whose amplitudes fall as 1 / frequency, as photographs' do; deviation `PIXEL_STD`, mean 0."""
    rng = np.random.default_rng(seed)
    rows, columns = np.meshgrid(np.fft.fftfreq(224), np.fft.fftfreq(224), indexing="ij")
    frequency = np.hypot(rows, columns)
    frequency[0, 0] = np.inf
    grey, *colours = (np.fft.ifft2(np.fft.fft2(rng.standard_normal((224, 224))) / frequency).real for _ in range(4))
    image = np.stack([grey + 0.3 * colour for colour in colours], axis=-1)
    return (PIXEL_STD * (image - image.mean()) / image.std()).astype(np.float32)


def signals(recipe, images):
    """What every layer gives out before its activation, both towers' maps: `[image, ...]` by layer."""
    tower = make_tower(recipe, num_classes=1000)

    def run(images):
        params = forwards.init_params(tower, jax.random.key(0), 224)
        _, kept = tower.apply({"params": params}, images, train=False, mutable=["signals"])
        return {name: jnp.stack(kept["signals"][f"{name}_out"][0], axis=1) for name in LAYERS}

    return jax.device_get(jax.jit(run)(images))


@pytest.fixture(scope="module")
def measured():
    """Signals of two images by (recipe, divided)."""
    images = np.stack([photograph(0), photograph(1)])
    return {
        (recipe, divided): signals(recipe, images / np.float32(PIXEL_STD) if divided else images)
        for recipe, divided in TABLE
    }


@pytest.mark.parametrize("case", TABLE)
def test_the_signal_is_that_of_the_table(measured, case):
    for layer, expected in zip(LAYERS, TABLE[case], strict=True):
        found = measured[case][layer][0].std()
        assert expected / 1.3 < found < expected * 1.3, f"{layer}: {found:.3g}, expected about {expected}"


def test_only_unscaled_pixels_and_wider_kernels_carry_the_image(measured):
    def share(case):
        """Of the logits' deviation, what depends on the image."""
        logits = measured[case]["fc8"].reshape(2, -1)
        return np.std(logits[0] - logits[1]) / np.sqrt(2) / logits.std()

    assert share(("original", False)) > 0.04
    assert share(("original", False)) > 5 * share(("paper", False))
    assert share(("paper", True)) < 0.001


def test_scaled_pixels_drown_in_the_bias_of_conv2(measured):
    assert measured["paper", True]["conv2"][0].std() < 0.1  # against a bias of 1
