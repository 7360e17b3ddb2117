"""The network, memory and schedule of a config, counted without devices: `main --dry_run` prints the summary."""

import dataclasses
import functools
import math

import jax
import jax.numpy as jnp

from alexnet_jax.errors import UsageError
from alexnet_jax.experiment import init_from
from alexnet_jax.experiment.build import build_optimizer, build_tower, check_given_mesh
from alexnet_jax.experiment.fields import Settings, Table
from alexnet_jax.experiment.follow import Facts, check_held_out, follow, known_facts, with_epochs
from alexnet_jax.experiment.reading import describe_workers
from alexnet_jax.experiment.schedules import Schedule
from alexnet_jax.network.forward import check_classifier, init_variables
from alexnet_jax.network.recipes import Layer
from alexnet_jax.network.tower import Tower

# Neurons as the paper's section 3.5 counts them. For conv1 it says 253,440 = 55 x 48 x 96, a slip for 55 x 55 x 96.
PAPER_NEURONS = {
    "input": 150_528,
    "conv1": 253_440,
    "conv2": 186_624,
    "conv3": 64_896,
    "conv4": 64_896,
    "conv5": 43_264,
    "fc6": 4096,
    "fc7": 4096,
    "fc8": 1000,
}
SLIP = "conv1: the paper's 253,440 = 55 x 48 x 96 is a slip for 290,400 = 55 x 55 x 96"
PAPER_TOTALS = "the paper says 60 million parameters and 650,000 neurons"


@dataclasses.dataclass(frozen=True)
class Row:
    """A layer, all towers together.

    Attributes:
      name: of the layer.
      output: size of what it gives out, before pooling, such as `55x55x96`.
      kernel: `11x11x3 /4`, rows, columns and the maps it sees, and its stride.
      neurons: numbers it gives out, of one image.
      params: kernel, bias, and the leaves of a norm that follows.
      multiply_adds: of one image, forward.
      exchanged: numbers that towers send one another for it, of one image, forward.
      kept: numbers that its backward pass needs, of one image.
    """

    name: str
    output: str
    kernel: str
    neurons: int
    params: int
    multiply_adds: int
    exchanged: int
    kept: int


