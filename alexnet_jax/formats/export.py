"""A trained network in a file for other programs, with a page beside that says how to use the file."""

import json
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from etils import epath
from jaxtyping import PyTree

import alexnet_jax
from alexnet_jax.data.preprocessing import Preprocessing
from alexnet_jax.errors import UsageError
from alexnet_jax.formats import caffe, export_page, onnx, safetensors, stablehlo, torchvision
from alexnet_jax.model_card.card import NOT_RECORDED
from alexnet_jax.trained import Trained
from alexnet_jax.workdir.atomic import write_atomically, writing

# The kinds of files, and their suffixes. Of two kinds with one suffix, the first is the one that the suffix names.
KINDS = {
    "stablehlo": ".stablehlo",
    "onnx": ".onnx",
    "safetensors": ".safetensors",
    "torchvision": ".safetensors",
    "caffe": ".caffemodel",
}
SUFFIXES = tuple(dict.fromkeys(KINDS.values()))


def kind_of(file: epath.Path, kind: str = "auto") -> str:
    """The kind of file to write.

    Args:
      file: whose suffix says it, where the kind does not.
      kind: one of `KINDS`, or `auto`.

    Raises:
      UsageError: the kind is not known, or has another suffix.
    """
    suffix = file.suffix.lower()
    if kind == "auto":
        kind = next((name for name, ending in KINDS.items() if ending == suffix), "")
        if not kind:
            raise UsageError(f"{file.name} does not end in {', '.join(SUFFIXES)}; the ending selects the format")
    if kind not in KINDS:
        raise UsageError(f"no network is exported as {kind!r}; the kinds are {', '.join(KINDS)}")
    if KINDS[kind] != suffix:
        raise UsageError(f"a file of the kind {kind} ends in {KINDS[kind]}, and {file.name} does not; rename it")
    return kind


def export(network: Trained, file: epath.Path, kind: str = "auto", *, licence: str = "") -> list[epath.Path]:
    """Writes a network to a file, and beside it `FILE.README.md`, and what the kind has no place for.

    Args:
      network: the network.
      file: to write; each file is written whole or not at all.
      kind: one of `KINDS`; `auto`: by the suffix.
      licence: of the images that the network was trained on; empty: not recorded.

    Returns:
      The files written, the network first.

    Raises:
      UsageError: the kind cannot hold the network, a package is missing, or a file cannot be written.
    """
    kind = kind_of(file, kind)
    facts = about(network, licence)
    contents = _contents(network, kind, facts)
    page = export_page.render(network, kind, file.name, licence=licence)
    page = page.encode("utf-8", "backslashreplace").decode()  # the name of the file may be no UTF-8
    files: dict[str, str | bytes] = {file.name: contents.pop(""), f"{file.name}.README.md": page}
    files |= {f"{file.name}{ending}": content for ending, content in contents.items()}
    for name, content in files.items():
        with writing(file.parent / name):
            write_atomically(file.parent / name, content)
    return [file.parent / name for name in files]


def about(network: Trained, licence: str) -> dict[str, str]:
    """Facts for a file's metadata. All values are texts; those of several numbers are JSON."""
    preprocessing, recipe = network.preprocessing, network.settings.network
    return {
        "title": export_page.title(network),
        "recipe": recipe.recipe,
        "width": f"{recipe.width:g}",
        "step": str(network.step),
        "dataset": network.settings.dataset.name,
        safetensors.LICENCE_KEY: licence or NOT_RECORDED,
        "preprocessing": export_page.in_words(preprocessing),
        "image_size": str(preprocessing.image_size),
        "crop_size": str(preprocessing.crop_size),
        "mean": json.dumps(export_page.mean_colour(preprocessing)),
        "pixel_scale": json.dumps([float(f"{number:.9g}") for number in preprocessing.pixel_scale]),
        "each_image": str(preprocessing.each_image),
        "classes": json.dumps(list(preprocessing.class_names), ensure_ascii=False),
        "written_by": f"alexnet_jax {alexnet_jax.__version__}",
    }


def _contents(network: Trained, kind: str, facts: Mapping[str, str]) -> dict[str, str | bytes]:
    """The bytes of the file, under an empty ending, and of the files beside, by what follows the file's name."""
    params, batch_stats = jax.device_get((network.params, network.batch_stats))
    preprocessing, recipe = network.preprocessing, network.settings.network.recipe
    if preprocessing.each_image and kind in ("caffe", "torchvision"):
        raise UsageError(
            "the network standardizes each crop by its own mean and deviation (config.photometry.each_image), which"
            f" a file of {kind}'s layout cannot say; write an .onnx, a .stablehlo, or a .safetensors of this program's"
            " own kind"
        )
    match kind:
        case "stablehlo":
            network.need_classifier()
            program = stablehlo.to_bytes(network.tower, params, batch_stats, preprocessing, about=facts)
            return {"": program, ".classes.txt": _lines(preprocessing)}
        case "onnx":
            network.need_classifier()
            return {"": onnx.to_bytes(network.tower, params, batch_stats, preprocessing, about=facts)}
        case "safetensors":
            whole = safetensors.Network(network.settings, network.step, params, batch_stats, preprocessing)
            return {"": safetensors.network_to_bytes(whole, facts)}
        case "torchvision":
            state = torchvision.to_state_dict(params, network.tower, recipe)
            return {"": safetensors.to_bytes(state, dict(facts) | {"format": "pt"})}
    return _caffe_contents(network, params, facts)


def _caffe_contents(network: Trained, params: PyTree[np.ndarray], facts: Mapping[str, str]) -> dict[str, str | bytes]:
    preprocessing = network.preprocessing
    options: dict[str, Any] = dict(
        crop_size=preprocessing.crop_size,
        pixel_scale=list(map(float, preprocessing.pixel_scale)),
        name=f"{facts['title']}. {facts['preprocessing']} Licence of the images: {facts[safetensors.LICENCE_KEY]}.",
    )
    weights = caffe.write(params, network.tower, network.settings.network.recipe, **options)
    mean = caffe.write_mean(preprocessing.mean_image)
    return {"": weights, ".mean.binaryproto": mean, ".classes.txt": _lines(preprocessing)}


def _lines(preprocessing: Preprocessing) -> str:
    """A class a line, as `import --classes` reads them."""
    return "".join(f"{' '.join(name.splitlines())}\n" for name in preprocessing.class_names)
