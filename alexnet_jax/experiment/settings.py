"""The values of a config, with types. The commands read a `ConfigDict` here and nowhere else."""

import dataclasses
import difflib
import types
import typing
from typing import Any, Literal

from ml_collections import ConfigDict

from alexnet_jax.errors import UsageError
from alexnet_jax.experiment.checks import check
from alexnet_jax.experiment.fields import Settings, Table

LARGEST_NUMBER = 3.4e38  # of float32, in which a run computes


def read_settings(config: ConfigDict) -> Settings:
    """The config's values, checked. A `name` of None becomes the data set's, without its form: `elpv` of `elpv/160`.

    Raises:
      UsageError: a key is missing, unknown or of the wrong type, or a value makes no sense.
    """
    return settings_of(config.to_dict())


def settings_of(values: dict[str, Any]) -> Settings:
    """`read_settings` of a config's values as plain dicts, such as `dataclasses.asdict(settings)` or JSON.

    Raises:
      UsageError: as in `read_settings`.
    """
    dataset = values.get("dataset")
    if "name" in values and values["name"] is None and isinstance(dataset, dict):
        values = values | {"name": str(dataset.get("name")).partition("/")[0]}
    settings = _read(Settings, values, "config")
    check(settings)
    return settings


# Fields of `config.dataset` that follow from the data set where they are None.
FOLLOWING = ("train_split", "eval_split", "crop_size", "classes", "train_images")
FOLLOWING_EPOCHS = ("num_epochs", "evaluate_every", "save_every")  # fields of `config` that do


def _read(kind: Any, value: Any, path: str) -> Any:
    """`value` as `kind`: a dataclass, a dict, a table, a literal, an optional or a plain type."""
    if dataclasses.is_dataclass(kind) and isinstance(kind, type):
        return _read_fields(kind, value, path)
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is dict and isinstance(value, dict):
        return {key: _read(arguments[1], inner, f"{path}.{key}") for key, inner in value.items()}
    if kind == Table and (constant := _constant(value)) is not None:
        return ((0.0, _read(float, constant, path)),)
    if kind == Table and isinstance(value, (tuple, list)) and not all(map(_is_row, value)):
        raise UsageError(f"{path} is {value!r} and should be {_describe(kind)}")
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
        if not abs(value) <= LARGEST_NUMBER:  # also NaN
            raise UsageError(f"{path} is {value} and should be a finite number, at most {LARGEST_NUMBER:.2g}")
        return float(value)
    elif kind is str and type(value) is int:
        return str(value)  # the flag of a field whose default is None makes a number of --config.name=2024
    elif type(value) is kind:
        return value
    raise UsageError(f"{path} is {value!r} and should be {_describe(kind)}")


def _constant(value: Any) -> Any:
    """The number of a table that is a plain number; None: the value is no such table.

    The flag of a field that holds a tuple makes `(0.01,)` of 0.01.
    """
    if isinstance(value, (tuple, list)) and len(value) == 1:
        value = value[0]
    return value if type(value) in (int, float) else None


def _is_row(row: Any) -> bool:
    return isinstance(row, (tuple, list)) and len(row) == 2


def _read_fields(kind: type, value: Any, path: str) -> Any:
    if not isinstance(value, dict):
        raise UsageError(f"{path} is {value!r} and should have the keys {', '.join(_names(kind))}")
    unknown = [key for key in value if key not in _names(kind)]
    if unknown:
        close = difflib.get_close_matches(unknown[0], _names(kind), n=1)
        hint = f"did you mean {path}.{close[0]}?" if close else f"known keys: {', '.join(_names(kind))}"
        raise UsageError(f"nothing reads {path}.{unknown[0]}; {hint}")
    later = {field.name for field in dataclasses.fields(kind) if field.default is not dataclasses.MISSING}
    missing = [name for name in _names(kind) if name not in value and name not in later]
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
        return "a number, or a table such as ((0, 0.01), (30, 0.001)): the value from each position on"
    if typing.get_origin(kind) is types.UnionType:
        return f"{_describe(typing.get_args(kind)[0])} or None"
    names = {int: "a whole number", float: "a number", bool: "True or False", str: "a text"}
    return names.get(kind, str(kind))
