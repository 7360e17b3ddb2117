"""Networks of other programs compute here what they compute by the reference in NumPy, whichever file they came in."""

import collections
import json
import pickle

import jax
import numpy as np
import pytest
from etils import epath
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import save

from alexnet_jax.data import imagenet_names
from alexnet_jax.errors import UsageError
from alexnet_jax.formats import caffe, imported, safetensors, torchvision
from alexnet_jax.network import sharding
from alexnet_jax.network.forward import make_features
from alexnet_jax.network.tower import make_tower
from tests import small
from tests.formats import networks
from tests.reference import network

WIDTH = 0.125
RNG = np.random.default_rng(3)


def write(folder, data, name="network.bin"):
    (folder / name).write_bytes(data)
    return folder / name


def last_layer(read, images):
    """Of an imported network: its logits, or its maps where it has no classifier."""
    found = read.settings.network
    tower = make_tower(found.recipe, num_classes=len(read.preprocessing.class_names), width=found.width)
    mesh = sharding.make_mesh(data=1, tower=1, devices=jax.devices()[:1])
    return np.asarray(jax.jit(make_features(tower, mesh, tower.layers[-1].name))(read.params, {}, images))


def assert_computes(read, layers, towers, size, name):
    image = RNG.normal(0, 1, (1, size, size, 3)).astype(np.float32)
    expected = network.NETWORKS[name](image[0].transpose(2, 0, 1).astype(np.float64), networks.by_tower(layers, towers))
    found = last_layer(read, image)[0]
    np.testing.assert_allclose(found, np.moveaxis(expected, 0, -1), rtol=0, atol=1e-5 * np.abs(expected).max())


@pytest.mark.parametrize("old", [False, True], ids=["layer", "layers"])
@pytest.mark.parametrize("recipe", ["bvlc", "caffenet"])
def test_caffe(recipe, old, tmp_path):
    layers = networks.whole(networks.CAFFE, width=WIDTH)
    read = imported.read(write(tmp_path, networks.caffemodel(layers, recipe, old=old)))
    assert (read.kind, read.settings.network.recipe, read.settings.network.width) == (recipe, recipe, WIDTH)
    assert (read.preprocessing.crop_size, read.preprocessing.image_size) == (227, 256)
    assert np.all(read.preprocessing.mean_image == np.float32([123, 117, 104]))
    assert np.all(read.preprocessing.pixel_scale == 1)
    assert read.preprocessing.class_names == tuple(map(str, range(10)))
    assert_computes(read, layers, 2, 227, recipe)


@pytest.mark.parametrize(
    ("by", "old"),
    [("crop_size", False), ("crop_size", True), ("input", False), ("input_dim", True), ("input_shape", True)],
)
def test_caffe_s_other_crops_and_means(by, old, tmp_path):
    """At 224 pixels conv1 gives 54 places a side in Caffe, and 55 in 2012."""

    def change(name, layer):
        if name == "data":
            layer.transform.mean_value.extend([10, 20, 30])
            layer.transform.scale = 0.5
            layer.transform.crop_size = 224
            if by != "crop_size":
                layer.transform.ClearField("crop_size")

    layers, shape = networks.whole(networks.CAFFE, width=WIDTH), [1, 3, 224, 224]
    first = networks.MESSAGES["Net"]()
    if by == "input":
        first.layers.add(name="pixels", type="Input").input.shape.add(dim=shape)
    elif by == "input_dim":
        first.input_dim.extend(shape)
    elif by == "input_shape":
        first.input_shape.add(dim=shape)
    rest = networks.caffemodel(layers, "bvlc", old=old, change=change)
    read = imported.read(write(tmp_path, first.SerializeToString() + rest))
    assert read.preprocessing.crop_size == 224
    assert np.all(read.preprocessing.mean_image == np.float32([30, 20, 10]))
    assert np.all(read.preprocessing.pixel_scale == 0.5)
    if not old:
        assert_computes(read, layers, 2, 224, "bvlc")


def test_caffe_s_mean_may_be_one_number(tmp_path):
    def change(name, layer):
        if name == "data":
            layer.transform.mean_value.append(7)

    layers = networks.whole(networks.CAFFE, width=WIDTH)
    read = imported.read(write(tmp_path, networks.caffemodel(layers, "bvlc", change=change)))
    assert np.all(read.preprocessing.mean_image == 7)


