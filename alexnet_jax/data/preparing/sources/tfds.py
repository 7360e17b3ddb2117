"""Any TFDS data set with an image and a label, read record by record: ArrayRecord and TFRecord, without TensorFlow."""

import dataclasses
import functools
import os
import struct
from collections.abc import Callable, Iterator
from typing import Any

import tensorflow_datasets as tfds
from array_record.python import array_record_module

from alexnet_jax.data.dataset import data_folder
from alexnet_jax.data.errors import MissingSourceError, SourceError
from alexnet_jax.data.preparing.images import BrokenImageError
from alexnet_jax.data.preparing.listing import Item, Listing
from alexnet_jax.errors import words_of

NO_LABEL = -1  # of TFDS
TFRECORD_HEADER = struct.Struct("<QI")  # length and its checksum; four bytes of checksum also follow the record


def tfds_dataset(name: str, source_dir: str | None, *, say: Callable[[str], None] = print) -> Listing:
    """The TFDS data set `name` (`cifar10`, `tf_flowers`, ...), prepared first where the network allows.

    Args:
      name: as TFDS knows the data set, with `/config` where there are several.
      source_dir: TFDS's data folder; None: TFDS_DATA_DIR, else `~/tensorflow_datasets`.
      say: takes a line about a download.

    Raises:
      SourceError: TFDS does not know the name or cannot prepare the data set here, or examples have no image with a
        label.
    """
    builder = _prepared(name, source_dir, say)
    info = builder.info
    image, label = _keys(name, info)
    class_names = info.features[label].names
    if len(class_names) < 2:
        raise SourceError(f"{name} has {len(class_names)} classes; at least two are needed")
    splits = {str(split): list(_records(info.splits[split])) for split in info.splits}
    read = Reader(str(builder.data_path), image, label)
    for split in [split for split, items in splits.items() if items and _label_of(read, items[0]) == NO_LABEL]:
        say(f"split {split!r} of {name} is left out: its {len(splits.pop(split)):,} images have no labels")
    if not splits:
        raise SourceError(f"no split of {name} has labels, which training needs")
    licence = info.redistribution_info.license or None
    return Listing(
        info.name,
        class_names,
        splits,
        read,
        [],
        info.description or name,
        homepage=info.homepage or None,
        license=licence,
    )


def _prepared(name: str, source_dir: str | None, say: Callable[[str], None]) -> Any:
    folder = data_folder(source_dir)
    try:
        builder = tfds.builder(name, data_dir=folder)
    except Exception as error:  # TFDS has no common error for an unknown name or config
        raise MissingSourceError(f"TFDS cannot open {name!r} in {folder}: {words_of(error)}") from error
    if not builder.info.splits:
        say(f"downloading {name} to {builder.data_path}")
        try:
            builder.download_and_prepare(file_format="array_record")
        except Exception as error:  # of the network, of a missing TensorFlow, of the data set's own code
            reason = f"{type(error).__name__}: {words_of(error)}"
            raise MissingSourceError(
                f"TFDS could not download and prepare {name} ({reason}); prepare {name} where"
                " the network and TensorFlow allow (pip install 'alexnet_jax[tensorflow]', or '.[tensorflow]' in a"
                " checkout; Python 3.13 or older) and copy TFDS's data folder"
            ) from error
    return builder


def _keys(name: str, info: Any) -> tuple[str, str]:
    """The names of the image and of the label among the features."""
    features = dict(info.features)
    images = [key for key, feature in features.items() if isinstance(feature, tfds.features.Image)]
    labels = [key for key, feature in features.items() if isinstance(feature, tfds.features.ClassLabel)]
    if info.supervised_keys and info.supervised_keys[0] in images and info.supervised_keys[1] in labels:
        return info.supervised_keys[0], info.supervised_keys[1]
    if len(images) != 1 or len(labels) != 1:
        raise SourceError(
            f"{name} has the images {images} and the labels {labels}; one of each is needed (features: "
            f"{', '.join(features)})"
        )
    return images[0], labels[0]


def _records(split: Any) -> Iterator[Item]:
    """Every record of a split, in order, by file and place."""
    for path, count in zip(split.filepaths, split.shard_lengths, strict=True):
        path = os.fspath(path)
        listed = _tfrecords(path) if ".tfrecord" in os.path.basename(path) else _array_records(path)
        number, modified = 0, os.stat(path).st_mtime_ns
        for place, size in listed:
            yield Item(f"{os.path.basename(path)}:{number}", -1, path, place, size, modified)
            number += 1
        if number != count:
            raise SourceError(
                f"{path} holds {number:,} records and the metadata say {count:,}; prepare it with TFDS again"
            )


def _tfrecords(path: str) -> Iterator[tuple[int, int]]:
    size = os.path.getsize(path)
    with open(path, "rb") as file:
        while header := file.read(TFRECORD_HEADER.size):
            length = TFRECORD_HEADER.unpack(header)[0] if len(header) == TFRECORD_HEADER.size else size
            if file.tell() + length + 4 > size:
                raise SourceError(f"{path} is cut off or no TFRecord file; prepare it with TFDS again")
            yield file.tell(), length
            file.seek(length + 4, os.SEEK_CUR)


def _array_records(path: str) -> Iterator[tuple[int, int]]:
    if ".array_record" not in os.path.basename(path):
        raise SourceError(f"{path} is neither ArrayRecord nor TFRecord; prepare the data set in one of these formats")
    reader = array_record_module.ArrayRecordReader(path)
    count = reader.num_records()
    reader.close()
    return ((number, 0) for number in range(count))


@dataclasses.dataclass(frozen=True)
class Reader:
    """Reads an item's record; a copy for each process.

    Attributes:
      folder: of the TFDS data set.
      image, label: names of the features.
    """

    folder: str
    image: str
    label: str

    def __call__(self, item: Item) -> tuple[bytes, int]:
        """The record's encoded image and its label.

        Raises:
          OSError: the file cannot be read.
          BrokenImageError: the record is damaged.
        """
        try:
            if ".tfrecord" in os.path.basename(item.file):
                with open(item.file, "rb") as file:
                    file.seek(item.offset)
                    record = file.read(item.size)
            else:
                record = _open(item.file).read([item.offset])[0]
            example = _features(self.folder).deserialize_example_np(
                record, decoders={self.image: tfds.decode.SkipDecoding()}
            )
            return bytes(example[self.image]), int(example[self.label])
        except OSError:
            raise
        except Exception as error:  # array_record, protobuf and TFDS have no common error
            raise BrokenImageError(f"its record cannot be read: {words_of(error)}") from None


def _label_of(read: Reader, item: Item) -> int | None:
    """The label; None: the record is damaged, which the preparation reports."""
    try:
        return read(item)[1]
    except BrokenImageError:
        return None


@functools.lru_cache(maxsize=4)
def _open(path: str) -> Any:
    return array_record_module.ArrayRecordReader(path, "readahead_buffer_size:0")


@functools.cache
def _features(folder: str) -> Any:
    return tfds.builder_from_directory(folder).info.features
