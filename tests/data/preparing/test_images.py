"""Odd image files become images, broken and hostile ones a reason."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, ImageFile, PngImagePlugin

from alexnet_jax.data.preparing import images

COLOR = (200, 120, 40)


def encode(image: Image.Image, kind: str, **options) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def colored(size=(90, 60)) -> Image.Image:
    return Image.new("RGB", size, COLOR)


def pixels(data: bytes, size: int = 32) -> np.ndarray:
    image = images.square(data, size)
    assert image.mode == "RGB" and image.size == (size, size)
    return np.asarray(image).astype(int)


@pytest.mark.parametrize("kind", images.FORMATS)
def test_plain(kind):
    assert np.abs(pixels(encode(colored(), kind)) - COLOR).max() <= 4


def test_the_shorter_side_is_scaled_and_the_centre_cut_out():
    wide = np.zeros((64, 192, 3), np.uint8)
    wide[:, 64:128] = COLOR
    found = pixels(encode(Image.fromarray(wide), "PNG"))
    assert np.abs(found[:, 2:-2] - COLOR).max() <= 1  # the outer columns are antialiased with their neighbours


def test_antialiasing():
    stripes = np.zeros((512, 512, 3), np.uint8)
    stripes[:, ::2] = 255
    assert np.abs(pixels(encode(Image.fromarray(stripes), "PNG"), 64)[:, 2:-2] - 127.5).max() < 8


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P"])
def test_grey_and_palette(mode):
    image = Image.new("RGB", (40, 40), "white").convert(mode)
    assert (pixels(encode(image, "PNG")) == 255).all()


def test_cmyk_jpeg():
    assert np.abs(pixels(encode(colored().convert("CMYK"), "JPEG", quality=100)) - COLOR).max() <= 4


def test_grey_jpeg():
    assert np.abs(pixels(encode(Image.new("L", (40, 50), 77), "JPEG")) - 77).max() <= 2


def test_a_square_takes_nothing_but_pixels_from_the_source():
    """Pillow would store a source's comment in the JPEG, and a text of a PNG may be longer than a JPEG's comment."""
    texts = PngImagePlugin.PngInfo()
    texts.add_text("comment", "x" * 70_000)
    texts.add_text(images.HIGHEST, "a text")
    for data in (encode(colored(), "JPEG", comment=b"holiday"), encode(colored(), "PNG", pnginfo=texts)):
        square = images.square(data, 32)
        assert square.info == {}
        assert Image.open(io.BytesIO(images.as_jpeg(square))).info.keys() == {
            "jfif",
            "jfif_version",
            "jfif_unit",
            "jfif_density",
        }


def test_16_bit_png_keeps_its_brightness():
    grey = Image.fromarray(np.full((40, 40), 100 * 256, np.uint16))
    assert (pixels(encode(grey, "PNG")) == 100).all()


def test_transparent_parts_are_white():
    image = Image.new("RGBA", (40, 40), (*COLOR, 0))
    image.paste((*COLOR, 255), (0, 0, 40, 20))
    found = pixels(encode(image, "PNG"))
    assert (found[:14] == COLOR).all() and (found[18:] == 255).all()


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_rotation(orientation):
    upright = np.zeros((48, 48, 3), np.uint8)
    upright[:24, :24, 0], upright[24:, :24, 1] = 255, 255
    exif = Image.Exif()
    exif[images.ORIENTATION] = orientation
    stored = Image.fromarray(upright)
    undo = {6: Image.Transpose.ROTATE_90, 8: Image.Transpose.ROTATE_270}
    if orientation in images.TURNS:
        stored = stored.transpose(undo.get(orientation, images.TURNS[orientation]))
    found = pixels(encode(stored, "PNG", exif=exif), 48)
    assert (found == upright).all()


@pytest.mark.parametrize(
    "exif",
    [
        b"Exif\0\0MM\0\x2a\xff\xff\xff\xff garbage",
        b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x02\0\x04\0\0\0abc\0",  # the orientation is the text abc
    ],
)
def test_damaged_exif_is_no_matter(exif):
    assert np.abs(pixels(encode(colored(), "JPEG", exif=exif)) - COLOR).max() <= 4


@pytest.mark.parametrize("size", [(1, 1), (1, 40), (40, 1), (1, 100_000), (100_000, 1)])
def test_one_pixel_sides(size):
    assert np.abs(pixels(encode(colored(size), "PNG"), 256) - COLOR).max() <= 1


def test_a_large_jpeg_keeps_its_content():
    half = np.zeros((2000, 3000, 3), np.uint8)
    half[:1000] = COLOR
    found = pixels(encode(Image.fromarray(half), "JPEG"), 64)
    assert np.abs(found[:30] - COLOR).max() <= 6 and found[34:].max() <= 6


@pytest.mark.parametrize(
    ("kind", "options", "fits"),
    [("JPEG", {}, True), ("JPEG", {"progressive": True}, False), ("PNG", {}, False)],
    ids=["jpeg", "progressive jpeg", "png"],
)
def test_a_jpeg_larger_than_the_limit_is_decoded_at_a_fraction(kind, options, fits):
    """Libjpeg holds the coefficients of all pixels of a progressive JPEG in memory, whatever the fraction."""
    data = encode(colored((800, 600)), kind, **options)
    assert np.abs(np.asarray(images.square(data, 32, max_pixels=800 * 600)).astype(int) - COLOR).max() <= 4
    if fits:
        assert np.abs(np.asarray(images.square(data, 32, max_pixels=100 * 75)).astype(int) - COLOR).max() <= 4
    with pytest.raises(images.BrokenImageError, match="800x600: more than 7,499 pixels") as refused:
        images.square(data, 32, max_pixels=7_499)
    assert images.is_too_large(str(refused.value))


def test_an_image_above_the_limit_is_never_decoded(monkeypatch):
    data, loaded = encode(colored((40, 30)), "PNG"), []
    monkeypatch.setattr(ImageFile.ImageFile, "load", lambda image: loaded.append(image))
    with pytest.raises(images.BrokenImageError, match="40x30: more than 1,199 pixels"):
        images.square(data, 32, max_pixels=1_199)
    assert not loaded


def large_jpeg(components_of_scan: int) -> bytes:
    """The header of a JPEG of 60,000 x 60,000 pixels, without pixels."""
    frame = struct.pack(">HBHHB", 17, 8, 60_000, 60_000, 3) + b"\1\x11\0\2\x11\0\3\x11\0"
    scan = struct.pack(">HB", 6 + 2 * components_of_scan, components_of_scan)
    scan += b"".join(bytes([n + 1, 0]) for n in range(components_of_scan)) + b"\0\x3f\0"
    return b"\xff\xd8\xff\xc0" + frame + b"\xff\xda" + scan + bytes(100)


def test_a_jpeg_with_a_scan_for_each_colour_or_with_odd_markers_counts_whole():
    odd = large_jpeg(3)
    for data in (large_jpeg(1), odd[:2] + b"\xff" + odd[2:]):
        with pytest.raises(images.BrokenImageError, match="60000x60000: more than"):
            images.square(data, 32)
    with pytest.raises(images.BrokenImageError) as refused:  # decoded at 1/8, these are 56 million pixels
        images.square(large_jpeg(3), 32)
    assert not images.is_too_large(str(refused.value))


def test_pillows_own_limit_stays_for_others():
    limit = Image.MAX_IMAGE_PIXELS
    images.square(encode(colored(), "PNG"), 32)
    assert limit == Image.MAX_IMAGE_PIXELS and limit is not None


def bomb() -> bytes:
    """A PNG of 50,000 x 50,000 pixels in a few bytes."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 50_000, 50_000, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "empty"),
        (b"GIF89a nothing", "a picture of the kind GIF; convert it to one of JPEG, PNG"),
        (b"\0\0\0\x18ftypheic" + bytes(40), "a picture of the kind HEIC; convert it to one of JPEG, PNG"),
        (b"\0\0\0\x20ftypavis" + bytes(40), "a picture of the kind AVIF; convert it"),
        (b"\xff\x0a" + bytes(40), "a picture of the kind JPEG XL; convert it"),
        (b"<html>gone</html>", "not an image but a web page, as a download"),
        (b"\r\n<!DOCTYPE HTML>", "not an image but a web page, as a download"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\n", "but a pointer of Git LFS; `git lfs pull`"),
        (b"\0\0\0\x20ftypisom" + bytes(40), "not an image but a video"),
        (b"PK\3\4" + bytes(40), "not an image but a ZIP archive"),
        (b"nothing of that kind", r"not an image \(JPEG, PNG, WEBP, BMP\)"),
        (encode(colored((300, 300)), "JPEG")[:-200], "truncated"),
        (encode(colored((300, 300)), "PNG")[:60], "truncated|broken|end"),
        (bomb(), "pixels"),
    ],
    ids=lambda value: repr(value)[:30],
)
def test_broken(data, reason):
    with pytest.raises(images.BrokenImageError, match=reason):
        images.square(data, 32)


def test_any_damage_is_an_image_or_a_reason():
    rng = np.random.default_rng(0)
    noise = Image.fromarray(rng.integers(0, 256, (40, 40, 3), np.uint8))
    for kind in images.FORMATS:
        whole = encode(noise, kind)
        for _ in range(40):
            data = bytearray(whole)
            for place in rng.integers(0, len(data), 5):
                data[place] = rng.integers(256)
            try:
                image = images.square(bytes(data), 16)
            except images.BrokenImageError as error:
                reason = str(error)
                assert reason and "\n" not in reason
            else:
                assert image.size == (16, 16)


def test_a_jpeg_less_than_four_times_as_large_is_decoded_whole():
    noise = np.random.default_rng(0).integers(0, 256, (120, 120, 3), np.uint8)
    data = encode(Image.fromarray(noise), "JPEG")
    with Image.open(io.BytesIO(data)) as image:
        expected = image.convert("RGB").resize((32, 32), Image.Resampling.BICUBIC)
    np.testing.assert_array_equal(pixels(data, 32), np.asarray(expected))
