"""The command line: flags, the config file with its overrides, and each mistake in them as one line."""

import difflib
import itertools
import os
import re
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from absl import flags, logging
from ml_collections import ConfigDict

from alexnet_jax import configs, paths
from alexnet_jax.errors import UsageError, words_of
from alexnet_jax.runtime import output

# Flags whose `~` is expanded before they are parsed. Commands expand the other paths with `paths.absolute`.
PATH_FLAGS = ("config", "config.init_from", "workdir", "data_dir", "source_dir")
VARIANTS = {  # what Python says of a config's function that is called in the wrong way
    "takes": "the config has no variants; leave out the colon in --config and what follows it",
    "missing": "the config has variants; name one, as --config=FILE:NAME",
}


def parse(arguments: list[str], *, words: int | None) -> list[str]:
    """Parses the flags of a command line, and returns the program's name with the words that are not flags.

    Args:
      arguments: as in `sys.argv`.
      words: how many words may be left; None: any number.

    Raises:
      UsageError: a flag is wrong, or the config cannot be loaded.
    """
    arguments = [_installed_config(_expand_home(argument)) for argument in _join_config(arguments)]
    for name in filter(None, map(_config_file, arguments)):
        # The import of a device might never end.
        if os.path.exists(name) and not os.path.isfile(name) and not os.path.isdir(name):
            raise UsageError(f"--config={name} is not a file; name a file such as configs/default.py")
        if name.endswith((".json", ".yaml", ".yml", ".toml")):  # Python would take its first word for a mistake
            raise UsageError(
                f"--config={name} is not a Python file; name one such as configs/default.py, or, to resume a run, the"
                " one that it began with"
            )
    try:
        rest = flags.FLAGS(arguments)
    except SystemExit as error:
        if place := _place(error):
            ending = f"exit({error.code!r}){place}"
            raise UsageError(f"--config names a file whose code ends the program: {ending}") from error
        sys.exit(0)  # after --help and its like
    except Exception as error:  # the config is loaded here, and its code may raise anything
        raise _flag_error(error) from error
    if not flags.FLAGS["verbosity"].present:
        # Orbax and TFDS log each file that they write, and errors that they also raise; --verbosity=0 shows them.
        logging.set_verbosity(logging.FATAL)
    if words is not None and len(rest) > 1 + words:
        raise UsageError(f"{rest[1 + words]!r} is not a flag; flags start with --, and --helpfull lists them")
    return rest


def _expand_home(argument: str) -> str:
    """`--workdir=~/run` with the home folder in place of `~`. A shell expands `~` at the start of a word alone."""
    name, equals, path = argument.partition("=")
    is_path = equals and name.startswith("-") and name.lstrip("-") in PATH_FLAGS
    return f"{name}={paths.expand_home(path)}" if is_path else argument


def _join_config(words: Iterable[str]) -> Iterator[str]:
    """The words with `--config FILE` as `--config=FILE`: the flag takes the next word, whatever it is."""
    left = iter(words)
    for word in left:
        takes_next = word.startswith("-") and word.lstrip("-") == "config"
        yield "=".join([word, *itertools.islice(left, 1)]) if takes_next else word


def _config_file(argument: str) -> str:
    """The file of `--config=FILE`, where a `:variant` may follow; empty: another argument."""
    name, _, value = argument.partition("=")
    return value.partition(":")[0] if name.startswith("-") and name.lstrip("-") == "config" else ""


