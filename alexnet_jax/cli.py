"""What every command does: errors in one line, exit statuses, devices and caches."""

import atexit
import functools
import os
import sys
import traceback
from collections.abc import Callable
from typing import Any, NoReturn

from absl import app, flags

try:  # JAX reads its environment variables when imported; the modules below import JAX too
    import jax
except ValueError as _error:
    print(f"error: an environment variable of JAX has a wrong value: {_error}; correct or unset it", file=sys.stderr)
    sys.exit(2)

from alexnet_jax import command_line, paths, startup
from alexnet_jax.errors import UsageError, reason_of
from alexnet_jax.network.native import build
from alexnet_jax.runtime import compilation_cache, output, processes, variables

DATA_DIR_HELP = "Folder of prepared data sets; default: TFDS_DATA_DIR, or ~/tensorflow_datasets."


def run(main: Callable[..., int | None], *, words: int | None = 0) -> NoReturn:
    """Parses the flags, runs `main` and exits with its status. A `UsageError` is one line and, mostly, status 2.

    Args:
      main: takes the words of the command line that are not flags, such as a sub-command.
      words: how many of them there may be; None: any number.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    _open_standard_streams()
    atexit.register(output.drop_unwritten_errors)
    try:
        startup.raise_on_interrupt()
        parse = functools.partial(command_line.parse, words=words)
        app.run(lambda arguments: _check_and_run(main, arguments), flags_parser=parse)
        sys.exit()  # which `app.run` has done
    except SystemExit:
        processes.finish()
        raise
    except UsageError as error:
        _exit(error, f"error: {error}", error.status)
    except KeyboardInterrupt as error:  # a command with something to save has a handler of its own meanwhile
        _exit(error, "interrupted", startup.INTERRUPTED)
    except Exception as error:
        if isinstance(error, BrokenPipeError) and output.has_lost_reader():
            output.discard()
            processes.fail(error, "the reader of standard output has left", output.READER_LEFT)
            sys.exit(output.READER_LEFT)
        processes.fail(error, traceback.format_exc().rstrip(), 1)
        raise


def _open_standard_streams() -> None:
    """Opens the null device for standard streams that the shell has closed, as by `2>&-`.

    A file that is opened later would have the stream's number, and what libraries print would end in it.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            null = os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free
            os.set_inheritable(null, True)  # processes that this one starts have it, too
    if sys.stderr is None:  # for `print`, that is standard output
        sys.stderr = os.fdopen(2, "w", closefd=False)


def _check_and_run(main: Callable[..., int | None], arguments: list[str]) -> NoReturn:
    variables.check()
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="backslashreplace")  # the names of files may be anything
    _check_texts(arguments[1:])
    status = main(*arguments[1:])
    print_results("")  # flushes: a reader that has left is noticed here, and not at Python's exit
    sys.exit(status)


def _check_texts(words: list[str]) -> None:
    """Checks the words and the texts of flags. An empty one, as of `--workdir=$UNSET`, would mean this folder.

    Raises:
      UsageError: a text is empty, or an address of storage that cannot be reached.
    """
    if any(not word.strip() for word in words):
        raise UsageError("a word of the command line is empty; leave it out, or see whether its variable is set")
    for module, defined in flags.FLAGS.flags_by_module_dict().items():
        for flag in defined if not module.startswith("absl.") else ():
            texts = flag.value if isinstance(flag.value, list) else [flag.value]
            for text in texts if flag.present else ():
                if isinstance(text, str) and not text.strip() and not flag.name.startswith("config."):
                    raise UsageError(f"--{flag.name} is empty; give a value, or leave the flag out")
                if isinstance(text, str):
                    paths.check_address(text)
    paths.check_address(os.environ.get("TFDS_DATA_DIR", ""))


def _exit(error: BaseException, line: str, status: int) -> NoReturn:
    processes.fail(error, line, status)
    output.warn(line)
    if processes.joining():
        os._exit(status)
    sys.exit(status)


def print_results(text: str) -> None:
    """Writes a text to standard output at once.

    Raises:
      BrokenPipeError: the reader has left, such as `head`; `run` then ends the command quietly.
      UsageError: standard output cannot be written, as on a full disk.
    """
    try:
        print(text, end="", flush=True)
    except BrokenPipeError:
        raise
    except OSError as error:
        output.discard()
        raise UsageError(f"standard output cannot be written: {reason_of(error)}") from error


def use_no_device() -> None:
    """Lets JAX compute shapes on the CPU, for a command that needs no device and so takes none."""
    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_num_cpu_devices", 1)


def start(*, cpu_devices: int, native: str = "auto") -> str:
    """Makes the devices, before JAX counts them, opens the cache of compiled programs, and keeps memory.

    It builds the native kernels of the platform, or loads them from that cache, before JAX traces a program.

    Args:
      cpu_devices: as in `processes.make_devices`.
      native: whether operations run in native kernels, as `--native` says.

    Returns:
      The line that says whether operations run in native kernels; empty on accelerators other than NVIDIA's.

    Raises:
      EarlyDevicesError: the config has made JAX's devices.
      PlatformError: JAX cannot use the devices.
    """
    processes.make_devices(cpu_devices)
    processes.silence_gloo()
    folder = compilation_cache.default_folder()
    compilation_cache.use(folder)
    line = build.load(native).line  # `load` caches native kernels in that folder, whatever follows
    # JAX writes programs on process 0 alone, and XLA divides the choice of a GPU's algorithms over the processes. With
    # a cache for each host, process 0 finds a program, and the others compile it and wait for the choices of process 0.
    if jax.default_backend() == "gpu" and not processes.have_in_common(folder):
        caches: Any = jax.config  # whose fields are made at run time
        if caches.jax_enable_compilation_cache:
            processes.log(
                f"compiled programs are not cached: not all processes see what process 0 writes into {folder}; name a"
                " folder that they share in JAX_COMPILATION_CACHE_DIR"
            )
        jax.config.update("jax_enable_compilation_cache", False)
    return line
