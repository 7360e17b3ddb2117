"""A variant of a config: the fields that the variant changes, and the result to expect."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from ml_collections import ConfigDict

from alexnet_jax.errors import UsageError


class Variant(NamedTuple):
    """A variation of a config.

    Attributes:
      expect: the known result, with its source.
      changes: new values by key, such as `network.recipe`.
    """

    expect: str
    changes: Mapping[str, Any] = {}


def change(config: ConfigDict, changes: Mapping[str, Any]) -> None:
    """Sets new values by key."""
    for key, value in changes.items():
        *groups, last = key.split(".")
        group = config
        for inner in groups:
            group = group[inner]
        with group.ignore_type():
            group[last] = ConfigDict(dict(value)) if isinstance(value, Mapping) else value


def vary(config: ConfigDict, variants: Mapping[str, Variant], name: str) -> ConfigDict:
    """The config with the changes of a variant, locked.

    Raises:
      UsageError: no variant has that name.
    """
    if name not in variants:
        raise UsageError(f"there is no variant {name!r}; known: {', '.join(variants)}")
    change(config, variants[name].changes)
    return config.lock()
