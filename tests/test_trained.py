"""A network from a workdir, without its data set: predictions, features, and what is no picture."""

import dataclasses
import errno
import io
import itertools
import shutil
import subprocess
import sys
import tempfile
from types import SimpleNamespace

import jax
import numpy as np
import pytest
from etils import epath
from PIL import Image

import alexnet_jax
from alexnet_jax import trained
from alexnet_jax.data.pictures import read_picture
from alexnet_jax.errors import UsageError
from alexnet_jax.network.forward import make_features
from alexnet_jax.network.recipes import layers_of
from alexnet_jax.network.sharding import make_mesh
from alexnet_jax.train import train_and_evaluate
from tests.conftest import ROOT


@pytest.fixture(scope="module")
def run(tiny_run):
    return tiny_run


@pytest.fixture(scope="module")
def network(run):
    return alexnet_jax.load(run, data_dir="/nowhere")


def test_a_checkpoint_is_loaded_by_name_and_number(run):
    assert alexnet_jax.load(run, checkpoint=3).step == alexnet_jax.load(run, checkpoint="best").step == 3
    with pytest.raises(UsageError, match=r"there is no checkpoint '9'; there are last, best, 3$"):
        alexnet_jax.load(run, checkpoint=9)


@pytest.mark.parametrize("views", [1, 10])
def test_predictions_have_the_error_of_the_runs_result(run, network, squares, views):
    from alexnet_jax.workdir.record import read_result

    images, labels = squares
    probabilities = network.predict(images, views=views)
    assert probabilities.shape == (50, 2)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, atol=1e-5)
    result = read_result(epath.Path(run))
    assert (probabilities.argmax(axis=1) != labels).mean() == pytest.approx(result[f"top1_{views}_views"])
    loss = -np.log(probabilities[range(50), labels]).mean()
    assert loss == pytest.approx(result[f"loss_{views}_views"], rel=1e-5)


def test_a_workdir_without_preprocessing_takes_that_of_its_data_set(run, network, squares, data_dir, tmp_path):
    old = tmp_path / "old"
    shutil.copytree(run, old)
    (old / "preprocessing.npz").unlink()
    np.testing.assert_array_equal(
        alexnet_jax.load(old, data_dir=data_dir).predict(squares[0][:3]), network.predict(squares[0][:3])
    )


class Piped(io.BytesIO):
    """Gives a part at a time and cannot be rewound, as an unbuffered file over a pipe."""

    def read(self, size: int | None = -1) -> bytes:
        return super().read(min(1000, size or 0))

    def seek(self, offset: int, whence: int = 0) -> int:
        raise OSError(errno.ESPIPE, "Illegal seek")


