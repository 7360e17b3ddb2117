"""The flag `--config=FILE` and its overrides `--config.FIELD=VALUE`. Every field that may be None takes `None`."""

import sys
from collections.abc import Callable
from typing import Any

from absl import flags
from ml_collections import ConfigDict, config_flags


class Literal(flags.ArgumentParser):
    """Parses a number or a text: a field whose default is a plain None has no other type."""

    def parse(self, argument: Any) -> Any:
        """The number in the text, or the text."""
        for kind in (int, float):
            try:
                return kind(argument)
            except (TypeError, ValueError):
                continue
        return argument


PARSERS: dict[type, flags.ArgumentParser] = {
    int: flags.IntegerParser(),
    float: flags.FloatParser(),
    bool: flags.BooleanParser(),
    str: flags.ArgumentParser(),
    type(None): Literal(),
}


class OrNone(flags.ArgumentParser):
    """Parses as another parser does, and `None` as None.

    The types of the fields say where None makes sense: `settings.read_settings` refuses it elsewhere.

    Args:
      parser: of other values.
    """

    def __init__(self, parser: flags.ArgumentParser):
        self._parser = parser
        self.syntactic_help = parser.syntactic_help

    def parse(self, argument: Any) -> Any:
        """The value; None for `None`."""
        return None if argument in ("None", None) else self._parser.parse(argument)

    def flag_type(self) -> str:
        """The name of the type in help texts."""
        return f"{self._parser.flag_type()} or None"


def define(help_string: str) -> Callable[[], ConfigDict]:
    """Defines `--config`. The function that is returned gives the config, once flags are parsed."""
    for kind, parser in PARSERS.items():
        config_flags.register_flag_parser_for_type(kind, OrNone(parser))
    try:
        holder = config_flags.DEFINE_config_file("config", help_string=help_string)
    except flags.Error as error:  # it reads the files of --flagfile, before any command can answer for them
        print(f"error: --flagfile: {str(error).removeprefix('ERROR:: ')}", file=sys.stderr)
        sys.exit(2)
    flags.declare_key_flag("config")  # of this module, which a command adopts
    return lambda: holder.value
