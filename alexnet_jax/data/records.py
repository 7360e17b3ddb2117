"""The examples of a split in ArrayRecord files, read at random. Worker processes import this file: no JAX, no TFDS."""

import bisect
import contextlib
import dataclasses
import itertools
import math
import resource
import threading
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
from array_record.python import array_record_module
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, text_format

from alexnet_jax.data import geometry
from alexnet_jax.data.errors import StorageError
from alexnet_jax.errors import words_of

WAITS = (0.5, 1.0, 2.0, 4.0, 8.0, 16.0)  # seconds between attempts to read from storage that fails
AT_RANDOM = "readahead_buffer_size:0"  # records are read singly
OPEN_FILES = 2**16  # of a process; systems allow 1,024 at first, and ImageNet has 1,300 shards


@dataclasses.dataclass(frozen=True)
class Files:
    """The files of a split, all that another process needs to read its examples.

    Attributes:
      name: of the split, for messages of errors.
      parts: file, number of the first record, number of records.
      shape: of the pixels of raw images; None: images are encoded.
    """

    name: str
    parts: tuple[tuple[str, int, int], ...]
    shape: tuple[int, int, int] | None

    def open(self) -> "Examples":
        """The examples; the files are opened when first read."""
        return Examples(self)


def _open_at_once() -> int:
    """How many files of a split may be open: half of what the system allows this process, at most."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    allowed = OPEN_FILES if hard == resource.RLIM_INFINITY else min(OPEN_FILES, hard)
    if resource.RLIM_INFINITY != soft < allowed:
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return OPEN_FILES if soft == resource.RLIM_INFINITY else max(1, soft // 2)


class Records(Sequence[bytes]):
    """The records of several files, indexed at random. A file is opened when first read, for all threads.

    Where the system allows fewer files than there are, all are closed when there are too many.

    Args:
      parts: as in `Files`.
    """

    def __init__(self, parts: Sequence[tuple[str, int, int]]):
        self._parts = parts
        self._ends = list(itertools.accumulate(count for _, _, count in parts))
        self._readers: dict[int, Any] = {}
        self._most = _open_at_once()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return self._ends[-1]

    def __getitem__(self, index: Any) -> Any:
        """The bytes of the record number `index`, from 0."""
        part = bisect.bisect_right(self._ends, index)
        path, first, count = self._parts[part]
        reader = self._readers.get(part)
        if reader is None:
            with self._lock:
                reader = self._readers.get(part)
                if reader is None:
                    if len(self._readers) >= self._most:
                        self._readers = {}  # another thread may still read; its file is closed with the last reference
                    reader = array_record_module.ArrayRecordReader(
                        path, options=AT_RANDOM, file_reader_buffer_size=2**15
                    )
                    self._readers[part] = reader
        return reader.read([first + index - (self._ends[part] - count)])[0]


# The messages of `tf.train.Example` that a data set uses; TFDS's own would import TFDS.
EXAMPLE = """
name: "example" package: "alexnet_jax" syntax: "proto3"
message_type { name: "Bytes" field { name: "value" number: 1 label: LABEL_REPEATED type: TYPE_BYTES } }
message_type { name: "Integers" field { name: "value" number: 1 label: LABEL_REPEATED type: TYPE_INT64 } }
message_type { name: "Feature"
  field { name: "bytes_list" number: 1 label: LABEL_OPTIONAL type: TYPE_MESSAGE type_name: "Bytes" }
  field { name: "int64_list" number: 3 label: LABEL_OPTIONAL type: TYPE_MESSAGE type_name: "Integers" } }
message_type { name: "Features"
  field { name: "feature" number: 1 label: LABEL_REPEATED type: TYPE_MESSAGE type_name: "Features.FeatureEntry" }
  nested_type { name: "FeatureEntry" options { map_entry: true }
    field { name: "key" number: 1 label: LABEL_OPTIONAL type: TYPE_STRING }
    field { name: "value" number: 2 label: LABEL_OPTIONAL type: TYPE_MESSAGE type_name: "Feature" } } }
