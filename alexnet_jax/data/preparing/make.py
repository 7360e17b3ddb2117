"""Makes a data set of what a builder has found: in parallel, resumable, byte for byte the same however often killed.

While it is made it lies in `.incomplete-1.0.0/` beside its place: `data/` becomes the data set by one rename at the
end, `summaries/` (`shards.py`) tells which shards are finished.
"""

import contextlib
import dataclasses
import errno
import fcntl
import hashlib
import json
import shutil
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import tensorflow_datasets as tfds
from etils import epath

from alexnet_jax.data import statistics
from alexnet_jax.data.preparing import shards
from alexnet_jax.data.preparing.listing import Found, Item
from alexnet_jax.data.preparing.shards import Job, Summary
from alexnet_jax.data.preparing.workers import Progress, write_missing
from alexnet_jax.data.statistics import Sums
from alexnet_jax.errors import UsageError

VERSION = "1.0.0"
PER_SHARD = 1024  # images: 40 MB of JPEG, 200 MB raw
RECORD_FILE = "prepared.json"


@dataclasses.dataclass(frozen=True)
class Options:
    """How a data set is made.

    Attributes:
      size: pixels along a side.
      encoding: `jpeg` or `raw`.
      skip_broken: leave broken images out; else they are listed at the end and the data set is not finished.
      processes: how many work.
      per_shard: images of a shard.
    """

    size: int = 256
    encoding: str = "jpeg"
    skip_broken: bool = False
    processes: int = 1
    per_shard: int = PER_SHARD

    @property
    def config(self) -> str:
        """The data set's TFDS config: `256`, or `256_raw`."""
        return f"{self.size}{'' if self.encoding == 'jpeg' else f'_{self.encoding}'}"


def place(name: str, options: Options, data_dir: str) -> Path:
    """The folder where the data set will be."""
    return Path(data_dir, name, options.config, VERSION)


def prepare(found: Found, options: Options, data_dir: str, *, record: dict[str, Any], progress: Progress) -> Path:
    """Makes the data set `found.name/config` in `data_dir`, or goes on making it.

    Args:
      found: the source.
      options: how.
      data_dir: of prepared data sets.
      record: what to keep of the command and the versions.
      progress: is told how far it is.

    Returns:
      The data set's folder.

    Raises:
      UsageError: broken images, a full disk, no image at all, or another run at the same work.
    """
    folder = place(found.name, options, data_dir)
    work = folder.parent / f".incomplete-{VERSION}"
    try:
        for part in (work / "data", work / "summaries"):
            part.mkdir(parents=True, exist_ok=True)
        with _alone(work):
            if not folder.exists():
                jobs = plan(found, options, work)
                write_missing([job for each in jobs.values() for job in each], options.processes, progress)
                _finish(found, options, jobs, work, record)
                (work / "data").rename(folder)
            shutil.rmtree(work)
    except shards.DiskFullError as error:
        raise _disk_full(work) from error
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise _disk_full(work) from error
        message = f"{error.filename or work} cannot be written: {error.strerror or error}; name another --data_dir"
        raise UsageError(message) from error
    return folder


def _disk_full(work: Path) -> UsageError:
    return UsageError(f"the disk of {work} is full; make room and run the same command: finished shards are kept")


