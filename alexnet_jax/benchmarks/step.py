"""Measures updates and evaluations of net 145, beside PyTorch, and the time of each part of an update."""

import dataclasses
import statistics
from collections.abc import Callable
from typing import Any

from alexnet_jax.benchmarks.timing import check_system
from alexnet_jax.benchmarks.turns import Process

BATCH_SIZE, CROP_SIZE = 128, 224
GFLOP = 4.14  # of an update for one image: products alone, without conv1's input gradient
PACKAGE = "alexnet_jax.benchmarks"
UNITS: dict[str, Callable[[float], str]] = {
    "update": lambda seconds: f"{seconds:.2f} s",
    "forward": lambda seconds: f"{1 / seconds:.1f} views/s",
    "product": lambda flops: f"{flops / 1e9:.0f} GFLOP/s",
}
OURS, NORM, PLAIN = "ours", "torch", "torch, no norm"


@dataclasses.dataclass(frozen=True)
class StepResult:
    """The measurements, by participant.

    Attributes:
      update: images a second in training, medians.
      forward: views a second in ten-view evaluation, where an image has ten, medians.
      memory: peak memory of the participant's process in training, bytes.
      product: FLOP a second of a product of two 2048 x 2048 matrices in float32, medians.
      forms: for PyTorch, the form in which its `update` and its `forward` ran: the fastest of eager and
        `torch.compile`, in two memory formats.
      parts: seconds of each part of our update alone: `breakdown.Part`s as dicts.
    """

    update: dict[str, float]
    forward: dict[str, float]
    memory: dict[str, int]
    product: dict[str, float]
    forms: dict[str, dict[str, str]]
    parts: list[dict[str, Any]]

    def share(self, participant: str) -> float:
        """The rate of our update, as a share of the rate of a participant's matrix product."""
        return self.update[OURS] * GFLOP * 1e9 / self.product[participant]


def measure(*, rounds: int, peer: str | None, native: str = "auto", say: Callable[[str], None] = print) -> StepResult:
    """Starts each participant in a process, warms it up, and measures the participants in turn.

    Args:
      rounds: in each round, each participant runs two updates, two evaluations and some matrix products. The second
        of the two counts, as in training, where one follows another.
      peer: `torch`: the same network in PyTorch, with and without response norms; None: no peer.
      native: whether our operations run in C, as `--native` says.
      say: called with each line of progress.

    Raises:
      UsageError: the system is not Linux.
    """
    check_system()
    programs = {OURS: ["our_step", native]}
    if peer == "torch":
        programs |= {NORM: ["torch_step", "norm"], PLAIN: ["torch_step", "plain"]}
    processes: dict[str, Process] = {}
    try:
        for name, (module, *arguments) in programs.items():  # one after another, because each uses every core
            say(f"starting {name}" + ", eager and compiled, which takes minutes" * (name != OURS))
            processes[name] = Process(f"{PACKAGE}.{module}", *arguments)
            if line := processes[name].ask("ready"):
                say(line)
        values: dict[str, dict[str, list[float]]] = {}
        memory: dict[str, int] = {}
        for word in UNITS:
            values[word] = {name: [] for name in processes}
            for number in range(rounds):
                for name, process in processes.items():
                    process.ask(word)  # not counted: caches and cores are as the participant before left them
                    value = process.ask(word)
                    values[word][name].append(value)
                    say(f"{word} {number + 1}/{rounds}  {name:15} {UNITS[word](value)}")
            if word == "update":
                memory = {name: process.ask("memory") for name, process in processes.items()}
        forms = {name: process.ask("forms") for name, process in processes.items() if name != OURS}
        say("our update, part by part")
        parts = processes[OURS].ask("parts")
    finally:
        for process in processes.values():
            process.close()
    median = {
        word: {name: statistics.median(rounds) for name, rounds in by_name.items()} for word, by_name in values.items()
    }
    return StepResult(
        update={name: BATCH_SIZE / seconds for name, seconds in median["update"].items()},
        forward={name: 1 / seconds for name, seconds in median["forward"].items()},
        memory=memory,
        product=median["product"],
        forms=forms,
        parts=parts,
    )


def describe(result: StepResult) -> list[str]:
    """The result as the lines of two tables."""
    lines = [
        f"net 145, {CROP_SIZE}x{CROP_SIZE}, 1000 classes, batch {BATCH_SIZE}, float32: images/s"
        " in updates, views/s in ten-view evaluation, and our rate as a multiple",
        f"{'':18}{'update':>10}{'':>7}{'views':>12}{'':>7}{'memory':>12}{'product':>14}",
    ]
    for name in result.update:
        update, forward = (rates[OURS] / rates[name] for rates in (result.update, result.forward))
        lines.append(
            f"{name:18}{result.update[name]:10.1f}{update:6.2f}x{result.forward[name]:12.1f}{forward:6.2f}x"
            f"{result.memory[name] / 2**20:8,.0f} MiB{result.product[name] / 1e9:6.0f} GFLOP/s"
        )
    for name, forms in result.forms.items():
        lines.append(f"{name}, the fastest form: updates {forms['update']}; ten views {forms['forward']}")
    owners = {name: "JAX's" if name == OURS else f"{name}'s" for name in result.product if name != PLAIN}
    shares = " and ".join(f"{result.share(name):.0%} of {owner}" for name, owner in owners.items())
    lines.append(f"at {GFLOP} GFLOP an image, our update runs at {shares} matrix product")
    return lines + _breakdown(result)


def _breakdown(result: StepResult) -> list[str]:
    update = BATCH_SIZE / result.update[OURS]
    lines = ["", f"{'our update, part by part':45}{'forward':>12}{'backward':>12}{'share':>8}{'GFLOP/s':>14}"]
    total = 0.0
    for part in result.parts:
        seconds = part["forward"] + part["backward"]
        total += seconds
        rates = ""
        if part["flops"]:
            back = part["gradients"] * part["flops"] / part["backward"]
            rates = f"{part['flops'] / part['forward'] / 1e9:8.0f}{back / 1e9:6.0f}"
        times = f"{1000 * part['forward']:9,.0f} ms{1000 * part['backward']:9,.0f} ms"
        lines.append(f"{part['name']:45}{times}{seconds / update:8.1%}{rates}")
    lines.append(f"{'not in any part':45}{'':24}{1 - total / update:8.1%}")
    return lines
