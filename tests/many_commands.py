"""Starts commands in forked processes: the imports, which take seconds, are made once for all of them.

Standard input has a case a line, as JSON: `module`, `arguments`, `environment`, `folder` (the current one), `seconds`
(the limit), `trains` (else a run ends where its state would be restored or initialised, and a benchmark where it would
measure) and `describes` (prints the flags and the fields of the config instead). Standard output has the result of
each case, as JSON: `status` (None: not done in time), `out` and `err`.
"""

import contextlib
import ctypes
import importlib
import importlib.util
import json
import os
import pkgutil
import resource
import runpy
import signal
import sys
import tempfile
import time
import traceback
from pathlib import Path
from typing import Any, NoReturn

import alexnet_jax

MEMORY = 14 * 2**30  # bytes of address space, so that no case takes the memory of the machine
PARENT_DEATH_SIGNAL = 1  # prctl.h


def import_everything() -> None:
    """Imports the whole package but modules that define flags, and what needs a package that is optional.

    A flag that is defined in two commands can be defined once in a process.
    """
    for module in pkgutil.walk_packages(alexnet_jax.__path__, "alexnet_jax."):
        if "torch" not in module.name and not defines_flags(module.name):
            importlib.import_module(module.name)


def defines_flags(module: str) -> bool:
    spec = importlib.util.find_spec(module)
    assert spec is not None and spec.origin is not None
    return any(word in Path(spec.origin).read_text() for word in ("flags.DEFINE_", "cli_network"))


def signal_at_parents_end(number: signal.Signals) -> None:
    """Asks Linux for a signal to this process when its parent ends, however that happens."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PARENT_DEATH_SIGNAL, int(number))


def describe() -> None:
    """Prints the names of the command's flags and the values of its config in place of the command's work."""
    from absl import flags

    from alexnet_jax import cli

    def run(main: Any, *, words: int = 0) -> None:
        flags.FLAGS(sys.argv)
        config = flags.FLAGS["config"].value if "config" in flags.FLAGS else None
        defined = flags.FLAGS.flags_by_module_dict().items()
        by_module = {module: {flag.name for flag in found if "config." not in flag.name} for module, found in defined}
        ours = set().union(*(by_module[module] for module in by_module if "alexnet_jax" in module))
        libraries = by_module["absl.app"] | by_module["absl.logging"]
        fields = {} if config is None else flatten(config.to_dict())
        print(
            json.dumps(
                {
                    "ours": sorted(ours | {"config"} if fields else ours),
                    "libraries": sorted(libraries),
                    "fields": sorted(fields),
                }
            )
        )

    cli.run = run  # type: ignore[assignment]


def flatten(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        flat |= flatten(value, f"{prefix}{key}.") if isinstance(value, dict) and value else {prefix + key: value}
    return flat


def end(*_: Any, **__: Any) -> NoReturn:
    sys.exit(0)


def stop_before_the_work() -> None:
    from alexnet_jax import answers, train
    from alexnet_jax.benchmarks import input as input_benchmark
    from alexnet_jax.benchmarks import run, start, step
    from alexnet_jax.evaluation import error_rates, predictions
    from alexnet_jax.report import examination
    from alexnet_jax.retrieval import feature_table

    train._first_state = end
    error_rates.evaluate = predictions.predictions = end
    answers.answered = feature_table.compute = examination.examine = end
    for measurement in (input_benchmark, run, start, step):
        measurement.measure = end


def be_command(case: dict[str, Any]) -> NoReturn:
    """The forked process: becomes the command, and exits as the command does."""
    status = 1
    try:
        os.environ.update(case["environment"])
        os.chdir(case["folder"])
        if case["describes"]:
            describe()
        elif not case["trains"]:
            stop_before_the_work()
        sys.argv = ["", *(os.fsdecode(argument.encode("utf-8", "surrogateescape")) for argument in case["arguments"])]
        runpy.run_module(f"alexnet_jax.{case['module']}", run_name="__main__", alter_sys=True)
        status = 0
    except SystemExit as error:
        if isinstance(error.code, str):
            print(error.code, file=sys.stderr)
        status = error.code if isinstance(error.code, int) else int(error.code is not None)
    except BaseException:
        traceback.print_exc()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def status_of(child: int, seconds: float) -> int | None:
    """Waits for a process; None: it is not done in time, and is killed."""
    limit = time.monotonic() + seconds
    while time.monotonic() < limit:
        ended, wait_status = os.waitpid(child, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(wait_status)
        time.sleep(0.005)
    os.killpg(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return None


def run_case(case: dict[str, Any]) -> dict[str, Any]:
    """Forks, waits and reports."""
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        child = os.fork()
        if not child:
            os.setsid()
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            signal_at_parents_end(signal.SIGKILL)
            resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
            os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
            for file, number in ((out, 1), (err, 2)):
                os.dup2(file.fileno(), number)
            be_command(case)
        try:
            status = status_of(child, case["seconds"])
        finally:  # also the processes that the command started and left
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child, signal.SIGKILL)
        texts = []
        for file in (out, err):
            file.seek(0)
            texts.append(file.read().decode(errors="replace"))
    return {"status": status, "out": texts[0], "err": texts[1]}


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # ends the command at work, too
    signal_at_parents_end(signal.SIGTERM)
    import_everything()
    for line in sys.stdin:
        print(json.dumps(run_case(json.loads(line))), flush=True)
