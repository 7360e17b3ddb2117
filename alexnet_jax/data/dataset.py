"""Data sets on disk: TFDS folders of ArrayRecord shards with the training split's statistics beside them."""

import hashlib
import itertools
import json
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import tensorflow_datasets as tfds
from etils import epath

from alexnet_jax import paths
from alexnet_jax.data import statistics
from alexnet_jax.data.errors import (
    DatasetError,
    ForeignDatasetError,
    IncompleteDatasetError,
    UnknownDatasetError,
)
from alexnet_jax.data.filling import Source
from alexnet_jax.data.records import Files
from alexnet_jax.errors import reason_of, words_of
from alexnet_jax.paths import is_file

RECORD_FILE = "prepared.json"  # how and of which images a data set was prepared
METADATA_FILES = ("dataset_info.json", "features.json")
NAMES_FILE = "label.labels.txt"  # TFDS's, with a class a line
TRAIN_SPLITS = ("train", "training")  # names of the split to train on, the first of these that is there


class Provenance(NamedTuple):
    """The origin of images. Empty: not recorded.

    Attributes:
      description: in a sentence or more.
      homepage: an address.
      license: of the images, in words.
    """

    description: str
    homepage: str
    license: str


class Dataset:
    """A complete data set in a folder.

    Attributes:
      class_names: in the order of the labels.
      statistics: of the pixels of the training split, or of all splits if the data set has no training split.
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
        self.class_names = _class_names(self._folder, features["label"].num_classes)
        self.image_size: int = features["image"].shape[0]
        self._raw = not isinstance(features["image"], tfds.features.Image)
        try:
            self.statistics = statistics.load(self._folder, self.image_size)
        except Exception as error:  # NumPy raises KeyError, ValueError or BadZipFile on a damaged file
            file = statistics.FILE_NAME
            raise _unread(self._folder, f"{file} cannot be read", [self._folder / file]) from error

    @property
    def examples(self) -> dict[str, int]:
        """The number of examples of each split, by name."""
        return {name: info.num_examples for name, info in self._builder.info.splits.items()}

    @property
    def folder(self) -> epath.Path:
        """The folder of the data set, its version included."""
        return self._folder

    @property
    def name(self) -> str:
        """NAME/FORM, such as `elpv/160`, without the version."""
        return self._builder.info.full_name.rpartition("/")[0]

    @property
    def provenance(self) -> Provenance:
        """The origin of the images, from TFDS's metadata."""
        info = self._builder.info.as_proto
        homepage = next(iter(info.location.urls), "")
        return Provenance(info.description.strip(), homepage.strip(), info.redistribution_info.license.strip())

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
          DatasetError: the data set has no such split, the split is empty or overlaps itself, or its files are damaged.
        """
        known = list(self._builder.info.splits)
        if any(split not in known for split in splits_in(name)):
            raise DatasetError(f"{self._folder} has no split {name!r}; it has {', '.join(known)}")
        try:
            spans = _spans(name, self.examples)
        except Exception as error:  # TFDS parses the slice and has no common error for a bad one
            raise DatasetError(f"{name!r} is no part of a split; write for example 'train[:25%]'") from error
        _count(f"split {name!r} of {self._folder}", spans)
        try:
            parts = tuple(
                (paths.absolute(part.filename), part.skip, part.take)
                for part in self._builder.info.splits[name].file_instructions
            )
            shape = (self.image_size, self.image_size, 3) if self._raw else None
            source = Files(f"split {name!r} of {self._folder}", parts, shape).open()
            source.check()
        except Exception as error:  # array_record has no common error for missing or broken bytes
            splits = (self._builder.info.splits[split] for split in splits_in(name))
            files = [file for split in splits for file in split.filepaths]
            raise _unread(self._folder, f"split {name!r} cannot be read", files) from error
        return source


def splits_in(name: str) -> list[str]:
    """The splits of which TFDS's notation takes parts: `train` and `test` for `train[:25%]+test`."""
    return [part.partition("[")[0].strip() for part in name.split("+")]


def count_examples(split: str, examples: Mapping[str, int]) -> int:
    """The number of examples of a split or of a part of it, such as `train[:25%]`, without the files.

    Args:
      split: in TFDS's notation.
      examples: of each split, by name.

    Raises:
      DatasetError: no split has the name, or the part makes no sense, holds no example or overlaps itself.
    """
    absent = f"there is no split {split!r}; there are {', '.join(examples)}, and parts such as 'train[:25%]'"
    if any(name not in examples for name in splits_in(split)):  # TFDS takes 'all' for all splits together
        raise DatasetError(absent)
    try:
        spans = _spans(split, examples)
    except Exception as error:  # TFDS has no common error for a bad slice
        raise DatasetError(absent) from error
    return _count(f"split {split!r}", spans)


def count_shared(split: str, other: str, examples: Mapping[str, int]) -> int:
    """The number of examples that two splits, or parts of splits, have in common.

    Args:
      split, other: in TFDS's notation.
      examples: of each split, by name.

    Raises:
      DatasetError: as in `count_examples`.
    """
    for name in (split, other):
        count_examples(name, examples)
    return sum(
        max(0, min(one.end, two.end) - max(one.begin, two.begin))
        for one, two in itertools.product(_spans(split, examples), _spans(other, examples))
        if one.split == two.split
    )


class _Span(NamedTuple):
    """Examples `begin` to `end - 1` of a split."""

    split: str
    begin: int
    end: int


