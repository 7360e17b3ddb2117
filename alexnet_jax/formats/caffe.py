"""Caffe's layout: `.caffemodel`, and the mean image in a `.binaryproto`, read and written without Caffe.

A network has `layer` messages, or `layers` in the form of before 2015, in which the published networks are stored.
Caffe sees pictures in the order blue, green, red.
"""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from google.protobuf.message import DecodeError
from jaxtyping import Float, PyTree

from alexnet_jax.data.preprocessing import LARGEST_PIXEL
from alexnet_jax.errors import UsageError
from alexnet_jax.formats import weights
from alexnet_jax.formats.caffe_messages import BlobProto, LayerParameter, NetParameter
from alexnet_jax.formats.errors import FormatError
from alexnet_jax.formats.weights import Whole
from alexnet_jax.network.recipes import Layer
from alexnet_jax.network.tower import Tower

RECIPES = ("bvlc", "caffenet")
MEAN = (123.0, 117.0, 104.0)  # of red, green and blue, with which Caffe's networks are used where no image is at hand
IMAGE_SIZE, CROP_SIZE = 256, 227
ORDER = ("conv1", "conv2", "conv3", "conv4", "conv5", "fc6", "fc7", "fc8")

MOST, MOST_AXES = 1000, 8  # layers, or arrays of a layer, and axes of an array
OLD_TYPES = {4: "Convolution", 6: "Dropout", 14: "InnerProduct", 15: "LRN", 17: "Pooling", 18: "ReLU"}
OPTIONS = {"Convolution": "convolution_param", "LRN": "lrn_param", "Pooling": "pooling_param"}
GEOMETRY = ("pad_h", "pad_w", "kernel_h", "kernel_w", "stride_h", "stride_w", "dilation")  # of convolutions


@dataclasses.dataclass(frozen=True)
class _Block:
    """A layer of either form.

    Attributes:
      name, kind: such as `conv1` and `Convolution`.
      bottom, top: names of its inputs and of its outputs; an operation in place has the same name for both.
      blobs: its arrays.
      options: of its kind, such as a `ConvolutionParameter`; None: the kind has none.
      transform: `TransformationParameter` of the pictures.
    """

    name: str
    kind: str
    bottom: tuple[str, ...]
    top: tuple[str, ...]
    blobs: tuple[np.ndarray, ...]
    options: Any
    transform: Any


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
    message = _parsed(NetParameter, data)
    if max(len(message.layer), len(message.layers)) > MOST:
        raise FormatError(f"it has more than {MOST:,} layers; Caffe's AlexNet has 24")
    blocks = [_block(layer, _text(layer.type)) for layer in message.layer]
    blocks = blocks or [_block(layer, _old_kind(layer)) for layer in message.layers]
    if not blocks:
        raise FormatError("it holds no layer, or is no file of Caffe")
    weighted = [block for block in blocks if block.blobs]
    kinds = [block.kind for block in weighted]
    if kinds != ["Convolution"] * 5 + ["InnerProduct"] * 3:
        listed = ", ".join(f"{block.name[:20]} ({block.kind[:20]})" for block in weighted[:9]) or "none"
        raise FormatError(f"its layers with weights are {listed}; Caffe's AlexNet has 5 Convolution and 3 InnerProduct")
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
    scale = next((block.transform.scale for block in blocks if block.transform.HasField("scale")), 1.0)
    return CaffeNetwork(_recipe_of(blocks), whole, _crop_of(message, blocks), scale, _mean_of(blocks))


