"""TFDS's metadata of a prepared data set."""

from pathlib import Path

import numpy as np
import tensorflow_datasets as tfds
from etils import epath

from alexnet_jax.data.preparing.listing import Listing
from alexnet_jax.data.preparing.shards import Summary


def features(class_names: list[str], size: int, encoding: str) -> tfds.features.FeaturesDict:
    """The features of an example of a prepared data set."""
    stored = (
        tfds.features.Image(shape=(size, size, 3), encoding_format="jpeg")
        if encoding == "jpeg"
        else tfds.features.Tensor(shape=(size, size, 3), dtype=np.uint8, encoding=tfds.features.Encoding.BYTES)
    )
    label = tfds.features.ClassLabel(names=class_names)
    return tfds.features.FeaturesDict({"image": stored, "label": label, "name": tfds.features.Text()})


def write_metadata(
    data: Path,
    listing: Listing,
    summaries: dict[str, list[Summary]],
    *,
    version: str,
    config: str,
    size: int,
    encoding: str,
) -> None:
    """Writes TFDS's metadata, with which TFDS and `open_dataset` read the shards.

    Args:
      data: the folder of the shards.
      listing: of the images.
      summaries: of the shards of each split, in order.
      version, config: of the data set.
      size: pixels along a side.
      encoding: `jpeg` or `raw`.
    """
    identity = tfds.core.dataset_info.DatasetIdentity(
        name=listing.name,
        version=tfds.core.Version(version),
        data_dir=str(data),
        module_name="alexnet_jax.prepare",
        config_name=config,
        config_description=f"{size}x{size} pixels, {encoding}",
    )
    info = tfds.core.DatasetInfo(
        builder=identity,
        description=listing.description,
        features=features(listing.class_names, size, encoding),
        supervised_keys=("image", "label"),
        homepage=listing.homepage,
        license=listing.license,
    )
    info.set_file_format("array_record")
    info.set_splits(
        tfds.core.splits.SplitDict(
            [
                tfds.core.SplitInfo(
                    name=split,
                    shard_lengths=[summary.images.total() for summary in written],
                    num_bytes=sum(summary.payload for summary in written),
                    filename_template=tfds.core.ShardedFileTemplate(
                        data_dir=epath.Path(data),
                        dataset_name=listing.name,
                        split=split,
                        filetype_suffix="array_record",
                    ),
                )
                for split, written in summaries.items()
            ]
        )
    )
    info.write_to_directory(data)