def _spans(split: str, examples: Mapping[str, int]) -> list[_Span]:
    """The spans that are joined by `+` in TFDS's notation. TFDS raises many kinds of errors for a bad one."""
    infos = {
        name: tfds.core.SplitInfo(name=name, shard_lengths=[count], num_bytes=0) for name, count in examples.items()
    }
    parts = tfds.core.ReadInstruction.from_spec(split).to_absolute(infos)
    return [
        _Span(part.splitname, part.from_ or 0, examples[part.splitname] if part.to is None else part.to)
        for part in parts
    ]


def _count(what: str, spans: Iterable[_Span]) -> int:
    """The number of examples. TFDS takes a span twice where it is named twice, which would weigh its examples double.

    Raises:
      DatasetError: there is no example, a span ends before it begins, or two spans overlap.
    """
    if not any(span.end > span.begin for span in spans) or any(span.end < span.begin for span in spans):
        raise DatasetError(f"{what} holds no example; ask for a larger part")
    filled = sorted(span for span in spans if span.end > span.begin)
    for before, after in itertools.pairwise(filled):
        if before.split == after.split and after.begin < before.end:
            raise DatasetError(
                f"{what} holds example {after.begin:,} of {after.split!r} twice; name each example once, as in"
                f" '{after.split}[:5]+{after.split}[5:10]'"
            )
    return sum(span.end - span.begin for span in filled)


def data_folder(data_dir: str | None) -> epath.Path:
    """The folder of prepared data sets, `~` expanded.

    Args:
      data_dir: a folder or an address such as `gs://...`; None: TFDS_DATA_DIR, else `~/tensorflow_datasets`.

    Raises:
      UsageError: no user has the name after `~`.
      DatasetError: the name is not UTF-8, and ArrayRecord opens no such file.
    """
    folder = epath.Path(paths.expand_home(data_dir or tfds.core.constants.DATA_DIR))
    try:
        str(folder).encode()
    except UnicodeEncodeError as error:
        raise DatasetError(f"the folder of data sets {str(folder)!r} is not named in UTF-8; name another") from error
    return folder


def open_dataset(name: str, data_dir: str | None) -> Dataset:
    """The data set `name` in `data_dir`: `imagenet2012`, or `imagenet2012/256_raw` where there are several forms.

    Args:
      name: the folder below `data_dir`, without the version.
      data_dir: as in `data_folder`.

    Raises:
      DatasetError: no prepared data set has the name, or a part of it is missing or damaged.
    """
    folder = _find(name, data_folder(data_dir))
    missing = [file for file in (*METADATA_FILES, NAMES_FILE, statistics.FILE_NAME) if not is_file(folder / file)]
    if missing and not _is_ours(folder):
        raise ForeignDatasetError(folder, data_folder(data_dir), missing[0])
    if missing:
        raise IncompleteDatasetError(folder, f"{missing[0]} is missing")
    try:
        builder = tfds.builder_from_directory(folder)
    except Exception as error:  # TFDS has no common error for damaged metadata
        problem = f"TFDS cannot read it ({words_of(error, 100)})"
        raise _unread(folder, problem, [folder / file for file in METADATA_FILES]) from error
    return Dataset(builder)


def _unread(folder: epath.Path, problem: str, files: Iterable[Any]) -> DatasetError:
    """The error for files that a library did not read. Files that may not be read may be sound, and so stay."""
    for file in filter(is_file, map(epath.Path, files)):
        try:
            with file.open("rb") as opened:
                opened.read(1)
        except OSError as error:
            return DatasetError(f"{file} cannot be read: {reason_of(error)}; make it readable, or check the storage")
    return IncompleteDatasetError(folder, problem)


def _class_names(folder: epath.Path, count: int) -> list[str]:
    """The names of the classes, as they are. TFDS drops blanks at their ends, and `cat` and `cat ` may be two classes.

    If the file of names is missing or cut off, TFDS reads other classes and raises no error.

    Raises:
      DatasetError: the file does not hold `count` names, or cannot be read.
    """
    file = folder / NAMES_FILE
    try:
        names = [line.rstrip("\r") for line in file.read_text().split("\n") if line.strip()]
    except (OSError, ValueError) as error:
        raise _unread(folder, f"{NAMES_FILE} cannot be read", [file]) from error
    if len(names) != count:
        raise IncompleteDatasetError(folder, f"{NAMES_FILE} has {len(names):,} names, and there are {count:,} classes")
    return names


def _is_ours(folder: epath.Path) -> bool:
    """Whether this package prepared the data set: a file that only this package writes, or the metadata, show that."""
    if any((folder / file).exists() for file in (RECORD_FILE, statistics.FILE_NAME)):
        return True
    try:
        return str(json.loads((folder / METADATA_FILES[0]).read_text())["moduleName"]).startswith("alexnet_jax.")
    except (OSError, ValueError, KeyError, TypeError):
        return False


def is_path(name: str) -> bool:
    """Whether a text is a path to a folder, and no name of a data set."""
    return name.startswith("/") or bool({".", ".."} & set(name.split("/")))


def _find(name: str, data_dir: epath.Path) -> epath.Path:
    """The newest version of `name`, which may leave out the config where there is one alone."""
    folder, forms = data_dir / name, dict[str, list[epath.Path]]()
    if not is_path(name):  # a path may lead elsewhere
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
        raise DatasetError(f"{error.filename or folder} cannot be read: {reason_of(error)}") from error
