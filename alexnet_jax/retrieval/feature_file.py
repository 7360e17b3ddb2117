"""Writes a table of features as `.npz` or Parquet: whole or not at all, and in constant memory."""

import importlib
import json
import math
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, BinaryIO

import numpy as np
from etils import epath

from alexnet_jax.errors import MissingPackageError
from alexnet_jax.retrieval.columns import Names, Rows
from alexnet_jax.retrieval.exact_search import rows_at_once
from alexnet_jax.retrieval.feature_table import Table
from alexnet_jax.workdir.atomic import open_atomically, writing

SUFFIXES = (".npz", ".parquet")
NAMES_AT_ONCE = 4096
GROUP_ROWS = 8192  # of a row group of Parquet, at most
EPOCH = (1980, 1, 1, 0, 0, 0)  # the time of a member: the same features make the same bytes


def need_pyarrow() -> None:
    """Checks that Parquet can be written, before long work is done for the file.

    Raises:
      UsageError: pyarrow is not installed.
    """
    _pyarrow("pyarrow.parquet")


def _pyarrow(module: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        need = "an output that ends in .parquet needs the package pyarrow, and one that ends in .npz does not"
        raise MissingPackageError(need, "parquet") from error


def write(file: epath.Path, table: Table, queries: Table | None, facts: Mapping[str, Any]) -> None:
    """Writes the tables into a file whose ending selects the format.

    Args:
      file: ends in `.npz` or `.parquet`.
      table: of the pictures.
      queries: of the pictures whose neighbours were searched; None: those of `table`.
      facts: about the features, such as the layer.

    Raises:
      UsageError: the file cannot be written.
    """
    with writing(file, "make room, or name another"), open_atomically(file) as opened:
        form = _write_npz if file.suffix.lower() == ".npz" else _write_parquet
        form(opened, table, queries, facts)


def _write_npz(opened: BinaryIO, table: Table, queries: Table | None, facts: Mapping[str, Any]) -> None:
    with zipfile.ZipFile(opened, "w") as archive:
        for prefix, part in (("", table), ("query_", queries)):
            if part is None:
                continue
            for name in ("names", "labels", "features", "codes"):
                _write_member(archive, prefix + name, getattr(part, name))
            _write_member(archive, f"{prefix}classes", np.array(part.class_names, str))
        searching = queries or table
        _write_member(archive, "neighbours", searching.neighbours)
        _write_member(archive, "distances", searching.distances)
        if searching.neighbours is not None:
            _write_neighbour_names(archive, table.names, searching.neighbours)
        for name, value in facts.items():
            _write_member(archive, name, np.array(value))


def _write_member(archive: zipfile.ZipFile, name: str, column: "Rows | Names | np.ndarray | None") -> None:
    if column is None:
        return
    if isinstance(column, Names):
        texts = (column.read(start, start + NAMES_AT_ONCE) for start in range(0, len(column), NAMES_AT_ONCE))
        dtype = np.dtype(f"<U{max(column.longest, 1)}")
        _write_array(archive, name, dtype, (len(column),), (np.array(part, dtype) for part in texts))
    elif isinstance(column, Rows):
        _write_array(archive, name, column.dtype, (len(column), *column.shape), column.blocks())
    else:
        _write_array(archive, name, column.dtype, column.shape, iter([column]))


def _write_neighbour_names(archive: zipfile.ZipFile, names: Names, neighbours: Rows) -> None:
    dtype = np.dtype(f"<U{max(names.longest, 1)}")
    blocks = (np.array(names.take(block), dtype) for block in neighbours.blocks())
    _write_array(archive, "neighbour_names", dtype, (len(neighbours), *neighbours.shape), blocks)


def _write_array(
    archive: zipfile.ZipFile, name: str, dtype: np.dtype, shape: tuple[int, ...], blocks: Iterator[np.ndarray]
) -> None:
    """Writes an array piece by piece: texts compressed, since NumPy pads them, and numbers as they are."""
    member = zipfile.ZipInfo(f"{name}.npy", EPOCH)
    member.compress_type = zipfile.ZIP_DEFLATED if dtype.kind == "U" else zipfile.ZIP_STORED
    header = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
    with archive.open(member, "w", force_zip64=True) as opened:
        np.lib.format.write_array_header_1_0(opened, header)
        for block in blocks:
            opened.write(np.ascontiguousarray(block).tobytes())


def _write_parquet(opened: BinaryIO, table: Table, queries: Table | None, facts: Mapping[str, Any]) -> None:
    arrow, parquet = _pyarrow("pyarrow"), _pyarrow("pyarrow.parquet")
    features = math.prod(table.features.shape)
    searching = queries or table
    fields = [
        arrow.field("name", arrow.string()),
        arrow.field("label", arrow.int64()),
        arrow.field("class", arrow.string()),
        arrow.field("features", arrow.list_(arrow.float32(), features)),
    ]
    if queries is not None:
        fields.append(arrow.field("is_query", arrow.bool_()))
    if table.codes is not None:
        fields.append(arrow.field("code", arrow.binary(table.codes.shape[0])))
    if searching.neighbours is not None:
        lists = {"neighbours": arrow.int64(), "distances": arrow.float64(), "neighbour_names": arrow.string()}
        fields += [arrow.field(name, arrow.list_(kind)) for name, kind in lists.items()]
    about = {"shape": list(table.features.shape), "classes": list(table.class_names)} | dict(facts)
    schema = arrow.schema(fields, {f"alexnet_jax.{name}": json.dumps(value) for name, value in about.items()})
    size = min(GROUP_ROWS, rows_at_once(features) * 8)
    with parquet.ParquetWriter(opened, schema) as writer:
        for part in (table, queries) if queries is not None else (table,):
            for start in range(0, len(part.names), size):
                columns = _parquet_columns(part, table, start, start + size, is_query=part is queries)
                arrays = [_arrow_array(arrow, columns.get(field.name), field) for field in schema]
                count = len(columns["name"])
                arrays = [arrow.nulls(count, f.type) if a is None else a for a, f in zip(arrays, schema, strict=True)]
                writer.write_table(arrow.Table.from_arrays(arrays, schema=schema), row_group_size=size)


def _parquet_columns(part: Table, table: Table, start: int, stop: int, *, is_query: bool) -> dict[str, Any]:
    """A piece of a table by column; features, codes and neighbours as arrays."""
    labels = part.labels.read(start, stop)
    table_labels = part.labels_among(table.class_names, labels) if is_query else labels
    columns: dict[str, Any] = {
        "name": part.names.read(start, stop),
        "label": [label if label >= 0 else None for label in table_labels.tolist()],
        "class": part.classes(labels),
        "features": part.features.read(start, stop),
        "is_query": [is_query] * len(labels),
    }
    if part.codes is not None:
        columns["code"] = [row.tobytes() for row in part.codes.read(start, stop)]
    if part.neighbours is not None and part.distances is not None:
        neighbours = part.neighbours.read(start, stop)
        names = iter(table.names.take(neighbours))
        columns["neighbours"] = neighbours.tolist()
        columns["distances"] = part.distances.read(start, stop).tolist()
        columns["neighbour_names"] = [[next(names) for _ in row] for row in neighbours]
    return columns


def _arrow_array(arrow: Any, column: "np.ndarray | Sequence[Any] | None", field: Any) -> Any:
    if column is None:
        return None
    if isinstance(column, np.ndarray):  # without a Python object for each number
        return arrow.FixedSizeListArray.from_arrays(arrow.array(column.ravel()), type=field.type)
    return arrow.array(column, field.type)
