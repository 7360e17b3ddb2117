"""The differences between an experiment and the training of net 145 in 2012, which gave the paper's 40.7 % / 18.2 %."""

import dataclasses
import os
from collections.abc import Iterator
from typing import Any, NamedTuple

from alexnet_jax.configs import imagenet2012
from alexnet_jax.experiment.fields import Rates, Settings
from alexnet_jax.experiment.settings import settings_of
from alexnet_jax.network.recipes import RECIPES, Layer
from alexnet_jax.network.tower import Tower

CROP_GROUP = 32  # of 2012 (A/convdata_jpeg.py:238-246); the config for ImageNet draws a crop for each image

# Each field of a config that can change a number of the training, in words.
WORDS = {
    "dataset.name": "data set",
    "dataset.classes": "classes",
    "dataset.train_images": "training images",
    "dataset.crop_size": "side of the crops, pixels",
    "dataset.crop_group": "successive images that share a crop and a flip",
    "jitter.rotation": "largest random rotation, degrees",
    "jitter.scale": "largest random scaling, as a share of the size",
    "jitter.symmetries": "symmetries of the square among which a crop's is drawn",
    "network.recipe": "recipe of the network",
    "network.width": "share of the recipe's maps and units",
    "network.he_init": "initial values of He et al. 2015",
    "network.bfloat16": "activations in bfloat16",
    "photometry.noise": "colour noise",
    "photometry.standardize": "pixels divided by their standard deviation",
    "photometry.each_image": "pixels standardized by the mean and deviation of each crop",
    "batch_size": "images an update",
    "num_epochs": "epochs",
    "schedule": "schedule",
    "plateau.patience": "evaluations without a smaller error before the rate falls",
    "plateau.drops": "falls of the rate",
    "warmup_epochs": "epochs over which the rate rises",
    "momentum": "momentum",
    "nesterov": "Nesterov momentum",
    "weight_decay": "weight decay",
    "clip_norm": "largest norm of a gradient",
    "lars_trust": "trust coefficient of LARS",
    "label_smoothing": "label smoothing",
    "init_from": "starts from the parameters of",
    "fresh": "layers that start anew nevertheless",
}
LAYERWISE = ("rates", "weight_decays")  # fields with a value a layer

TOWER_WORDS = {
    "towers": "towers",
    "activation": "activation",
    "norm_k": "k of the response norm",
    "norm_alpha": "alpha of the response norm, as it multiplies the sum",
    "norm_beta": "beta of the response norm",
    "norm_size": "maps in the window of the response norm",
    "whole_norm": "a window of the response norm spans both towers",
    "spatial_alpha": "alpha of the second norm of layer 2",
    "spatial_size": "window of the second norm of layer 2",
    "pool_size": "window of the pooling",
    "pool_stride": "stride of the pooling",
    "keep": "share of units that dropout keeps",
    "inverted_dropout": "dropout scales in training, not in evaluation",
    "adaptive_size": "side of the maps after the adaptive pooling",
    "round_down": "sizes of maps are rounded down",
    "whole_windows": "sizes of maps are rounded down after convolutions",
    "momentum": "momentum of batch norm's averages",
}
NOT_OF_A_RECIPE = {"layers", "num_classes", "axes", "dtype", "he_init", "name", "parent"}


class Difference(NamedTuple):
    """A difference, in words.

    Attributes:
      what: differs.
      here, then: the values.
    """

    what: str
    here: str
    then: str


def settings_of_2012() -> Settings:
    """The training of net 145."""
    settings = settings_of(imagenet2012.base().to_dict())
    return dataclasses.replace(settings, dataset=dataclasses.replace(settings.dataset, crop_group=CROP_GROUP))


def from_2012(settings: Settings) -> list[Difference]:
    """All differences of an experiment in its settings and its network. Empty: there is none.

    Args:
      settings: of the experiment, with the values that follow from the data set.
    """
    of_2012 = settings_of_2012()
    here, then = _flat(settings), _flat(of_2012)
    he_init = settings.network.he_init or RECIPES[settings.network.recipe].fields.get("he_init", False)
    here["network.he_init"] = he_init
    differences = [
        Difference(WORDS[key], _words(here[key]), _words(then[key])) for key in WORDS if here[key] != then[key]
    ]
    differences += _rates(settings.rates, of_2012.rates)
    for layer, decay in settings.weight_decays.items():
        if decay != then["weight_decay"]:
            differences.append(Difference(f"weight decay of {layer}", _words(decay), _words(then["weight_decay"])))
    return differences + list(_of_recipe(settings.network.recipe, starts=not he_init))


