"""Files `.safetensors`: the container, which torchvision's networks use too, and a whole network of ours in one file.

Our layout: an array for each leaf, such as `params/conv1/kernel` `[tower, ...]`, the mean and scale of the pixels, and
the config, the classes and the sizes as JSON in the file's metadata.
"""

import contextlib
import dataclasses
import json
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from etils import epath
from jaxtyping import PyTree

from alexnet_jax import strict_json
from alexnet_jax.data.preprocessing import Preprocessing
from alexnet_jax.errors import MissingPackageError, UsageError, reason_of, words_of
from alexnet_jax.experiment.checks import LARGEST_STEP
from alexnet_jax.experiment.fields import Settings
from alexnet_jax.experiment.settings import settings_of
from alexnet_jax.model_card.card import NOT_RECORDED

OURS = "alexnet_jax"  # the kind of a file of our layout
VERSION = "1"  # of our layout
VERSION_KEY = "alexnet_jax"  # of the metadata, in our files alone
LICENCE_KEY = "licence_of_the_images"  # of the metadata
TREES = ("params", "batch_stats")
MEAN_IMAGE, PIXEL_SCALE = "preprocessing/mean_image", "preprocessing/pixel_scale"

NEED = ("files .safetensors need the package safetensors", "safetensors")  # of `MissingPackageError`

Arrays = dict[str, np.ndarray]


@dataclasses.dataclass(frozen=True, eq=False)
class Network:
    """A network in a file, of our layout or of another program's.

    Attributes:
      settings: of the run, or a config that trains such a network.
      step: updates done; 0: unknown.
      params, batch_stats: as in `Tower`, on the host.
      preprocessing: classes, sizes, mean and scale of the pixels.
      licence: of the images that it was trained on; empty: not recorded. `about` has it in a file.
      kind: `OURS`, or `bvlc`, `caffenet` or `torchvision`.
      notes: what else to know, a sentence each.
    """

    settings: Settings
    step: int
    params: PyTree[np.ndarray]
    batch_stats: PyTree[np.ndarray]
    preprocessing: Preprocessing
    licence: str = ""
    kind: str = OURS
    notes: tuple[str, ...] = ()


def read_arrays(file: Path | epath.Path) -> tuple[Arrays, dict[str, str]]:
    """All arrays of a file, and its metadata.

    Raises:
      UsageError: the file cannot be read, is damaged, or the package is missing.
    """
    try:
        from safetensors import SafetensorError, safe_open
    except ImportError as error:
        raise MissingPackageError(*NEED) from error
    try:
        with _on_this_machine(file) as name, safe_open(name, framework="numpy") as opened:
            names = opened.keys()
            return {name: opened.get_tensor(name) for name in names}, dict(opened.metadata() or {})
    except OSError as error:
        raise UsageError(f"{file} cannot be read: {reason_of(error)}") from error
    except (SafetensorError, TypeError, KeyError, ValueError, AttributeError) as error:  # the last four: odd types
        raise UsageError(f"{file} is damaged, or no file .safetensors: {words_of(error)}") from error


@contextlib.contextmanager
def _on_this_machine(file: Path | epath.Path) -> Iterator[str]:
    """The name of a file, or of a copy of it: the package reads half precision from local files alone."""
    if "://" not in str(file):
        yield str(file)
        return
    with tempfile.NamedTemporaryFile(suffix=".safetensors") as copy:
        copy.write(file.read_bytes())
        copy.flush()
        yield copy.name


def to_bytes(arrays: Mapping[str, np.ndarray], metadata: Mapping[str, str]) -> bytes:
    """A whole file of arrays.

    Raises:
      UsageError: the package is missing.
    """
    try:
        from safetensors.numpy import save
    except ImportError as error:
        raise MissingPackageError(*NEED) from error
    return save({name: np.ascontiguousarray(array) for name, array in arrays.items()}, metadata=dict(metadata))


