"""Data sets on disk: TFDS folders of ArrayRecord shards with the training split's statistics beside them."""

import contextlib
import hashlib
import json
import math
import os
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from etils import epath
from tensorflow_datasets.proto import tf_example_pb2

from alexnet_jax.data import geometry, statistics
from alexnet_jax.data.errors import (
    DatasetError,
    ForeignDatasetError,
    IncompleteDatasetError,
    UnknownDatasetError,
)
from alexnet_jax.data.pipeline import Source

RECORD_FILE = "prepared.json"  # how and of which images a data set was prepared
METADATA_FILES = ("dataset_info.json", "features.json")
WAITS = (0.5, 1.0, 2.0, 4.0, 8.0, 16.0)  # seconds between attempts to read from storage that fails
RAW_BYTES = tfds.decode.DeserializeMethod.RAW_BYTES
Features: Any = type(tf_example_pb2.Example().features)


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
      name: the split in errors.
      open_records: opens the serialized examples.
      shape: of the pixels of raw images; None: images are encoded.
    """

    def __init__(self, name: str, open_records: Callable[[], Sequence[bytes]], shape: tuple[int, int, int] | None):
        self._name, self._open, self._raw = name, open_records, RawPixels(shape) if shape else None
        self._records = open_records()
        self._count = len(self._records)
        self._records[0], self._records[self._count - 1]

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: Any) -> Any:
        """The example number `index`, from 0.

        Raises:
          DatasetError: the storage fails.
        """
        if not 0 <= index < self._count:
            raise IndexError(index)  # ends a loop over the examples
        record = self._read(index)
        if self._raw is None:
            feature = tf_example_pb2.Example.FromString(record).features.feature
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
                self._records = self._open()
        try:
            return self._records[index]
        except Exception as error:
            raise DatasetError(
                f"example {index:,} of {self._name} cannot be read, tried for {sum(WAITS):.0f} s:"
                f" {' '.join(str(error).split())[:200]}; see to the storage, and run the same command again"
            ) from error


class Dataset:
    """A complete data set in a folder.

    Attributes:
      class_names: in the order of the labels.
      statistics: of the training split.
      image_size: pixels along a side.

    Raises:
      DatasetError: the features are not `image` and `label`, or the statistics are damaged.
    """

    def __init__(self, builder: tfds.core.DatasetBuilder):
        self._builder = builder
        self._folder = epath.Path(builder.data_path)
        features = builder.info.features
        if not {"image", "label"} <= set(features):
            raise DatasetError(f"{self._folder} has the features {', '.join(features)}; image and label are needed")
        self.class_names: list[str] = features["label"].names
        self.image_size: int = features["image"].shape[0]
        self._raw = not isinstance(features["image"], tfds.features.Image)
        try:
            self.statistics = statistics.load(self._folder)
        except Exception as error:  # NumPy raises KeyError, ValueError or BadZipFile on a damaged file
            raise IncompleteDatasetError(self._folder, f"{statistics.FILE_NAME} cannot be read") from error

    @property
    def examples(self) -> dict[str, int]:
        """The number of examples of each split, by name."""
        return {name: info.num_examples for name, info in self._builder.info.splits.items()}

    @property
    def folder(self) -> epath.Path:
        """The folder of the data set, its version included."""
        return self._folder

    def identity(self) -> dict[str, Any]:
        """The identity of the data as JSON: name, size, classes in order, examples of each split, and a digest.

        The digest is that of the statistics, which are exact sums over all training images: the same images give the
        same digest, in any order and number of shards.
        """
        numbers = self.statistics.mean_image.tobytes() + self.statistics.covariance.tobytes()
        return {
            "name": self._builder.info.full_name,
            "image_size": self.image_size,
            "classes": list(self.class_names),
            "examples": self.examples,
            "statistics": hashlib.sha256(numbers).hexdigest()[:16],
        }

    def facts(self) -> dict[str, str]:
        """The facts in which two copies of the data set must agree, by name.

        The number of shards is not among the facts: the order of the examples does not depend on it.
        """
        identity = self.identity()
        return {
            "the data set": f"{identity['name']} of {self.image_size} pixels",
            "the data set's classes": ", ".join(self.class_names),
            "the data set's examples": ", ".join(f"{name} {count}" for name, count in self.examples.items()),
            "the digest of the data set's statistics": identity["statistics"],
        }

    def split(self, name: str) -> Source:
        """The examples of a split such as `train` or `train[:25%]`, with images encoded or raw, as stored.

        Raises:
          DatasetError: the data set has no such split, the split is empty, or its files are damaged.
        """
        known = list(self._builder.info.splits)
        if any(part.split("[")[0].strip() not in known for part in name.split("+")):
            raise DatasetError(f"{self._folder} has no split {name!r}; it has {', '.join(known)}")
        try:
            count = self._builder.info.splits[name].num_examples
        except Exception as error:  # TFDS parses the slice and has no common error for a bad one
            raise DatasetError(f"{name!r} is no part of a split; write for example 'train[:25%]'") from error
        if not count:
            raise DatasetError(f"split {name!r} of {self._folder} holds no example; ask for a larger part")
        try:
            source = Examples(
                f"split {name!r} of {self._folder}",
                lambda: self._builder.as_data_source(name, deserialize_method=RAW_BYTES),
                (self.image_size, self.image_size, 3) if self._raw else None,
            )
            source[0], source[count - 1]
        except Exception as error:  # array_record has no common error for missing or broken bytes
            raise IncompleteDatasetError(self._folder, f"split {name!r} cannot be read") from error
        return source


def count_examples(split: str, examples: Mapping[str, int]) -> int:
    """The number of examples of a split or of a part of it, such as `train[:25%]`, without the files.

    Args:
      split: in TFDS's notation.
      examples: of each split, by name.

    Raises:
      DatasetError: no split has the name, or the part makes no sense.
    """
    infos = {
        name: tfds.core.SplitInfo(name=name, shard_lengths=[count], num_bytes=0) for name, count in examples.items()
    }
    try:
        parts = tfds.core.ReadInstruction.from_spec(split).to_absolute(infos)
    except Exception as error:  # TFDS has no common error for a bad slice
        raise DatasetError(
            f"there is no split {split!r}; there are {', '.join(examples)}, and parts such as 'train[:25%]'"
        ) from error
    return sum((examples[part.splitname] if part.to is None else part.to) - (part.from_ or 0) for part in parts)


def data_folder(data_dir: str | None) -> epath.Path:
    """The folder of prepared data sets, `~` expanded.

    Args:
      data_dir: a folder or an address such as `gs://...`; None: TFDS_DATA_DIR, else `~/tensorflow_datasets`.
    """
    return epath.Path(data_dir or tfds.core.constants.DATA_DIR).expanduser()


def open_dataset(name: str, data_dir: str | None) -> Dataset:
    """The data set `name` in `data_dir`: `imagenet2012`, or `imagenet2012/256_raw` where there are several forms.

    Args:
      name: the folder below `data_dir`, without the version.
      data_dir: as in `data_folder`.

    Raises:
      DatasetError: no prepared data set has the name, or a part of it is missing or damaged.
    """
    folder = _find(name, data_folder(data_dir))
    missing = [file for file in (*METADATA_FILES, statistics.FILE_NAME) if not _is_file(folder / file)]
    if missing and not _is_ours(folder):
        raise ForeignDatasetError(folder, data_folder(data_dir), missing[0])
    if missing:
        raise IncompleteDatasetError(folder, f"{missing[0]} is missing")
    try:
        builder = tfds.builder_from_directory(folder)
    except Exception as error:  # TFDS has no common error for damaged metadata
        problem = f"TFDS cannot read it ({' '.join(str(error).split())[:100]})"
        raise IncompleteDatasetError(folder, problem) from error
    return Dataset(builder)


def _is_file(path: epath.Path) -> bool:
    """Whether the path is a plain file. The read of a device, which epath counts as a file, might never end."""
    return path.is_file() if "://" in str(path) else os.path.isfile(path)


def _is_ours(folder: epath.Path) -> bool:
    """Whether this package prepared the data set: a file that only this package writes, or the metadata, show that."""
    if any((folder / file).exists() for file in (RECORD_FILE, statistics.FILE_NAME)):
        return True
    try:
        return str(json.loads((folder / METADATA_FILES[0]).read_text())["moduleName"]).startswith("alexnet_jax.")
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _find(name: str, data_dir: epath.Path) -> epath.Path:
    """The newest version of `name`, which may leave out the config where there is one alone."""
    folder = data_dir / name
    forms = {name: _versions(folder)} | {f"{name}/{path.name}": _versions(path) for path in _folders(folder)}
    newest = {form: versions[-1] for form, versions in forms.items() if versions}
    # A copy that TFDS prepared may lie beside the data set prepared from it.
    ours = {form: path for form, path in newest.items() if (path / statistics.FILE_NAME).exists()}
    newest = ours or newest
    if len(newest) == 1:
        return next(iter(newest.values()))
    if newest:
        raise DatasetError(f"{folder} has several forms; name one: {', '.join(newest)}")
    known = sorted(path.name for path in _folders(data_dir) if any(map(_versions, [path, *_folders(path)])))
    raise UnknownDatasetError(name, data_dir, known)


def _versions(folder: epath.Path) -> list[epath.Path]:
    """The versions of a data set in a folder, older versions first."""
    paths = [path for path in _folders(folder) if tfds.core.Version.is_valid(path.name)]
    return sorted(paths, key=lambda path: tfds.core.Version(path.name))


def _folders(folder: epath.Path) -> list[epath.Path]:
    try:
        if not folder.is_dir():
            return []
        return sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
    except OSError as error:
        raise DatasetError(f"{error.filename or folder} cannot be read: {error.strerror}") from error
