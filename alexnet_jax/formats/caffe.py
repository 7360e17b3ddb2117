"""Caffe's layout: `.caffemodel`, and the mean image in a `.binaryproto`, read and written without Caffe.

Field numbers are those of K/src/caffe/proto/caffe.proto. A network has `layer` messages, or `layers` in the form of
before 2015, in which the published networks are stored. Caffe sees pictures in the order blue, green, red.
"""

import dataclasses
import math
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, PyTree

from alexnet_jax.data.preprocessing import LARGEST_PIXEL
from alexnet_jax.errors import UsageError
from alexnet_jax.formats import weights
from alexnet_jax.formats.errors import FormatError
from alexnet_jax.formats.protobuf import Message, encode
from alexnet_jax.formats.weights import Whole
from alexnet_jax.network.recipes import Layer
from alexnet_jax.network.tower import Tower

RECIPES = ("bvlc", "caffenet")
MEAN = (123.0, 117.0, 104.0)  # of red, green and blue, with which Caffe's networks are used where no image is at hand
IMAGE_SIZE, CROP_SIZE = 256, 227
ORDER = ("conv1", "conv2", "conv3", "conv4", "conv5", "fc6", "fc7", "fc8")

OLD_LAYERS, LAYERS, INPUT_DIM, INPUT_SHAPE = 2, 100, 4, 8  # of NetParameter
OLD_TYPES = {4: "Convolution", 6: "Dropout", 14: "InnerProduct", 15: "LRN", 17: "Pooling", 18: "ReLU"}
INNER_PRODUCT, TRANSFORM = 117, 100  # of LayerParameter
PAD, KERNEL_SIZE, GROUP, STRIDE = 3, 4, 5, 6  # of ConvolutionParameter
GEOMETRY = (9, 10, 11, 12, 13, 14, 18)  # of ConvolutionParameter: sizes by axis, dilation
CROP, SCALE, MEAN_VALUE = 3, 1, 5  # of TransformationParameter
INPUT_PARAM = 143  # of LayerParameter


@dataclasses.dataclass(frozen=True)
class _Block:
    """A layer of either form.

    Attributes:
      name, kind: such as `conv1` and `Convolution`.
      bottom: names of what it is given.
      blobs: its arrays.
      options: of its kind.
      transform: of the pictures.
    """

    name: str
    kind: str
    bottom: tuple[str, ...]
    blobs: tuple[np.ndarray, ...]
    options: Message
    transform: Message


@dataclasses.dataclass(frozen=True)
class CaffeNetwork:
    """What a `.caffemodel` holds.

    Attributes:
      recipe: `bvlc` or `caffenet`; None: the file has weights alone.
      layers: with red, green and blue in this order.
      crop_size: of the pictures, pixels.
      scale: factor of the pixels after the mean is subtracted.
      mean: of red, green and blue, in the file or `MEAN`.
    """

    recipe: str | None
    layers: Whole
    crop_size: int
    scale: float
    mean: tuple[float, ...] = MEAN


