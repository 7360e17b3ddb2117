"""Networks from files of other programs: Caffe's AlexNet and CaffeNet, torchvision's `alexnet`, its convolutions."""

import collections
import dataclasses
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from etils import epath

from alexnet_jax.configs import imagenet2012
from alexnet_jax.data import imagenet_names
from alexnet_jax.data import preprocessing as preprocessings
from alexnet_jax.data.preprocessing import Preprocessing
from alexnet_jax.errors import UsageError, reason_of
from alexnet_jax.experiment import build
from alexnet_jax.experiment.fields import Settings
from alexnet_jax.experiment.settings import settings_of
from alexnet_jax.formats import caffe, pickled_arrays, safetensors, torchvision, weights
from alexnet_jax.formats.errors import FormatError
from alexnet_jax.formats.safetensors import Network
from alexnet_jax.formats.weights import Whole
from alexnet_jax.network.forward import init_variables
from alexnet_jax.paths import is_file, is_missing

KINDS = ("auto", "caffenet", "bvlc", "torchvision")
MAX_BYTES = 2**31  # of a file; AlexNet's parameters take 244 MB, with an optimizer's state two or three times as much
MAX_CLASSES = 2**20  # lines of a file of names
WORDNET_ID = re.compile(r"n\d{8}")

SQUASHED = "Caffe squashes pictures to {0}x{0} pixels; here the shorter side is scaled to {0} and the centre is cut out"
READ = "name a .safetensors, a .caffemodel or a .pth"
UNREAD = {".onnx": "an ONNX file", ".stablehlo": "a StableHLO file", ".json": "JSON"}
FILTER = "torchvision scales pictures with a bilinear filter, and this program with a bicubic one"
NO_CLASSIFIER = "the file has convolutions alone: no classifier; `figures` and the features of conv5 use them"


@dataclasses.dataclass(frozen=True)
class _Stored:
    """A network of another program, before its classes are named."""

    recipe: str
    layers: Whole
    crop_size: int
    image_size: int
    mean: Sequence[float]
    scale: Sequence[float]
    notes: tuple[str, ...] = ()
    classes: tuple[str, ...] = ()
    licence: str = ""


def read(
    file: str | Path | epath.Path,
    *,
    kind: str = "auto",
    mean: str | Path | epath.Path | None = None,
    classes: str | Path | epath.Path | None = None,
) -> Network:
    """The network in a file.

    Args:
      file: `.caffemodel`, `.pth`, `.ckpt` or `.safetensors`; the bytes decide, not the name.
      kind: one of `KINDS`; `auto`: as the file says.
      mean: file of Caffe's mean image, `.binaryproto`; None: ImageNet's usual mean colour. Its
        middle is subtracted from every crop, as in 2012. Caffe subtracts what lies under the crop
        (K/src/caffe/data_transformer.cpp:101-115), so that corner views differ a little.
      classes: file with the name of a class a line; None: ImageNet's ids for 1000 classes, and numbers for others.

    Raises:
      UsageError: a file cannot be read, is damaged, or holds another network or numbers that are not finite.
    """
    path = epath.Path(file)
    network = _read(path, kind, mean, classes)
    for tree in (network.params, network.batch_stats):
        for place, leaf in jax.tree.leaves_with_path(tree):
            if not np.isfinite(leaf).all():
                name = jax.tree_util.keystr(place, simple=True, separator="/")
                raise UsageError(
                    f"{path} holds numbers that are not finite, in {name}: the file is damaged, or its training"
                    " diverged; name another file"
                )
    preprocessings.check(network.preprocessing, str(path))
    _check_shapes(network, path)
    return network


def _check_shapes(network: Network, file: epath.Path) -> None:
    """Compares the arrays of a file with those of its network.

    Raises:
      UsageError: one is missing, has another shape or type, or belongs to no layer.
    """
    tower = build.build_tower(network.settings, len(network.preprocessing.class_names))
    crop_size = network.preprocessing.crop_size
    params, batch_stats = jax.eval_shape(lambda: init_variables(tower, jax.random.key(0), crop_size))
    stored, wanted = (
        {jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in jax.tree.leaves_with_path(tree)}
        for tree in (
            {"params": network.params, "batch_stats": network.batch_stats},
            {"params": params, "batch_stats": batch_stats},
        )
    )
    if strange := sorted(stored.keys() ^ wanted.keys()):
        fault = "lacks the" if strange[0] in wanted else "has a strange"
        raise UsageError(f"{file} {fault} array {strange[0]}; write it anew")
    for name, leaf in wanted.items():
        if stored[name].shape != leaf.shape or stored[name].dtype != leaf.dtype:
            raise UsageError(
                f"{file} has an array {name} of {stored[name].dtype} {stored[name].shape}, and its network one of"
                f" {leaf.dtype} {leaf.shape}; write it anew"
            )


