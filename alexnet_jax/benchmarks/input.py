"""Measures the input pipeline beside a peer: images a second by decoder and encoding, and memory."""

import dataclasses
import functools
import itertools
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from alexnet_jax.benchmarks.timing import Rate, check_system, median, rate_of, resident_bytes
from alexnet_jax.data import decoders
from alexnet_jax.data.batch import Shard
from alexnet_jax.data.dataset import open_dataset
from alexnet_jax.data.filling import Source, TrainPlan
from alexnet_jax.data.pipeline import train_batches, usable_cores
from alexnet_jax.data.preparing import make as preparation
from alexnet_jax.data.preparing.sources.folder import folder
from alexnet_jax.data.workers import Workers
from alexnet_jax.errors import UsageError

IMAGE_SIZE, CROP_SIZE, BATCH_SIZE = 256, 224, 128
EPOCHS = 50  # memory must not grow over these
SMALL = 256  # images an epoch of these
SPARE = 8  # batches of the peer for each of its workers that are not timed, so that all are busy until the end


@dataclasses.dataclass(frozen=True)
class InputResult:
    """The measurements.

    Attributes:
      rates: medians by variant: `jpeg simplejpeg` and `raw` with one thread a core, `jpeg, 4 workers` with so many
        worker processes, `jpeg, 4 workers, flips` where these also mirror the crops, and `peer torch` (crops are bytes)
        and `peer torch floats` with one process a core.
      growth: growth of memory over 50 epochs of a small data set, bytes.
      memory: memory of this process at the end, bytes.
      encoded: mean size of a JPEG, bytes.
    """

    rates: dict[str, Rate]
    growth: int
    memory: int
    encoded: float

    def against(self, name: str, peer: str) -> Rate:
        """The rate of a variant as a multiple of the peer's, by the clock and by processor time."""
        ours, theirs = self.rates[name], self.rates[peer]
        return Rate(ours.wall / theirs.wall, ours.cpu / theirs.cpu)


def measure(
    *, images: int, batches: int, rounds: int, peer: str | None, say: Callable[[str], None] = print
) -> InputResult:
    """Draws photo-like images, prepares them as JPEG and as raw pixels, and reads them with each variant in turn.

    Args:
      images: number of drawn images.
      batches: number of batches of 128 that are timed in each round; of several workers, for each worker.
      rounds: number of rounds, whose median is the result.
      peer: `torch`: PyTorch's DataLoader with one worker a core reads the same JPEG files; None: no peer.
      say: called with each line of progress.

    Raises:
      UsageError: the system is not Linux.
    """
    check_system()
    with tempfile.TemporaryDirectory(prefix="alexnet_jax-benchmark-") as place:
        say(f"drawing {images:,} images")
        sources = prepare(Path(place), images)
        variants: dict[str, Callable[[], Rate]] = {
            "jpeg simplejpeg": lambda: _timed(_ours(sources["jpeg"]), batches),
            "jpeg pillow": lambda: _timed(_ours(_ByPillow(sources["jpeg"])), batches),
            "raw": lambda: _timed(_ours(sources["raw"]), batches),
        }
        variants |= worker_variants(sources, batches)
        if peer == "torch":
            variants |= torch_variants(Path(place), sources["jpeg"], batches)
        values: dict[str, list[Rate]] = {name: [] for name in variants}
        for number in range(rounds):
            for name, variant in variants.items():
                values[name].append(variant())
                say(f"round {number + 1}/{rounds}  {name:24} {values[name][-1].wall:7,.0f} images/s")
        growth = _growth(sources["jpeg"])
        encoded = float(np.mean([len(sources["jpeg"][number]["image"]) for number in range(len(sources["jpeg"]))]))
    rates = {name: median(rates) for name, rates in values.items()}
    return InputResult(rates, growth, resident_bytes(), encoded)


def describe(result: InputResult) -> list[str]:
    """The result as the lines of a table."""
    cores = usable_cores()
    load = os.getloadavg()[0]
    lines = [
        f"{IMAGE_SIZE}x{IMAGE_SIZE} images, {CROP_SIZE}x{CROP_SIZE} crops and flips, batches of {BATCH_SIZE},"
        f" JPEG of {result.encoded / 1000:.0f} KB; {cores} cores, load {load:.1f}",
        "worker processes leave the flips to the device, as in training, but for the rows `flips`",
        f"{'':24}{'images/s':>10}{'each':>10}{'a core-second':>15}"
        + "  times peer (a core-second)" * ("peer torch" in result.rates),
    ]
    for name, rate in result.rates.items():
        line = f"{name:24}{rate.wall:10,.0f}{rate.wall / _parallel(name, cores):10,.0f}{rate.cpu:15,.0f}"
        if "peer torch" in result.rates:
            times = result.against(name, "peer torch")
            line += f"{times.wall:12.2f} ({times.cpu:.2f})"
        lines.append(line)
    lines.append(
        f"memory {result.memory / 2**20:,.0f} MiB; {EPOCHS} epochs of {SMALL} images added"
        f" {result.growth / 2**20:+.1f} MiB"
    )
    return lines