def read_mean(data: bytes | memoryview) -> Float[np.ndarray, "size size 3"]:
    """The mean image in the bytes of a `.binaryproto`, in red, green and blue.

    Raises:
      FormatError: the file is damaged, or holds no square image of three colours.
    """
    mean = _array(_parsed(BlobProto, data))
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
    message = NetParameter(name=name.encode())
    picture = message.layer.add(name=b"data", type=b"Input", top=[b"data"])
    picture.input_param.shape.add(dim=[1, 3, crop_size, crop_size])
    picture.transform_param.crop_size = crop_size
    if (scale := float(pixel_scale[0])) != 1:
        picture.transform_param.scale = scale
    bottom = "data"
    for layer in tower.layers:
        messages, bottom = _layer_messages(layer, *whole[layer.name], tower, bottom)
        message.layer.extend(messages)
    return message.SerializeToString()


def write_mean(mean: Float[np.ndarray, "size size 3"]) -> bytes:
    """The mean image as a `.binaryproto`."""
    channels = np.asarray(mean, np.float32).transpose(2, 0, 1)[::-1]
    _, rows, columns = channels.shape
    return BlobProto(num=1, channels=3, height=rows, width=columns, data=[channels.tobytes()]).SerializeToString()


def _layer_messages(
    layer: Layer, kernel: np.ndarray, bias: np.ndarray, tower: Tower, bottom: str
) -> tuple[list[Any], str]:
    """The messages of a layer and of the operations after it, and the name of what the last one gives."""
    name = layer.name
    made = _message(name, "Convolution" if layer.window else "InnerProduct", bottom, name)
    if layer.window:
        kernel = kernel[:, ::-1] if kernel.shape[1] == 3 and name == "conv1" else kernel
        options = made.convolution_param
        options.num_output, options.group = len(bias), 1 if layer.exchange or name == "conv1" else tower.towers
        options.pad.append(layer.padding)
        options.kernel_size.append(layer.window)
        options.stride.append(layer.stride)
    else:
        made.inner_product_param.num_output = len(bias)
    for array in (kernel, bias):
        made.blobs.add(data=[np.ascontiguousarray(array, "<f4").tobytes()]).shape.dim.extend(array.shape)
    messages, number, bottom = [made], name[-1], name
    for operation in layer.then:
        match operation:
            case "activation":
                made = _message(f"relu{number}", "ReLU", bottom, bottom)  # works in place
                made.relu_param.SetInParent()
            case "dropout":
                made = _message(f"drop{number}", "Dropout", bottom, bottom)
                made.dropout_param.dropout_ratio = 1 - tower.keep
            case "norm":
                made = _message(f"norm{number}", "LRN", bottom, f"norm{number}")
                size, norm = tower.norm_size, made.lrn_param
                norm.local_size, norm.alpha, norm.beta, norm.k = (
                    size, tower.norm_alpha * size, tower.norm_beta, tower.norm_k
                )  # fmt: skip
            case "pool":
                made = _message(f"pool{number}", "Pooling", bottom, f"pool{number}")
                pool = made.pooling_param
                pool.pool, pool.kernel_size, pool.stride = 0, tower.pool_size, tower.pool_stride
        messages.append(made)
        bottom = made.top[0].decode()
    return messages, bottom


def _message(name: str, kind: str, bottom: str, top: str) -> Any:
    return LayerParameter(name=name.encode(), type=kind.encode(), bottom=[bottom.encode()], top=[top.encode()])


def _parsed(message: Any, data: bytes | memoryview) -> Any:
    try:
        return message.FromString(bytes(data))
    except DecodeError as error:
        raise FormatError("it is damaged or cut off, or no file of Caffe") from error


def _block(layer: Any, kind: str) -> _Block:
    if len(layer.blobs) > MOST:
        raise FormatError(f"it has a layer with more than {MOST:,} arrays; Caffe's AlexNet has two")
    options = getattr(layer, OPTIONS[kind]) if kind in OPTIONS else None
    bottom, top = (tuple(map(_text, names)) for names in (layer.bottom, layer.top))
    return _Block(_text(layer.name), kind, bottom, top, tuple(map(_array, layer.blobs)), options, layer.transform_param)