def read(data: bytes | memoryview) -> CaffeNetwork:
    """The network in the bytes of a `.caffemodel`.

    Raises:
      FormatError: the file is damaged, or holds another network than Caffe's AlexNet or CaffeNet.
    """
    net = Message(data)
    blocks = [_block(layer) for layer in net.messages(LAYERS)] or [
        _old_block(layer) for layer in net.messages(OLD_LAYERS)
    ]
    if not blocks:
        raise FormatError("it holds no layer, or is no file of Caffe")
    weighted = [block for block in blocks if block.blobs]
    kinds = [block.kind for block in weighted]
    if kinds != ["Convolution"] * 5 + ["InnerProduct"] * 3:
        found = ", ".join(f"{block.name[:20]} ({block.kind[:20]})" for block in weighted[:9]) or "none"
        raise FormatError(f"its layers with weights are {found}; Caffe's AlexNet has 5 Convolution and 3 InnerProduct")
    whole = {}
    for name, block in zip(ORDER, weighted, strict=True):
        if len(block.blobs) != 2:
            raise FormatError(f"its {name} has {len(block.blobs)} arrays; kernel and bias are two")
        kernel, bias = block.blobs
        if name.startswith("fc") and math.prod(kernel.shape[:-2]) == 1:
            kernel = kernel.reshape(kernel.shape[-2:])
        whole[name] = (kernel, bias.reshape(-1))
    if whole["conv1"][0].ndim != 4 or whole["conv1"][0].shape[1] != 3:
        raise FormatError(f"its conv1 has a kernel of {whole['conv1'][0].shape}, and pictures have 3 colours")
    whole["conv1"] = (whole["conv1"][0][:, ::-1], whole["conv1"][1])
    _check_options(blocks)
    transform = next((block.transform for block in blocks if block.transform.has(SCALE)), Message(b""))
    scale = transform.real(SCALE, 1.0)
    return CaffeNetwork(_recipe_of(blocks), whole, _crop_of(net, blocks), scale, _mean_of(blocks))


def read_mean(data: bytes | memoryview) -> Float[np.ndarray, "size size 3"]:
    """The mean image in the bytes of a `.binaryproto`, in red, green and blue.

    Raises:
      FormatError: the file is damaged, or holds no square image of three colours.
    """
    mean = _array(Message(data))
    mean = mean[0] if mean.ndim == 4 and len(mean) == 1 else mean
    is_square = mean.ndim == 3 and len(mean) == 3 and mean.shape[1] == mean.shape[2]
    if not is_square or not ((mean >= 0) & (mean <= LARGEST_PIXEL)).all():  # also NaN
        raise FormatError(
            f"it holds {weights.times(mean.shape)} numbers; a mean image is 3x256x256 numbers from 0 to 255"
        )
    return np.ascontiguousarray(mean[::-1].transpose(1, 2, 0), np.float32)


def write(
    params: PyTree[np.ndarray],
    tower: Tower,
    recipe: str,
    *,
    crop_size: int,
    pixel_scale: Sequence[float],
    name: str = "AlexNet",
) -> bytes:
    """A `.caffemodel` with `layer` messages, as Caffe writes since 2015: weights and what each layer does.

    Args:
      params: on the host.
      tower: of the recipe.
      recipe: its name, `bvlc` or `caffenet`.
      crop_size: of the pictures, pixels.
      pixel_scale: factor of each channel; Caffe has one for all.
      name: of the network, any text.

    Raises:
      UsageError: the layout cannot hold the recipe, or the scale of the pixels.
    """
    if recipe not in RECIPES:
        raise UsageError(
            f"Caffe's layout cannot hold the recipe {recipe!r}, whose sizes or norms Caffe does not have; it holds"
            f" {' and '.join(RECIPES)}"
        )
    if len(set(map(float, pixel_scale))) > 1:
        raise UsageError("Caffe's layout has one scale for all colours, and this network has one for each")
    whole = weights.of_params(params, tower)
    scale = float(pixel_scale[0])
    transform = encode((CROP, crop_size), *([(SCALE, scale)] if scale != 1 else []))
    shape = encode((1, [1, 3, crop_size, crop_size]))
    picture = encode((1, "data"), (2, "Input"), (4, "data"), (143, encode((1, shape))), (TRANSFORM, transform))
    layers, bottom = [picture], "data"
    for layer in tower.layers:
        messages, bottom = _layer_messages(layer, *whole[layer.name], tower, bottom)
        layers += messages
    return encode((1, name), *((LAYERS, layer) for layer in layers))


def write_mean(mean: Float[np.ndarray, "size size 3"]) -> bytes:
    """The mean image as a `.binaryproto`."""
    return _blob(np.asarray(mean, np.float32).transpose(2, 0, 1)[None, ::-1], old=True)


