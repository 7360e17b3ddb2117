"""What a config says, as typed values. Doors read a `ConfigDict` here and nowhere else.

`configs/default.py` explains every field, with its unit and source.
"""

import dataclasses
import difflib
import itertools
import math
import types
import typing
from typing import Any, Literal

from ml_collections import ConfigDict

from alexnet_jax.errors import UsageError

Table = tuple[tuple[float, float], ...]


@dataclasses.dataclass(frozen=True)
class Dataset:
    """`config.dataset`."""

    name: str
    train_split: str
    eval_split: str
    crop_size: int
    crop_group: int
    classes: int | None
    train_images: int | None


@dataclasses.dataclass(frozen=True)
class Jitter:
    """`config.jitter`."""

    rotation: float
    scale: float


@dataclasses.dataclass(frozen=True)
class Network:
    """`config.network`."""

    recipe: str
    width: float
    he_init: bool
    bfloat16: bool


@dataclasses.dataclass(frozen=True)
class Photometry:
    """`config.photometry`."""

    noise: Table
    standardize: bool


@dataclasses.dataclass(frozen=True)
class Rates:
    """`config.rates.LAYER`."""

    kernel: Table
    bias: Table


@dataclasses.dataclass(frozen=True)
class Plateau:
    """`config.plateau`."""

    patience: int
    drops: int


@dataclasses.dataclass(frozen=True)
class Mesh:
    """`config.mesh`."""

    data: int | None
    tower: int | None


@dataclasses.dataclass(frozen=True)
class Settings:
    """`config`."""

    name: str
    seed: int
    dataset: Dataset
    jitter: Jitter
    network: Network
    photometry: Photometry
    batch_size: int
    num_epochs: float
    schedule: Literal["epochs", "run", "steps", "cosine", "plateau"]
    plateau: Plateau
    warmup_epochs: float
    rates: dict[str, Rates]
    momentum: float
    nesterov: bool
    weight_decay: float
    weight_decays: dict[str, float]
    clip_norm: float | None
    lars_trust: float | None
    label_smoothing: float
    init_from: str | None
    fresh: tuple[str, ...]
    evaluate_every: float
    save_every: float
    on_failed_save: Literal["continue", "stop"]
    mesh: Mesh

    def on_any_mesh(self) -> "Settings":
        """The same experiment, with the mesh left to what devices there are."""
        return dataclasses.replace(self, mesh=Mesh(data=None, tower=None))


def read_settings(config: ConfigDict) -> Settings:
    """The config's values, checked.

    Raises:
      UsageError: a key is missing, unknown or of the wrong type, or a value makes no sense.
    """
    settings = _read(Settings, config.to_dict(), "config")
    _check(settings)
    return settings


def _read(kind: Any, value: Any, path: str) -> Any:
    """`value` as `kind`: a dataclass, a dict, a table, a literal, an optional or a plain type."""
    if dataclasses.is_dataclass(kind) and isinstance(kind, type):
        return _read_fields(kind, value, path)
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is dict and isinstance(value, dict):
        return {key: _read(arguments[1], inner, f"{path}.{key}") for key, inner in value.items()}
    if origin is tuple and isinstance(value, (tuple, list)):
        kinds = [arguments[0]] * len(value) if arguments[-1] is Ellipsis else arguments
        if len(kinds) == len(value):
            return tuple(
                _read(inner, item, f"{path}[{i}]") for i, (inner, item) in enumerate(zip(kinds, value, strict=True))
            )
    elif origin is Literal and value in arguments:
        return value
    elif origin is types.UnionType:
        return None if value is None else _read(arguments[0], value, path)
    elif kind is float and type(value) in (int, float):
        return float(value)
    elif type(value) is kind:
        return value
    raise UsageError(f"{path} is {value!r} and should be {_describe(kind)}")


def _read_fields(kind: type, value: Any, path: str) -> Any:
    if not isinstance(value, dict):
        raise UsageError(f"{path} is {value!r} and should have the keys {', '.join(_names(kind))}")
    unknown = [key for key in value if key not in _names(kind)]
    if unknown:
        close = difflib.get_close_matches(unknown[0], _names(kind), n=1)
        hint = f"did you mean {path}.{close[0]}?" if close else f"known keys: {', '.join(_names(kind))}"
        raise UsageError(f"nothing reads {path}.{unknown[0]}; {hint}")
    missing = [name for name in _names(kind) if name not in value]
    if missing:
        raise UsageError(f"{path}.{missing[0]} is missing; configs/default.py explains it")
    hints = typing.get_type_hints(kind)
    return kind(**{name: _read(hints[name], inner, f"{path}.{name}") for name, inner in value.items()})


