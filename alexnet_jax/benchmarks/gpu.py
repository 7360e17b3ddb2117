"""Measures net 145 on one GPU: numbers, updates, ten views, copies and input, beside PyTorch."""

import dataclasses
import json
import os
import shlex
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax

from alexnet_jax.benchmarks import input as input_pipeline
from alexnet_jax.benchmarks.timing import Rate
from alexnet_jax.benchmarks.turns import Process
from alexnet_jax.data.pipeline import usable_cores
from alexnet_jax.errors import UsageError

PACKAGE = "alexnet_jax.benchmarks"
CASES = ((1024, "bfloat16"), (128, "bfloat16"), (1024, "float32"))  # batch size and type of the activations
PEER_CASE = CASES[0]
LONGEST, WIDTH = 20, 110  # kernels in a table, and letters of their names
UPDATES = 100  # of each measurement of updates that read from disk
# Environment of this program's processes. Each caches its compiled programs in an empty folder.
CACHE = {
    "JAX_ENABLE_COMPILATION_CACHE": "true",
    "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    "JAX_PERSISTENT_CACHE_ENABLE_XLA_CACHES": "none",
}


@dataclasses.dataclass(frozen=True)
class GpuResult:
    """The measurements.

    Attributes:
      device: its name.
      line: which operations are native.
      numbers: for each comparison with float64, by its name: the relative errors of the value and of the gradients.
      update: images a second in training, medians, by participant.
      forward: views a second in ten-view evaluation, where an image has ten, medians, by participant.
      first_update: seconds to the first update, compilation included, by participant of ours.
      cached_first_update: the same for the first participant, with the programs of its earlier start.
      memory: peak memory of the device, bytes, by participant.
      kernels: milliseconds of an update by kernel, the longest first, by participant of ours.
      forms: for PyTorch, the forms that were fastest.
      copied: images a second of updates whose batches are copied from the host meanwhile, by participant of ours.
      copy: bytes a second of such a copy alone.
      rates: images a second that are read from disk, by variant as in `input.InputResult`.
      from_disk: images a second of updates that read from disk, by encoding.
      whole_runs: seconds of a run from its command to its end, with an empty cache of compiled programs, and again.
      seconds: of the whole measurement.
    """

    device: str
    line: str
    numbers: dict[str, list[float]]
    update: dict[str, float]
    forward: dict[str, float]
    first_update: dict[str, float]
    cached_first_update: float
    memory: dict[str, int]
    kernels: dict[str, list[tuple[str, float]]]
    forms: dict[str, dict[str, str]]
    copied: dict[str, float]
    copy: float
    rates: dict[str, float]
    from_disk: dict[str, float]
    whole_runs: list[float]
    seconds: float


def measure(
    *,
    rounds: int,
    images: int,
    batches: int,
    peer: str | None,
    native: str = "auto",
    whole_run: Sequence[str] = ("--config=configs/default.py",),
    say: Callable[[str], None] = print,
) -> GpuResult:
    """Checks the numbers, and measures the participants in turn, then the input, and whole runs.

    Args:
      rounds: each runs 20 updates and 20 evaluations of each participant.
      images: number of drawn images.
      batches: batches of 128 of each measurement of the input, for each worker process.
      peer: `torch`: PyTorch with and without norms, in the first of `CASES`, and its DataLoader; None: no peer.
      native: whether operations are native, as `--native` says.
      whole_run: flags of `main` for the whole runs.
      say: called with each line of progress.

    Raises:
      UsageError: there is no GPU.
    """
    begun = time.perf_counter()
    ours = {_name(*case): ["our_step", native, *map(str, case)] for case in CASES}
    programs = dict(ours)
    if peer == "torch":
        case = [str(part) for part in PEER_CASE]
        programs |= {"torch": ["torch_step", "norm", *case], "torch, no norm": ["torch_step", "plain", *case]}
    processes: dict[str, Process] = {}
    caches = tempfile.TemporaryDirectory(prefix="alexnet_jax-benchmark-")

    def start(name: str) -> Process:
        module, *arguments = programs[name]
        environment = CACHE | {"JAX_COMPILATION_CACHE_DIR": f"{caches.name}/{name}"} if name in ours else {}
        return Process(f"{PACKAGE}.{module}", *arguments, environment=environment)

    try:
        line, numbers = _numbers(say)
        for name in programs:  # one after another: each measures which algorithms are the fastest
            say(f"starting {name}")
            processes[name] = start(name)
            processes[name].ask("ready")
        result = _steps(processes, ours, rounds, say)
        main = next(iter(ours))
        for name in [name for name in programs if name != main]:
            processes.pop(name).close()
        process = processes[main]
        batch = PEER_CASE[0] * input_pipeline.CROP_SIZE**2 * 3
        result["copy"] = batch / min(process.ask("copy") for _ in range(5))
        with tempfile.TemporaryDirectory(prefix="alexnet_jax-benchmark-") as folder:
            place = Path(folder)
            say(f"drawing {images:,} images")
            sources = input_pipeline.prepare(place, images)
            rates = _rates(input_pipeline.worker_variants(sources, batches), say)
            result["from_disk"] = _from_disk(place, process, sources, say)
            device = process.ask("device")
            process.close()
            processes[main] = start(main)
            result["cached_first_update"] = processes[main].ask("first_update")
            processes.pop(main).close()
            if peer == "torch":
                rates |= _rates(input_pipeline.torch_variants(place, sources["jpeg"], batches), say)
        result["whole_runs"] = _whole_runs(whole_run, say)
    finally:
        for process in processes.values():
            process.close()
        caches.cleanup()
    return GpuResult(
        device=device, line=line, numbers=numbers, rates=rates, seconds=time.perf_counter() - begun, **result
    )


