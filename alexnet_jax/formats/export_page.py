"""The page beside an exported file: how to use the file, how pictures become its input, classes, licence."""

import shlex
from typing import TYPE_CHECKING

import alexnet_jax
from alexnet_jax.data.imagenet_names import readable
from alexnet_jax.data.preprocessing import LEAST_CONTRAST, Preprocessing
from alexnet_jax.model_card.card import NOT_RECORDED, plain
from alexnet_jax.network.sharding import count_params

if TYPE_CHECKING:
    from alexnet_jax.trained import Trained

CROP = '''\
import numpy as np
from PIL import Image, ImageOps


def crop_of(file):
    """The central square of a picture, scaled to {image} pixels a side, and of that the central {crop} x {crop}."""
    picture = ImageOps.exif_transpose(Image.open(file))
    if picture.mode.startswith("I"):  # 16 bits
        picture = Image.fromarray((np.asarray(picture) >> 8).clip(0, 255).astype(np.uint8))
    picture = picture.convert("RGBA" if picture.has_transparency_data else "RGB")
    side = min(picture.size)
    left, top = (picture.width - side) / 2, (picture.height - side) / 2
    box = (left, top, left + side, top + side)
    picture = picture.resize(({image}, {image}), Image.Resampling.BICUBIC, box=box)
    if picture.mode == "RGBA":  # transparent parts are white
        picture = Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture).convert("RGB")
    pixels = np.asarray(picture)
    return pixels[{edge} : {edge} + {crop}, {edge} : {edge} + {crop}]


crops = np.stack([crop_of("photo.jpg")])  # uint8 [batch, {crop}, {crop}, 3]
'''
USES = {
    "stablehlo": """\
from pathlib import Path

from jax import export

network = export.deserialize(bytearray(Path({file!r}).read_bytes()))
probabilities = network.call(crops)  # float32 [batch, {classes}]
""",
    "onnx": """\
import onnxruntime

network = onnxruntime.InferenceSession({file!r})
[probabilities] = network.run(["probabilities"], {{"crops": crops}})  # float32 [batch, {classes}]
""",
    "safetensors": """\
import alexnet_jax

network = alexnet_jax.load({file!r})
{call}
""",
    "torchvision": """\
import torch
from safetensors.torch import load_file
from torchvision.models import alexnet

network = alexnet(num_classes={classes}).eval()
network.load_state_dict(load_file({file!r}))
mean, scale = np.float32({mean}), np.float32({scale})
pixels = torch.from_numpy(((crops - mean) * scale).transpose(0, 3, 1, 2))
probabilities = network(pixels).softmax(dim=1)  # [batch, {classes}]
""",
}
CAFFE = """\
The file has weights and layers as Caffe writes them. Caffe takes channels first, in the order blue, green, red: `crops`
minus the centre of the mean image in `{file}.mean.binaryproto`, times {scale}. This program reads the three files
again, with the same bits:

```sh
python -m alexnet_jax.convert import {quoted} --workdir=DIR \\
    --mean={quoted}.mean.binaryproto --classes={quoted}.classes.txt
```
"""
NOTES = {
    "stablehlo": "The program takes pixels as bytes and gives probabilities: the mean and the scale of the pixels are"
    " part of it. It runs on CPUs, CUDA and TPUs, on one device, with any number of crops, and needs"
    " `pip install jax flatbuffers`. `json.loads(network.fun_name)` has the classes and the preprocessing. JAX"
    " promises to read such a file for six months; `--kind=safetensors` keeps a network for longer.",
    "onnx": "The graph takes pixels as bytes and gives probabilities: the mean and the scale of the pixels are part of"
    " it. It computes in float32, takes any number of crops, and has the classes and the preprocessing in its"
    " metadata (`network.get_modelmeta().custom_metadata_map`).",
    "safetensors": "The file holds the whole network: parameters, config, classes, mean image. `alexnet_jax` gives the"
    " same numbers from it as from the workdir, and no data set is needed. Other programs find each array under its"
    " name, such as `params/conv1/kernel`, the first axis of which counts the towers.",
    "torchvision": "The file holds the weights under torchvision's names. The mean of the pixels, their scale and the"
    " classes are in its metadata and below.",
}


