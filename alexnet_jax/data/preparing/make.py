"""Prepares a data set from a listing: in parallel, resumable, byte for byte the same however often killed.

An unfinished data set lies in `.incomplete-1.0.0/` beside its final folder: `data/` becomes the data set by one rename
at the end, `summaries/` (`shards.py`) shows which shards are finished, `lock` is held by the run at work.
"""

import dataclasses
import hashlib
import os
import re
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from etils import epath

from alexnet_jax import strict_json
from alexnet_jax.data import statistics
from alexnet_jax.data.dataset import RECORD_FILE, TRAIN_SPLITS, data_folder
from alexnet_jax.data.errors import BrokenImagesError, DatasetError, SourceError, UnwritableFolderError
from alexnet_jax.data.preparing import images, shards
from alexnet_jax.data.preparing.listing import Item, Listing, missing_classes
from alexnet_jax.data.preparing.lock import locked
from alexnet_jax.data.preparing.metadata import write_metadata
from alexnet_jax.data.preparing.shards import Job, Summary
from alexnet_jax.data.preparing.workers import Progress, write_missing
from alexnet_jax.data.statistics import Sums
from alexnet_jax.errors import DISK_FULL, reason_of
from alexnet_jax.paths import in_one_line

VERSION = "1.0.0"
PER_SHARD = 1024  # images: 40 MB of JPEG, 200 MB raw


@dataclasses.dataclass(frozen=True)
class Options:
    """How to prepare a data set.

    Attributes:
      size: pixels along a side.
      encoding: `jpeg` or `raw`.
      skip_broken: leave broken images out; else broken images are listed at the end and the data set is not finished.
      processes: at work.
      per_shard: images of a shard.
      max_pixels: an image of more is broken; counted as decoded, for a large JPEG may be decoded at a fraction.
    """

    size: int = 256
    encoding: str = "jpeg"
    skip_broken: bool = False
    processes: int = 1
    per_shard: int = PER_SHARD
    max_pixels: int = images.MAX_PIXELS

    @property
    def config(self) -> str:
        """The TFDS config of the data set: `256`, or `256_raw`."""
        return f"{self.size}{'' if self.encoding == 'jpeg' else f'_{self.encoding}'}"


def place(name: str, options: Options, data_dir: str | None) -> Path:
    """The folder of the finished data set.

    Raises:
      DatasetError: `data_dir` is an address such as `gs://...`.
    """
    folder = os.fspath(data_folder(data_dir))
    if "://" in folder:
        raise DatasetError(f"{folder} is not on this machine; prepare in a folder and copy the data set there")
    return Path(folder, name, options.config, VERSION)


def prepare(
    listing: Listing,
    options: Options,
    data_dir: str | None,
    *,
    record: dict[str, Any],
    progress: Progress,
    say: Callable[[str], None] = print,
    wait: bool = False,
) -> Path:
    """Prepares the data set `listing.name/config` in `data_dir`, or resumes.

    Args:
      listing: the images of the source.
      options: of the data set.
      data_dir: folder of prepared data sets; None: TFDS's own.
      record: facts for `prepared.json`, such as the command and the versions.
      progress: called with the images done and to do.
      say: takes a line about the images left out.
      wait: wait for another run that prepares the same data set, else fail.

    Returns:
      The data set's folder.

    Raises:
      DatasetError: broken images, a full disk, a split without images, or another run at work.
    """
    folder = place(listing.name, options, data_dir)
    work = folder.parent / f".incomplete-{VERSION}"
    try:
        with locked(work, wait=wait, say=say):
            if not folder.exists():
                _make(listing, options, work, folder, record=record, progress=progress, say=say)
            shutil.rmtree(work, ignore_errors=True)  # a waiting run may open a new lock meanwhile
    except shards.DiskFullError as error:
        raise _disk_full(work) from error
    except BrokenPipeError:  # of a line that `say` printed
        raise
    except OSError as error:
        if error.errno in DISK_FULL:
            raise _disk_full(work) from error
        raise UnwritableFolderError(error.filename or work, reason_of(error)) from error
    return folder


def _disk_full(work: Path) -> DatasetError:
    return DatasetError(f"the disk of {work} is full; make room and run the same command: finished shards are kept")


def _make(
    listing: Listing,
    options: Options,
    work: Path,
    folder: Path,
    *,
    record: dict[str, Any],
    progress: Progress,
    say: Callable[[str], None],
) -> None:
    for part in (work / "data", work / "summaries"):
        part.mkdir(exist_ok=True)
    jobs = plan(listing, options, work)
    write_missing([job for each in jobs.values() for job in each], options.processes, progress)
    left_out = _finish(listing, options, jobs, work, record, say)
    (work / "data").rename(folder)
    if left_out:
        say(f"left out {left_out:,} broken image{'s' * (left_out > 1)}; {folder / RECORD_FILE} lists them: left_out")