def _numbers(say: Callable[[str], None]) -> tuple[str, dict[str, list[float]]]:
    """Which operations are native, and the errors against float64."""
    say("comparing with float64")
    line, numbers = "", {}
    command, environment = [sys.executable, "-m", f"{PACKAGE}.numbers"], dict(os.environ)
    if platforms := os.environ.get("JAX_PLATFORMS"):
        environment["JAX_PLATFORMS"] = f"{platforms},cpu"  # which computes in float64
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stdout is not None
        for name, errors in map(json.loads, process.stdout):
            say(_errors(name, errors) if errors else name)
            if errors:
                numbers[name] = errors
            else:
                line = name
    if process.returncode:
        raise RuntimeError(f"the comparison with float64 ended with status {process.returncode}")
    return line, numbers


def _errors(name: str, errors: list[float]) -> str:
    value, *gradients = errors
    return f"{name:50}{value:10.1e}  " + " ".join(f"{error:.1e}" for error in gradients)


def _steps(
    processes: dict[str, Process], ours: dict[str, Any], rounds: int, say: Callable[[str], None]
) -> dict[str, Any]:
    """Rates of updates and evaluations, in turn."""
    batches = _batches()
    values: dict[str, dict[str, list[float]]] = {word: {} for word in ("update", "forward", "copied_update")}
    for word, by_name in values.items():
        for number in range(rounds):
            for name, process in processes.items():
                if word == "copied_update" and name not in ours:
                    continue
                seconds = process.ask(word)
                images = 1 if word == "forward" else batches.get(name, PEER_CASE[0])
                by_name.setdefault(name, []).append(images / seconds)
                say(f"{word} {number + 1}/{rounds}  {name:24} {images / seconds:10,.0f} images/s")
    median = {word: {name: statistics.median(each) for name, each in rates.items()} for word, rates in values.items()}
    return {
        "update": median["update"],
        "forward": median["forward"],
        "copied": median["copied_update"],
        "first_update": {name: processes[name].ask("first_update") for name in ours},
        "memory": {name: process.ask("memory") for name, process in processes.items()},
        "kernels": {name: [(kernel, ms) for kernel, ms in processes[name].ask("kernels")] for name in ours},
        "forms": {name: process.ask("forms") for name, process in processes.items() if name not in ours},
    }


def _rates(variants: Mapping[str, Callable[[], Rate]], say: Callable[[str], None]) -> dict[str, float]:
    """Rates of the input alone."""
    rates = {}
    for name, variant in variants.items():
        rates[name] = variant().wall
        say(f"{name:24} {rates[name]:10,.0f} images/s")
    return rates


def _from_disk(place: Path, process: Process, encodings: Iterable[str], say: Callable[[str], None]) -> dict[str, float]:
    """Rates of updates that read from disk."""
    rates = {}
    for encoding in encodings:
        name, workers = input_pipeline.name_of(encoding), str(usable_cores())
        rates[encoding] = process.ask(shlex.join(["from_disk", name, str(place), workers, str(UPDATES)]))
        say(f"updates from {encoding:11} {rates[encoding]:10,.0f} images/s")
    return rates


