"""Data sets on disk: TFDS folders of ArrayRecord shards with the training split's statistics beside them."""

import contextlib
import hashlib
import io
import math
import shutil
import time
import uuid
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from etils import epath
from tensorflow_datasets.proto import tf_example_pb2

from alexnet_jax.data import geometry, statistics
from alexnet_jax.data.decoders import decode
from alexnet_jax.data.pipeline import Source
from alexnet_jax.errors import UsageError

DEFAULT_DATA_DIR = str(tfds.core.constants.DATA_DIR)  # ~/tensorflow_datasets or TFDS_DATA_DIR
ENCODED = {"image": tfds.decode.SkipDecoding()}
WAITS = (0.5, 1.0, 2.0, 4.0, 8.0, 16.0)  # seconds before another attempt to read from storage that fails
RAW_BYTES = tfds.decode.DeserializeMethod.RAW_BYTES
Features: Any = type(tf_example_pb2.Example().features)


class RawPixels:
    """Takes raw pixels from serialized `tf.train.Example`s where they lie.

    Protocol buffers would copy them twice under the interpreter's lock, which takes as long as reading them.

    Args:
      shape: of the pixels.
    """

    def __init__(self, shape: tuple[int, int, int]):
        self._shape, self._count = shape, math.prod(shape)
        alone = Features()
        alone.feature["image"].bytes_list.value.append(bytes(self._count))
        self._before = alone.SerializeToString()[: -self._count]

    def split(self, record: bytes) -> tuple[Any, geometry.Pixels]:
        """The features of an Example but for `image`, and that one's pixels.

        Raises:
          ValueError: there are no pixels of this shape.
        """
        start = record.find(self._before)
        if start < 0:
            raise ValueError(f"no image of {self._shape}")
        first = start + len(self._before)
        features = 1  # where they begin: behind a tag of one byte, and their length, whose last byte is below 128
        while record[features] >= 128:
            features += 1
        others = Features.FromString(record[features + 1 : start] + record[first + self._count :])
        return others.feature, np.frombuffer(record, np.uint8, self._count, first).reshape(self._shape)


