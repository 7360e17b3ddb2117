"""Data sets on disk: TFDS folders of ArrayRecord shards with the training split's statistics beside them."""

import contextlib
import io
import shutil
import uuid
from collections.abc import Callable
from typing import Any

import tensorflow_datasets as tfds
from etils import epath

from alexnet_jax.data import statistics
from alexnet_jax.data.pipeline import Source, decode
from alexnet_jax.errors import UsageError

ENCODED = {"image": tfds.decode.SkipDecoding()}


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
        self.class_names: list[str] = features["label"].names
        self.image_size: int = features["image"].shape[0]
        self.statistics = statistics.load(self._folder)

    def split(self, name: str) -> Source:
        """The encoded examples of a split such as `train` or `train[:25%]`.

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
            source = self._builder.as_data_source(name, decoders=ENCODED)
            source[0], source[count - 1]
        except Exception as error:  # array_record has no common error for missing or broken bytes
            raise half_prepared(self._folder, f"split {name!r} cannot be read") from error
        return source


def half_prepared(folder: epath.Path, what: str) -> UsageError:
    """The error for a folder with a part missing."""
    return UsageError(f"the data set in {folder} is half prepared: {what}; remove the folder and run again")


def open_dataset(name: str, data_dir: str | None, *, say: Callable[[str], None]) -> Prepared:
    """The data set `name` (`elpv/128`) in `data_dir`, prepared first where it is not there yet.

    Args:
      name: of a builder and its TFDS config.
      data_dir: None: TFDS's own, `~/tensorflow_datasets` or TFDS_DATA_DIR.
      say: takes a line about what goes on.

    Raises:
      UsageError: the name is not known, or the folder is half prepared.
    """
    data_dir = str(data_dir or tfds.core.constants.DATA_DIR)
    builder = _builder(name, data_dir)
    folder = epath.Path(builder.data_path)
    if not folder.exists():
        say(f"preparing {name} in {folder}")
        _prepare(name, data_dir, folder)
        builder = _builder(name, data_dir)
    for file in ("dataset_info.json", "features.json", statistics.FILE_NAME):
        if not (folder / file).exists():
            raise half_prepared(folder, f"{file} is missing")
    return Prepared(builder)


def _builder(name: str, data_dir: str) -> tfds.core.DatasetBuilder:
    from alexnet_jax.data.builders.elpv import Elpv

    builders = {f"elpv/{config.name}": (Elpv, config.name) for config in Elpv.BUILDER_CONFIGS}
    if name not in builders:
        raise UsageError(f"there is no data set {name!r}; known: {', '.join(builders)}")
    kind, config = builders[name]
    try:
        return kind(data_dir=data_dir, config=config, file_format="array_record")
    except (ValueError, OSError, KeyError) as error:
        folder = epath.Path(data_dir) / name
        raise half_prepared(folder, f"TFDS cannot read it ({' '.join(str(error).split())[:100]})") from error


def _prepare(name: str, data_dir: str, folder: epath.Path) -> None:
    """Writes beside the target and renames at the end: another run never sees a part."""
    beside = epath.Path(data_dir) / f".incomplete-{uuid.uuid4().hex}"
    try:
        beside.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        message = f"the data folder {data_dir} cannot be written: {error}; name another with --data_dir"
        raise UsageError(message) from error
    try:
        builder = _builder(name, str(beside))
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