def render(network: "Trained", kind: str, file: str, *, licence: str) -> str:
    """The page, as Markdown.

    Args:
      network: the network.
      kind: of the file.
      file: its name.
      licence: of the images; empty: not recorded.
    """
    preprocessing = network.preprocessing
    pictures = f"## Pictures\n\n{in_words(preprocessing)}\n"
    if kind != "safetensors":
        pictures += f"\n```python\n{_crop_code(preprocessing)}```\n"
    parts = [
        f"# {plain(file)}\n",
        f"{plain(title(network))}: {count_params(network.params):,} parameters, after {network.step:,} updates. Written"
        f" by alexnet_jax {alexnet_jax.__version__}.\n",
        pictures,
        f"## Use\n\n{_use(network, kind, file)}",
        _limits(network, kind),
        _classes(preprocessing),
        "## Data\n\n"
        f"Trained on {plain(network.settings.dataset.name)}. Licence of the images: {plain(licence or NOT_RECORDED)}."
        " It may bind the use of the network too.\n",
    ]
    return "\n".join(filter(None, parts))


def _use(network: "Trained", kind: str, file: str) -> str:
    preprocessing, classes = network.preprocessing, len(network.classes)
    if kind == "caffe":
        return CAFFE.format(file=file, quoted=shlex.quote(file), scale=float(preprocessing.pixel_scale[0]))
    call = 'probabilities = network.predict("photo.jpg")' if classes else 'maps = network.features("photo.jpg")'
    scale = [float(f"{number:.9g}") for number in preprocessing.pixel_scale]
    code = USES[kind].format(file=file, classes=classes, call=call, mean=mean_colour(preprocessing), scale=scale)
    return f"{NOTES[kind]}\n\n```python\n{code}```\n"


def title(network: "Trained") -> str:
    """What the network is, in a line."""
    classes = (
        f"{len(network.classes):,} classes of {network.settings.dataset.name}" if network.classes else "no classifier"
    )
    return f"AlexNet, recipe {network.settings.network.recipe}, {classes}"


def in_words(preprocessing: Preprocessing) -> str:
    """The way from a picture to the network's input, in sentences."""
    image, crop = preprocessing.image_size, preprocessing.crop_size
    scale = preprocessing.pixel_scale
    mean = ", ".join(f"{value:.6g}" for value in mean_colour(preprocessing))
    steps = [
        f"A picture in RGB, upright, is scaled so that its shorter side has {image} pixels (bicubic), and the central"
        f" square is cut out; of that, the central {crop} x {crop} pixels are the crop, values 0 to 255, channels last."
    ]
    if preprocessing.each_image:
        steps.append(
            "The mean of the crop's values is subtracted, and the result divided by its standard deviation plus"
            f" {LEAST_CONTRAST:g}."
        )
        return " ".join(steps)
    if varies(preprocessing):
        steps.append(f"The centre of a mean image is subtracted, whose mean colour is ({mean}).")
    else:
        steps.append(f"The mean colour ({mean}) is subtracted.")
    if (scale != 1).any():
        steps.append(f"The result is multiplied by ({', '.join(f'{value:.9g}' for value in scale)}).")
    return " ".join(steps)


def mean_colour(preprocessing: Preprocessing) -> list[float]:
    """The mean of red, green and blue over the crop, pixels 0 to 255."""
    return [float(f"{value:.9g}") for value in preprocessing.mean_crop.reshape(-1, 3).mean(axis=0, dtype=float)]


def varies(preprocessing: Preprocessing) -> bool:
    """Whether the mean differs from place to place."""
    mean = preprocessing.mean_crop
    return bool((mean != mean[:1, :1]).any())


def _crop_code(preprocessing: Preprocessing) -> str:
    image, crop = preprocessing.image_size, preprocessing.crop_size
    return CROP.format(image=image, crop=crop, edge=(image - crop) // 2)


def _limits(network: "Trained", kind: str) -> str:
    """What torchvision's module cannot know of the network; empty: nothing."""
    notes = []
    if kind == "torchvision" and not network.classes:
        notes.append("The file has no classifier: load it with `strict=False`, for the convolutions.")
    if kind == "torchvision" and network.settings.network.width != 1:
        notes.append(
            f"Its layers are {network.settings.network.width:g} times as wide as torchvision's, whose module of the"
            " same form must be made with these widths."
        )
    if kind == "torchvision" and varies(network.preprocessing):
        notes.append(
            "The network was trained with a mean image, for which its mean colour stands here: probabilities differ a"
            " little. The kinds safetensors, onnx and stablehlo have the image."
        )
    return f"{' '.join(notes)}\n" if notes else ""


def _classes(preprocessing: Preprocessing) -> str:
    if not preprocessing.class_names:
        return "## Classes\n\nNone: the network ends with a convolution.\n"
    rows = [f"| {number} | {plain(readable(name))} |" for number, name in enumerate(preprocessing.class_names)]
    return "\n".join(["## Classes", "", "| output | class |", "| --- | --- |", *rows, ""])
