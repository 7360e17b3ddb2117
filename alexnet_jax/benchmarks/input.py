"""Measures the input pipeline: images a second by decoder and encoding, memory, and a peer beside it."""

import dataclasses
import functools
import multiprocessing
import os
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from alexnet_jax.benchmarks.peers import check_peer
from alexnet_jax.benchmarks.timing import Rate, median, rate_of, resident_bytes
from alexnet_jax.data import decoders
from alexnet_jax.data.batch import Shard
from alexnet_jax.data.dataset import open_dataset
from alexnet_jax.data.pipeline import Source, threads, train_batches
from alexnet_jax.data.preparing import make as preparation
from alexnet_jax.data.preparing.sources.folder import folder

IMAGE_SIZE, CROP_SIZE, BATCH_SIZE = 256, 224, 128
EPOCHS = 50  # over which memory must not grow
SMALL = 256  # images of the set for that
SPARE = 16  # batches of the peer around those that are timed, so that its workers stay busy to the end


@dataclasses.dataclass(frozen=True)
class InputResult:
    """What was measured.

    Attributes:
      rates: medians by variant, such as `jpeg simplejpeg`, `raw` and `peer torch`. `jpeg, processes`: one a core, each
        with one thread, that keep their pixels to themselves: the best that processes in place of threads could give.
      growth: bytes of memory that 50 epochs of a small set added.
      memory: bytes of this process at the end.
      encoded: bytes of a JPEG, on average.
    """

    rates: dict[str, Rate]
    growth: int
    memory: int
    encoded: float

    def against(self, name: str, peer: str) -> Rate:
        """How many times as fast, by the clock and by the processors' time."""
        one, other = self.rates[name], self.rates[peer]
        return Rate(one.wall / other.wall, one.cpu / other.cpu)


def measure(
    *, images: int, batches: int, rounds: int, peer: str | None, say: Callable[[str], None] = print
) -> InputResult:
    """Draws photo-like images, prepares them as JPEG and raw, and reads them in every way, in turn.

    Args:
      images: how many are drawn.
      batches: of 128, timed in each round.
      rounds: how many; the median counts.
      peer: `torch`: the same JPEG files through its DataLoader, as many workers as cores; or None.
      say: takes a line about what goes on.

    Raises:
      UsageError: the peer is not installed.
    """
    check_peer(peer)
    with tempfile.TemporaryDirectory(prefix="alexnet_jax-benchmark-") as place:
        say(f"drawing {images:,} images")
        sources = _prepare(Path(place), images)
        files = _files(Path(place, "files"), sources["jpeg"])
        variants: dict[str, Callable[[], Rate]] = {
            f"jpeg {name}": functools.partial(_timed, _ours(sources["jpeg"], decode), batches)
            for name, decode in decoders.installed().items()
        }
        variants["jpeg, processes"] = lambda: _processes(place, batches)
        variants["raw"] = lambda: _timed(_ours(sources["raw"], decoders.decode), batches)
        if peer == "torch":
            from alexnet_jax.benchmarks.torch_loader import loader

            start = functools.partial(
                loader, files, crop_size=CROP_SIZE, batch_size=BATCH_SIZE, batches=batches + SPARE
            )
            variants["peer torch"] = lambda: _timed(start, batches)
        found: dict[str, list[Rate]] = {name: [] for name in variants}
        for number in range(rounds):
            for name, variant in variants.items():
                found[name].append(variant())
                say(f"round {number + 1}/{rounds}  {name:16} {found[name][-1].wall:7,.0f} images/s")
        growth = _growth(sources["jpeg"])
        encoded = float(np.mean([file.stat().st_size for file in files]))
    rates = {name: median(rates) for name, rates in found.items()}
    return InputResult(rates, growth, resident_bytes(), encoded)


