"""Measures the program on this machine.

python -m alexnet_jax.benchmark input --peer=torch                   # the input pipeline, beside PyTorch
python -m alexnet_jax.benchmark step --peer=torch                    # updates and evaluations, beside PyTorch
python -m alexnet_jax.benchmark gpu --peer=torch                     # one GPU: numbers, updates, input; minutes
python -m alexnet_jax.benchmark run --config=configs/default.py      # a whole run: updates, evaluations, saves, input
python -m alexnet_jax.benchmark start --config=configs/default.py    # from the command to the first update
"""

import dataclasses
import os
import subprocess
import sys
from typing import Any

if not __package__:  # `python alexnet_jax/benchmark.py` puts this folder on the path; its parent holds the package
    sys.path[0] = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
if __name__ == "__main__":  # before the other imports
    from alexnet_jax import startup

    startup.leave_on_interrupt()

from absl import flags
from ml_collections import config_flags

from alexnet_jax import cli, command_line, config_flag, strict_json
from alexnet_jax.errors import UsageError
from alexnet_jax.hints import hints
from alexnet_jax.network.native import build as native
from alexnet_jax.runtime import output

CONFIG = config_flag.define("run, start: the experiment, such as configs/default.py.")
flags.adopt_module_key_flags(config_flag)  # so that --help lists --config
DATA_DIR = flags.DEFINE_string("data_dir", None, f"run, start: {cli.DATA_DIR_HELP}")
UPDATES = flags.DEFINE_integer("updates", None, "run: number of updates; default: the whole run.", lower_bound=2)
PEER = flags.DEFINE_enum("peer", None, ["torch"], "input, step, gpu: library to measure beside this program, in turn.")
IMAGES = flags.DEFINE_integer("images", 1000, "input, gpu: number of drawn images.", lower_bound=2)
BATCHES = flags.DEFINE_integer("batches", 20, "input, gpu: batches of 128 that are timed in each round.", lower_bound=1)
ROUNDS = flags.DEFINE_integer(
    "rounds", 5, "input, step, gpu, start: rounds; each round measures everything once.", lower_bound=1
)
NATIVE = flags.DEFINE_enum("native", "auto", ["auto", "off"], f"step, gpu, run, start: {native.HELP}")
JSON = flags.DEFINE_bool("json", False, "Print one JSON object and nothing else.")


@hints(has_config=True)
def main(command: str | None = None) -> None:
    """Runs the measurement with that name."""
    if command not in COMMANDS:
        problem = "no measurement is named" if command is None else f"{command!r} cannot be measured"
        raise UsageError(f"{problem}; known: {', '.join(COMMANDS)}")
    for flag, measurements in USES.items():
        if flags.FLAGS[flag].present and command not in measurements:
            raise UsageError(f"{command} has no use for --{flag}, a flag of {', '.join(measurements)}; leave it out")
    if PEER.value is not None and subprocess.run([sys.executable, "-c", f"import {PEER.value}"]).returncode:
        raise UsageError(f"--peer={PEER.value} needs PyTorch: pip install {PEER.value}")
    result, lines = COMMANDS[command]()
    text = strict_json.dumps(dataclasses.asdict(result)) if JSON.value else "\n".join(lines)
    cli.print_results(f"{text}\n")


def _input() -> tuple[Any, list[str]]:
    from alexnet_jax.benchmarks import input as measurement

    result = measurement.measure(
        images=IMAGES.value, batches=BATCHES.value, rounds=ROUNDS.value, peer=PEER.value, say=output.warn
    )
    return result, measurement.describe(result)


def _run() -> tuple[Any, list[str]]:
    from alexnet_jax.benchmarks import run as measurement
    from alexnet_jax.experiment import build
    from alexnet_jax.experiment.settings import read_settings

    settings = read_settings(command_line.config_of(CONFIG))
    build.check_given_mesh(settings)  # before a CPU makes so many devices
    cli.start(cpu_devices=build.cpu_devices(settings), native=NATIVE.value)
    result = measurement.measure(settings, DATA_DIR.value, updates=UPDATES.value)
    return result, measurement.describe(result)


def _start() -> tuple[Any, list[str]]:
    from alexnet_jax.benchmarks import start as measurement

    command_line.config_of(CONFIG)  # report a mistake before the first start
    config = flags.FLAGS["config"]
    overrides = [f"--config.{name}={value}" for name, value in config_flags.get_override_values(config).items()]
    arguments = [f"--config={config_flags.get_config_filename(config)}", *overrides]
    if DATA_DIR.value is not None:
        arguments.append(f"--data_dir={DATA_DIR.value}")
    arguments.append(f"--native={NATIVE.value}")
    result = measurement.measure(arguments, rounds=ROUNDS.value, say=output.warn)
    return result, measurement.describe(result)


def _step() -> tuple[Any, list[str]]:
    from alexnet_jax.benchmarks import step as measurement

    result = measurement.measure(rounds=ROUNDS.value, peer=PEER.value, native=NATIVE.value, say=output.warn)
    return result, measurement.describe(result)


def _gpu() -> tuple[Any, list[str]]:
    from alexnet_jax.benchmarks import gpu as measurement
    from alexnet_jax.benchmarks import turns

    os.environ |= turns.ENVIRONMENT
    measurement.check_gpu()
    result = measurement.measure(
        rounds=ROUNDS.value,
        images=IMAGES.value,
        batches=BATCHES.value,
        peer=PEER.value,
        native=NATIVE.value,
        say=output.warn,
    )
    return result, measurement.describe(result)


COMMANDS = {"input": _input, "step": _step, "gpu": _gpu, "run": _run, "start": _start}
USES = {  # of flags that not every measurement reads
    "config": ("run", "start"),
    "data_dir": ("run", "start"),
    "updates": ("run",),
    "peer": ("input", "step", "gpu"),
    "images": ("input", "gpu"),
    "batches": ("input", "gpu"),
    "rounds": ("input", "step", "gpu", "start"),
    "native": ("step", "gpu", "run", "start"),
}


if __name__ == "__main__":
    cli.run(main, words=1)