def _installed_config(argument: str) -> str:
    """The argument, or where it names a file in configs/ that is not here, the file of that name in the package."""
    file = _config_file(argument)
    if Path(file).parts[:1] != ("configs",) or os.path.lexists(file):
        return argument
    for folder in configs.__path__:
        if os.path.isfile(installed := os.path.join(folder, *Path(file).parts[1:])):
            output.warn(f"there is no {file} here; --config is the installed {installed}")
            return argument.replace(file, installed, 1)
    return argument


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _flag_error(error: Exception) -> UsageError:
    """The error of a flag, of a config that cannot be loaded, or of an override that does not fit it, in one line."""
    text = str(error.args[0] if error.args else error)
    if isinstance(error, OSError):
        reason = re.findall(r"\[Errno \d+\] .*", str(error)) or [words_of(error)]
        return UsageError(f"--config names a file that cannot be read: {reason[-1]}{_similar_file(reason[-1])}")
    if isinstance(error, (SyntaxError, ImportError)):
        text = f"--config names a file that cannot be loaded: {error}{_place(error)}"
    elif "Error whilst parsing config file:" in text:  # then the error of the config's code is a traceback in the text
        trace = text.rpartition("Traceback (most recent call last):")[2]
        places = re.findall(r'^  File "(.*)", line (\d+)', trace, flags=re.MULTILINE)
        place = next((place for place in reversed(places) if "ml_collections" not in place[0]), places[-1])
        kind, text = re.findall(r"^(\w[\w.]*):?((?s:.*))", trace, flags=re.MULTILINE)[0]
        if "ml_collections" in place[0] and (asked := re.search(r"get_config\(\) (takes|missing)", text)):
            text = VARIANTS[asked[1]]
        elif not kind.startswith("alexnet_jax."):  # those are whole messages
            text = f"{text.strip() or kind} ({place[0]}, line {place[1]})"
        if "type <class 'tuple'>" in text:
            text += "; a table is written ((0, 0.01),): the value from each position on"
    elif place := _place(error):
        text = f"{type(error).__name__}: {error}{place}"
    elif isinstance(error, (KeyError, AttributeError)) and re.fullmatch(r"\W*\w+\W*", text):
        # A key of `rates` or `weight_decays`.
        key = re.sub(r"\W", "", text)
        text = f"the config has no {_overridden(key)}; a config file that changes this config can add it"
    elif re.search(r"Error while parsing string: .* as tuple", text):
        text = f"{text.partition(': ')[0]} is no table; a table is written ((0, 0.01), (30, 0.001))"
    elif not isinstance(error, (UsageError, flags.Error)):
        text = _plain(text)
    text = re.sub(r"\('Non-boolean argument to boolean flag', .*\)", "write true or false", text)
    text = re.sub(r' Other fields present: "\{(?s:.*)\}"', "", text)  # a page of them
    if missing := re.search(r"No module named '(\w+)", text):
        text += _missing_module(missing[1])
    return UsageError(_one_line(text))


def _plain(text: str) -> str:
    """A text as it was before KeyError quoted it."""
    return re.sub(r"^(['\"])(.*)\1$", r"\2", text).replace("\\'", "'").replace("\\n", " ")


def _overridden(key: str) -> str:
    """The field of the override that has the key, such as `config.rates.fc8.kernel` for `fc8`; else the key."""
    fields = (argument.lstrip("-").partition("=")[0] for argument in sys.argv if argument.startswith("-"))
    return next((field for field in fields if key in field.split(".")[1:]), f"field {key}")


def _missing_module(name: str) -> str:
    """The advice for a config whose import finds no module."""
    if name == "configs":
        return "; outside of a checkout the configs are alexnet_jax.configs: `from alexnet_jax.configs import default`"
    for argument in _join_config(sys.argv):
        file = Path(_config_file(argument) or "-")
        if (file.parent / f"{name}.py").exists():
            return f"; start in {file.parent}, or name that folder in PYTHONPATH"
    return ""


def _place(error: Exception | SystemExit) -> str:
    """The line of the config's code that raised the error; empty: the libraries of the flags raised it."""
    frame = traceback.extract_tb(error.__traceback__)[-1]
    if isinstance(error, (SyntaxError, UsageError)) or {"ml_collections", "absl"} & set(Path(frame.filename).parts):
        return ""
    return f" ({frame.filename}, line {frame.lineno})"


def _similar_file(reason: str) -> str:
    """Suggests a file beside the one that an operating system's message quotes."""
    path = Path(reason.rpartition(": ")[2].strip("'"))
    files = [str(file) for file in path.parent.glob("*.py")] if path.parent.is_dir() else []
    similar = difflib.get_close_matches(str(path), files, n=1)
    return f"; did you mean {similar[0]}?" if similar and not path.exists() else ""


def config_of(flag: Callable[[], ConfigDict]) -> ConfigDict:
    """The config that `--config` names.

    Raises:
      UsageError: the flag is missing, its file cannot be read, or its function returns something else.
    """
    try:
        config = flag()
        if config is None and not flags.FLAGS["config"].present:
            raise UsageError("--config is missing; start with --config=configs/default.py")
        if not hasattr(config, "to_dict"):  # a file that cannot be read raises here
            raise UsageError(
                f"get_config() of --config returned {config!r:.60}; it returns a ConfigDict, such as that of"
                " configs/default.py"
            )
        config.to_dict()
        return config
    except OSError as error:
        raise _flag_error(error) from error