def network_to_bytes(network: Network, about: Mapping[str, str]) -> bytes:
    """A network as a file of our layout.

    Args:
      network: whose arrays are on the host.
      about: further metadata for people, such as the licence of the data.

    Raises:
      UsageError: the package is missing.
    """
    trees = {name: getattr(network, name) for name in TREES}
    arrays = {"/".join(path): leaf for path, leaf in _flatten(trees)}
    preprocessing = network.preprocessing
    arrays |= {MEAN_IMAGE: preprocessing.mean_image, PIXEL_SCALE: preprocessing.pixel_scale}
    own = {
        VERSION_KEY: VERSION,
        "format": "flax",
        "step": str(network.step),
        "config": strict_json.dumps(dataclasses.asdict(network.settings)),
        "classes": json.dumps(list(preprocessing.class_names)),
        "image_size": str(preprocessing.image_size),
        "crop_size": str(preprocessing.crop_size),
        "each_image": str(preprocessing.each_image),
    }
    return to_bytes(arrays, dict(about) | own)


def is_network(metadata: Mapping[str, str]) -> bool:
    """Whether a file with this metadata has our layout."""
    return VERSION_KEY in metadata


def network_of(arrays: Arrays, metadata: Mapping[str, str], name: str) -> Network:
    """The network in a file of our layout.

    Args:
      arrays, metadata: of the file, as `read_arrays` has them.
      name: of the file, for errors.

    Raises:
      UsageError: a part is missing or of another type, or a later version wrote the file. Numbers are not checked.
    """
    if metadata[VERSION_KEY] != VERSION:
        raise UsageError(
            f"{name} has version {metadata[VERSION_KEY]!r} of the layout, and this program reads version {VERSION};"
            " use a later version of alexnet_jax"
        )
    try:
        preprocessing = Preprocessing(
            class_names=tuple(map(str, json.loads(metadata["classes"]))),
            image_size=int(metadata["image_size"]),
            crop_size=int(metadata["crop_size"]),
            mean_image=arrays[MEAN_IMAGE],
            pixel_scale=arrays[PIXEL_SCALE],
            each_image=metadata.get("each_image") == str(True),  # absent in files of earlier versions
        )
        settings = settings_of(dict(json.loads(metadata["config"])))
        step = int(metadata["step"])
        if not 0 <= step <= LARGEST_STEP:
            raise ValueError(f"step {step}")
    except UsageError as error:
        raise UsageError(f"the config in {name} makes no sense: {error}") from error
    except (KeyError, ValueError, TypeError, AttributeError, RecursionError) as error:
        raise UsageError(f"{name} is damaged: its metadata lack a part ({type(error).__name__}: {error})") from error
    params, batch_stats = (_nested(arrays, tree) for tree in TREES)
    return Network(settings, step, params, batch_stats, preprocessing, licence_of(metadata))


def licence_of(metadata: Mapping[str, str]) -> str:
    """The licence of the images behind a network, in words; empty: the file does not record it."""
    licence = metadata.get(LICENCE_KEY, NOT_RECORDED)
    return "" if licence == NOT_RECORDED else licence


def _flatten(tree: Mapping[str, Any], path: tuple[str, ...] = ()) -> list[tuple[tuple[str, ...], np.ndarray]]:
    leaves = []
    for name, inner in tree.items():
        leaves += _flatten(inner, (*path, name)) if isinstance(inner, Mapping) else [((*path, name), np.asarray(inner))]
    return leaves


def _nested(arrays: Arrays, tree: str) -> dict[str, dict[str, np.ndarray]]:
    """The arrays `tree/layer/leaf` as a dict of layers."""
    layers: dict[str, dict[str, np.ndarray]] = {}
    for name, array in arrays.items():
        first, *rest = name.split("/")
        if first == tree and len(rest) == 2:
            layers.setdefault(rest[0], {})[rest[1]] = array
    return layers