def draw(rng: np.random.Generator) -> Image.Image:
    """A photo-like image: smooth colours with a sensor's noise, 35 to 40 KB as JPEG of quality 95."""
    cells = int(rng.integers(4, 24))
    smooth = Image.fromarray(rng.integers(0, 256, (cells, cells, 3), np.uint8))
    pixels = np.asarray(smooth.resize((IMAGE_SIZE, IMAGE_SIZE), Image.Resampling.BICUBIC)).astype(np.float32)
    pixels = pixels + 9 * rng.standard_normal((IMAGE_SIZE, IMAGE_SIZE, 1), np.float32)
    pixels += 3 * rng.standard_normal(pixels.shape, np.float32)
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def worker_variants(sources: Mapping[str, Source], batches: int) -> dict[str, Callable[[], Rate]]:
    """What measures 1, 2, 4, ... worker processes, by name, and all cores with flips, as the peer's workers make them.

    Args:
      sources: by encoding.
      batches: of 128 images, for each worker.
    """
    variants: dict[str, Callable[[], Rate]] = {}
    for encoding, source in sources.items():
        for count in worker_counts(usable_cores()):
            name = f"{encoding}, {count} worker{'s' * (count > 1)}"
            variants[name] = functools.partial(_by_workers, source, count, batches, mirrored=False)
        variants[f"{name}, flips"] = functools.partial(_by_workers, source, count, batches, mirrored=True)
    return variants


def torch_variants(place: Path, source: Source, batches: int) -> dict[str, Callable[[], Rate]]:
    """What measures PyTorch's DataLoader, with a worker a core, on the JPEG files of a source.

    Its crops are bytes like ours, or normalised floats, which PyTorch programs commonly make in the loader.

    Args:
      place: folder in which the files are written.
      source: of JPEGs.
      batches: of 128 images, for each worker: each has some ready before the clock starts.
    """
    from alexnet_jax.benchmarks.torch_loader import loader

    files, workers = _files(place / "files", source), usable_cores()
    made = (batches + SPARE) * workers
    start = functools.partial(loader, files, crop_size=CROP_SIZE, batch_size=BATCH_SIZE, batches=made)
    return {
        name: functools.partial(_timed, functools.partial(start, floats=floats), batches * workers)
        for name, floats in (("peer torch", False), ("peer torch floats", True))
    }


def name_of(encoding: str) -> str:
    """The name of the data set with this encoding that `prepare` makes."""
    return f"drawn/{preparation.Options(size=IMAGE_SIZE, encoding=encoding).config}"


def prepare(place: Path, images: int) -> dict[str, Source]:
    """Draws images and prepares them in a folder; returns their training split by encoding, `jpeg` and `raw`."""
    rng = np.random.default_rng(0)
    for number in range(images):
        path = place / "tree" / "train" / str(number % 2) / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        draw(rng).save(path, compress_level=1)
    for label in "01":  # without a test split, the preparation would hold out some of the training images
        path = place / "tree" / "test" / label / "0.png"
        path.parent.mkdir(parents=True)
        draw(rng).save(path)
    source = folder("drawn", str(place / "tree"))
    sources = {}
    for encoding in ("jpeg", "raw"):
        options = preparation.Options(size=IMAGE_SIZE, encoding=encoding)
        preparation.prepare(source, options, str(place), record={}, progress=lambda done, todo: None)
        sources[encoding] = open_dataset(name_of(encoding), str(place)).split("train")
    return sources


def _files(place: Path, source: Source) -> list[Path]:
    """Files with the bytes of the prepared JPEGs, for the peer."""
    place.mkdir()
    files = [place / f"{number}.jpg" for number in range(len(source))]
    for number, file in enumerate(files):
        file.write_bytes(source[number]["image"])
    return files


class _ByPillow:
    """Examples that Pillow has decoded."""

    def __init__(self, source: Source):
        self._source = source

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, index: int) -> Any:
        example = self._source[index]
        return example | {"image": decoders.pillow(example["image"])}


def _ours(source: Source, workers: Workers | None = None, *, mirrored: bool = True) -> Callable[[], Iterator[Any]]:
    plan = TrainPlan(BATCH_SIZE, Shard(), CROP_SIZE, seed=0, mirrored=mirrored)
    return lambda: train_batches(source, plan, start_step=0, workers=workers)


def _timed(start: Callable[[], Iterator[Any]], batches: int) -> Rate:
    return rate_of(start, batch_size=BATCH_SIZE, batches=batches)


def _by_workers(source: Source, count: int, batches: int, *, mirrored: bool) -> Rate:
    """The rate of worker processes, over enough batches for all of them."""
    workers = Workers(count, refuse)
    try:
        return _timed(_ours(source, workers, mirrored=mirrored), batches * count)
    finally:
        workers.close()


def refuse(reason: str) -> None:
    """Ends the measurement where there is no room for workers.

    Raises:
      UsageError: always, with the reason.
    """
    raise UsageError(f"{reason}; measure with less on the machine")


def worker_counts(cores: int) -> list[int]:
    """1, 2, 4, ..., and all cores."""
    return sorted({*itertools.takewhile(lambda count: count < cores, (2**n for n in range(20))), cores})


def _parallel(name: str, cores: int) -> int:
    """The number of threads or processes of a variant."""
    _, comma, workers = name.partition(", ")
    return int(workers.split()[0]) if comma else cores


def _growth(source: Source) -> int:
    """Growth of memory over 50 epochs of a small data set, after the first ten, bytes."""
    small = [source[number % len(source)] for number in range(SMALL)]
    batches = _ours(small)()
    per_epoch, used = SMALL // BATCH_SIZE, []
    for _ in range(EPOCHS):
        for _ in range(per_epoch):
            next(batches)
        used.append(resident_bytes())
    return max(used[10:]) - max(used[:10])