def rows_of(tower: Tower, image_size: int) -> list[Row]:
    """A row a layer of the network for images of that size, by the shapes that the network itself has.

    Raises:
      UsageError: the images are too small for a layer.
    """
    images = jax.ShapeDtypeStruct((1, image_size, image_size, 3), jnp.float32)
    variables = jax.eval_shape(lambda key, x: tower.init(key, x, train=False), jax.random.key(0), images)
    params, signals = variables["params"], variables["signals"]
    rows, towers, before = [], tower.towers, images

    def size(x: jax.ShapeDtypeStruct) -> int:
        return towers * math.prod(x.shape)

    for layer in tower.layers:
        followed = (f"then{number}" for number in range(len(layer.then)))
        after = [signals[f"{layer.name}_{name}"][0][0] for name in ("out", *followed)]
        out, shape = after[0], params[layer.name]["kernel"].shape[1:]
        places = 1 if layer.local else math.prod(out.shape[1:-1])
        exchanged = size(before) if layer.exchange and towers > 1 else 0
        if tower.norm_spans_towers and "norm" in layer.then:
            normed = after[layer.then.index("norm")]
            exchanged += towers * math.prod(normed.shape[:-1]) * 2 * (tower.norm_size // 2)
        neurons = size(out) if layer.features else tower.num_classes
        rows.append(
            Row(
                name=layer.name,
                output="x".join(str(n) for n in (*out.shape[1:-1], neurons // math.prod(out.shape[1:-1]))),
                kernel=_kernel(layer, before.shape[-1] * (towers if layer.exchange else 1), shape),
                neurons=neurons,
                params=sum(
                    math.prod(leaf.shape)
                    for name in (layer.name, f"{layer.name}_norm")
                    for leaf in params.get(name, {}).values()
                ),
                multiply_adds=math.prod(shape) * places * towers,
                exchanged=exchanged,
                kept=neurons + sum(map(size, after[1:])),
            )
        )
        before = after[-1]
    return rows


def _kernel(layer: Layer, channels: int, shape: tuple[int, ...]) -> str:
    if not layer.window:
        return f"{shape[0]}"
    return f"{layer.window}x{layer.window}x{channels} /{layer.stride}" + " local" * layer.local


def describe(settings: Settings, facts: Facts | None = None) -> str:
    """Layers, totals, memory, schedule and exchange of a run, as lines of text.

    Args:
      settings: of the run.
      facts: of the prepared data set, against which the settings are checked; None: the data set is not there.

    Raises:
      UsageError: the settings make no sense together, do not fit the data set or the run of `init_from`, or leave a
        count open without the data set.
    """
    data = settings.dataset
    facts, warning = facts or known_facts(data.name), None
    if facts is not None:
        settings = follow(settings, facts)
        warning = check_held_out(settings, facts)
        data = settings.dataset
    if data.classes is None or data.train_images is None or data.crop_size is None:
        missing = next(name for name in ("classes", "train_images", "crop_size") if getattr(data, name) is None)
        raise UsageError(
            f"config.dataset.{missing} is None, and there is no prepared data set {data.name} to count; prepare"
            f" it, or give config.dataset.{missing} a number"
        )
    settings = with_epochs(settings, data.train_images)
    tower = build_tower(settings, data.classes)
    check_classifier(tower)
    check_given_mesh(settings)
    rows = rows_of(tower, data.crop_size)
    if settings.init_from is not None:
        init = functools.partial(init_variables, tower, image_size=data.crop_size)
        params, _ = jax.eval_shape(lambda: init(key=jax.random.key(0)))
        init_from.check(settings, params)
    schedule = Schedule(settings, data.train_images / settings.batch_size)
    build_optimizer(settings, tower.leaf_names(), schedule)  # raises where the rates do not fit the layers
    return "\n".join(
        [
            f"{settings.name}: recipe {settings.network.recipe}, {tower.towers} tower{'s' * (tower.towers > 1)},"
            f" {data.name} ({data.classes:,} classes, {data.train_images:,} training images)",
            "",
            *_table(rows, data.crop_size),
            "",
            *_memory(settings, rows),
            describe_workers(settings, data.crop_size),
            *_exchange(settings, rows),
            "",
            *_schedule(settings, schedule),
            *filter(None, [warning]),
        ]
    )


def _table(rows: list[Row], size: int) -> list[str]:
    ours = {row.name: row.neurons for row in rows}
    ours["input"] = size * size * 3
    of_2012 = ours | {"conv1": PAPER_NEURONS["conv1"]} == PAPER_NEURONS
    cells = [["layer", "output", "kernel", "parameters", "multiply-adds", "exchanged", "neurons", "paper"]]
    cells.append(["input", f"{size}x{size}x3", "", "", "", "", f"{ours['input']:,}", _paper("input", of_2012)])
    for row in rows:
        numbers = [f"{number:,}" for number in (row.params, row.multiply_adds, row.exchanged, row.neurons)]
        cells.append([row.name, row.output, row.kernel, *numbers, _paper(row.name, of_2012)])
    totals = [sum(getattr(row, name) for row in rows) for name in ("params", "multiply_adds", "exchanged", "neurons")]
    cells.append(["total", "", "", *(f"{number:,}" for number in totals), ""])
    widths = [max(len(line[column]) for line in cells) for column in range(len(cells[0]))]
    lines = [
        "  ".join(
            cell.ljust(width) if column < 3 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in cells
    ]
    if of_2012:
        lines += [SLIP, PAPER_TOTALS]
    return [*lines, "exchanged: numbers that the towers send one another, of one image, forward"]


def _paper(name: str, of_2012: bool) -> str:
    return f"{PAPER_NEURONS[name]:,}" if of_2012 and name in PAPER_NEURONS else ""


def _memory(settings: Settings, rows: list[Row]) -> list[str]:
    data, places = settings.mesh.data or 1, settings.mesh.tower or 1
    width = 2 if settings.network.bfloat16 else 4
    state = sum(row.params for row in rows) * 4 * 3 / places
    kept = sum(row.kept for row in rows) * width * settings.batch_size / data / places
    free = " (a run takes the fastest mesh)" if None in (settings.mesh.data, settings.mesh.tower) else ""
    return [
        f"memory of each device, on a mesh data={data} tower={places}{free}: about {_megabytes(state + kept)}:"
        f" {_megabytes(state)} for parameters, velocities and gradients, {_megabytes(kept)} for what the backward pass"
        f" needs of {settings.batch_size // data:,} images"
    ]


def exchanged_bytes(settings: Settings, rows: list[Row]) -> tuple[int, int]:
    """What crosses the mesh each step: between towers, forward and backward; gradients over the data axis."""
    width = 2 if settings.network.bfloat16 else 4
    between = sum(row.exchanged for row in rows) * width * settings.batch_size
    return 2 * between, sum(row.params for row in rows) * 4


def _exchange(settings: Settings, rows: list[Row]) -> list[str]:
    between, gradients = exchanged_bytes(settings, rows)
    return [
        f"exchanged each step: {_megabytes(between)} between towers (half forward, half backward),"
        f" and with data > 1 gradients of {_megabytes(gradients)} summed over the data axis"
    ]


def _megabytes(count: float | int) -> str:
    return f"{count / 1e6:,.1f} MB"


def _schedule(settings: Settings, schedule: Schedule) -> list[str]:
    lines = [
        f"{schedule.num_steps:,} updates of {settings.batch_size:,} images, {settings.num_epochs:g} epochs; schedule"
        f" {settings.schedule!r}"
    ]
    extra = {
        "cosine": "rates are multiplied by half a cosine that ends at 0 with the run",
        "plateau": f"rates are divided by 10, at most {settings.plateau.drops} times, when"
        f" {settings.plateau.patience} evaluations bring no smaller error",
    }
    if settings.schedule in extra:
        lines.append(f"  {extra[settings.schedule]}")
    if settings.warmup_epochs:
        lines.append(f"  rates rise from 0 over the first {schedule.warmup_steps:,} updates")
    for layer, rates in settings.rates.items():
        kernels, biases = (
            _steps(schedule, getattr(rates, kind), f"rates.{layer}.{kind}") for kind in ("kernel", "bias")
        )
        lines.append(f"  rate of {layer}: kernels {kernels}; biases {biases}")
    return [*lines, f"  colour noise: {_steps(schedule, settings.photometry.noise, 'photometry.noise')}"]


def _steps(schedule: Schedule, table: Table, path: str) -> str:
    return ", ".join(f"{value:g} from update {step:,}" for step, value in schedule.by_step(table, path))
