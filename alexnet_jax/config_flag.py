"""The flag `--config=FILE` and its overrides `--config.FIELD=VALUE`. Every field that may be None takes `None`."""

import ast
import contextlib
import sys
from collections.abc import Callable
from typing import Any

from absl import flags
from ml_collections import ConfigDict, config_flags
from ml_collections.config_flags import tuple_parser


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
}  # of fields that may be None


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


class Tuple(tuple_parser.TupleParser):
    """Parses the override of a tuple. The parser that it extends makes a tuple of the keys of a dictionary."""

    def parse(self, argument: Any) -> Any:
        """The tuple.

        Raises:
          ValueError: the text is a dictionary, a set or bytes.
        """
        value = None
        if isinstance(argument, str):
            with contextlib.suppress(ValueError, SyntaxError):  # a name without quotes is a tuple, too
                value = ast.literal_eval(argument)
        if isinstance(value, (dict, set, bytes)):
            raise ValueError(
                f"that is a {type(value).__name__}; write a tuple, such as ((0, 0.01), (30, 0.001)) or ('fc8',)"
            )
        return super().parse(argument)


def define(help_string: str) -> Callable[[], ConfigDict]:
    """Defines `--config`. The function that is returned gives the config, once flags are parsed."""
    for kind, parser in PARSERS.items():
        config_flags.register_flag_parser_for_type(kind, OrNone(parser))
    config_flags.register_flag_parser_for_type(tuple, Tuple())
    try:
        holder = config_flags.DEFINE_config_file("config", help_string=help_string)
    except flags.Error as error:  # it reads the files of --flagfile, before any command can answer for them
        print(f"error: --flagfile: {str(error).removeprefix('ERROR:: ')}", file=sys.stderr)
        sys.exit(2)
    flags.declare_key_flag("config")  # of this module, which a command adopts
    return lambda: holder.value
