"""Prints the section on accelerators of `docs/performance.md`, from the table of layers: `python -m docs.roofline`.

A test compares the two.
"""

import dataclasses
import math

from alexnet_jax.experiment.summary import Row, rows_of
from alexnet_jax.network.tower import Tower, make_tower

SIDE = 224
BATCHES = (128, 1024)
ACTIVATION, PARAMETER = 2, 4  # bytes: bfloat16, float32
PASSES = 5  # over activations: written, read forward, read backward; their gradients written and read
PARAMETER_PASSES = 8  # read forward and backward, gradient written and read, weight and velocity read and written
RECORD = 35_000  # bytes of a photograph of 256 x 256 as JPEG of quality 95 (`benchmark input` prints it)
DECODED = 1_500  # images a second and core, by libjpeg-turbo: a round figure of `benchmark input`


@dataclasses.dataclass(frozen=True)
class Chip:
    """Peaks of one chip, from its maker's data sheet.

    Attributes:
      name: name of the chip.
      flops: FLOP a second in bfloat16, dense.
      memory: bytes a second of its memory.
      link: bytes a second from the host; None: not published.
      lanes: channels that its matrix unit computes at once.
    """

    name: str
    flops: float
    memory: float
    link: float | None
    lanes: int


CHIPS = (
    Chip("H100 SXM", 989.4e12, 3.35e12, 64e9, 16),
    Chip("TPU v5e", 197e12, 819e9, None, 128),
)

HEAD = """## Accelerators, on paper

These are bounds from the makers' peaks, for one chip that holds both towers of the recipe `original`, crops of
{side} x {side}, a whole update, bfloat16 activations and float32 parameters (`--config.network.bfloat16=true`). Nothing
in this section is measured. `python -m docs.roofline` computes it from the table that
`--dry_run` prints, and a test compares the two.

Peaks: H100 SXM 989.4 TFLOP/s (bfloat16, dense: half of the 1,979 with sparsity), 3.35 TB/s, PCIe 5.0 x16 with 64 GB/s
each way (NVIDIA's H100 data sheet); TPU v5e 197 TFLOP/s (bfloat16), 819 GB/s (cloud.google.com/tpu/docs/v5e).

* **Compute**: {flops:.2f} GFLOP an image. A multiply-add counts as two. The forward pass, the kernel gradient and the
  input gradient are counted, except for the gradient of the images, which is not needed.
* **Maps padded**: the matrix unit of a TPU is 128 wide. The 48 maps of a tower's conv1 take as long as 128, the 192 of
  conv3 as long as 256. Tensor cores need only multiples of 16.
* **Memory**: {kept:.2f} million numbers an image are kept for the backward pass. {passes} passes are made over them
  (written, read forward, read backward; the gradient written and read): {activations:.1f} MB an image. Each of
  {params:.2f} million parameters takes {parameter_bytes} bytes an update. Fusion, such as of ReLU into the
  convolution, is not counted, so an update may be faster than this bound.
* **Input**: {image:,} bytes an image over the link from the host, because crops travel as uint8. For the TPU's link
  no figure is published.
"""

FOOT = """
The smallest figure of a line bounds the chip's rate, and the host must feed images at that rate. With batches of
{batch:,}:

{needs}

A core is assumed to decode {decoded:,} JPEG a second. Data prepared with `--encoding=raw` need no decoding and take
{raw:.0f} KB an image instead of {record:.0f}. `python -m alexnet_jax.benchmark input` measures the rate of a host.

On one chip, the two towers are two plain convolutions a layer, not one grouped convolution (`network/tower.py`). On an
NVIDIA GPU conv1, whose towers see the same images, is one. `vmap` would give a grouped convolution and transpose every
activation before and after it: two more passes over memory, which is the bound here. On a CPU with one device, where
the difference can be measured, an update of the default config takes 3.5 times as long with `vmap`
(`JAX_NUM_CPU_DEVICES=1 python -m alexnet_jax.benchmark run --config=configs/default.py`). The price is twice as many
kernels: {kernels} more an update, each some microseconds.
"""


def section() -> str:
    """The section as text, without a line break at the end."""
    tower = make_tower("original", num_classes=1000)
    rows = rows_of(tower, SIDE)
    params, kept = sum(row.params for row in rows), sum(row.kept for row in rows)
    image = SIDE * SIDE * 3
    text = HEAD.format(
        side=SIDE,
        flops=sum(map(flops, rows)) / 1e9,
        kept=kept / 1e6,
        passes=PASSES,
        activations=kept * PASSES * ACTIVATION / 1e6,
        params=params / 1e6,
        parameter_bytes=PARAMETER * PARAMETER_PASSES,
        image=image,
    )
    text += (
        "\n| chip | batch | compute | compute, maps padded | memory | input | bound by |\n"
        "| --- | --- | --- | --- | --- | --- | --- |\n"
    )
    needs = []
    for chip in CHIPS:
        for batch in BATCHES:
            bounds = rates(chip, tower, rows, batch)
            cells = ("-" if rate == math.inf else f"{rate:,.0f}" for rate in bounds.values())
            least = min(bounds, key=lambda name: bounds[name])
            text += f"| {chip.name} | {batch:,} | {' | '.join(cells)} | {least} |\n"
        rate = min(bounds.values())
        needs.append(
            f"* {chip.name}: {rate:,.0f} images/s: {rate * image / 1e9:.1f} GB/s over the link,"
            f" {rate * RECORD / 1e9:.1f} GB/s of JPEG from storage, {math.ceil(rate / DECODED)} cores to decode them"
        )
    text += "\nImages a second.\n"
    return text + FOOT.format(
        batch=BATCHES[-1],
        needs="\n".join(needs),
        decoded=DECODED,
        raw=256 * 256 * 3 / 1e3,
        record=RECORD / 1e3,
        kernels=sum(3 if row.name != "conv1" else 2 for row in rows if row.name.startswith("conv")),
    ).rstrip("\n")


def flops(row: Row) -> float:
    """FLOP of one layer in an update, for one image."""
    return row.multiply_adds * 2 * (2 if row.name == "conv1" else 3)


def rates(chip: Chip, tower: Tower, rows: list[Row], batch: int) -> dict[str, float]:
    """Bounds by name, in images a second."""
    padded = 0.0
    for row, layer in zip(rows, tower.layers, strict=True):
        maps = layer.features or math.ceil(tower.num_classes / tower.towers)
        padded += flops(row) * math.ceil(maps / chip.lanes) * chip.lanes / maps
    moved = sum(row.kept for row in rows) * PASSES * ACTIVATION
    moved += sum(row.params for row in rows) * PARAMETER_PASSES * PARAMETER / batch
    return {
        "compute": chip.flops / sum(map(flops, rows)),
        "compute, maps padded": chip.flops / padded,
        "memory": chip.memory / moved,
        "input": math.inf if chip.link is None else chip.link / (SIDE * SIDE * 3),
    }


if __name__ == "__main__":
    print(section())