def describe(result: InputResult) -> list[str]:
    """The result as lines of a table."""
    cores = threads()
    load = os.getloadavg()[0]
    lines = [
        f"{IMAGE_SIZE}x{IMAGE_SIZE} images, {CROP_SIZE}x{CROP_SIZE} crops and flips, batches of {BATCH_SIZE},"
        f" JPEG of {result.encoded / 1000:.0f} KB; {cores} cores, load {load:.1f}",
        f"{'':18}{'images/s':>10}{'a core':>10}{'a core-second':>15}"
        + "  times peer (a core-second)" * ("peer torch" in result.rates),
    ]
    for name, rate in result.rates.items():
        line = f"{name:18}{rate.wall:10,.0f}{rate.wall / cores:10,.0f}{rate.cpu:15,.0f}"
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
    """A photo-like image: smooth colours with the grain of a sensor, 35 to 40 KB as JPEG of quality 95."""
    cells = int(rng.integers(4, 24))
    smooth = Image.fromarray(rng.integers(0, 256, (cells, cells, 3), np.uint8))
    pixels = np.asarray(smooth.resize((IMAGE_SIZE, IMAGE_SIZE), Image.Resampling.BICUBIC)).astype(np.float32)
    pixels = pixels + 9 * rng.standard_normal((IMAGE_SIZE, IMAGE_SIZE, 1), np.float32)
    pixels += 3 * rng.standard_normal(pixels.shape, np.float32)
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def _prepare(place: Path, images: int) -> dict[str, Source]:
    rng = np.random.default_rng(0)
    for number in range(images):
        path = place / "tree" / "train" / str(number % 2) / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        draw(rng).save(path, compress_level=1)
    for label in "01":  # a split of its own, so that all the others are there for training
        path = place / "tree" / "test" / label / "0.png"
        path.parent.mkdir(parents=True)
        draw(rng).save(path)
    found = folder("drawn", str(place / "tree"))
    sources = {}
    for encoding in ("jpeg", "raw"):
        options = preparation.Options(size=IMAGE_SIZE, encoding=encoding)
        preparation.prepare(found, options, str(place), record={}, progress=lambda done, todo: None)
        sources[encoding] = open_dataset(f"drawn/{options.config}", str(place), say=print).split("train")
    return sources


def _files(place: Path, source: Source) -> list[Path]:
    """The very bytes of the prepared JPEGs as files, for the peer."""
    place.mkdir()
    files = [place / f"{number}.jpg" for number in range(len(source))]
    for number, file in enumerate(files):
        file.write_bytes(source[number]["image"])
    return files


def _ours(source: Source, decode: decoders.Decode) -> Callable[[], Iterator[Any]]:
    def start() -> Iterator[Any]:
        return train_batches(
            source, seed=0, batch_size=BATCH_SIZE, start_step=0, shard=Shard(), crop_size=CROP_SIZE, decode=decode
        )

    return start


def _timed(start: Callable[[], Iterator[Any]], batches: int) -> Rate:
    return rate_of(start, batch_size=BATCH_SIZE, batches=batches)


def _processes(place: str, batches: int) -> Rate:
    """Each process makes its shard of the batches and hands nothing over."""
    cores = sorted(os.sched_getaffinity(0))
    context = multiprocessing.get_context("spawn")
    together = context.Barrier(len(cores))
    with ProcessPoolExecutor(len(cores), context, _share, (together,)) as pool:
        shards = [Shard(index, len(cores)) for index in range(len(cores))]
        rates = list(pool.map(_one_process, [place] * len(cores), cores, shards, [batches] * len(cores)))
    return Rate(sum(rate.wall for rate in rates), sum(rate.cpu for rate in rates) / len(rates))


_together: Any = None


def _share(together: Any) -> None:
    global _together
    _together = together


def _one_process(place: str, core: int, shard: Shard, batches: int) -> Rate:
    os.sched_setaffinity(0, {core})
    source = open_dataset(f"drawn/{IMAGE_SIZE}", place, say=print).split("train")
    _together.wait()
    own = train_batches(source, seed=0, batch_size=BATCH_SIZE, start_step=0, shard=shard, crop_size=CROP_SIZE)
    return rate_of(lambda: own, batch_size=BATCH_SIZE // shard.count, batches=batches)


def _growth(source: Source) -> int:
    """Bytes that the memory grows over 50 epochs of a small set, after the first ten."""
    small = [source[number % len(source)] for number in range(SMALL)]
    batches = _ours(small, decoders.decode)()
    per_epoch, used = SMALL // BATCH_SIZE, []
    for _ in range(EPOCHS):
        for _ in range(per_epoch):
            next(batches)
        used.append(resident_bytes())
    return max(used[10:]) - max(used[:10])
