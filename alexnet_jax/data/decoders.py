"""From encoded images to pixels."""

import io

import numpy as np
import simplejpeg
from PIL import Image

from alexnet_jax.data.geometry import Pixels


def decode(encoded: bytes) -> Pixels:
    """The pixels of a JPEG by simplejpeg, and of other formats by Pillow.

    Both use libjpeg-turbo with the accurate transform and smooth upsampling, and differ by rounding alone; neither can
    decode a part of the rows. `python -m alexnet_jax.benchmark input` measures them.
    """
    return simplejpeg.decode_jpeg(encoded) if simplejpeg.is_jpeg(encoded) else pillow(encoded)


def pillow(encoded: bytes) -> Pixels:
    """The pixels of any format by Pillow."""
    with Image.open(io.BytesIO(encoded)) as image:
        return np.asarray(image.convert("RGB"))