def _flat(settings: Settings) -> dict[str, Any]:
    """The fields by name, without those that have a value a layer. A folder is its name, which is no one's secret."""
    values = dataclasses.asdict(settings)
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if key in LAYERWISE:
            continue
        flat |= {f"{key}.{name}": inner for name, inner in value.items()} if isinstance(value, dict) else {key: value}
    if settings.init_from is not None:
        flat["init_from"] = os.path.basename(settings.init_from.rstrip("/"))
    return flat


def _words(value: Any) -> str:
    """A value as people write it; a table as `0.01, from 25 on 0.001`."""
    if value is None or value == ():
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, tuple) and isinstance(value[0], tuple):
        (_, first), *others = value
        return ", ".join([f"{first:g}", *(f"from {position:g} on {number:g}" for position, number in others)])
    if isinstance(value, tuple):
        return ", ".join(map(str, value))
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _rates(here: dict[str, Rates], then: dict[str, Rates]) -> Iterator[Difference]:
    for layer in dict.fromkeys([*here, *then]):
        for leaf in ("kernel", "bias"):
            ours, theirs = (getattr(rates.get(layer, rates["all"]), leaf) for rates in (here, then))
            if ours != theirs:
                yield Difference(
                    f"learning rate of {leaf}{'s' if leaf == 'kernel' else 'es'}" + f" of {layer}" * (layer != "all"),
                    _words(ours),
                    _words(theirs),
                )


def _of_recipe(recipe: str, *, starts: bool) -> Iterator[Difference]:
    """The differences between a recipe and `original`, at full width; `starts`: also in the initial values."""
    ours, theirs = RECIPES[recipe], RECIPES["original"]
    used = {operation for layer in ours.layers for operation in layer.then}
    for field in dataclasses.fields(Tower):
        if field.name in NOT_OF_A_RECIPE or _is_idle(field.name, used):
            continue
        here, then = (fields.get(field.name, field.default) for fields in (ours.fields, theirs.fields))
        if here != then:
            yield Difference(TOWER_WORDS.get(field.name, field.name.replace("_", " ")), _words(here), _words(then))
    layers, originals = (
        {layer.name: _describe(layer, exchanges=fields.get("towers", 2) > 1, starts=starts) for layer in table}
        for table, fields in (ours, theirs)
    )
    for name in dict.fromkeys([*originals, *layers]):
        if layers.get(name) != originals.get(name):
            yield Difference(name, layers.get(name, "none"), originals.get(name, "none"))


def _is_idle(field: str, operations: set[str]) -> bool:
    """Whether a field belongs to an operation that the network does not have."""
    owners = {"norm_": "norm", "whole_norm": "norm", "spatial_": "spatial_norm", "pool_": "pool", "keep": "dropout"}
    owners |= {"inverted_dropout": "dropout", "momentum": "batch_norm", "adaptive_": "adaptive_pool"}
    owner = next((operation for start, operation in owners.items() if field.startswith(start)), None)
    return owner is not None and owner not in operations


def _describe(layer: Layer, *, exchanges: bool, starts: bool) -> str:
    """A layer in words, such as `48 of 11x11, stride 4; norm, pool, activation; starts at 0.01, bias 0`."""
    kind = f" of {layer.window}x{layer.window}" if layer.window else " units"
    parts = [f"{layer.features or 'classes'}{kind if layer.features or layer.window else ''}"]
    parts[0] += f", stride {layer.stride}" if layer.stride > 1 else ""
    parts[0] += f", padding {layer.padding}" if layer.padding else ""
    parts[0] += ", unshared" if layer.local else ""
    parts[0] += ", sees both towers" if layer.exchange and exchanges else ""
    if layer.then:
        parts.append(", ".join(layer.then).replace("_", " "))
    if starts:
        parts.append(f"starts at {layer.std:g}, bias {layer.bias:g}")
    return "; ".join(parts)