def test_one_picture_in_every_form_gives_the_same_answer(network, tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    Image.fromarray(pixels).save(file := tmp_path / "bild ä.png")
    forms = [pixels, [pixels], pixels[None], file, str(file), file.read_bytes(), Image.open(file), [Image.open(file)]]
    forms += [io.BytesIO(file.read_bytes()), [io.BytesIO(file.read_bytes())], memoryview(file.read_bytes())]
    forms += [Piped(file.read_bytes())]
    expected = network.predict(pixels)
    for form in forms:
        np.testing.assert_array_equal(network.predict(form), expected)


def test_an_open_file_is_one_picture_from_its_beginning(network, squares, tmp_path):
    Image.fromarray(squares[0][0]).save(file := tmp_path / "a.png")
    expected = network.predict(file)

    class Upload:  # as Flask's, which is also iterated line by line, and looks `read` up when asked
        def __init__(self, opened):
            self._opened = opened

        def __getattr__(self, name):
            return getattr(self._opened, name)

        def __iter__(self):
            return iter(self._opened)

    with open(file, "rb") as opened:
        np.testing.assert_array_equal(network.predict(Upload(opened)), expected)
        opened.seek(9)
        np.testing.assert_array_equal(network.predict(opened), expected)
        np.testing.assert_array_equal(network.predict([opened] * 3), np.repeat(expected, 3, axis=0))

    def lent():
        for _ in range(3):
            with open(file, "rb") as opened:
                yield opened

    np.testing.assert_array_equal(network.predict(lent()), np.repeat(expected, 3, axis=0))
    with pytest.raises(UsageError, match=r"picture 0 \(BufferedReader\) cannot be read: .*closed file"):
        network.predict(opened)
    with open(file) as text, pytest.raises(UsageError, match=r"is no picture: a file opened as text; open it with"):
        network.predict(text)


def test_pictures_that_are_too_large_or_elsewhere_are_named_as_such(tmp_path):
    Image.new("1", (10_000, 9_000)).save(file := tmp_path / "large.png")
    with pytest.raises(UsageError, match=r"large\.png is too large: 10000x9000: more than .* pixels; scale it down"):
        read_picture(file, 16)
    with pytest.raises(UsageError, match=r"gs://bucket/a\.jpg is no picture: an address; copy the picture"):
        read_picture("gs://bucket/a.jpg", 16)


def test_a_temporary_file_is_one_picture(network, squares):
    with tempfile.NamedTemporaryFile() as file:  # whose `read` is looked up when asked
        Image.fromarray(squares[0][0]).save(file, "PNG")
        np.testing.assert_array_equal(network.predict(file), network.predict(squares[0][0]))


def test_an_empty_name_is_no_folder(network, run, monkeypatch):
    monkeypatch.chdir(run)
    with pytest.raises(UsageError, match=r"^'' is no picture: the name of its file is empty$"):
        network.predict("")
    with pytest.raises(UsageError, match=r"^the name of the network is empty; name a workdir or a file$"):
        alexnet_jax.load("")


def test_apply_of_inputs_gives_the_logits_behind_the_predictions(network, squares):
    images = squares[0][:4]
    logits = jax.jit(network.apply)(network.params, network.inputs(images))
    np.testing.assert_allclose(jax.nn.softmax(logits), network.predict(images), atol=1e-6)


def test_features_of_the_last_hidden_layer_make_the_logits(network, squares):
    images = squares[0][:4]
    features = network.features(images, "fc7")
    leaves = jax.device_get(network.params["fc8"])
    logits = np.concatenate([features @ k + b for k, b in zip(leaves["kernel"], leaves["bias"], strict=True)], axis=1)
    np.testing.assert_allclose(logits[:, :2], network.features(images, "fc8"), atol=1e-4)
    assert network.features(images, "conv5").ndim == 4


@pytest.mark.parametrize(
    ("layer", "shape"), [*itertools.product(("conv5", "fc7"), [(1, 2), (2, 1), (2, 2)]), ("fc8", (2, 2))]
)
def test_features_are_the_same_on_every_layout(network, squares, shape, layer):
    images = network.inputs(squares[0][:4])
    mesh = make_mesh(data=shape[0], tower=shape[1])
    params, batch_stats = jax.device_get((network.params, network.batch_stats))
    features = jax.jit(make_features(network.tower, mesh, layer))(params, batch_stats, jax.device_get(images))
    np.testing.assert_allclose(features, network.features(squares[0][:4], layer), atol=1e-5)


def test_a_wrong_layer_names_the_layers(network, squares):
    with pytest.raises(UsageError, match=r"no layer 'fc9'; its layers are conv1, .*fc8"):
        network.features(squares[0][:1], "fc9")


@pytest.mark.parametrize(
    ("picture", "reason"),
    [
        ("/nowhere/cat.jpg", "No such file"),
        ("/dev/zero", "not a file"),
        (b"", "empty file"),
        (b"<html>", "not an image"),
        (np.zeros((3, 64, 64), np.uint8), "channels last"),
        (np.zeros((64, 64, 3)), "float64"),
        (np.zeros((0, 64, 3), np.uint8), "shape"),
        (Image.new("RGB", (64, 64)).crop((8, 8, 8, 20)), "0 x 12 pixels, as of an empty crop"),
    ],
)
def test_what_is_no_picture_is_one_line(network, picture, reason):
    with pytest.raises(UsageError, match=reason) as error:
        network.predict(picture)
    assert "\n" not in str(error.value)


def test_no_picture_at_all_is_one_line(network):
    with pytest.raises(UsageError, match="no picture"):
        network.predict([])


def test_a_damaged_preprocessing_is_named(run, tmp_path):
    damaged = tmp_path / "damaged"
    shutil.copytree(run, damaged)
    for content in (b"", b"PK", (run / "preprocessing.npz").read_bytes()[:300]):
        (damaged / "preprocessing.npz").write_bytes(content)
        with pytest.raises(UsageError, match=r"preprocessing\.npz"):
            alexnet_jax.load(damaged)


@pytest.mark.parametrize(
    ("name", "array", "reason"),
    [
        ("mean_image", np.full((64, 64, 3), 1e30, np.float32), "make no sense"),
        ("mean_image", np.full((64, 64, 3), np.nan, np.float32), "make no sense"),
        ("mean_image", np.full((64, 64, 3), -9, np.float32), "make no sense"),
        ("pixel_scale", np.zeros(3, np.float32), "make no sense"),
        ("pixel_scale", np.full(3, -1, np.float32), "make no sense"),
        ("pixel_scale", np.full(3, 1e30, np.float32), "make no sense"),
        ("crop_size", np.array(100), "make no sense"),
        ("image_size", np.array(64.7), "is damaged"),
        ("class_names", np.array([0.5, 2]), "is damaged"),
        ("class_names", np.array("functional"), "is damaged"),
        ("class_names", np.array(["a", "a"]), "is empty or occurs twice"),
        ("class_names", np.array(["a", " "]), "is empty or occurs twice"),
        ("class_names", np.array(["a", "b", "c"]), r"fc8/bias has the shape \(2, 2\) here.* is of another run"),
    ],
)
def test_a_preprocessing_that_makes_no_sense_is_refused(run, tmp_path, name, array, reason):
    """A network that is given other pixels answers all the same."""
    shutil.copytree(run, tmp_path / "odd")
    file = tmp_path / "odd/preprocessing.npz"
    np.savez(file, **dict(np.load(file)) | {name: array})
    with pytest.raises(UsageError, match=reason) as found:
        alexnet_jax.load(tmp_path / "odd")
    assert "preprocessing.npz" in str(found.value)


def test_probabilities_that_are_not_finite_have_no_likeliest_class(network, squares):
    huge = dataclasses.replace(network, params=jax.tree.map(lambda leaf: leaf * 1e25, network.params))
    assert np.isnan(huge.predict(squares[0])).all()
    with pytest.raises(UsageError, match="picture 0 has probabilities that are not finite"):
        huge.top(squares[0])


def test_a_picture_of_any_kind_is_read():
    colour = Image.new("RGB", (40, 30), (180, 120, 60))
    luma = 0.299 * 180 + 0.587 * 120 + 0.114 * 60
    for mode in ("L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr", "HSV", "RGBX"):
        expected = [luma] * 3 if mode.startswith("L") else [180, 120, 60]
        pixels = read_picture(colour.convert("L").convert(mode) if mode == "LA" else colour.convert(mode), 16)
        assert pixels.shape == (16, 16, 3)
        tolerance = 16 if mode == "P" else 4  # a palette of few colours, dithered
        np.testing.assert_allclose(pixels, np.broadcast_to(expected, pixels.shape), atol=tolerance, err_msg=mode)
    for mode in ("1", "LAB"):
        assert read_picture(Image.new(mode, (40, 30)), 16).shape == (16, 16, 3)
    file = io.BytesIO()
    colour.convert("CMYK").save(file, "JPEG")
    np.testing.assert_allclose(read_picture(file.getvalue(), 16)[8, 8], [180, 120, 60], atol=4)


@pytest.mark.parametrize("mode", ["I;16", "I;16L", "I;16B", "I"])
def test_a_picture_of_16_bits_is_not_clipped(mode, tmp_path):
    grey = np.arange(32 * 32, dtype=np.uint16).reshape(32, 32) * 64
    if mode == "I":
        Image.fromarray(grey).save(tmp_path / "grey.pgm")
        image = Image.open(tmp_path / "grey.pgm")
        assert image.mode == "I"
    else:
        image = Image.frombytes(mode, (32, 32), grey.astype({"I;16B": ">u2"}.get(mode, "<u2")).tobytes())
    np.testing.assert_array_equal(read_picture(image, 32), np.repeat(grey[..., None] >> 8, 3, axis=2))


@pytest.mark.parametrize("mode", ["I", "F"])
def test_a_picture_whose_white_is_not_known_is_refused(mode):
    """It would be black: PIL images of numbers 0 to 255 as int32, or 0 to 1 as float32."""
    image = Image.fromarray(np.ones((32, 32), {"I": np.int32, "F": np.float32}[mode]))
    with pytest.raises(UsageError, match=rf"this Image is no picture: the mode {mode} has no fixed value for white"):
        read_picture(image, 16)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_an_image_is_as_upright_as_its_file(orientation, tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (24, 16, 3), np.uint8)
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(pixels).save(file := tmp_path / "photo.png", exif=exif)
    np.testing.assert_array_equal(read_picture(Image.open(file), 16), read_picture(file, 16))


def test_frames_that_share_an_object_are_pictures_of_their_own(network, squares):
    images = squares[0][:5]
    expected = network.predict(images)

    def frames(make):
        one = make(images[0])
        for image in images:
            if isinstance(one, Image.Image):
                one.paste(Image.fromarray(image))
            else:
                one[:] = image
            yield one

    class Film:  # which can be read again and again
        def __iter__(self):
            return frames(np.copy)

    def files():
        one = bytearray()
        for image in images:
            file = io.BytesIO()
            Image.fromarray(image).save(file, "PNG")
            one[:] = file.getvalue()
            yield one

    for lent in (frames(np.copy), frames(Image.fromarray), Film(), files()):
        np.testing.assert_allclose(network.predict(lent), expected, atol=1e-6)


def test_generators_of_images_keep_what_their_numbers_mean(network, tmp_path):
    grey = np.arange(64 * 64, dtype=np.uint16).reshape(64, 64) * 16
    Image.fromarray(grey).save(tmp_path / "grey.pgm")
    expected = network.predict(Image.fromarray((grey >> 8).astype(np.uint8)))
    np.testing.assert_allclose(
        network.predict(Image.open(tmp_path / "grey.pgm") for _ in range(1)), expected, atol=1e-6
    )
    Image.fromarray(np.full((64, 64), 200, np.int32)).save(tmp_path / "bytes.tiff")
    with pytest.raises(UsageError, match=r"picture 0 \(TiffImageFile\) is no picture: the mode I has no fixed value"):
        network.predict(Image.open(tmp_path / "bytes.tiff"))


def test_damaged_exif_does_not_damage_the_pixels(network, squares, tmp_path):
    Image.fromarray(squares[0][0]).save(tmp_path / "a.png", exif=b"garbage")
    for picture in (Image.open(tmp_path / "a.png"), tmp_path / "a.png"):
        np.testing.assert_array_equal(network.predict(picture), network.predict(squares[0][0]))


def test_wrong_arguments_are_one_line(network, squares, tmp_path):
    image = squares[0][0]
    for call, reason in (
        (lambda: network.top(image, k=0), "k is 0; give the number of classes, at least 1"),
        (lambda: network.top(image, k=-1), "k is -1; "),
        (lambda: network.predict(image, views=0), r"views is 0; give 1 \(the centre crop\), 9 or 10"),
        (lambda: network.predict([image, image[..., :2]]), r"picture 1 \(ndarray\) is no picture: shape \(64, 64, 2\)"),
        (lambda: network.predict("a\0b.png"), "cannot be read: .*null"),
    ):
        with pytest.raises(UsageError, match=reason) as error:
            call()
        assert "\n" not in str(error.value)
    Image.fromarray(image).save(tmp_path / "a.png")
    with Image.open(tmp_path / "a.png") as closed:
        pass
    with pytest.raises(UsageError, match=r"picture 0 \(PngImageFile\) is no picture: its pixels cannot be read: "):
        network.predict(closed)
    data = (tmp_path / "a.png").read_bytes()
    np.testing.assert_array_equal(network.predict(bytearray(data)), network.predict(data))


def test_double_precision_is_refused_in_one_line(network, run, data_dir, tiny_config):
    jax.config.update("jax_enable_x64", True)
    try:
        for call in (lambda: alexnet_jax.load(run), lambda: train_and_evaluate(tiny_config(), run, data_dir)):
            with pytest.raises(UsageError, match=r"jax_enable_x64 is on, and the network computes in float32; jax\.c"):
                call()
    finally:
        jax.config.update("jax_enable_x64", False)


def test_apply_is_mapped_and_has_jacobians(network, squares):
    inputs = network.inputs(squares[0][:3])
    expected = network.apply(network.params, inputs)

    def alone(image):
        return network.apply(network.params, image[None])[0]

    np.testing.assert_allclose(jax.jit(jax.vmap(alone))(inputs), expected, rtol=1e-4, atol=1e-5)
    gradient = jax.jit(jax.grad(lambda image: alone(image)[1]))(inputs[0])
    np.testing.assert_allclose(jax.jit(jax.jacrev(alone))(inputs[0])[1], gradient, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("mode", ["LA", "La", "PA", "RGBA", "RGBa"])
def test_transparent_parts_of_a_picture_are_white(mode):
    image = Image.new("RGBA", (32, 32), (0, 0, 0, 0))
    image.paste((90, 90, 90, 255), (0, 0, 16, 32))
    steps = {"La": ("LA", "La"), "PA": ("PA",), "LA": ("LA",), "RGBa": ("RGBa",)}
    for step in steps.get(mode, ()):
        image = image.convert(step)
    assert image.mode == mode
    pixels = read_picture(image, 32)
    np.testing.assert_array_equal(pixels[:, :16], 90)
    np.testing.assert_array_equal(pixels[:, 16:], 255)


def test_its_text_is_a_line_for_people(network):
    assert "recipe original of width 0.03, 2 classes, crops of 56 pixels" in repr(network)
    assert len(repr(network)) < 400 and "\n" not in repr(network)


def test_the_likeliest_classes_come_first(network, squares):
    images = squares[0][:3]
    probabilities = network.predict(images)
    for row, answers in zip(probabilities, network.top(images), strict=True):
        assert [name for name, _ in answers] == [network.classes[label] for label in np.argsort(-row)]
        assert [probability for _, probability in answers] == sorted(map(float, row), reverse=True)
    assert [len(answers) for answers in network.top(images, k=1)] == [1, 1, 1]


def test_a_generator_of_many_pictures_is_read_in_batches(network, squares, monkeypatch):
    monkeypatch.setattr(trained, "BATCH", 8)
    images, asked, done = squares[0][:37], [], []
    run = trained.Trained.log_probs

    def counted(self, batch, **options):
        done.append(len(asked))
        assert len(batch) == 8
        return run(self, batch, **options)

    def pictures():
        for image in images:
            asked.append(1)
            yield image

    monkeypatch.setattr(trained.Trained, "log_probs", counted)
    found = network.predict(pictures())
    np.testing.assert_allclose(found, np.exp(run(network, images)), atol=1e-6)
    assert done == [16, 24, 32, 37, 37], "no more than two batches are read in advance"


def test_a_picture_that_is_none_is_named_among_many(network, squares, tmp_path):
    (bad := tmp_path / "bad.png").write_bytes(b"\x89PNG")
    with pytest.raises(UsageError, match=r"bad\.png is no picture"):
        network.predict([*squares[0][:20], bad, *squares[0][20:]])


def test_the_same_object_may_come_twice(network, tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    Image.fromarray(pixels).save(file := tmp_path / "a.png")
    lazy = Image.open(file)
    found = network.predict([lazy] * 20)
    np.testing.assert_array_equal(found, found[:1].repeat(20, axis=0))


def test_threads_and_forbidden_transfers_change_nothing(network, squares):
    import concurrent.futures

    images = squares[0][:8]
    expected = network.predict(images)
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        for found in pool.map(lambda _: network.predict(images), range(8)):
            np.testing.assert_array_equal(found, expected)
    with jax.transfer_guard("disallow"):
        np.testing.assert_array_equal(network.predict(images), expected)
        assert network.features(images).shape[0] == 8
        assert network.inputs(images).shape[0] == 8


@pytest.mark.parametrize("shape", [(1, 1), (1, 2), (2, 2), (4, 1)])
def test_any_number_of_pictures_fits_every_layout(network, squares, shape):
    from alexnet_jax.network.sharding import state_shardings

    mesh = make_mesh(data=shape[0], tower=shape[1])
    params, batch_stats = jax.device_get((network.params, network.batch_stats))
    other = dataclasses.replace(
        network, mesh=mesh, params=jax.device_put(params, state_shardings(params, mesh)),
        batch_stats=jax.device_put(batch_stats, state_shardings(batch_stats, mesh)),
    )  # fmt: skip
    images = squares[0][:3]
    np.testing.assert_allclose(other.predict(images), network.predict(images), atol=1e-6)
    logits = jax.jit(other.apply)(other.params, other.inputs(images))
    np.testing.assert_allclose(jax.nn.softmax(logits), network.predict(images), atol=1e-6)


def test_pillow_s_limit_and_warnings_come_back_after_many_threads(tmp_path):
    import concurrent.futures
    import warnings

    before, filters = Image.MAX_IMAGE_PIXELS, list(warnings.filters)
    pixels = np.zeros((300, 300, 3), np.uint8)
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: read_picture(pixels, 16), range(200)))
    assert before == Image.MAX_IMAGE_PIXELS and warnings.filters == filters


def test_loading_prints_nothing(run):
    program = f"import alexnet_jax; alexnet_jax.load({str(run)!r})"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT, timeout=120)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.parametrize(
    ("recipe", "classes", "layer"),
    [
        ("original", ("a", "b"), "fc7"),
        ("bottleneck", ("a", "b"), "fc7"),
        ("cifar_11pct", ("a", "b"), "local4"),
        ("torchvision_convolutions", (), "conv5"),
    ],
)
def test_the_layer_that_stands_for_a_picture(recipe, classes, layer):
    names = [each.name for each in layers_of(recipe)]
    assert trained.Trained.last_hidden_layer.fget(SimpleNamespace(layers=names, classes=classes)) == layer


def test_the_likeliest_classes_are_those_of_the_views(network, squares):
    images = squares[0][:3]
    alone = network.predict(images).max(axis=1)
    for views in (9, 10):
        found = [answers[0][1] for answers in network.top(images, views=views)]
        np.testing.assert_allclose(found, network.predict(images, views=views).max(axis=1), rtol=1e-5)
        assert np.abs(np.array(found) - alone).max() > 1e-5