def test_caffe_without_norms_is_refused(tmp_path):
    file = write(tmp_path, networks.caffemodel(networks.whole(networks.CAFFE, width=1 / 16), "no norms"))
    for kind in ("auto", "bvlc"):
        with pytest.raises(UsageError, match="it has no response norm, and Caffe's AlexNet and CaffeNet have two"):
            imported.read(file, kind=kind)


def test_caffe_s_norms_without_inputs_leave_the_recipe_open(tmp_path):
    def change(name, layer):
        if name.startswith("norm"):
            layer.ClearField("bottom")

    file = write(tmp_path, networks.caffemodel(networks.whole(networks.CAFFE, width=1 / 16), change=change))
    assert imported.read(file, kind="bvlc").kind == "bvlc"


@pytest.mark.parametrize("old", [False, True])
@pytest.mark.parametrize("recipe", ["bvlc", "caffenet"])
def test_caffe_s_recipe_follows_from_what_layers_give_and_not_from_their_names(recipe, old, tmp_path):
    names = {name: f"a_{name}" for name in ("conv1", "relu1", "pool1", "norm1")}
    data = networks.caffemodel(networks.whole(networks.CAFFE, width=1 / 16), recipe, old=old, names=names)
    assert imported.read(write(tmp_path, data)).kind == recipe


def test_caffe_s_double_numbers_and_other_names(tmp_path):
    layers = networks.whole(networks.CAFFE, width=1 / 16, classes=6)
    data = networks.caffemodel(layers, double=True, names={"fc8": "fc8_flickr"})
    read = imported.read(write(tmp_path, data))
    plain = imported.read(write(tmp_path, networks.caffemodel(layers)))
    assert jax.tree.all(jax.tree.map(np.array_equal, read.params, plain.params))


def test_caffe_s_mean_image(tmp_path):
    layers = networks.whole(networks.CAFFE, width=1 / 16)
    mean = RNG.uniform(90, 140, (256, 256, 3)).astype(np.float32)
    read = imported.read(
        write(tmp_path, networks.caffemodel(layers)), mean=write(tmp_path, networks.binaryproto(mean), "mean")
    )
    assert np.array_equal(read.preprocessing.mean_image, mean)
    assert np.array_equal(caffe.read_mean(caffe.write_mean(mean)), mean)


LOOPS: dict = {"ready": 5}  # of Lightning's trainer
for _name in ("step", "optimizer", "optim_progress", "epoch_loop.automatic_optimization.optim_progress", "fit_loop"):
    LOOPS = {_name: LOOPS}
FORMS = {
    "safetensors": lambda state: save(state),
    "pth": networks.pth,
    "legacy": networks.legacy_pth,
    "training script": lambda state: networks.pth(state, lambda tensors: {"epoch": 3, "state_dict": tensors}),
    "scheduler": lambda state: networks.pth(
        state, lambda tensors: {"state_dict": tensors, "scheduler": {"milestones": collections.Counter([30, 60])}}
    ),
    "any dictionary": lambda state: networks.pth(state, lambda tensors: {"net": {"weights": tensors}}),
    "Lightning": lambda state: networks.pth(
        {f"model.{name}": array for name, array in state.items()},
        lambda tensors: {"state_dict": tensors, "best": np.float64(0.25), "loops": LOOPS},
    ),
    "compiled": lambda state: networks.pth({f"_orig_mod.{name}": array for name, array in state.items()}),
    "compiled and parallel": lambda state: networks.pth(
        {f"_orig_mod.module.{name}": array for name, array in state.items()}, lambda tensors: {"model": tensors}
    ),
    "data parallel": lambda state: networks.pth({f"module.{name}": array for name, array in state.items()}),
    "features parallel": lambda state: networks.pth(
        {name.replace("features.", "features.module."): array for name, array in state.items()}
    ),
}


@pytest.mark.parametrize("form", FORMS)
def test_torchvision(form, tmp_path):
    layers = networks.whole(networks.TORCHVISION, width=WIDTH)
    state = networks.state_dict(layers)
    read = imported.read(write(tmp_path, FORMS[form](state)))
    assert (read.kind, read.settings.network.recipe, read.settings.network.width) == (
        "torchvision",
        "torchvision",
        WIDTH,
    )
    assert (read.preprocessing.crop_size, read.preprocessing.image_size) == (224, 256)
    if form == "safetensors":
        assert_computes(read, layers, 1, 224, "torchvision")
    else:
        same = imported.read(write(tmp_path, FORMS["safetensors"](state)))
        assert jax.tree.all(jax.tree.map(np.array_equal, read.params, same.params))


