"""Mean subtraction and colour noise, inside the jitted step: XLA fuses them with the first layer."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int32, PRNGKeyArray, UInt8

from alexnet_jax.data.preprocessing import standardized


def photometry(
    images: UInt8[Array, "B h w 3"],
    key: PRNGKeyArray | None,
    step: Int32[Array, ""] | None,
    *,
    mean_image: Float[np.ndarray, "h w 3"],
    color_directions: Float[np.ndarray, "3 3"],
    noise: Callable[[Int32[Array, ""]], Array],
    pixel_scale: float,
    each_image: bool = False,
) -> Float[Array, "B h w 3"]:
    """Pixels minus the mean image; in training also colour noise.

    The central part of the mean image is subtracted, whatever the crop's offset and flip (A/convdata_jpeg.py:95,
    201-211). Noise (A/convdata_jpeg.py:155-179) is an RGB offset for each image: the sum over the principal directions
    of N(0, 1) x standard deviation x direction, times `noise(step)`. The pixels are then divided by `1 + noise(step)`.

    Args:
      images: pixels 0 to 255.
      key: of the noise; None: evaluation, without noise and division.
      step: updates done.
      mean_image: as large as the crop.
      color_directions: principal directions of the RGB values in rows, each times its standard deviation.
      noise: strength by step; 0.1 in 2012, 0 for the last quarter of the run.
      pixel_scale: factor of the result; 1 in 2012, which never divided by a standard deviation.
      each_image: the mean and the deviation are each crop's own (`standardized`); `pixel_scale` scales the noise.
    """
    x = standardized(images) if each_image else images.astype(jnp.float32) - jnp.asarray(mean_image, jnp.float32)[None]
    if key is not None and step is not None:
        strength = noise(step)
        draws = jax.random.normal(key, (images.shape[0], 3), jnp.float32)
        offsets = draws @ jnp.asarray(color_directions * (pixel_scale if each_image else 1), jnp.float32)
        x = (x + strength * offsets[:, None, None, :]) / (1 + strength)
    return x if each_image or pixel_scale == 1 else x * pixel_scale
