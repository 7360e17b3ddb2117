"""Networks in files for other programs: the same probabilities there, and the same bits back."""

import json
import re
import sys
import warnings
from types import SimpleNamespace
from unittest import mock

import jax
import numpy as np
import pytest
from etils import epath
from PIL import Image

import alexnet_jax
from alexnet_jax.data.pictures import read_picture
from alexnet_jax.data.preprocessing import of_colour
from alexnet_jax.errors import UsageError
from alexnet_jax.formats import export as exporting
from alexnet_jax.formats import export_page, imported, safetensors, workdir
from alexnet_jax.formats.caffe_messages import NetParameter
from alexnet_jax.formats.export import export
from alexnet_jax.network.native import build
from alexnet_jax.network.recipes import RECIPES, layers_of
from tests.formats import made, networks

# Among these, each operation and field of a tower occurs.
GRAPHS = [
    "original",
    "paper",
    "caffenet",
    "bvlc",
    "torchvision",
    "one_tower",
    "no_exchange",
    "batch_norm",
    "plain_pooling",
    "bottleneck",
    "tanh",
    "cifar_11pct",
]
CLASSIFIERS = [recipe for recipe in RECIPES if not layers_of(recipe)[-1].window]


def size_for(recipe):
    return 24 if recipe.startswith("cifar") else 83  # conv5 then ends with 2 x 2 maps, whose order counts


def run_onnx(data, crops):
    import onnxruntime

    session = onnxruntime.InferenceSession(bytes(data), providers=["CPUExecutionProvider"])
    return session.run(["probabilities"], {"crops": crops})[0]


@pytest.mark.parametrize("recipe", GRAPHS)
def test_onnx_runtime_gives_the_same_probabilities(recipe, tmp_path):
    network = made.network(recipe, classes=4 if recipe == "paper" else 5, crop_size=size_for(recipe), width=0.1)
    file, page = export(network, epath.Path(tmp_path / "net.onnx"))
    pictures = made.squares(network)
    expected = network.predict(pictures)
    assert expected.std(axis=0).max() > 1e-4, "the test would pass with constants"
    found = run_onnx(file.read_bytes(), made.crops(network, pictures))
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert page.name == "net.onnx.README.md"


@pytest.mark.parametrize("ending", ["onnx", "safetensors"])
def test_a_name_that_is_no_utf_8_has_a_page(tmp_path, ending):
    network = made.network(classes=2, crop_size=63)
    file, page = export(network, epath.Path(tmp_path / f"p\udce9.{ending}"))
    assert file.exists() and rf"'p\udce9.{ending}'" in page.read_text()  # as Python writes the name


@pytest.mark.parametrize(("recipe", "size"), [("original", 80), ("original", 63), ("torchvision", 83), ("bvlc", 80)])
def test_windows_that_hang_over_the_border_are_the_same_in_onnx(recipe, size, tmp_path):
    network = made.network(recipe, crop_size=size)
    [file, _] = export(network, epath.Path(tmp_path / "net.onnx"))
    pictures = made.squares(network)
    np.testing.assert_allclose(
        run_onnx(file.read_bytes(), made.crops(network, pictures)), network.predict(pictures), atol=1e-5
    )


def test_the_graphs_above_have_all_operations_and_fields():
    def parts(recipe):
        operations = {operation for layer in layers_of(recipe) for operation in layer.then}
        return operations | set(RECIPES[recipe].fields) | {"local" for layer in layers_of(recipe) if layer.local}

    assert set().union(*map(parts, GRAPHS)) == set().union(*map(parts, RECIPES))


def test_onnx_takes_any_number_of_crops_and_says_what_it_is(tmp_path):
    import onnx

    network = made.network()
    [file, _] = export(network, epath.Path(tmp_path / "net.onnx"), licence="CC0")
    pictures = made.squares(network, 7)
    expected = network.predict(pictures)
    for count in (1, 7):
        found = run_onnx(file.read_bytes(), made.crops(network, pictures[:count]))
        np.testing.assert_allclose(found, expected[:count], atol=1e-5)
    model = onnx.load(str(file))
    facts = {entry.key: entry.value for entry in model.metadata_props}
    assert json.loads(facts["classes"]) == list(network.classes)
    assert facts["licence_of_the_images"] == "CC0"
    assert facts["recipe"] == "original"
    assert "mean image" in facts["preprocessing"]


