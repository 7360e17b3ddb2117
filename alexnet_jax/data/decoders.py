"""From JPEG to pixels by the fastest library that is installed."""

import io
from collections.abc import Callable, Iterator

import numpy as np
from PIL import Image

from alexnet_jax.data.geometry import Pixels

Decode = Callable[[bytes], Pixels]


def _pillow(encoded: bytes) -> Pixels:
    with Image.open(io.BytesIO(encoded)) as image:
        return np.asarray(image.convert("RGB"))


def installed() -> dict[str, Decode]:
    """Decoders by name, the fastest first (`python -m alexnet_jax.benchmark input` measures them).

    All decoders use libjpeg-turbo with the accurate transform and smooth upsampling: their results differ by rounding
    alone. No decoder can decode a part of the rows. Pillow decodes all other formats than JPEG.
    """
    return dict(_decoders())


def _decoders() -> Iterator[tuple[str, Decode]]:
    """The decoders, one by one: a process that uses the first need not import the others."""
    try:
        import simplejpeg
    except ImportError:
        pass
    else:
        yield (
            "simplejpeg",
            lambda encoded: simplejpeg.decode_jpeg(encoded) if simplejpeg.is_jpeg(encoded) else _pillow(encoded),
        )
    try:
        import cv2

        color = cv2.IMREAD_COLOR_RGB
    except (ImportError, AttributeError):  # before OpenCV 4.11
        pass
    else:
        cv2.setNumThreads(1)  # the pipeline's threads keep the cores busy

        def opencv(encoded: bytes) -> Pixels:
            pixels = cv2.imdecode(np.frombuffer(encoded, np.uint8), color)
            return _pillow(encoded) if pixels is None else pixels

        yield "opencv", opencv
    yield "pillow", _pillow


decode: Decode = next(_decoders())[1]