def _read(path: epath.Path, kind: str, mean: Any, classes: Any) -> Network:
    data = _bytes_of(path, "name a .caffemodel, .pth or .safetensors")
    try:
        if _is_safetensors(data):
            arrays, metadata = safetensors.read_arrays(path)
            if safetensors.is_network(metadata):
                if kind != "auto" or mean is not None or classes is not None:
                    raise UsageError(
                        "the file is one of this program and knows its kind, mean and classes; leave these out"
                    )
                return safetensors.network_of(arrays, metadata, str(path))
            stored = _of_torchvision(arrays, kind, metadata)
        elif data[:2] == b"PK" or data[:1] == b"\x80":
            stored = _of_torchvision(pickled_arrays.read(data), kind, {})
        else:
            stored = _of_caffe(data, kind, path.suffix.lower())
        if mean is not None and stored.recipe not in caffe.RECIPES:
            raise FormatError(
                "it is torchvision's network, whose mean is known, and a mean image is given; leave it out"
            )
        return _imported(stored, mean, classes)
    except FormatError as error:
        raise error if str(path) in str(error) else FormatError(error.reason, file=path, option=error.option) from error


def _bytes_of(path: epath.Path, advice: str) -> bytes:
    """The bytes of a file that a user names."""
    try:
        if is_missing(path):
            raise UsageError(f"there is no file {path}; {advice}")
        if not is_file(path):
            raise UsageError(f"{path} is {'a folder' if path.is_dir() else 'not a file'}; {advice}")
        if path.stat().length > MAX_BYTES:
            raise FormatError(f"it has {path.stat().length:,} bytes, more than any AlexNet; {advice}", file=path)
        data = path.read_bytes()
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {reason_of(error)}") from error
    start = data[:200].lstrip().lower()
    for reason, wrong in (
        ("it is empty", not start),
        (
            "it is a pointer of Git LFS, not the file; `git lfs pull` brings the file",
            start.startswith(b"version https"),
        ),
        ("it is a web page, not the file; download the file itself", start.startswith((b"<!doctype", b"<html"))),
        ("it is HDF5, which is not read; name the .caffemodel in the form of protocol buffers", start[1:4] == b"hdf"),
    ):
        if wrong:
            raise FormatError(reason, file=path)
    return data


def _is_safetensors(data: bytes) -> bool:
    return data[8:9] == b"{" and int.from_bytes(data[:8], "little") < len(data)


def _of_torchvision(arrays: dict[str, np.ndarray], kind: str, metadata: dict[str, str]) -> _Stored:
    if kind not in ("auto", "torchvision"):
        raise FormatError(f"it holds a network of PyTorch, and the kind {kind} is given; leave it out")
    layers = torchvision.layers_in(arrays)
    whole, own = "fc8" in layers, torchvision.pixels_in(metadata)
    return _Stored(
        recipe=torchvision.RECIPE if whole else torchvision.CONVOLUTIONS,
        layers=layers,
        notes=(*[NO_CLASSIFIER] * (not whole), *[FILTER] * (own is None)),
        classes=torchvision.classes_in(metadata),
        licence=safetensors.licence_of(metadata),
        **(own or torchvision.PIXELS),
    )


def _of_caffe(data: bytes, kind: str, suffix: str) -> _Stored:
    try:
        network = caffe.read(data)
    except FormatError as error:
        if suffix not in UNREAD:
            raise
        raise FormatError(f"it is {UNREAD[suffix]}, which is not read; {READ}") from error
    if kind == "torchvision" or (kind != "auto" and network.recipe not in (None, kind)):
        raise FormatError(f"it holds Caffe's {network.recipe or 'network'}, and the kind {kind} is given; leave it out")
    recipe = network.recipe or kind
    if recipe == "auto":
        raise FormatError("it does not say where its norms are; give its kind, bvlc or caffenet", option="kind=bvlc")
    size = max(caffe.IMAGE_SIZE, network.crop_size)
    return _Stored(recipe, network.layers, network.crop_size, size, network.mean, [network.scale] * 3)


