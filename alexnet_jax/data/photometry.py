"""Mean subtraction and colour noise, inside the jitted step: XLA fuses them with the first layer."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int32, PRNGKeyArray, UInt8

from alexnet_jax.data.preprocessing import Preprocessing


def photometry(
    images: UInt8[Array, "B h w 3"],
    key: PRNGKeyArray | None,
    step: Int32[Array, ""] | None,
    *,
    preprocessing: Preprocessing,
    color_directions: Float[np.ndarray, "3 3"],
    noise: Callable[[Int32[Array, ""]], Array],
) -> Float[Array, "B h w 3"]:
    """`preprocessing.inputs` of the images; in training also colour noise.

    Noise (A/convdata_jpeg.py:155-179) is an RGB offset for each image, added to the centred pixels: the sum over the
    principal directions of N(0, 1) x standard deviation x direction, times `noise(step)`. The pixels are then divided
    by `1 + noise(step)`.

    Args:
      images: pixels 0 to 255.
      key: of the noise; None: evaluation, without noise and division.
      step: updates done.
      preprocessing: mean and scale of the pixels.
      color_directions: principal directions of the centred RGB values in rows, each times its standard deviation.
      noise: strength by step; 0.1 in 2012, 0 for the last quarter of the run.
    """
    x = preprocessing.centred(images)
    if key is not None and step is not None:
        strength = noise(step)
        draws = jax.random.normal(key, (images.shape[0], 3), jnp.float32)
        offsets = draws @ jnp.asarray(color_directions, jnp.float32)
        x = (x + strength * offsets[:, None, None, :]) / (1 + strength)
    return preprocessing.scaled(x)