class Examples(Sequence[dict[str, Any]]):
    """The examples of a split, indexed at random: `image` (encoded bytes, or pixels), `label`, and `name` if there.

    Reads the records itself, in a third of the time that TFDS takes for it, most of it under the interpreter's lock.

    Storage that fails is opened anew and read again, for half a minute.

    Args:
      name: of the split, for errors.
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
        """The example at a place, counted from 0.

        Raises:
          UsageError: it cannot be read.
        """
        if not 0 <= index < self._count:
            raise IndexError(index)  # which ends a loop over the examples
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
            with contextlib.suppress(Exception):  # a file of storage that went and came back stays lost to its reader
                self._records = self._open()
        try:
            return self._records[index]
        except Exception as error:
            raise UsageError(
                f"example {index:,} of {self._name} cannot be read, tried for {sum(WAITS):.0f} s:"
                f" {' '.join(str(error).split())[:200]}; see to the storage, and run the same command again"
            ) from error


class Prepared:
    """A complete data set in a folder.

    Attributes:
      class_names: in the order of the labels.
      statistics: of the training split.
      image_size: pixels along a side.
    """

    def __init__(self, builder: tfds.core.DatasetBuilder):
        self._builder = builder
        self._folder = epath.Path(builder.data_path)
        features = builder.info.features
        if not {"image", "label"} <= set(features):
            raise UsageError(f"{self._folder} has no image and label; prepare it with `python -m alexnet_jax.prepare`")
        self.class_names: list[str] = features["label"].names
        self.image_size: int = features["image"].shape[0]
        self._raw = not isinstance(features["image"], tfds.features.Image)
        try:
            self.statistics = statistics.load(self._folder)
        except Exception as error:  # NumPy raises KeyError, ValueError or BadZipFile on a damaged file
            raise half_prepared(self._folder, f"{statistics.FILE_NAME} cannot be read") from error

    def facts(self) -> dict[str, str]:
        """What two copies of the data set must have in common, by name."""
        splits = {name: info.shard_lengths for name, info in self._builder.info.splits.items()}
        numbers = self.statistics.mean_image.tobytes() + self.statistics.covariance.tobytes()
        return {
            "the data set": f"{self._builder.info.full_name} of {self.image_size} pixels",
            "the data set's classes": ", ".join(self.class_names),
            "the data set's examples": ", ".join(f"{name} {lengths}" for name, lengths in splits.items()),
            "the digest of the data set's statistics": hashlib.sha256(numbers).hexdigest()[:16],
        }

    def split(self, name: str) -> Source:
        """The examples of a split such as `train` or `train[:25%]`, their images encoded or raw, as stored.

        Raises:
          UsageError: there is no such split, it is empty, or its files are damaged.
        """
        known = list(self._builder.info.splits)
        if name.split("[")[0] not in known:
            raise UsageError(f"{self._folder} has no split {name!r}; it has {', '.join(known)}")
        try:
            count = self._builder.info.splits[name].num_examples
        except Exception as error:  # TFDS parses the slice and has no common error for a bad one
            raise UsageError(f"{name!r} is no part of a split; write for example 'train[:25%]'") from error
        if not count:
            raise UsageError(f"split {name!r} of {self._folder} holds no example; ask for a larger part")
        try:
            source = Examples(
                f"split {name!r} of {self._folder}",
                lambda: self._builder.as_data_source(name, deserialize_method=RAW_BYTES),
                (self.image_size, self.image_size, 3) if self._raw else None,
            )
            source[0], source[count - 1]
        except Exception as error:  # array_record has no common error for missing or broken bytes
            raise half_prepared(self._folder, f"split {name!r} cannot be read") from error
        return source


def half_prepared(folder: epath.Path, what: str) -> UsageError:
    """The error for a folder with a part missing."""
    return UsageError(f"the data set in {folder} is half prepared: {what}; remove the folder and run again")


def open_dataset(name: str, data_dir: str | None, *, say: Callable[[str], None]) -> Prepared:
    """The data set `name` in `data_dir`: `imagenet2012`, or `imagenet2012/256_raw` where there are several forms.

    One that comes with this package (`elpv/128`) is prepared first where it is not there yet.

    Args:
      name: its folder below `data_dir`, without the version.
      data_dir: None: TFDS's own, `~/tensorflow_datasets` or TFDS_DATA_DIR.
      say: takes a line about what goes on.

    Raises:
      UsageError: there is no such data set, or its folder is half prepared.
    """
    data_dir = data_dir or DEFAULT_DATA_DIR
    own = _own_builders()
    if name in own:
        folder = epath.Path(data_dir) / name / str(own[name].VERSION)
        if not folder.exists():
            say(f"preparing {name} in {folder}")
            _prepare(name, data_dir, folder)
    else:
        folder = _find(name, epath.Path(data_dir), list(own))
    for file in ("dataset_info.json", "features.json", statistics.FILE_NAME):
        if not (folder / file).exists():
            raise half_prepared(folder, f"{file} is missing")
    try:
        builder = tfds.builder_from_directory(folder)
    except Exception as error:  # TFDS has no common error for damaged metadata
        what = f"TFDS cannot read it ({' '.join(str(error).split())[:100]})"
        raise half_prepared(folder, what) from error
    return Prepared(builder)


def _own_builders() -> dict[str, Any]:
    from alexnet_jax.data.preparing.sources.elpv import Elpv

    return {f"elpv/{config.name}": Elpv for config in Elpv.BUILDER_CONFIGS}


def _find(name: str, data_dir: epath.Path, own: list[str]) -> epath.Path:
    """The newest version of `name`, which may leave out the config where there is one alone."""
    folder = data_dir / name
    forms = {name: _versions(folder)} | {f"{name}/{path.name}": _versions(path) for path in _folders(folder)}
    newest = {form: versions[-1] for form, versions in forms.items() if versions}
    # TFDS's own copy of a data set may lie beside what was made of it.
    ours = {form: path for form, path in newest.items() if (path / statistics.FILE_NAME).exists()}
    newest = ours or newest
    if len(newest) == 1:
        return next(iter(newest.values()))
    if newest:
        raise UsageError(f"{folder} has several forms; name one: {', '.join(newest)}")
    there = sorted(path.name for path in _folders(data_dir) if any(map(_versions, [path, *_folders(path)])))
    raise UsageError(
        f"there is no data set {name!r} in {data_dir}; there {'are' if there else 'is'} {', '.join(there) or 'none'},"
        f" and {', '.join(own)} are made when first used; `python -m alexnet_jax.prepare` makes others"
    )


def _versions(folder: epath.Path) -> list[epath.Path]:
    """The data sets in a folder, older versions first."""
    found = [path for path in _folders(folder) if tfds.core.Version.is_valid(path.name)]
    return sorted(found, key=lambda path: tfds.core.Version(path.name))


def _folders(folder: epath.Path) -> list[epath.Path]:
    if not folder.exists():
        return []
    return sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))


def _prepare(name: str, data_dir: str, folder: epath.Path) -> None:
    """Writes beside the target and renames at the end: another run never sees a part."""
    beside = epath.Path(data_dir) / f".incomplete-{uuid.uuid4().hex}"
    try:
        beside.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        message = f"the data folder {data_dir} cannot be written: {error}; name another with --data_dir"
        raise UsageError(message) from error
    try:
        builder = _own_builders()[name](data_dir=beside, config=name.split("/")[1], file_format="array_record")
        tfds.disable_progress_bar()
        with contextlib.redirect_stdout(io.StringIO()):
            builder.download_and_prepare()
        images: Any = builder.as_data_source("train", decoders=ENCODED)
        statistics.save(
            statistics.compute(decode(example["image"]) for example in images), epath.Path(builder.data_path)
        )
        folder.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(OSError):  # another run was faster; its folder is the same
            epath.Path(builder.data_path).rename(folder)
    finally:
        shutil.rmtree(beside, ignore_errors=True)