@pytest.mark.parametrize("recipe", ["original", "caffenet", "batch_norm", "cifar_11pct"])
def test_stablehlo_runs_anywhere_and_gives_the_same_probabilities(recipe, tmp_path):
    build.load()  # else the plain form is all that there is
    network = made.network(recipe, crop_size=size_for(recipe))
    file, page, classes = export(network, epath.Path(tmp_path / "net.stablehlo"), licence="CC0")
    program = jax.export.deserialize(bytearray(file.read_bytes()))
    facts = json.loads(program.fun_name)
    assert json.loads(facts["classes"]) == list(network.classes)
    assert facts["licence_of_the_images"] == "CC0" and "mean image" in facts["preprocessing"]
    assert program.platforms == ("cpu", "cuda", "tpu")
    assert program.nr_devices == 1
    calls = set(re.findall(r"custom_call @([\w.]+)", program.mlir_module()))
    assert calls <= {"shape_assertion"}, "the program needs a library of ours"
    batches = "batching_dims" in program.mlir_module()
    assert batches == (recipe == "cifar_11pct"), "of local layers alone; connected ones have one form on all platforms"
    pictures = made.squares(network, 5)
    expected = network.predict(pictures)
    for count in (1, 5):
        found = program.call(made.crops(network, pictures[:count]))
        np.testing.assert_allclose(found, expected[:count], atol=1e-5)
    assert page.name == "net.stablehlo.README.md"
    assert classes.read_text().splitlines() == list(network.classes)


def test_an_export_leaves_the_c_operations_on(tmp_path):
    before = build.load().platform is not None
    export(made.network(), epath.Path(tmp_path / "net.stablehlo"))
    assert build.available() == before


def test_a_network_of_bfloat16_is_exported(tmp_path):
    network = made.network(bfloat16=True)
    pictures = made.squares(network)
    [file, _] = export(network, epath.Path(tmp_path / "net.onnx"))
    found = run_onnx(file.read_bytes(), made.crops(network, pictures))
    np.testing.assert_allclose(found, network.predict(pictures), atol=0.05)
    program = export(network, epath.Path(tmp_path / "net.stablehlo"))[0].read_bytes()
    found = jax.export.deserialize(bytearray(program)).call(made.crops(network, pictures))
    np.testing.assert_allclose(found, network.predict(pictures), atol=0.02)


@pytest.mark.parametrize(
    ("recipe", "mesh"),
    [(recipe, mesh) for recipe in ("original", "batch_norm") for mesh in ((1, 1), (2, 2))]
    + [("torchvision_convolutions", (1, 1))],
)
def test_a_whole_network_comes_back_with_the_same_bits(recipe, mesh, tmp_path):
    network = made.network(recipe, classes=5 if recipe in CLASSIFIERS else 0, mesh=mesh)
    [file, _] = export(network, epath.Path(tmp_path / "net.safetensors"))
    back = alexnet_jax.load(file)
    for name in ("params", "batch_stats"):
        there, here = jax.device_get((getattr(network, name), getattr(back, name)))
        assert jax.tree.structure(there) == jax.tree.structure(here)
        jax.tree.map(np.testing.assert_array_equal, there, here)
    assert back.settings == network.settings.on_any_mesh()
    assert (back.step, back.classes) == (network.step, network.classes)
    for field in ("mean_image", "pixel_scale"):
        np.testing.assert_array_equal(getattr(back.preprocessing, field), getattr(network.preprocessing, field))
    layer = network.last_hidden_layer
    np.testing.assert_allclose(
        back.features(made.squares(network)), network.features(made.squares(network), layer), atol=1e-5
    )