message_type { name: "Example"
  field { name: "features" number: 1 label: LABEL_OPTIONAL type: TYPE_MESSAGE type_name: "Features" } }
"""


def _messages() -> tuple[Any, Any]:
    """The classes of `Example` and `Features`, in a pool of their own: TFDS has messages of these names."""
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(text_format.Parse(EXAMPLE, descriptor_pb2.FileDescriptorProto()).SerializeToString())
    example, features = (
        message_factory.GetMessageClass(pool.FindMessageTypeByName(f"alexnet_jax.{name}"))
        for name in ("Example", "Features")
    )
    return example, features


Example, Features = _messages()


class RawPixels:
    """Reads raw pixels in place from serialized `tf.train.Example`s.

    Protocol buffers would copy the pixels twice under the interpreter's lock, which takes as long as reading them.

    Args:
      shape: of the pixels.
    """

    def __init__(self, shape: tuple[int, int, int]):
        self._shape, self._count = shape, math.prod(shape)
        alone = Features()
        alone.feature["image"].bytes_list.value.append(bytes(self._count))
        self._before = alone.SerializeToString()[: -self._count]

    def split(self, record: bytes) -> tuple[Any, geometry.Pixels]:
        """The features of an Example without `image`, and the pixels.

        Raises:
          ValueError: the record holds no pixels of this shape.
        """
        start = record.find(self._before)
        if start < 0:
            raise ValueError(f"no image of {self._shape}")
        first = start + len(self._before)
        features = 1  # the first byte behind the tag (one byte) and the length, whose last byte is below 128
        while record[features] >= 128:
            features += 1
        others = Features.FromString(record[features + 1 : start] + record[first + self._count :])
        return others.feature, np.frombuffer(record, np.uint8, self._count, first).reshape(self._shape)


class Examples(Sequence[dict[str, Any]]):
    """The examples of a split, indexed at random: `image` (encoded bytes or pixels), `label`, and `name` if stored.

    Parsing the records here takes a third of TFDS's time, most of which passes under the interpreter's lock.

    Storage that fails is opened anew and read again for half a minute.

    Args:
      files: from which other processes can read the same examples.
    """

    def __init__(self, files: Files):
        self.files, self._raw = files, RawPixels(files.shape) if files.shape else None
        self._records = Records(files.parts)
        self._count = len(self._records)

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: Any) -> Any:
        """The example number `index`, from 0.

        Raises:
          StorageError: the storage fails.
        """
        if not 0 <= index < self._count:
            raise IndexError(index)  # ends a loop over the examples
        return self._parse(self._read(index))

    def check(self) -> None:
        """Reads the first and the last example, once. Raises what the library raises where files are damaged."""
        for index in (0, self._count - 1):
            self._parse(self._records[index])

    def _parse(self, record: bytes) -> dict[str, Any]:
        if self._raw is None:
            feature = Example.FromString(record).features.feature
            image: Any = feature["image"].bytes_list.value[0]
        else:
            feature, image = self._raw.split(record)
        example = {"image": image, "label": feature["label"].int64_list.value[0]}
        return example | {"name": feature["name"].bytes_list.value[0]} if "name" in feature else example

    def _read(self, index: int) -> bytes:
        for wait in WAITS:
            try:
                return self._records[index]
            except Exception:  # array_record has no common error for storage that fails
                time.sleep(wait)
            with contextlib.suppress(Exception):  # a reader never recovers a file whose storage went and came back
                self._records = Records(self.files.parts)
        try:
            return self._records[index]
        except Exception as error:
            raise StorageError(
                f"example {index:,} of {self.files.name} cannot be read, tried for {sum(WAITS):.0f} s:"
                f" {words_of(error)}; check the storage, and run the same command again"
            ) from error