def _layer_messages(
    layer: Layer, kernel: np.ndarray, bias: np.ndarray, tower: Tower, bottom: str
) -> tuple[list[bytes], str]:
    """The messages of a layer and of the operations after it, and the name of what the last one gives."""
    name = layer.name
    if layer.window:
        kernel = kernel[:, ::-1] if kernel.shape[1] == 3 and name == "conv1" else kernel
        groups = 1 if layer.exchange or name == "conv1" else tower.towers
        options = (106, encode(
            (1, len(bias)), (PAD, layer.padding), (KERNEL_SIZE, layer.window), (GROUP, groups), (STRIDE, layer.stride)
        ))  # fmt: skip
        kind = "Convolution"
    else:
        kind, options = "InnerProduct", (INNER_PRODUCT, encode((1, len(bias))))
    blobs = [(7, _blob(kernel)), (7, _blob(bias))]
    messages = [encode((1, name), (2, kind), (3, bottom), (4, name), *blobs, options)]
    number, bottom, size = name[-1], name, tower.norm_size
    norm = encode((1, size), (2, tower.norm_alpha * size), (3, tower.norm_beta), (5, tower.norm_k))
    kinds = {
        "activation": ("relu", "ReLU", (123, b"")),
        "dropout": ("drop", "Dropout", (108, encode((1, 1 - tower.keep)))),
        "norm": ("norm", "LRN", (118, norm)),
        "pool": ("pool", "Pooling", (121, encode((1, 0), (2, tower.pool_size), (3, tower.pool_stride)))),
    }
    for operation in layer.then:
        prefix, kind, options = kinds[operation]
        top = bottom if operation in ("activation", "dropout") else f"{prefix}{number}"  # these work in place
        messages.append(encode((1, f"{prefix}{number}"), (2, kind), (3, bottom), (4, top), options))
        bottom = top
    return messages, bottom


def _blob(array: np.ndarray, *, old: bool = False) -> bytes:
    """An array; in the old form with four sizes."""
    sizes = list(zip((1, 2, 3, 4), array.shape, strict=True)) if old else [(7, encode((1, list(array.shape))))]
    return encode(*sizes, (5, np.ascontiguousarray(array)))


def _block(layer: Message) -> _Block:
    kind = layer.text(2)
    number = {"Convolution": 106, "LRN": 118, "Pooling": 121}.get(kind, 0)
    blobs = tuple(map(_array, layer.messages(7)))
    return _Block(layer.text(1), kind, tuple(layer.texts(3)), blobs, layer.message(number), layer.message(TRANSFORM))


def _old_block(layer: Message) -> _Block:
    if layer.has(1):
        raise FormatError("it has the form of Caffe of 2013; Caffe's upgrade_net_proto_binary writes the form of today")
    kind = OLD_TYPES.get((layer.numbers(5) or [0])[-1], "another kind")
    number = {"Convolution": 10, "LRN": 18, "Pooling": 19}.get(kind, 0)
    blobs = tuple(map(_array, layer.messages(6)))
    return _Block(layer.text(4), kind, tuple(layer.texts(2)), blobs, layer.message(number), layer.message(36))


def _array(blob: Message) -> np.ndarray:
    """The numbers of a blob, whose shape has any count of axes, or four in the old form."""
    values = blob.array(5, "<f4") if blob.has(5) else blob.array(8, "<f8")
    old = [(blob.numbers(axis) or [0])[-1] for axis in (1, 2, 3, 4)]
    shape = blob.message(7).numbers(1) if blob.has(7) else old
    if len(shape) > 8 or _product(shape) != len(values):
        raise FormatError(f"it has an array of {weights.times(shape)[:99]} with {len(values):,} numbers; it is damaged")
    return values.reshape(shape)


def _product(shape: Sequence[int]) -> int:
    count = 1
    for length in shape:
        count = min(count * length, 2**62)  # sizes in a damaged file may be anything
    return count