@pytest.mark.parametrize(
    ("recipe", "classes"),
    [(recipe, classes) for recipe in ("torchvision", "bvlc", "caffenet") for classes in (4, 5)]
    + [("torchvision_convolutions", 0)],
)
def test_other_programs_layouts_come_back_with_the_same_bits(recipe, classes, tmp_path):
    kind = "torchvision" if recipe.startswith("torchvision") else "caffe"
    name = {"torchvision": "net.safetensors", "caffe": "net.caffemodel"}[kind]
    scale = np.full(3, 1 / 64, np.float32)
    network = made.network(recipe, classes=classes, crop_size=99, pixel_scale=scale)
    file, *beside = export(network, epath.Path(tmp_path / name), kind, licence="CC0")
    names = {path.name.removeprefix(name): path for path in beside}
    options = {"mean": names[".mean.binaryproto"], "classes": names[".classes.txt"]} if kind == "caffe" else {}
    back = imported.read(file, **options)
    for (path, there), (_, here) in zip(*map(jax.tree.leaves_with_path, (network.params, back.params)), strict=True):
        there = np.array(there)
        if classes % 2 and path[0].key == "fc8" and network.tower.towers == 2:
            there[1, ..., -1] = 0  # the logit that odd classes leave over
        np.testing.assert_array_equal(here, there)
    assert back.preprocessing.class_names == network.classes
    assert back.preprocessing.crop_size == 99
    assert back.preprocessing.image_size == network.preprocessing.image_size
    np.testing.assert_allclose(back.preprocessing.pixel_scale, scale)
    if kind == "caffe":
        np.testing.assert_array_equal(back.preprocessing.mean_image, network.preprocessing.mean_image)
        assert "central 99 x 99 pixels" in (about := NetParameter.FromString(file.read_bytes()).name.decode())
        assert about.endswith("Licence of the images: CC0.")
    else:
        mean = network.preprocessing.mean_crop.mean(axis=(0, 1), dtype=float)
        np.testing.assert_allclose(back.preprocessing.mean_crop.mean(axis=(0, 1), dtype=float), mean, rtol=1e-5)


@pytest.mark.parametrize(("recipe", "kind"), [("original", "safetensors"), ("torchvision", "torchvision")])
@pytest.mark.parametrize("licence", ["CC BY-NC-SA 4.0", ""])
def test_the_licence_of_the_images_comes_back(recipe, kind, licence, tmp_path):
    network = made.network(recipe, pixel_scale=np.ones(3, np.float32))
    [file, _] = export(network, epath.Path(tmp_path / "net.safetensors"), kind, licence=licence)
    read = imported.read(file)
    assert read.licence == licence
    assert workdir.card_of(read, file.name).license == licence


def test_the_licence_of_convolutions_alone_comes_back(tmp_path):
    """Such a file names no classes, and may hold a network of ImageNet's."""
    network = made.network("torchvision_convolutions", classes=0, pixel_scale=np.ones(3, np.float32))
    for licence, expected, data in (("CC0", "CC0", {}), ("", "ImageNet's terms", {"images"})):
        [file, _] = export(network, epath.Path(tmp_path / "net.safetensors"), "torchvision", licence=licence)
        card = workdir.card_of(imported.read(file), file.name)
        assert card.license.startswith(expected) and set(card.data) == set(data)


@pytest.mark.parametrize("name", ["net.onnx", "net.stablehlo", "net.safetensors"])
def test_the_page_beside_the_file_runs(name, tmp_path, monkeypatch):
    network = made.network()
    _, page, *_ = export(network, epath.Path(tmp_path / name), licence="CC BY 4.0 (with *stars*)")
    monkeypatch.chdir(tmp_path)
    pixels = np.random.default_rng(0).integers(0, 256, (90, 120, 3), np.uint8)
    Image.fromarray(pixels).save("photo.jpg", quality=95)
    names: dict = {}
    with warnings.catch_warnings():
        for block in re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL):
            exec(block, names)
    np.testing.assert_allclose(names["probabilities"], network.predict("photo.jpg"), atol=1e-4)
    if "crop_of" in names:
        seen = np.random.default_rng(1).integers(0, 256, (90, 120, 1), np.uint8)
        Image.fromarray(np.concatenate([pixels, seen], axis=-1)).save("seen.png")
        Image.fromarray(pixels[..., 0].astype(np.uint16) * 256 + 5).save("deep.png")
        Image.fromarray(pixels).convert("CMYK").save("print.jpg")
        for file in ("seen.png", "deep.png", "print.jpg"):
            [expected] = made.crops(network, read_picture(file, network.preprocessing.image_size)[None])
            np.testing.assert_array_equal(names["crop_of"](file), expected, err_msg=file)
    text = page.read_text()
    assert r"CC BY 4.0 (with \*stars\*)" in text
    for number, each in enumerate(network.classes):
        assert f"| {number} | {each.replace('|', chr(92) + '|')} |" in text