def test_torchvision_s_pixels(tmp_path):
    layers = networks.whole(networks.TORCHVISION, width=1 / 16)
    read = imported.read(write(tmp_path, save(networks.state_dict(layers))))
    crops = RNG.integers(0, 256, (2, 224, 224, 3), np.uint8)
    expected = (crops / 255 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    np.testing.assert_allclose(read.preprocessing.inputs(jax.numpy.asarray(crops)), expected, atol=1e-5)


@pytest.mark.parametrize("half", [np.float16, jax.numpy.bfloat16])
def test_half_numbers(half, tmp_path):
    layers = networks.whole(networks.TORCHVISION, width=1 / 16)
    state = {name: array.astype(half) for name, array in networks.state_dict(layers).items()}
    read = imported.read(write(tmp_path, save(state)))
    assert read.params["fc8"]["kernel"].dtype == np.float32
    assert np.array_equal(read.params["fc8"]["kernel"][0].T, state["classifier.6.weight"].astype(np.float32))


@pytest.mark.parametrize("form", ["state dict", "flax"])
def test_convolutions_alone(form, tmp_path):
    layers = dict(list(networks.whole(networks.TORCHVISION, width=WIDTH).items())[:5])
    if form == "flax":
        tree = {
            f"Conv_{i}": {"kernel": kernel.transpose(2, 3, 1, 0), "bias": bias}
            for i, (kernel, bias) in enumerate(layers.values())
        }
        data = pickle.dumps({"Net_0": tree, "Lin_0": {"Conv_0": {"kernel": np.zeros((1, 1, 8, 1), np.float32)}}})
    else:
        data = networks.pth(networks.state_dict(layers))
    read = imported.read(write(tmp_path, data))
    assert read.settings.network.recipe == "torchvision_convolutions"
    assert read.preprocessing.class_names == () and "no classifier" in read.notes[0]
    assert_computes(read, layers, 1, 224, "torchvision_convolutions")


def test_a_thousand_classes_are_imagenet_s(tmp_path):
    layers = networks.whole(networks.TORCHVISION, width=1 / 16, classes=1000)
    read = imported.read(write(tmp_path, save(networks.state_dict(layers))))
    assert read.preprocessing.class_names == imagenet_names.class_ids()
    assert read.settings.dataset.name == "imagenet2012" and read.settings.dataset.classes == 1000


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("cat\ntwo  blanks\n\nn01440764 tench\n", ("cat", "two  blanks", "n01440764 tench")),
        ("\ufeffcat\r\ndog\r\nn01440764", ("cat", "dog", "n01440764")),
        (
            "n01440764 tench, Tinca tinca\nn01443537 goldfish\nn01484850 a\n",
            ("n01440764", "n01443537", "n01484850"),
        ),
    ],
)
def test_names_of_classes(text, expected, tmp_path):
    layers = networks.whole(networks.TORCHVISION, width=1 / 16, classes=3)
    file = write(tmp_path, save(networks.state_dict(layers)))
    names = write(tmp_path, text.encode(), "names.txt")
    assert imported.read(file, classes=names).preprocessing.class_names == expected
    names.write_bytes("a\nb\nné\n".encode("latin-1"))
    with pytest.raises(UsageError, match="is no text in UTF-8; store it as UTF-8"):
        imported.read(file, classes=names)
    for wrong, error in (("a\nb\n", "names 2 classes and the network has 3"), ("a\nb\na\n", "'a' twice")):
        names.write_text(wrong)
        with pytest.raises(UsageError, match=error):
            imported.read(file, classes=names)


