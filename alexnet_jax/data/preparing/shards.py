"""A shard of a data set: an ArrayRecord file and a summary of its content.

A shard is a function of its job alone. The file is written under another name and renamed when whole, and the summary
likewise. A shard is finished where its summary has the digest of the job, whatever happened in between.
"""

import dataclasses
import errno
import functools
import hashlib
import io
import json
import os
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import PIL
from array_record.python import array_record_module
from PIL import Image
from tensorflow_datasets.proto import tf_example_pb2

from alexnet_jax.data.errors import SourceError
from alexnet_jax.data.preparing import images
from alexnet_jax.data.preparing.listing import Item, Read
from alexnet_jax.data.statistics import Sums
from alexnet_jax.errors import DISK_FULL, reason_of

ENCODINGS = ("jpeg", "raw")
# Records are read singly and at random; JPEG cannot be compressed further, and unpacking raw pixels would cost time.
LAYOUT = "group_size:1,uncompressed"
FACTS = "told"  # the array of a summary with its facts as JSON; summaries of unfinished data sets have this name


@dataclasses.dataclass(frozen=True)
class Job:
    """A shard to write.

    Attributes:
      path: of the ArrayRecord file.
      summary: path of the summary.
      items: the images, in order.
      read: reads an item.
      class_names: of the data set.
      size: pixels along a side.
      encoding: `jpeg` or `raw`.
      measured: sum the pixels for the statistics.
      max_pixels: an image of more is broken.
    """

    path: str
    summary: str
    items: list[Item]
    read: Read
    class_names: list[str]
    size: int
    encoding: str
    measured: bool
    max_pixels: int

    @functools.cached_property
    def digest(self) -> str:
        """The hash of everything that decides the shard's bytes. Paths and times stand for the files of the source."""
        listed = [item._replace(file=os.path.abspath(item.file)) for item in self.items]
        shape = [self.class_names, self.size, self.encoding, self.measured, self.max_pixels]
        shape += [images.JPEG_QUALITY, PIL.__version__]
        return hashlib.sha256(json.dumps([shape, listed]).encode()).hexdigest()


@dataclasses.dataclass(frozen=True)
class Summary:
    """The content of a finished shard.

    Attributes:
      digest: of the job that made it.
      size: bytes of the file.
      images: counts by label.
      payload: bytes of all records.
      problems: `(name, reason)` of the images left out.
      sums: of the pixels; None: the job is not measured.
      deep: grey images of 16 bits.
      highest: the highest value of these.
    """

    digest: str
    size: int
    images: Counter[int]
    payload: int
    problems: list[tuple[str, str]]
    sums: Sums | None
    deep: int
    highest: int


class DiskFullError(OSError):
    """The disk has no room for the data set."""


class StoppedError(Exception):
    """Another process asked this process to end."""


def write(job: Job, progress: Callable[[], bool]) -> None:
    """Writes the shard and its summary.

    Args:
      job: the shard.
      progress: called after each image; True ends the work.

    Raises:
      DiskFullError: the disk has no room.
      StoppedError: `progress` returned True.
      SourceError: a label lies outside the classes.
    """
    part = f"{job.path}.part"
    try:
        summary = _write_records(job, part, progress)
        os.replace(part, job.path)
        _save(summary, job.summary)
    except (OSError, RuntimeError) as error:  # array_record raises RuntimeError
        words = map(os.strerror, DISK_FULL)  # in the text of array_record's error, which has no number
        if getattr(error, "errno", None) in DISK_FULL or any(reason in str(error) for reason in words):
            raise DiskFullError(errno.ENOSPC, "no space left", job.path) from error
        raise
    finally:
        Path(part).unlink(missing_ok=True)


def _write_records(job: Job, part: str, progress: Callable[[], bool]) -> Summary:
    sums = Sums.zero(job.size) if job.measured else None
    counts: Counter[int] = Counter()
    problems, payload, highest = [], 0, list[int]()
    writer = array_record_module.ArrayRecordWriter(part, LAYOUT)
    try:
        for item in job.items:
            try:
                stored, pixels, label, values = _image(job, item)
            except images.BrokenImageError as error:
                problems.append((item.name, str(error)))
            else:
                if sums is not None:
                    sums.add(pixels)
                highest += values
                record = _record(stored, label, item.name)
                writer.write(record)
                counts[label] += 1
                payload += len(record)
            if progress():
                raise StoppedError
    finally:
        writer.close()
    return Summary(
        job.digest, os.path.getsize(part), counts, payload, problems, sums, len(highest), max(highest, default=0)
    )


def _record(stored: bytes, label: int, name: str) -> bytes:
    """An example in TFDS's layout; TFDS's serializer writes the three features in any order."""
    example = tf_example_pb2.Example()
    feature = example.features.feature
    feature["image"].bytes_list.value.append(stored)
    feature["label"].int64_list.value.append(label)
    feature["name"].bytes_list.value.append(name.encode("utf-8", "backslashreplace"))  # file names may be anything
    return example.SerializeToString(deterministic=True)


def _image(job: Job, item: Item) -> tuple[bytes, np.ndarray, int, list[int]]:
    """The stored bytes, the pixels that a reader will see (of measured jobs), the label, and the highest of 16 bits."""
    if item.size > images.MAX_BYTES:
        raise images.BrokenImageError(f"larger than {images.MAX_BYTES // 2**20} MiB")
    try:
        data, label = job.read(item)
    except OSError as error:
        raise images.BrokenImageError(f"cannot be read: {reason_of(error)}") from None
    if not 0 <= label < len(job.class_names):
        raise SourceError(
            f"{item.name} has the label {label}, outside the {len(job.class_names)} classes; correct the source"
        )
    small = images.square(data, job.size, max_pixels=job.max_pixels)
    highest = [small.info[images.HIGHEST]] if images.HIGHEST in small.info else []
    if job.encoding == "raw":
        pixels = np.asarray(small)
        return pixels.tobytes(), pixels, label, highest
    encoded = images.as_jpeg(small)
    if not job.measured:
        return encoded, np.empty(0), label, highest
    with Image.open(io.BytesIO(encoded)) as decoded:
        return encoded, np.asarray(decoded), label, highest


def _save(summary: Summary, path: str) -> None:
    facts = dataclasses.asdict(summary) | {"sums": None, "images": sorted(summary.images.items())}
    arrays: dict[str, Any] = {FACTS: np.frombuffer(json.dumps(facts).encode(), np.uint8)}
    if summary.sums is not None:
        arrays |= {
            "count": np.int64(summary.sums.count),
            "total": summary.sums.total,
            "products": summary.sums.products,
        }
    with open(f"{path}.part", "wb") as file:
        np.savez_compressed(file, **arrays)
    os.replace(f"{path}.part", path)


def finished(job: Job) -> Summary | None:
    """The summary of a shard that is on disk and equals the job's; None: the shard must be written."""
    try:
        with np.load(job.summary, allow_pickle=False) as arrays:
            facts = json.loads(arrays[FACTS].tobytes())
            sums = Sums(int(arrays["count"]), arrays["total"], arrays["products"]) if job.measured else None
        summary = Summary(
            **facts
            | {
                "sums": sums,
                "images": Counter(dict(facts["images"])),
                "problems": [(name, reason) for name, reason in facts["problems"]],
            }
        )
        same = summary.digest == job.digest and summary.size == os.path.getsize(job.path)
    except Exception:  # absent, cut off or of another version
        return None
    return summary if same else None