def _recipe_of(blocks: list[_Block]) -> str | None:
    """The recipe, by what the first norm is given; None: the file does not say.

    Raises:
      FormatError: it has the other layers, and no norm among them.
    """
    norms = [block for block in blocks if block.kind == "LRN" and block.bottom]
    if not norms:
        kinds = {block.kind for block in blocks}
        if "LRN" not in kinds and kinds & {"ReLU", "Pooling"}:
            raise FormatError("it has no response norm, and Caffe's AlexNet and CaffeNet have two")
        return None
    before = [block for block in blocks if block.name == norms[0].bottom[0]]
    return "caffenet" if before and before[0].kind == "Pooling" else "bvlc"


def _crop_of(net: Message, blocks: list[_Block]) -> int:
    sizes = net.numbers(INPUT_DIM)[2:4]
    inputs = [shape for layer in net.messages(LAYERS) for shape in layer.message(INPUT_PARAM).messages(1)]
    for shape in (net.messages(INPUT_SHAPE) or inputs)[:1]:
        sizes = shape.numbers(1)[2:4]
    crops = [block.transform.numbers(CROP)[-1] for block in blocks if block.transform.has(CROP)]
    return next((size for size in [*sizes[:1], *crops] if 0 < size <= 4096), CROP_SIZE)


def _mean_of(blocks: list[_Block]) -> tuple[float, ...]:
    """The mean of red, green and blue that the file names, one number for all or three; else the customary one.

    Raises:
      FormatError: there are other numbers.
    """
    transform = next((block.transform for block in blocks if block.transform.has(MEAN_VALUE)), None)
    if transform is None:
        return MEAN
    found = transform.array(MEAN_VALUE, "<f4")
    if len(found) not in (1, 3) or not ((found >= 0) & (found <= LARGEST_PIXEL)).all():  # also NaN
        raise FormatError(f"its mean_value is {found[:5].tolist()}; a mean is one or three numbers from 0 to 255")
    return tuple(map(float, np.broadcast_to(found[::-1], 3)))


def _check_options(blocks: list[_Block]) -> None:
    """Compares what the layers do with Caffe's AlexNet, as far as the file says.

    Raises:
      FormatError: a layer does something else.
    """
    convolutions = iter([(0, 11, 1, 4), (2, 5, 2, 1), (1, 3, 1, 1), (1, 3, 2, 1), (1, 3, 2, 1)])
    for block in blocks:
        options = block.options
        if block.kind == "Convolution" and block.blobs:
            expected = next(convolutions)
            defaults = (0, expected[1], 1, 1)
            found = tuple(
                (options.numbers(field) or [default])[0]
                for field, default in zip((PAD, KERNEL_SIZE, GROUP, STRIDE), defaults, strict=True)
            )
            given = any(map(options.has, (PAD, KERNEL_SIZE, GROUP, STRIDE)))
            if any(map(options.has, GEOMETRY)) or (given and found != expected):
                raise FormatError(
                    f"its {block.name[:20]} has padding {found[0]}, windows of {found[1]}, {found[2]} groups and stride"
                    f" {found[3]}, and Caffe's AlexNet {', '.join(map(str, expected))}"
                )
        elif block.kind == "LRN" and any(map(options.has, (1, 2, 3, 4, 5))):
            size = (options.numbers(1) or [5])[-1]
            norm = (size, *(options.real(field, default) for field, default in ((2, 1.0), (3, 0.75), (5, 1.0))))
            if not np.allclose(norm, (5, 1e-4, 0.75, 1.0), rtol=1e-6) or (options.numbers(4) or [0])[-1]:
                raise FormatError(f"its {block.name[:20]} is another norm than that of Caffe's AlexNet")
        elif block.kind == "Pooling" and options.has(2):
            found = tuple(
                (options.numbers(field) or [default])[-1] for field, default in ((1, 0), (2, 0), (3, 1), (4, 0))
            )
            if found != (0, 3, 2, 0):
                raise FormatError(f"its {block.name[:20]} is another pooling than that of Caffe's AlexNet")