def test_a_page_of_each_kind_says_how_and_what(tmp_path):
    for recipe, name, kind in (("bvlc", "net.caffemodel", "caffe"), ("torchvision", "net.safetensors", "torchvision")):
        network = made.network(recipe, crop_size=99, pixel_scale=np.ones(3, np.float32))
        page = export(network, epath.Path(tmp_path / name), kind)[1].read_text()
        for wanted in ("bicubic", "99 x 99", "mean", "not recorded", "| 4 | class 4", recipe, "python"):
            assert wanted in page, (kind, wanted)


def test_the_pixels_of_torchvisions_page_are_those_of_the_network(tmp_path):
    """Torchvision's networks have one mean for each colour. The rest of the page's code is PyTorch's own."""
    network = made.network("torchvision", crop_size=99, pixel_scale=np.float32([1 / 64, 1 / 32, 1 / 16]))
    page = export(network, epath.Path(tmp_path / "net.safetensors"), "torchvision")[1].read_text()
    code = re.findall(r"```python\n(.*?)```", page, re.DOTALL)[-1]
    [assigned] = [line for line in code.splitlines() if line.startswith("mean, scale = ")]
    [pixels] = [line for line in code.splitlines() if line.startswith("pixels = ")]
    crops = np.random.default_rng(0).integers(0, 256, (2, 99, 99, 3), np.uint8)
    names: dict = {"np": np, "crops": crops, "torch": SimpleNamespace(from_numpy=lambda array: array)}
    exec(f"{assigned}\n{pixels}", names)
    mean, scale = network.preprocessing.mean_crop.mean(axis=(0, 1)), network.preprocessing.pixel_scale
    for color in range(3):
        expected = (crops[..., color] - mean[color]) * scale[color]
        np.testing.assert_allclose(names["pixels"][:, color], expected, atol=1e-4)


@pytest.mark.parametrize("recipe", ["bvlc", "caffenet"])
def test_googles_library_reads_in_a_caffemodel_what_caffe_needs(recipe, tmp_path):
    """Names, kinds, wires and options as in Caffe's own prototxt of the network."""
    network = made.network(recipe, crop_size=99, pixel_scale=np.ones(3, np.float32))
    file, *_ = export(network, epath.Path(tmp_path / "net.caffemodel"), "caffe")
    message = networks.MESSAGES["Net"]()
    message.ParseFromString(file.read_bytes())
    assert [layer.name for layer in message.layers] == networks.GRAPHS[recipe].split()
    bottom = ""
    for layer in message.layers:
        kind = "Input" if layer.name == "data" else networks.KINDS[layer.name[:-1]]
        top = bottom if kind in ("ReLU", "Dropout") else layer.name
        assert (layer.type, list(layer.bottom), list(layer.top)) == (kind, [bottom] if bottom else [], [top])
        bottom = top
        out = len(layer.blobs[1].data) if layer.blobs else 0
        if kind == "Convolution":
            options = layer.convolution
            group = 2 if layer.name in ("conv2", "conv4", "conv5") else 1
            assert (options.num_output, options.group) == (out, group)
            assert list(options.pad) == [networks.PADDING.get(layer.name, 0)]
            assert list(options.kernel_size) == [{"conv1": 11, "conv2": 5}.get(layer.name, 3)]
            assert list(options.stride) == [4 if layer.name == "conv1" else 1]
        elif kind == "InnerProduct":
            assert layer.inner_product.num_output == out > 0
        elif kind == "Dropout":
            assert layer.dropout.dropout_ratio == 0.5
        elif kind == "LRN":
            assert (layer.lrn.local_size, layer.lrn.beta) == (5, 0.75) and layer.lrn.alpha == pytest.approx(1e-4)
        elif kind == "Pooling":
            assert (layer.pooling.pool, layer.pooling.kernel_size, layer.pooling.stride) == (0, 3, 2)


