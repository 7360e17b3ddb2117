"""What every command does: quiet libraries, mistakes told in one line, devices before the first computation."""

import functools
import os
import sys
import traceback
from collections.abc import Callable

import jax
from absl import app, flags, logging
from ml_collections import ConfigDict

from alexnet_jax.errors import UsageError
from alexnet_jax.runtime import allocator, compilation_cache, processes

# Flags that name a file or folder.
PATH_FLAGS = ("config", "config.init_from", "workdir", "data_dir", "source_dir")


def run(main: Callable[..., int | None], *, words: int = 0) -> None:
    """Parses the flags, runs `main` and exits with its status; a user's mistake is one line and status 2.

    Args:
      main: takes the words of the command line that are no flags, such as a sub-command.
      words: how many of them there may be.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    try:
        parse = functools.partial(_parse, words=words)
        app.run(lambda arguments: sys.exit(main(*arguments[1:])), flags_parser=parse)
    except SystemExit:
        processes.finish()
        raise
    except UsageError as error:
        _end(error, f"error: {error}", 2)
    except KeyboardInterrupt as error:  # the commands that have something to save see to it themselves
        _end(error, "interrupted", 130)
    except Exception as error:
        if processes.watched():
            processes.fail(error, traceback.format_exc().rstrip(), 1)
        raise


def _end(error: BaseException, line: str, status: int) -> None:
    if processes.watched():
        processes.fail(error, line, status)
    print(line, file=sys.stderr)
    sys.exit(status)


def _parse(arguments: list[str], *, words: int) -> list[str]:
    try:
        rest = flags.FLAGS([_expand_home(argument) for argument in arguments])
    except flags.Error as error:
        raise UsageError(_one_line(error)) from error
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        if not _raised_by_config_flags(error):
            raise
        raise UsageError(_one_line(error)) from error
    if not flags.FLAGS["verbosity"].present:
        # Orbax and TFDS tell each file they write, and errors that they also raise; --verbosity=0 hears them.
        logging.set_verbosity(logging.FATAL)
    if len(rest) > 1 + words:
        raise UsageError(f"{rest[1 + words]!r} is not a flag; flags start with --, and --helpfull lists them")
    return rest


def _expand_home(argument: str) -> str:
    """`--workdir=~/run` with the home folder in place of `~`. A shell expands `~` at the start of a word alone."""
    name, equals, path = argument.partition("=")
    is_path = equals and name.startswith("-") and name.lstrip("-") in PATH_FLAGS
    return f"{name}={os.path.expanduser(path)}" if is_path else argument


def _one_line(error: Exception) -> str:
    text = error.args[0] if error.args else error
    text = str(text).rsplit(f"{UsageError.__name__}: ", 1)[-1]  # config_flags tells a config's error with its traceback
    return " ".join(str(text).replace("'\\n", "' ").split()).replace(" 'Did you mean", " Did you mean")


def _raised_by_config_flags(error: BaseException) -> bool:
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return trace is not None and "ml_collections" in trace.tb_frame.f_code.co_filename


def config_of(flag: Callable[[], ConfigDict]) -> ConfigDict:
    """The config that `--config` names.

    Raises:
      UsageError: there is none, or its file does not exist.
    """
    try:
        config = flag()
        if config is None:
            raise UsageError("--config is missing; start with --config=configs/default.py")
        config.to_dict()
        return config
    except OSError as error:
        raise UsageError(f"--config names a file that cannot be read: {_one_line(error)}") from error


def absolute(folder: str) -> str:
    """A local folder as an absolute path, which orbax needs, with `~` expanded; `gs://...` and the like unchanged."""
    return folder if "://" in folder else os.path.abspath(os.path.expanduser(folder))


def start(*, cpu_devices: int) -> None:
    """Makes the devices of a CPU, before JAX counts them, opens the cache of compiled programs, and keeps memory.

    Args:
      cpu_devices: of all processes together; `JAX_NUM_CPU_DEVICES`, of one process, goes before it.
    """
    if "JAX_NUM_CPU_DEVICES" not in os.environ:
        jax.config.update("jax_num_cpu_devices", -(-cpu_devices // processes.count()))
    processes.silence_gloo()
    allocator.keep_memory()
    compilation_cache.use(compilation_cache.default_folder())