def _whole_runs(flags: Sequence[str], say: Callable[[str], None]) -> list[float]:
    """Seconds of whole runs, the second one with the compiled programs of the first. Fewer: a run failed."""
    seconds: list[float] = []
    with tempfile.TemporaryDirectory(prefix="alexnet_jax-benchmark-") as folder:
        environment = os.environ | CACHE | {"JAX_COMPILATION_CACHE_DIR": f"{folder}/cache"}
        for number in range(2):
            begun = time.perf_counter()
            command = [sys.executable, "-m", "alexnet_jax.main", *flags, f"--workdir={folder}/{number}"]
            if status := subprocess.run(command, env=environment, stdout=subprocess.DEVNULL).returncode:
                say(f"the whole run ended with status {status}")
                break
            seconds.append(time.perf_counter() - begun)
            say(f"whole run {number + 1}/2  {seconds[-1]:.1f} s")
    return seconds


def _name(batch: int, dtype: str) -> str:
    """The name of our participant in a case."""
    return f"ours, {dtype}, {batch:,}"


def _batches() -> dict[str, int]:
    """The images of an update by our participant."""
    return {_name(*case): case[0] for case in CASES}


def describe(result: GpuResult) -> list[str]:
    """The result as the lines of tables."""
    lines = [f"{result.device}; {result.line}", "", f"{'relative error against float64':50}{'value':>10}  gradients"]
    lines += [_errors(name, errors) for name, errors in result.numbers.items()]
    lines += ["", f"{'net 145, images/s':24}{'update':>10}{'views/s':>11}{'with copy':>11}{'first':>8}{'memory':>12}"]
    for name, rate in result.update.items():
        copied = f"{result.copied[name]:11,.0f}" if name in result.copied else " " * 11
        first = f"{result.first_update[name]:6.1f} s" if name in result.first_update else " " * 8
        memory = f"{result.memory[name] / 2**20:8,.0f} MiB"
        lines.append(f"{name:24}{rate:10,.0f}{result.forward[name]:11,.0f}{copied}{first}{memory}")
    (main, ours), *_ = ((name, rate) for name, rate in result.update.items() if name.startswith("ours"))
    lines.append(f"{main}: first update {result.cached_first_update:.1f} s with the programs of the earlier start")
    for name, forms in result.forms.items():
        update, forward = ours / result.update[name], result.forward[main] / result.forward[name]
        lines.append(f"{main}: {update:.2f} times the updates of {name} ({forms['update']})")
        lines.append(f"{'':{len(main)}}  {forward:.2f} times its ten views ({forms['forward']})")
    for name, kernels in result.kernels.items():
        busy = sum(milliseconds for _, milliseconds in kernels)
        idle = 1e3 * _batches()[name] / result.update[name] - busy
        lines += ["", f"{name}: {busy:.2f} ms of an update in kernels, and {idle:.2f} ms between them"]
        lines += [f"{milliseconds:8.3f}  {kernel[:WIDTH]}" for kernel, milliseconds in kernels[:LONGEST]]
    lines += ["", f"a copy of a batch alone: {result.copy / 1e9:.1f} GB/s", "", f"{'input, images/s':24}"]
    lines += [f"{name:24}{rate:10,.0f}" for name, rate in result.rates.items()]
    for encoding, rate in result.from_disk.items():
        alone = max(value for name, value in result.rates.items() if name.startswith(f"{encoding},"))
        bound = min(alone, ours)
        lines.append(f"updates from {encoding:11}{rate:10,.0f}, {rate / bound:.0%} of the slower of input and updates")
    if result.whole_runs:
        runs = ", then ".join(f"{seconds:.1f} s" for seconds in result.whole_runs)
        lines += ["", f"a whole run, from the command to its end: {runs} with its compiled programs"]
    return [*lines, f"measured in {result.seconds:.0f} s"]


def check_gpu() -> None:
    """Checks that there is a GPU.

    Raises:
      UsageError: JAX runs on something else.
    """
    backend = jax.default_backend()
    if backend != "gpu":
        raise UsageError(
            f"JAX runs on {backend} here, and this measurement is for a GPU; `benchmark step` is for others"
        )