@pytest.mark.parametrize(
    ("recipe", "name", "kind", "reason"),
    [
        ("torchvision_convolutions", "net.onnx", "auto", "no classifier"),
        ("torchvision_convolutions", "net.stablehlo", "auto", "no classifier"),
        ("original", "net.caffemodel", "auto", "Caffe's layout cannot hold the recipe 'original'"),
        ("original", "net.safetensors", "torchvision", "cannot hold the recipe 'original'"),
        ("original", "net.pth", "auto", "ends? in .*safetensors"),
        ("original", "net", "auto", "end in"),
        ("original", "net.onnx", "caffe", "caffemodel, and net.onnx does not"),
        ("original", "net.onnx", "tflite", "kinds are stablehlo, onnx"),
    ],
)
def test_what_cannot_be_exported_is_one_line_and_no_file(recipe, name, kind, reason, tmp_path):
    network = made.network(recipe, classes=5 if recipe in CLASSIFIERS else 0)
    with pytest.raises(UsageError, match=reason) as error:
        export(network, epath.Path(tmp_path / name), kind)
    assert "\n" not in str(error.value)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("name", "package"),
    [("net.onnx", "onnx"), ("net.safetensors", "safetensors"), ("net.stablehlo", "flatbuffers")],
)
def test_a_missing_package_is_named_with_its_extra(name, package, tmp_path, monkeypatch):
    network = made.network()
    file, *_ = export(network, epath.Path(tmp_path / name))
    extra = file.suffix[1:]
    for module in [each for each in sys.modules if each.partition(".")[0] == package]:
        monkeypatch.setitem(sys.modules, module, None)
    monkeypatch.setitem(sys.modules, package, None)
    for attempt in (
        lambda: export(network, file),
        *([lambda: alexnet_jax.load(file)] if package == "safetensors" else []),
    ):
        with pytest.raises(UsageError, match=rf"pip install 'alexnet_jax\[{extra}\]'"):
            attempt()


def test_a_file_that_cannot_be_written_is_one_line(tmp_path):
    network = made.network()
    with pytest.raises(UsageError, match=r"cannot be written: No such file"):
        export(network, epath.Path(tmp_path / "nowhere" / "net.safetensors"))


def whole_file(**changes):
    """Arrays and metadata of a file of ours, as a damaged or foreign program would leave them."""
    network = made.network()
    params, batch_stats = jax.device_get((network.params, network.batch_stats))
    data = safetensors.network_to_bytes(
        safetensors.Network(network.settings, network.step, params, batch_stats, network.preprocessing),
        exporting.about(network, ""),
    )
    from safetensors.numpy import load

    arrays, header = load(data), json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    metadata = header["__metadata__"] | {key: value for key, value in changes.items() if isinstance(value, str)}
    arrays |= {key: value for key, value in changes.items() if isinstance(value, np.ndarray)}
    for key, value in changes.items():
        if value is None:
            metadata.pop(key, None)
            arrays.pop(key, None)
    return safetensors.to_bytes(arrays, metadata)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"alexnet_jax": "2"}, "version '2' of the layout.*later version"),
        ({"config": None}, "damaged"),
        ({"config": "{"}, "damaged"),
        ({"config": "[1]"}, "damaged"),
        ({"config": '{"name": 1}'}, "config in .* makes no sense"),
        ({"classes": "null"}, "damaged"),
        ({"crop_size": "9" * 5000}, "damaged"),
        ({"crop_size": "1000"}, "make no sense"),
        ({"image_size": "-1"}, "make no sense"),
        ({"step": "x"}, "damaged"),
        ({"preprocessing/mean_image": None}, "damaged"),
        ({"preprocessing/mean_image": np.full((73, 73, 3), np.nan, np.float32)}, "make no sense"),
        ({"params/conv1/kernel": None}, "lacks the array params/conv1/kernel"),
        ({"params/conv1/kernel": np.zeros(3, np.float32)}, r"array params/conv1/kernel of float32 \(3,\)"),
        ({"params/conv1/bias": np.zeros((2, 2), np.float64)}, "array params/conv1/bias of float64"),
        ({"params/conv9/bias": np.zeros(2, np.float32)}, "strange array params/conv9/bias"),
        ({"classes": '["a", "b", "c"]'}, "array params/fc8"),
    ],
)
def test_a_file_of_ours_that_makes_no_sense_is_one_line(changes, reason, tmp_path):
    (tmp_path / "net.safetensors").write_bytes(whole_file(**changes))
    with pytest.raises(UsageError, match=reason) as error:
        alexnet_jax.load(tmp_path / "net.safetensors")
    assert "\n" not in str(error.value)
    assert "net.safetensors" in str(error.value)
    with pytest.raises(UsageError, match=reason):  # as `convert import` reads the file
        imported.read(tmp_path / "net.safetensors")


