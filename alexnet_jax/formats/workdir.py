"""A workdir of an imported network, which the commands take as that of a training run."""

import contextlib
import dataclasses
from collections.abc import Callable
from typing import Any

import jax
from etils import epath

from alexnet_jax.data import preprocessing as preprocessings
from alexnet_jax.errors import UsageError
from alexnet_jax.formats.safetensors import OURS, Network
from alexnet_jax.model_card import card
from alexnet_jax.workdir import record
from alexnet_jax.workdir.checkpoint import Checkpoints

TITLES = {
    "bvlc": "Caffe's AlexNet (bvlc_alexnet)",
    "caffenet": "CaffeNet (bvlc_reference_caffenet)",
    "torchvision": "torchvision's alexnet",
    "torchvision_convolutions": "Convolutions of torchvision's alexnet",
}
# Of the networks that were published under these names; no program can know whether a file holds them.
PUBLISHED = {
    "bvlc": "top-1 error 42.9 %, top-5 error 19.8 %, centre crop (K/models/bvlc_alexnet/readme.md)",
    "caffenet": "top-1 error 42.6 %, top-5 error 19.6 %, centre crop (K/models/bvlc_reference_caffenet/readme.md)",
    "torchvision": "top-1 error 43.48 %, top-5 error 20.93 %, centre crop (torchvision's documentation of"
    " AlexNet_Weights.IMAGENET1K_V1: accuracies 56.522 and 79.066)",
}
IMAGENET_LICENCE = "ImageNet's terms of access: research and education"


def write(folder: epath.Path, imported: Network, source: str, *, say: Callable[[str], None]) -> None:
    """Writes config, preprocessing, model card and, at last, the checkpoint.

    Args:
      folder: the workdir, which may be there without a run.
      imported: the network.
      source: name of its file, for people.
      say: prints a line.

    Raises:
      UsageError: the workdir holds a run, or cannot be written.
    """
    config = dataclasses.asdict(imported.settings)
    record.make(folder)
    with record.lock(folder):
        _check_free(folder, config)
        record.record(folder, config)
        record.write_bytes(folder, preprocessings.FILE_NAME, preprocessings.to_bytes(imported.preprocessing))
        card.write(folder, card_of(imported, source), say=say)
        with contextlib.closing(Checkpoints(folder / record.CHECKPOINTS)) as checkpoints:
            state = {"params": imported.params, "batch_stats": imported.batch_stats}
            checkpoints.save(imported.step, jax.tree.map(jax.numpy.asarray, state), top1=None)


def _check_free(folder: epath.Path, config: dict[str, Any]) -> None:
    """Checks that no run is in the folder, but for an import of this network that was interrupted.

    Raises:
      UsageError: there is one.
    """
    checkpoints = folder / record.CHECKPOINTS
    has_checkpoint = checkpoints.exists() and any(path.name.isdigit() for path in checkpoints.iterdir())
    has_config = (folder / record.CONFIG_FILE).exists()
    if has_checkpoint or (has_config and record.differs(folder, config)):
        raise UsageError(f"the workdir {folder} holds a run already; name another workdir, or remove this one")


def card_of(imported: Network, source: str) -> card.Card:
    """The model card of an imported network."""
    recipe, classes = imported.settings.network.recipe, imported.preprocessing.class_names
    # A file that this program wrote says whose images they are.
    is_published = imported.kind != OURS and not imported.licence
    is_imagenet = imported.settings.dataset.name == "imagenet2012" and is_published
    published = PUBLISHED.get(recipe) if is_imagenet else None
    return card.Card(
        title=TITLES.get(recipe, recipe) if imported.kind != OURS else imported.settings.name,
        summary=f"A network of the recipe {recipe}, imported from the file {source}. Where and how it was trained, the"
        " file does not say.",
        license=IMAGENET_LICENCE if is_imagenet else imported.licence,
        class_names=classes,
        data={"images": "ILSVRC 2012 (ImageNet), if the file is the published one"} if is_imagenet else {},
        training={"published for the network of this name": published} if published else {},
        limits=(*(f"{note[0].upper()}{note[1:]}." for note in imported.notes), "Errors were not measured here."),
        versions=record.versions(),
    )