def plan(listing: Listing, options: Options, work: Path) -> dict[str, list[Job]]:
    """The shards of each split.

    The place of an image follows from its name, so that each part of a split is a fair sample.

    Raises:
      SourceError: a split holds no image, or has a name that TFDS cannot read.
    """
    jobs: dict[str, list[Job]] = {}
    train = train_split(listing)
    for split, items in listing.splits.items():
        if not re.fullmatch(r"[\w-]+", split) or split == "all":
            raise SourceError(
                f"{split!r} is no name for a split; rename the split to letters, digits, _ and - alone, such as"
                " 'validation' ('all' is TFDS's name for all splits)"
            )
        if not items:
            raise SourceError(f"the split {split!r} of the source holds no image")
        items = items if listing.ordered else sorted(items, key=_hash)
        count = -(-len(items) // options.per_shard)
        bounds = [number * len(items) // count for number in range(count + 1)]
        names = [f"{listing.name}-{split}.array_record-{number:05}-of-{count:05}" for number in range(count)]
        jobs[split] = [
            Job(
                path=str(work / "data" / name),
                summary=str(work / "summaries" / f"{name}.npz"),
                items=items[start:stop],
                read=listing.read,
                class_names=listing.class_names,
                size=options.size,
                encoding=options.encoding,
                measured=train in (None, split),
                max_pixels=options.max_pixels,
            )
            for name, start, stop in zip(names, bounds[:-1], bounds[1:], strict=True)
        ]
    return jobs


def train_split(listing: Listing) -> str | None:
    """The split whose pixels the statistics are taken of; None: there is no such split, and all are measured."""
    return next((name for name in TRAIN_SPLITS if name in listing.splits), None)


def _hash(item: Item) -> bytes:
    return hashlib.blake2b(item.name.encode("utf-8", "surrogateescape"), digest_size=16).digest()


def _finish(
    listing: Listing,
    options: Options,
    jobs: dict[str, list[Job]],
    work: Path,
    record: dict[str, Any],
    say: Callable[[str], None],
) -> int:
    """Writes the statistics, TFDS's metadata and the record, or the list of broken images.

    Returns:
      Images left out.

    Raises:
      SourceError: no image of a split, or of a class in the training split, can be read.
    """
    data = work / "data"
    sums, summaries = Sums.zero(options.size), dict[str, list[Summary]]()
    for split, split_jobs in jobs.items():
        summaries[split] = []
        for job in split_jobs:
            summary = _summary(job)
            if summary.sums is not None:
                sums.merge(summary.sums)
            summaries[split].append(dataclasses.replace(summary, sums=None))  # 1.6 MB of each of thousands of shards
    problems = listing.problems + [
        (f"{split}/{name}", reason)
        for split, written in summaries.items()
        for summary in written
        for name, reason in summary.problems
    ]
    if problems and not options.skip_broken:
        raise _broken(problems, work)
    counts, train = dict[str, Counter[int]](), train_split(listing)
    for split, written in summaries.items():
        counts[split] = sum((summary.images for summary in written), Counter[int]())
        if not counts[split]:
            _write_problems(problems, work)
            raise SourceError(f"no image of the split {split!r} can be read; {work / 'broken.txt'} gives the reasons")
        lost = sorted({item.label for item in listing.splits[split] if item.label >= 0} - counts[split].keys())
        if lost and split == train:
            _write_problems(problems, work)
            raise SourceError(
                f"no image of the class {listing.class_names[lost[0]]!r} in {split!r} can be read;"
                f" {work / 'broken.txt'} gives the reasons; repair the images, or move the class out of the source"
            )
        if lost:
            say(missing_classes(split, listing.class_names, counts[split]))
    planned = {Path(job.path).name for split_jobs in jobs.values() for job in split_jobs}
    for path in data.iterdir():  # of an attempt with another source
        if path.name not in planned:
            path.unlink()
    write_metadata(
        data, listing, summaries, version=VERSION, size=options.size, encoding=options.encoding, config=options.config
    )
    statistics.save(sums.statistics(), epath.Path(data))
    facts = record | {
        "image_size": options.size,
        "encoding": options.encoding,
        "splits": {
            split: {
                "images": count.total(),
                "classes": {name: count[label] for label, name in enumerate(listing.class_names)},
            }
            for split, count in counts.items()
        },
        "left_out": dict(problems),
    }
    (data / RECORD_FILE).write_text(strict_json.dumps(facts, indent=1) + "\n")
    if line := _dark([summary for written in summaries.values() for summary in written]):
        say(line)
    return len(problems)


def _dark(summaries: list[Summary]) -> str:
    """A line on images of 16 bits of which a quarter of the range or less has values, as from cameras; else empty."""
    count, highest = sum(summary.deep for summary in summaries), max(summary.highest for summary in summaries)
    factor = 2 ** (16 - highest.bit_length())
    if factor < 4 or not highest:
        return ""
    return (
        f"{count:,} image{'s' * (count > 1)} of 16 bits with no value above {2**16 // factor - 1:,} of 65,535: stored"
        f" at 1/{factor} of the full brightness; multiply the values by {factor} and prepare under another name"
    )


def _summary(job: Job) -> Summary:
    summary = shards.finished(job)
    if summary is None:
        raise DatasetError(f"{job.path} has changed during the preparation; run the same command again")
    return summary


def _broken(problems: list[tuple[str, str]], work: Path) -> BrokenImagesError:
    file = _write_problems(problems, work)
    return BrokenImagesError(problems, file, sum(images.is_too_large(reason) for _, reason in problems))


def _write_problems(problems: list[tuple[str, str]], work: Path) -> Path:
    file = work / "broken.txt"
    lines = "".join(f"{in_one_line(name)}\t{reason}\n" for name, reason in problems)
    file.write_text(lines, encoding="utf-8", errors="backslashreplace")
    return file