def _imported(stored: _Stored, mean: Any, classes: Any) -> Network:
    for name, (_, bias) in stored.layers.items():
        if bias.ndim != 1:
            raise FormatError(f"its {name} has a bias of the shape {bias.shape}; a bias is a row of numbers")
    count = len(stored.layers["fc8"][1]) if "fc8" in stored.layers else 0
    tower, width = weights.tower_of(stored.recipe, stored.layers, count)
    params = weights.to_params(stored.layers, tower, stored.crop_size)
    names, notes = _names(count, stored, classes)
    preprocessing = preprocessings.of_colour(
        names, image_size=stored.image_size, crop_size=stored.crop_size, mean=stored.mean, pixel_scale=stored.scale
    )
    if mean is not None:
        preprocessing = _with_mean(preprocessing, epath.Path(mean))
    settings = _settings(stored.recipe, width, stored.crop_size, names)
    kind = stored.recipe if stored.recipe in caffe.RECIPES else "torchvision"
    if kind in caffe.RECIPES:
        notes = (SQUASHED.format(preprocessing.image_size), *notes)
    return Network(settings, 0, params, {}, preprocessing, stored.licence, kind, (*stored.notes, *notes))


def _with_mean(preprocessing: Preprocessing, file: epath.Path) -> Preprocessing:
    try:
        image = caffe.read_mean(_bytes_of(file, "name the .binaryproto of a mean image"))
    except FormatError as error:
        raise error if str(file) in str(error) else FormatError(error.reason, file=file) from error
    if len(image) < preprocessing.crop_size:
        raise FormatError(
            f"its mean image has {len(image)} pixels a side, and crops have {preprocessing.crop_size}; name the mean"
            " image of this network",
            file=file,
        )
    return dataclasses.replace(preprocessing, mean_image=image, image_size=len(image))


def _names(count: int, stored: _Stored, classes: Any) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The names of the classes, and what to know of them."""
    if classes is not None:
        return _names_in(epath.Path(classes), count), ()
    if len(stored.classes) == count:
        return stored.classes, ()
    if count == len(imagenet_names.class_ids()):
        return imagenet_names.class_ids(), ()
    numbers = tuple(str(number) for number in range(count))
    return numbers, (f"the file does not name its {count} classes: they are called 0 to {count - 1}",)


def _names_in(file: epath.Path, count: int) -> tuple[str, ...]:
    """A name a line; where every line begins with a WordNet id, as ImageNet's lists do, the ids."""
    if not count:
        raise UsageError("names of classes are given, and the file has no classifier; leave them out")
    try:
        text = _bytes_of(file, "name a text file with the name of a class a line").decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UsageError(f"{file} is no text in UTF-8; store it as UTF-8") from error
    names = [line.strip() for line in text.splitlines()[:MAX_CLASSES] if line.strip()]
    if all(WORDNET_ID.fullmatch(name.split()[0]) for name in names):
        names = [name.split()[0] for name in names]
    if len(names) != count:
        raise UsageError(f"{file} names {len(names):,} classes and the network has {count:,}; give a line for each")
    repeated = next((name for name, times in collections.Counter(names).items() if times > 1), None)
    if repeated is not None:
        raise UsageError(f"{file} names {repeated!r} twice; give each class a name of its own")
    return tuple(names)


def _settings(recipe: str, width: float, crop_size: int, names: tuple[str, ...]) -> Settings:
    """A config that trains such a network on ImageNet, or on the classes of the file."""
    is_imagenet = names == imagenet_names.class_ids()
    variant = recipe if recipe in imagenet2012.VARIANTS else "torchvision"
    values = imagenet2012.get_config(variant).to_dict()
    values["name"] = f"imported-{recipe}"
    values["network"] |= {"recipe": recipe, "width": width}
    values["dataset"] |= {"crop_size": crop_size, "classes": len(names) or None}
    if names and not is_imagenet:
        values["dataset"] |= {"name": "imported", "train_images": None, "train_split": None, "eval_split": None}
    return settings_of(values)
