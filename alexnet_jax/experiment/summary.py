"""What a config asks for, counted from its tables without data or devices: `main --dry_run` prints it."""

import dataclasses
import math

from alexnet_jax.errors import UsageError
from alexnet_jax.experiment import schedules as updates
from alexnet_jax.experiment.settings import Settings, Table
from alexnet_jax.network.layers import output_size
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
    """A row a layer of the network for images of that size.

    Raises:
      UsageError: the images are too small for a layer.
    """
    towers, side, maps, rows = tower.towers, image_size, 3, []
    for layer in tower.layers:
        exchanged = towers * side * side * maps if layer.exchange and towers > 1 else 0
        seen = maps * towers if layer.exchange else maps
        maps = layer.features or math.ceil(tower.num_classes / towers)
        if layer.window:
            side = output_size(side, window=layer.window, stride=layer.stride, padding=layer.padding, layer=layer.name)
            inputs = layer.window**2 * seen
            kernel = f"{layer.window}x{layer.window}x{seen} /{layer.stride}" + " local" * layer.local
        else:
            inputs, side = side * side * seen, 1
            kernel = f"{inputs}"
        places = side * side
        neurons = towers * places * maps
        params = towers * (inputs + 1) * maps * (places if layer.local else 1)
        output = f"{side}x{side}x{towers * maps}" if layer.window else f"{towers * maps}"
        if layer.name == tower.layers[-1].name:
            neurons, output = tower.num_classes, f"{tower.num_classes}"
        kept = neurons
        for operation in layer.then:
            if operation == "pool":
                side = output_size(side, window=tower.pool_size, stride=tower.pool_stride, layer=layer.name)
            if operation == "norm" and tower.whole_norm:
                exchanged += towers * side * side * 2 * (tower.norm_size // 2)
            if operation == "batch_norm":
                params += towers * maps * 4
            kept += towers * side * side * maps
        rows.append(Row(layer.name, output, kernel, neurons, params, inputs * places * maps * towers, exchanged, kept))
    return rows


def leaves_of(tower: Tower) -> dict[str, dict[str, None]]:
    """Names of all parameters, without shapes."""
    names: dict[str, dict[str, None]] = {}
    for layer in tower.layers:
        names[layer.name] = dict.fromkeys(("kernel", "bias"))
        if "batch_norm" in layer.then:
            names[f"{layer.name}_norm"] = dict.fromkeys(("scale", "bias", "mean", "variance"))
    return names


def describe(settings: Settings) -> str:
    """Layers, totals, memory, schedule and exchange of a run, as lines of text.

    Raises:
      UsageError: the settings make no sense together, or do not say how many classes and images there will be.
    """
    data = settings.dataset
    if data.classes is None or data.train_images is None:
        missing = "classes" if data.classes is None else "train_images"
        raise UsageError(f"--dry_run reads no data, and config.dataset.{missing} is None; say how many there are")
    tower = updates.build_tower(settings, data.classes)
    rows = rows_of(tower, data.crop_size)
    clock = updates.Clock(settings, data.train_images / settings.batch_size)
    updates.build_optimizer(settings, leaves_of(tower), clock.rate)  # for its complaints
    return "\n".join(
        [
            f"{settings.name}: recipe {settings.network.recipe}, {tower.towers} tower{'s' * (tower.towers > 1)},"
            f" {data.name} ({data.classes:,} classes, {data.train_images:,} training images)",
            "",
            *_table(settings, rows),
            "",
            *_memory(settings, tower, rows),
            *_exchange(settings, rows),
            "",
            *_schedule(settings, clock),
        ]
    )


def _table(settings: Settings, rows: list[Row]) -> list[str]:
    size, ours = settings.dataset.crop_size, {row.name: row.neurons for row in rows}
    of_2012 = size >= 224 and settings.network.width == 1
    ours["input"] = size * size * 3
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


def _mesh(settings: Settings) -> tuple[int, int]:
    return settings.mesh.data or 1, settings.mesh.tower or 1


def _memory(settings: Settings, tower: Tower, rows: list[Row]) -> list[str]:
    (data, places), width = _mesh(settings), 2 if settings.network.bfloat16 else 4
    state = sum(row.params for row in rows) * 4 * 3 / places
    kept = sum(row.kept for row in rows) * width * settings.batch_size / data / places
    return [
        f"memory a device, on a mesh data={data} tower={places}: about {_megabytes(state + kept)}:"
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


def _schedule(settings: Settings, clock: updates.Clock) -> list[str]:
    lines = [
        f"{clock.num_steps:,} updates of {settings.batch_size:,} images, {settings.num_epochs:g} epochs; schedule"
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
        lines.append(f"  rates rise from 0 over the first {clock.warmup_steps:,} updates")
    for layer, rates in settings.rates.items():
        lines.append(f"  rate of {layer}: kernels {_steps(clock, rates.kernel)}; biases {_steps(clock, rates.bias)}")
    return [*lines, f"  colour noise: {_steps(clock, settings.photometry.noise)}"]


def _steps(clock: updates.Clock, table: Table) -> str:
    return ", ".join(f"{value:g} from update {step:,}" for step, value in clock.by_step(table))