def _names(kind: Any) -> list[str]:
    return [field.name for field in dataclasses.fields(kind)]


def _describe(kind: Any) -> str:
    if typing.get_origin(kind) is Literal:
        return " or ".join(map(repr, typing.get_args(kind)))
    if kind == Table:
        return "a table ((position, value), ...)"
    if typing.get_origin(kind) is types.UnionType:
        return f"{_describe(typing.get_args(kind)[0])} or None"
    names = {int: "a whole number", float: "a number", bool: "True or False", str: "a text"}
    return names.get(kind, str(kind))


def _check(settings: Settings) -> None:
    for path, value in (
        ("batch_size", settings.batch_size),
        ("num_epochs", settings.num_epochs),
        ("evaluate_every", settings.evaluate_every),
        ("save_every", settings.save_every),
        ("dataset.crop_size", settings.dataset.crop_size),
        ("dataset.crop_group", settings.dataset.crop_group),
        ("network.width", settings.network.width),
    ):
        if value <= 0:
            raise UsageError(f"config.{path} is {value} and must be more than 0")
    for path, value, end in (
        ("label_smoothing", settings.label_smoothing, 1.0),
        ("jitter.scale", settings.jitter.scale, math.inf),
        ("jitter.rotation", settings.jitter.rotation, 180.0),
        ("warmup_epochs", settings.warmup_epochs, settings.num_epochs),
    ):
        if not 0 <= value < end:
            raise UsageError(f"config.{path} is {value} and must be at least 0 and less than {end:g}")
    for path, limit in (("clip_norm", settings.clip_norm), ("lars_trust", settings.lars_trust)):
        if limit is not None and limit <= 0:
            raise UsageError(f"config.{path} is {limit} and must be more than 0, or None to go without")
    if settings.dataset.classes is not None and settings.dataset.classes < 2:
        raise UsageError(
            f"config.dataset.classes is {settings.dataset.classes}, and telling classes apart takes at least 2"
        )
    if settings.fresh and settings.init_from is None:
        raise UsageError("config.fresh names layers to start anew, but config.init_from names no run to start from")
    if settings.schedule == "plateau":
        _check_plateau(settings)
    for path, places in (("mesh.data", settings.mesh.data), ("mesh.tower", settings.mesh.tower)):
        if places is not None and places < 1:
            raise UsageError(f"config.{path} is {places} and must be at least 1, or None to choose for itself")
    if "all" not in settings.rates:
        raise UsageError("config.rates.all is missing: the rates of every layer without rates of its own")
    _check_table("photometry.noise", settings.photometry.noise)
    for layer, rates in settings.rates.items():
        _check_table(f"rates.{layer}.kernel", rates.kernel)
        _check_table(f"rates.{layer}.bias", rates.bias)


def _check_plateau(settings: Settings) -> None:
    if settings.plateau.patience < 1 or settings.plateau.drops < 1:
        raise UsageError("config.plateau.patience and config.plateau.drops must be at least 1")
    splits = settings.dataset.train_split, settings.dataset.eval_split
    if not splits[1] or splits[0] == splits[1]:
        raise UsageError(
            "config.schedule 'plateau' needs a validation set, and config.dataset.eval_split is"
            f" {splits[1]!r}, which is none apart from the training split {splits[0]!r}"
        )
    if settings.evaluate_every >= settings.num_epochs:
        raise UsageError(
            f"config.schedule 'plateau' needs evaluations, and config.evaluate_every is {settings.evaluate_every:g}"
            f" in a run of {settings.num_epochs:g} epochs"
        )


def _check_table(path: str, table: Table) -> None:
    positions = [position for position, _ in table]
    if not positions or positions[0] != 0:
        raise UsageError(f"config.{path} must start at position 0: ((0, value), ...), not {table}")
    if any(later <= earlier for earlier, later in itertools.pairwise(positions)):
        raise UsageError(f"the positions of config.{path} must ascend: {table}")