def _old_kind(layer: Any) -> str:
    if layer.HasField("layer"):
        raise FormatError("it has the form of Caffe of 2013; Caffe's upgrade_net_proto_binary writes the form of today")
    return OLD_TYPES.get(layer.type, "another kind")


def _text(data: bytes) -> str:
    return data.decode("utf-8", "replace")


def _array(blob: Any) -> np.ndarray:
    """The numbers of a blob, whose shape has any count of axes, or four in the old form.

    Raises:
      FormatError: there are more or fewer than the shape says, such as numbers that are not packed.
    """
    if len(blob.shape.dim) > MOST_AXES:
        raise FormatError(f"it has an array of {len(blob.shape.dim):,} axes; it is damaged")
    data, dtype = (b"".join(blob.data), "<f4") if blob.data else (b"".join(blob.double_data), "<f8")
    old = (blob.num, blob.channels, blob.height, blob.width)
    shape = tuple(blob.shape.dim) if blob.HasField("shape") else old
    count, left = divmod(len(data), np.dtype(dtype).itemsize)
    if not data and not math.prod(shape):
        return np.zeros(0, dtype)
    if left or min(shape, default=1) < 1 or math.prod(shape) != count:
        raise FormatError(f"it has an array of {weights.times(shape)[:99]} with {count:,} numbers; it is damaged")
    return np.frombuffer(data, dtype).reshape(shape)


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
    before = [block for block in blocks[: blocks.index(norms[0])] if norms[0].bottom[0] in block.top]
    if not before:
        return None
    return "caffenet" if before[-1].kind == "Pooling" else "bvlc"


def _crop_of(message: Any, blocks: list[_Block]) -> int:
    sizes = message.input_dim[2:4]
    for shape in (*message.input_shape, *(shape for layer in message.layer for shape in layer.input_param.shape))[:1]:
        sizes = shape.dim[2:4]
    crops = [block.transform.crop_size for block in blocks]
    return next((size for size in [*sizes[:1], *crops] if 0 < size <= 4096), CROP_SIZE)


def _mean_of(blocks: list[_Block]) -> tuple[float, ...]:
    """The mean of red, green and blue that the file names, one number for all or three; else the customary one.

    Raises:
      FormatError: there are other numbers.
    """
    values = next((block.transform.mean_value for block in blocks if block.transform.mean_value), None)
    if values is None:
        return MEAN
    mean = np.array(values, np.float32)
    if len(mean) not in (1, 3) or not ((mean >= 0) & (mean <= LARGEST_PIXEL)).all():  # also NaN
        raise FormatError(f"its mean_value is {mean[:5].tolist()}; a mean is one or three numbers from 0 to 255")
    return tuple(map(float, np.broadcast_to(mean[::-1], 3)))


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
            geometry = (
                *(options.pad or [0])[:1],
                *(options.kernel_size or expected[1:2])[:1],
                options.group,
                *(options.stride or [1])[:1],
            )
            given = options.pad or options.kernel_size or options.stride or options.HasField("group")
            if any(field.name in GEOMETRY for field, _ in options.ListFields()) or (given and geometry != expected):
                raise FormatError(
                    f"its {block.name[:20]} has padding {geometry[0]}, windows of {geometry[1]}, {geometry[2]} groups"
                    f" and stride {geometry[3]}, and Caffe's AlexNet {', '.join(map(str, expected))}"
                )
        elif block.kind == "LRN" and options.ListFields():
            norm = (options.local_size, options.alpha, options.beta, options.k)
            if not np.allclose(norm, (5, 1e-4, 0.75, 1.0), rtol=1e-6) or options.norm_region:
                raise FormatError(f"its {block.name[:20]} is another norm than that of Caffe's AlexNet")
        elif block.kind == "Pooling":
            pool = (options.pool, options.kernel_size, options.stride, options.pad)
            if options.HasField("kernel_size") and pool != (0, 3, 2, 0):
                raise FormatError(f"its {block.name[:20]} is another pooling than that of Caffe's AlexNet")