@settings(max_examples=12, deadline=None)
@given(
    recipe=st.sampled_from(["torchvision", "torchvision_convolutions", "bvlc", "caffenet"]),
    width=st.floats(1 / 12, 0.2),
    classes=st.integers(2, 7),
    seed=st.integers(0, 2**32 - 1),
)
def test_a_network_goes_out_and_comes_back_with_the_same_bits(tmp_path_factory, recipe, width, classes, seed):
    size = 224 if recipe.startswith("torch") else 227
    tower = make_tower(recipe, num_classes=classes, width=width)
    rng = np.random.default_rng(seed)
    params = jax.tree.map(lambda leaf: rng.standard_normal(leaf.shape, np.float32), small.shapes(tower, size)[0])
    folder = tmp_path_factory.mktemp("out")
    if recipe.startswith("torch"):
        data = save(torchvision.to_state_dict(params, tower, recipe))
    else:
        data = caffe.write(params, tower, recipe, crop_size=size, pixel_scale=[0.5] * 3)
    read = imported.read(write(folder, data))

    assert read.settings.network.recipe == recipe
    if "fc8" in params and classes % tower.towers:  # the logit that the last tower has too many
        for leaf in ("kernel", "bias"):
            assert not read.params["fc8"][leaf][-1, ..., -1].any()
            params["fc8"][leaf][-1, ..., -1] = 0
    assert jax.tree.all(jax.tree.map(np.array_equal, read.params, params))
    again = make_tower(recipe, num_classes=classes, width=read.settings.network.width)
    assert again.layers == tower.layers
    if not recipe.startswith("torch"):
        assert np.all(read.preprocessing.pixel_scale == 0.5)


def test_other_crops_go_out_and_come_back():
    """Caffe's file says the size of its pictures; maps of 1x1 before fc6 are no maps of 6x6."""
    tower = make_tower("bvlc", num_classes=3, width=0.125)
    params = jax.tree.map(lambda leaf: RNG.standard_normal(leaf.shape, np.float32), small.shapes(tower, 67)[0])
    read = caffe.read(caffe.write(params, tower, "bvlc", crop_size=67, pixel_scale=[1.0] * 3))
    assert read.crop_size == 67


@pytest.mark.parametrize(("recipe", "wanted"), [("original", "one tower and no norm"), ("one_tower", "one tower")])
def test_a_recipe_that_a_layout_cannot_hold(recipe, wanted):
    tower = make_tower(recipe, num_classes=3, width=0.1)
    with pytest.raises(UsageError, match=wanted):
        torchvision.to_state_dict({}, tower, recipe)
    with pytest.raises(UsageError, match="Caffe's layout cannot hold"):
        caffe.write({}, tower, recipe, crop_size=224, pixel_scale=[1.0] * 3)


def test_classes_in_the_metadata_of_a_file(tmp_path):
    layers = networks.whole(networks.TORCHVISION, width=1 / 16, classes=2)
    data = save(networks.state_dict(layers), metadata={"classes": json.dumps(["cat", "dog"])})
    assert imported.read(write(tmp_path, data)).preprocessing.class_names == ("cat", "dog")


# ---- wrong files ----------------------------------------------------------------------------------------------------

SMALL_CAFFE = networks.whole(networks.CAFFE, width=1 / 16)
SMALL_TORCH = networks.whole(networks.TORCHVISION, width=1 / 16)


def changed(layers, name, kernel=lambda x: x, bias=lambda x: x):
    return layers | {name: (kernel(layers[name][0]), bias(layers[name][1]))}


def with_nan(x):
    x = x.copy()
    x.flat[-1] = np.nan
    return x


def as_stride(name, layer):
    if name == "conv1":
        layer.convolution.stride[0] = 2


def as_norm(name, layer):
    if name == "norm1":
        layer.lrn.alpha = 2e-5


def as_pool(name, layer):
    if name == "pool5":
        layer.pooling.pool = 1