def test_a_damaged_file_of_ours_is_refused_or_read(tmp_path):
    data = whole_file()
    header = int.from_bytes(data[:8], "little")
    rng = np.random.default_rng(0)
    file, lines = tmp_path / "net.safetensors", []
    for _ in range(60):
        damaged = bytearray(data)
        for place in rng.integers(0, header + 8, 3):
            damaged[place] ^= 1 << rng.integers(8)
        file.write_bytes(bytes(damaged[: rng.integers(0, len(data))]) if rng.random() < 0.3 else bytes(damaged))
        try:
            alexnet_jax.load(file)
        except UsageError as error:
            lines.append(str(error))
    assert len(lines) > 20 and not any("\n" in line for line in lines)


def test_a_file_at_an_address_is_read(tmp_path, monkeypatch):
    network = made.network()
    export(network, epath.Path(tmp_path / "net.safetensors"))
    remote = mock.MagicMock(spec=epath.Path)
    remote.__str__.return_value = "gs://bucket/net.safetensors"
    remote.read_bytes.return_value = (tmp_path / "net.safetensors").read_bytes()
    monkeypatch.setattr(safetensors.epath, "Path", lambda path: path)
    arrays, metadata = safetensors.read_arrays(remote)
    np.testing.assert_array_equal(arrays["params/conv1/kernel"], network.params["conv1"]["kernel"])
    assert safetensors.is_network(metadata)


def test_what_is_no_file_of_a_network_is_one_line(tmp_path):
    (tmp_path / "folder.safetensors").mkdir()
    (tmp_path / "empty.safetensors").touch()
    for name, reason in (
        ("missing.safetensors", "there is no file"),
        ("missing.pth", "there is no file"),
        ("folder.safetensors", "no run|no config|holds no"),
        ("empty.safetensors", "empty"),
    ):
        with pytest.raises(UsageError, match=reason) as error:
            alexnet_jax.load(tmp_path / name)
        assert "\n" not in str(error.value)
    with pytest.raises(UsageError, match="holds one network; leave out the checkpoint"):
        alexnet_jax.load(tmp_path / "empty.safetensors", checkpoint="best")


def test_files_standardize_each_crop_where_the_network_does(tmp_path):
    network = made.network(each_image=True)
    pictures = made.squares(network)
    expected = network.predict(pictures)
    assert np.abs(expected - made.network().predict(pictures)).max() > 1e-3, "the test would pass without"
    crops = made.crops(network, pictures)
    [onnx_file, page] = export(network, epath.Path(tmp_path / "net.onnx"))
    np.testing.assert_allclose(run_onnx(onnx_file.read_bytes(), crops), expected, atol=1e-5)
    assert "divided by its standard deviation plus 4" in page.read_text()
    program = export(network, epath.Path(tmp_path / "net.stablehlo"))[0].read_bytes()
    np.testing.assert_allclose(jax.export.deserialize(bytearray(program)).call(crops), expected, atol=1e-5)
    back = alexnet_jax.load(export(network, epath.Path(tmp_path / "net.safetensors"))[0])
    np.testing.assert_allclose(back.predict(pictures), expected, atol=1e-6)
    for recipe, name in (("bvlc", "net.caffemodel"), ("torchvision", "torch.safetensors")):
        network = made.network(recipe, crop_size=99, pixel_scale=np.ones(3, np.float32), each_image=True)
        kind = "caffe" if recipe == "bvlc" else "torchvision"
        with pytest.raises(UsageError, match="standardizes each crop"):
            export(network, epath.Path(tmp_path / name), kind=kind)


def test_the_words_have_the_mean_and_the_scale_of_each_colour(tmp_path):
    pixels = dict(mean=[123, 117, 104], pixel_scale=[0.5, 0.25, 0.125])
    words = export_page.in_words(of_colour(("a",), image_size=64, crop_size=56, **pixels))
    assert "shorter side has 64 pixels" in words and "central 56 x 56 pixels" in words
    assert words.endswith("colour (123, 117, 104) is subtracted. The result is multiplied by (0.5, 0.25, 0.125).")
    network = made.network("bvlc", crop_size=99, pixel_scale=np.full(3, 1 / 64, np.float32))
    assert "times 0.015625." in export(network, epath.Path(tmp_path / "net.caffemodel"), "caffe")[1].read_text()
