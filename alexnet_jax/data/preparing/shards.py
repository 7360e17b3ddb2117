"""One shard of a data set: an ArrayRecord file and, beside it, a summary of what is in it.

A shard is a function of its job alone. It is written under another name and renamed when whole, then its summary
likewise; a shard with a summary that fits its job is finished, whatever happened in between.
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
import tensorflow_datasets as tfds
from array_record.python import array_record_module
from PIL import Image
from tensorflow_datasets.proto import tf_example_pb2

from alexnet_jax.data.preparing import images
from alexnet_jax.data.preparing.listing import Item, Read
from alexnet_jax.data.statistics import Sums
from alexnet_jax.errors import UsageError

ENCODINGS = ("jpeg", "raw")
# Records are read one by one, at random; JPEG is as small as it gets, and unpacking raw pixels would cost time.
LAYOUT = "group_size:1,uncompressed"


@dataclasses.dataclass(frozen=True)
class Job:
    """A shard to be written.

    Attributes:
      path: of the ArrayRecord file.
      summary: path of the summary.
      items: the images, in order.
      read: fetches an item.
      class_names: of the data set.
      size: pixels along a side.
      encoding: `jpeg` or `raw`.
      measured: whether statistics of the pixels are wanted: in the training split.
    """

    path: str
    summary: str
    items: list[Item]
    read: Read
    class_names: list[str]
    size: int
    encoding: str
    measured: bool

    @functools.cached_property
    def digest(self) -> str:
        """Of everything that decides the shard's bytes, short of the pixels themselves."""
        listed = [[item.name, item.label, item.size] for item in self.items]
        shape = [self.class_names, self.size, self.encoding, self.measured, PIL.__version__]
        return hashlib.sha256(json.dumps([shape, listed]).encode()).hexdigest()


@dataclasses.dataclass(frozen=True)
class Summary:
    """What a finished shard holds.

    Attributes:
      digest: of the job that made it.
      size: bytes of the file.
      images: how many of each label.
      payload: bytes of all records.
      problems: `(name, reason)` of the images left out.
      sums: of the pixels, where they were wanted.
    """

    digest: str
    size: int
    images: Counter[int]
    payload: int
    problems: list[tuple[str, str]]
    sums: Sums | None


class DiskFullError(OSError):
    """There is no room for the data set."""


class StoppedError(Exception):
    """The run was asked to end."""


def features(class_names: list[str], size: int, encoding: str) -> tfds.features.FeaturesDict:
    """What an example of a prepared data set consists of."""
    stored = (
        tfds.features.Image(shape=(size, size, 3), encoding_format="jpeg")
        if encoding == "jpeg"
        else tfds.features.Tensor(shape=(size, size, 3), dtype=np.uint8, encoding=tfds.features.Encoding.BYTES)
    )
    label = tfds.features.ClassLabel(names=class_names)
    return tfds.features.FeaturesDict({"image": stored, "label": label, "name": tfds.features.Text()})


def write(job: Job, progress: Callable[[], bool]) -> None:
    """Makes the shard and its summary.

    Args:
      job: what to write.
      progress: called after every image; True ends the work.

    Raises:
      DiskFullError: there is no room.
      StoppedError: `progress` said so.
      UsageError: a label lies outside the classes.
    """
    part = f"{job.path}.part"
    try:
        summary = _write_records(job, part, progress)
        os.replace(part, job.path)
        _save(summary, job.summary)
    except (OSError, RuntimeError) as error:  # array_record raises RuntimeError
        if getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT) or "No space left" in str(error):
            raise DiskFullError(errno.ENOSPC, "no space left", job.path) from error
        raise
    finally:
        Path(part).unlink(missing_ok=True)


def _write_records(job: Job, part: str, progress: Callable[[], bool]) -> Summary:
    sums = Sums.zero(job.size) if job.measured else None
    counts: Counter[int] = Counter()
    problems, payload = [], 0
    writer = array_record_module.ArrayRecordWriter(part, LAYOUT)
    try:
        for item in job.items:
            try:
                stored, pixels, label = _image(job, item)
            except images.BrokenImageError as error:
                problems.append((item.name, str(error)))
            else:
                if sums is not None:
                    sums.add(pixels)
                record = _record(stored, label, item.name)
                writer.write(record)
                counts[label] += 1
                payload += len(record)
            if progress():
                raise StoppedError
    finally:
        writer.close()
    return Summary(job.digest, os.path.getsize(part), counts, payload, problems, sums)


def _record(stored: bytes, label: int, name: str) -> bytes:
    """An example as TFDS lays it out; its own serializer writes the three features in any order."""
    example = tf_example_pb2.Example()
    feature = example.features.feature
    feature["image"].bytes_list.value.append(stored)
    feature["label"].int64_list.value.append(label)
    feature["name"].bytes_list.value.append(name.encode("utf-8", "backslashreplace"))  # file names may be anything
    return example.SerializeToString(deterministic=True)


def _image(job: Job, item: Item) -> tuple[bytes, np.ndarray, int]:
    """What is stored, the pixels that a reader will see, and the label."""
    if item.size > images.MAX_BYTES:
        raise images.BrokenImageError(f"larger than {images.MAX_BYTES // 2**20} MiB")
    try:
        data, label = job.read(item)
    except OSError as error:
        raise images.BrokenImageError(f"cannot be read: {error.strerror or error}") from None
    if not 0 <= label < len(job.class_names):
        raise UsageError(
            f"{item.name} has the label {label}, outside the {len(job.class_names)} classes; mend the source"
        )
    small = images.square(data, job.size)
    if job.encoding == "raw":
        pixels = np.asarray(small)
        return pixels.tobytes(), pixels, label
    encoded = images.as_jpeg(small)
    if not job.measured:
        return encoded, np.empty(0), label
    with Image.open(io.BytesIO(encoded)) as decoded:
        return encoded, np.asarray(decoded), label


def _save(summary: Summary, path: str) -> None:
    told = dataclasses.asdict(summary) | {"sums": None, "images": sorted(summary.images.items())}
    arrays: dict[str, Any] = (
        {}
        if summary.sums is None
        else {"count": np.int64(summary.sums.count), "total": summary.sums.total, "products": summary.sums.products}
    )
    with open(f"{path}.part", "wb") as file:
        np.savez_compressed(file, told=np.frombuffer(json.dumps(told).encode(), np.uint8), **arrays)
    os.replace(f"{path}.part", path)


def finished(job: Job) -> Summary | None:
    """The summary of a shard that is there and is what the job would write; None: it must be written."""
    try:
        with np.load(job.summary, allow_pickle=False) as arrays:
            told = json.loads(arrays["told"].tobytes())
            sums = Sums(int(arrays["count"]), arrays["total"], arrays["products"]) if job.measured else None
        summary = Summary(
            **told
            | {
                "sums": sums,
                "images": Counter(dict(told["images"])),
                "problems": [(name, reason) for name, reason in told["problems"]],
            }
        )
        same = summary.digest == job.digest and summary.size == os.path.getsize(job.path)
    except Exception:  # absent, cut off, of another version: all mean the same
        return None
    return summary if same else None
