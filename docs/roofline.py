"""Prints the section of `docs/performance.md` on accelerators from the network's own table: `python -m docs.roofline`.

A test compares the two.
"""

import dataclasses
import math

from alexnet_jax.experiment.summary import Row, rows_of
from alexnet_jax.network.tower import Tower, make_tower

SIDE = 224
BATCHES = (128, 1024)
ACTIVATION, PARAMETER = 2, 4  # bytes: bfloat16, float32
PASSES = 5  # over what is kept: written, read forward, read backward; its gradient written and read
PARAMETER_PASSES = 8  # read forward and backward, gradient written and read, weight and velocity read and written
RECORD = 35_000  # bytes of a photograph of 256 x 256 as JPEG of quality 95 (`benchmark input` prints it)
DECODED = 1_500  # images a second and core by libjpeg-turbo (`benchmark input` measures it; a round figure)


@dataclasses.dataclass(frozen=True)
class Chip:
    """Peaks of one chip, as its maker gives them.

    Attributes:
      name: of the chip.
      flops: bfloat16, dense, a second.
      memory: bytes a second.
      link: bytes a second from the host; None: not published.
      lanes: the matrix unit works on so many channels at once.
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

Nothing here is measured: no accelerator was at hand. These are bounds from the makers' peaks, for one chip that holds
both towers of the recipe `original`, crops of {side} x {side}, a whole update, bfloat16 activations and float32
parameters (`--config.network.bfloat16=true`). Made by `python -m docs.roofline` from the table that `--dry_run`
prints; a test keeps it so.

Peaks: H100 SXM 989.4 TFLOP/s (bfloat16, dense: half of the 1,979 with sparsity), 3.35 TB/s, PCIe 5.0 x16 with 64 GB/s
each way (NVIDIA's H100 data sheet); TPU v5e 197 TFLOP/s (bfloat16), 819 GB/s (cloud.google.com/tpu/docs/v5e).

* **Compute**: {flops:.2f} GFLOP an image: two a multiply-add, forward, for the kernel's gradient and for the input's,
  but not for the gradient of the images, which nobody needs.
* **Maps padded**: a TPU's matrix unit is 128 wide, and works as long on the 48 maps of a tower's conv1, or the 192 of
  conv3, as on 128 or 256. Tensor cores are content with multiples of 16.
* **Memory**: {kept:.2f} million numbers an image are kept for the backward pass, and {passes} passes are made over them
  (written, read forward, read backward; the gradient written and read): {activations:.1f} MB an image. Each of
  {params:.2f} million parameters takes {parameter_bytes} bytes an update. Fusion, such as of ReLU into the
  convolution, is not counted on, so this bound may be passed.
* **Input**: {image:,} bytes an image over the link from the host, since crops travel as uint8. For the TPU's link
  no figure is published.
"""

FOOT = """
A chip does the smallest figure of its line at best, and a host must give as much. With batches of {batch:,}:

{needs}

A core is counted with {decoded:,} JPEG a second; `--encoding=raw` at the preparation leaves nothing to decode and reads
{raw:.0f} KB an image instead of {record:.0f}. `python -m alexnet_jax.benchmark input` measures what a host gives.

Two towers on one chip are two plain convolutions a layer, not one in groups (`network/convolution.py`). `vmap` would
give a grouped one, and transpose every activation before and after, two more passes over memory, which is what binds
here. On a CPU with one device, where it can be measured, an update of the default config takes 3.5 times as long with
it (`JAX_NUM_CPU_DEVICES=1 python -m alexnet_jax.benchmark run`). The price is twice the kernels: {kernels} more an
update, each some microseconds.
"""


def section() -> str:
    """Its text, without a line break at the end."""
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
    """Of a layer in an update, an image."""
    return row.multiply_adds * 2 * (2 if row.name == "conv1" else 3)


def rates(chip: Chip, tower: Tower, rows: list[Row], batch: int) -> dict[str, float]:
    """Images a second by each bound."""
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