WRONG = {
    "empty": (b"", "it is empty"),
    "text": (b"hello, world\n" * 9, "no file of Caffe"),
    "lfs": (b"version https://git-lfs.github.com/spec/v1\noid sha256:1\n", "Git LFS"),
    "page": (b"<!DOCTYPE html><html>404</html>", "a web page"),
    "hdf5": (b"\x89HDF\r\n\x1a\n" + b"\0" * 90, "HDF5"),
    "zip": (b"PK\x03\x04" + b"\0" * 50, "no archive of PyTorch"),
    "length": (b"\xa2\x06\xff\xff\xff\xff\xff\xff\xff\xff\x7f" + b"\0" * 50, "damaged or cut off, or no file of Caffe"),
    "varint": (b"\xff" * 50, "damaged or cut off, or no file of Caffe"),
    "many layers": (b"\xa2\x06\x00" * 2000, "more than 1,000 layers"),
    "many axes": (
        b"\xa2\x06\x90\x4e\x3a\x8d\x4e\x3a\x8a\x4e\x0a\x87\x4e" + b"\x7f" * 9991,
        "an array of 9,991 axes",
    ),
    "big-endian": (networks.pth(networks.state_dict(SMALL_TORCH), order="big"), "its numbers are big-endian"),
    "old big-endian": (
        networks.legacy_pth(networks.state_dict(SMALL_TORCH), order="big"),
        "its numbers are big-endian",
    ),
    "nan": (networks.caffemodel(changed(SMALL_CAFFE, "fc6", with_nan)), "fc6 has weights that are not finite"),
    "torch nan": (save(networks.state_dict(changed(SMALL_TORCH, "conv3", bias=with_nan))), "conv3 has weights that"),
    "shape": (
        save(networks.state_dict(changed(SMALL_TORCH, "conv2", lambda x: x[:, :, :3, :3].copy()))),
        "conv2 has a kernel of 12x4x3x3 and 12 biases, and the network with images of 224 pixels 12x4x5x5 and 12",
    ),
    "bias": (networks.pth(networks.state_dict(changed(SMALL_TORCH, "fc7", bias=lambda x: x[1:]))), "fc7 has 255 maps"),
    "scalar bias": (
        save(networks.state_dict(changed(SMALL_TORCH, "conv1", bias=lambda x: np.array(0.0, np.float32)))),
        "conv1 has a bias of the shape (",
    ),
    "legacy without a storage": (
        networks.legacy_pth(networks.state_dict(SMALL_TORCH), listed=lambda keys: keys[:-1]),
        "its list of storages is damaged",
    ),
    "fully connected as windows": (
        networks.caffemodel(changed(SMALL_CAFFE, "fc7", lambda x: x[:, :, None, None])),
        "fc7 has a kernel of 256x256x1x1 and 256 biases, and the network with images of 227 pixels 256x256",
    ),
    "missing": (
        save({k: v for k, v in networks.state_dict(SMALL_TORCH).items() if k != "classifier.4.bias"}),
        "alexnet has classifier.4.bias",
    ),
    "vgg": (
        save(networks.state_dict(SMALL_TORCH) | {"features.12.weight": np.zeros(3, np.float32)}),
        "holds features.12.weight, which torchvision's alexnet does not have",
    ),
    "integers": (
        save(networks.state_dict(SMALL_TORCH) | {"features.0.weight": np.zeros((4, 3, 11, 11), np.int32)}),
        "conv1 has numbers of the type int32",
    ),
    "two networks": (
        save({f"{place}.{k}": v for place in ("ours", "mean") for k, v in networks.state_dict(SMALL_TORCH).items()}),
        "it holds 2 networks: mean, ours; save one network in a separate file",
    ),
    "one class": (
        save(networks.state_dict(networks.whole(networks.TORCHVISION, width=1 / 16, classes=1))),
        "the number of classes is 1, and a classifier needs at least 2",
    ),
    "stride": (networks.caffemodel(SMALL_CAFFE, change=as_stride), "conv1 has padding 0, windows of 11, 1 groups"),
    "norm": (networks.caffemodel(SMALL_CAFFE, change=as_norm), "norm1 is another norm"),
    "pool": (networks.caffemodel(SMALL_CAFFE, change=as_pool), "pool5 is another pooling"),
    "weights alone": (networks.caffemodel(SMALL_CAFFE, "weights alone"), "give its kind, bvlc or caffenet"),
    "layers": (
        networks.caffemodel({k: v for k, v in SMALL_CAFFE.items() if k != "fc7"}),
        "5 Convolution and 3 InnerProduct",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_file_is_one_line_with_its_name(case, tmp_path):
    data, expected = WRONG[case]
    file = write(tmp_path, data)
    with pytest.raises(UsageError, match=expected.replace("(", r"\(")) as caught:
        imported.read(file)
    assert str(file) in str(caught.value) and "\n" not in str(caught.value) and len(str(caught.value)) < 500


def test_a_file_of_another_kind_is_named_by_its_ending(tmp_path):
    data = b"hello, world\n" * 9
    for name, expected in (
        ("net.caffemodel", "no file of Caffe"),
        ("net.onnx", "it is an ONNX file, which is not read; name a .safetensors, a .caffemodel or a .pth"),
    ):
        with pytest.raises(UsageError, match=expected):
            imported.read(write(tmp_path, data, name))


def test_files_that_are_none(tmp_path):
    for path, expected in (
        (tmp_path / "none", "there is no file"),
        (tmp_path, "a folder"),
        ("/dev/zero", "not a file"),
    ):
        with pytest.raises(UsageError, match=expected):
            imported.read(path)


def test_numbers_that_are_not_finite_are_refused(tmp_path):
    """Of the file of another program, and of one of ours."""
    read = imported.read(write(tmp_path, save(networks.state_dict(SMALL_TORCH))))
    for wrong in (np.nan, np.inf):
        params = jax.tree.map(np.array, read.params)
        params["conv3"]["bias"][0, 0] = wrong
        ours = safetensors.Network(read.settings, 0, params, {}, read.preprocessing)
        file = write(tmp_path, safetensors.network_to_bytes(ours, {}))
        with pytest.raises(UsageError, match=f"{file} holds numbers that are not finite, in conv3/bias: the file is"):
            imported.read(file)
        layers = dict(SMALL_TORCH) | {"conv3": (SMALL_TORCH["conv3"][0], np.full_like(SMALL_TORCH["conv3"][1], wrong))}
        with pytest.raises(UsageError, match="its conv3 has weights that are not finite numbers"):
            imported.read(write(tmp_path, save(networks.state_dict(layers))))
    for value in (np.nan, -1, 1e9):
        model = write(tmp_path, networks.caffemodel(SMALL_CAFFE), "caffe")
        mean = write(tmp_path, networks.binaryproto(np.full((256, 256, 3), value, np.float32)), "mean")
        with pytest.raises(UsageError, match="a mean image is 3x256x256 numbers from 0 to 255"):
            imported.read(model, mean=mean)


def test_flags_that_do_not_fit_the_file(tmp_path):
    torch = write(tmp_path, save(networks.state_dict(SMALL_TORCH)), "torch")
    model = write(tmp_path, networks.caffemodel(SMALL_CAFFE), "caffe")
    mean = write(tmp_path, networks.binaryproto(np.zeros((100, 100, 3), np.float32)), "mean")
    for arguments, expected in (
        (dict(file=torch, kind="bvlc"), "the kind bvlc is given"),
        (dict(file=torch, mean=mean), "a mean image is given"),
        (dict(file=model, kind="torchvision"), "the kind torchvision is given"),
        (dict(file=model, kind="caffenet"), "Caffe's bvlc, and the kind caffenet is given"),
        (dict(file=model, mean=mean), "100 pixels a side, and crops have 227"),
        (dict(file=model, mean=model), "mean image is 3x256x256"),
    ):
        with pytest.raises(UsageError, match=expected):
            imported.read(**arguments)
    unnamed = write(tmp_path, networks.caffemodel(SMALL_CAFFE, "weights alone"), "unnamed")
    assert imported.read(unnamed, kind="caffenet").kind == "caffenet"


TINY_TORCH = networks.state_dict(dict(list(networks.whole(networks.TORCHVISION, width=1 / 64, side=6).items())))
TINY_CAFFE = networks.whole(networks.CAFFE, width=1 / 48)
FILES = {
    "caffe": networks.caffemodel(TINY_CAFFE),
    "old caffe": networks.caffemodel(TINY_CAFFE, old=True),
    "safetensors": save(TINY_TORCH),
    "pth": networks.pth(TINY_TORCH),
    "legacy pth": networks.legacy_pth(TINY_TORCH),
    "pickle": pickle.dumps({name: {"kernel": array} for name, array in TINY_TORCH.items()}),
}


@pytest.mark.parametrize("name", FILES)
def test_a_damaged_file_is_refused_or_read_and_never_a_traceback(name, tmp_path):
    """Flips near the structure, cuts, repeats and insertions."""
    rng = np.random.default_rng(len(name))
    whole = np.frombuffer(FILES[name], np.uint8)
    file, lines = epath.Path(tmp_path / "damaged"), []
    for trial in range(150):
        data = whole.copy()
        reach = (len(data), 400, 40)[trial % 3]  # of the places: anywhere, and at the ends, where the structure lies
        places = rng.integers(-reach, reach, rng.integers(1, 6)) % len(data)
        match trial % 5:
            case 0 | 1:
                data[places] = rng.integers(0, 256, len(places))
            case 2:
                data[places] ^= np.uint8(1) << rng.integers(0, 8, len(places), np.uint8)
            case 3:
                data = data[: places[0]]
            case 4:
                data = np.insert(data, places[0], rng.integers(0, 256, 9).astype(np.uint8))
        file.write_bytes(data.tobytes())
        try:
            imported.read(file)
        except UsageError as error:
            lines.append(str(error))
    assert len(lines) > 40 and not any("\n" in line or len(line) > 700 for line in lines)