@contextlib.contextmanager
def _alone(work: Path) -> Iterator[None]:
    """Holds the folder against a second run; a killed run lets go of it."""
    with (work / "lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise UsageError(f"another run is preparing {work}; wait for it") from error
        yield


def plan(found: Found, options: Options, work: Path) -> dict[str, list[Job]]:
    """The shards of each split. An image's place follows from its name, so that every part of a split is a fair one."""
    jobs: dict[str, list[Job]] = {}
    for split, items in found.splits.items():
        if not items:
            raise UsageError(f"the split {split!r} of the source holds no image")
        ordered = sorted(items, key=_hash)
        count = -(-len(ordered) // options.per_shard)
        bounds = [number * len(ordered) // count for number in range(count + 1)]
        names = [f"{found.name}-{split}.array_record-{number:05}-of-{count:05}" for number in range(count)]
        jobs[split] = [
            Job(
                path=str(work / "data" / name),
                summary=str(work / "summaries" / f"{name}.npz"),
                items=ordered[start:stop],
                read=found.read,
                class_names=found.class_names,
                size=options.size,
                encoding=options.encoding,
                measured=split == "train",
            )
            for name, start, stop in zip(names, bounds[:-1], bounds[1:], strict=True)
        ]
    return jobs


def _hash(item: Item) -> bytes:
    return hashlib.blake2b(item.name.encode("utf-8", "surrogateescape"), digest_size=16).digest()


def _finish(found: Found, options: Options, jobs: dict[str, list[Job]], work: Path, record: dict[str, Any]) -> None:
    """Statistics, TFDS's metadata and the record of how it was made; or the list of broken images."""
    data, sums = work / "data", Sums.zero(options.size)
    problems, counts, infos = list(found.problems), {}, []
    wanted = set()
    for split, split_jobs in jobs.items():
        counts[split], lengths, payload = Counter[int](), [], 0
        for job in split_jobs:
            summary = _summary(job)
            wanted.add(Path(job.path).name)
            problems += [(f"{split}/{name}", reason) for name, reason in summary.problems]
            counts[split] += summary.images
            lengths.append(summary.images.total())
            payload += summary.payload
            if summary.sums is not None:
                sums.merge(summary.sums)
        template = tfds.core.ShardedFileTemplate(
            data_dir=epath.Path(data), dataset_name=found.name, split=split, filetype_suffix="array_record"
        )
        infos.append(
            tfds.core.SplitInfo(name=split, shard_lengths=lengths, num_bytes=payload, filename_template=template)
        )
    if problems and not options.skip_broken:
        raise _broken(problems, work)
    for split, count in counts.items():
        if not count:
            raise UsageError(f"no image of the split {split!r} can be read; {work / 'broken.txt'} gives the reasons")
    for path in data.iterdir():  # of an attempt with another source
        if path.name not in wanted:
            path.unlink()
    _write_metadata(found, options, data, infos)
    statistics.save(sums.statistics(), epath.Path(data))
    told = record | {
        "image_size": options.size,
        "encoding": options.encoding,
        "splits": {
            split: {
                "images": count.total(),
                "classes": {name: count[label] for label, name in enumerate(found.class_names)},
            }
            for split, count in counts.items()
        },
        "left_out": dict(problems),
    }
    (data / RECORD_FILE).write_text(json.dumps(told, indent=1) + "\n")


def _summary(job: Job) -> Summary:
    summary = shards.finished(job)
    if summary is None:
        raise UsageError(f"{job.path} has changed while the data set was made; run the same command again")
    return summary


def _broken(problems: list[tuple[str, str]], work: Path) -> UsageError:
    file = work / "broken.txt"
    lines = "".join(f"{name}\t{reason}\n" for name, reason in problems)
    file.write_text(lines, encoding="utf-8", errors="backslashreplace")
    first = "; ".join(f"{name} ({reason})" for name, reason in problems[:3])
    return UsageError(
        f"{len(problems):,} images are broken: {first}{'; ...' if len(problems) > 3 else ''}; all are listed in {file};"
        " mend them and run again, or leave them out with --on_error=skip"
    )


def _write_metadata(found: Found, options: Options, data: Path, infos: list[Any]) -> None:
    identity = tfds.core.dataset_info.DatasetIdentity(
        name=found.name,
        version=tfds.core.Version(VERSION),
        data_dir=str(data),
        module_name="alexnet_jax.prepare",
        config_name=options.config,
        config_description=f"{options.size}x{options.size} pixels, {options.encoding}",
    )
    info = tfds.core.DatasetInfo(
        builder=identity,
        description=found.description,
        features=shards.features(found.class_names, options.size, options.encoding),
        supervised_keys=("image", "label"),
    )
    info.set_file_format("array_record")
    info.set_splits(tfds.core.splits.SplitDict(infos))
    info.write_to_directory(data)
