"""The rows of an experiment in a file, one a line, as they were finished."""

import contextlib
import fcntl
import json
import os
import tempfile
from pathlib import Path
from typing import Any, TypeAlias

from alexnet_jax.errors import UsageError
from alexnet_jax.workdir.atomic import writing

Row: TypeAlias = dict[str, Any]
ADVICE = "name another folder in --results"  # where a file cannot be read or written
KEY = {"run", "config", "overrides", "seed"}  # by which a row belongs to its run


def read_rows(file: Path) -> list[Row]:
    """The rows of a file; none where there is no file. A last line that was cut off is no row.

    Raises:
      UsageError: a line is damaged.
    """
    rows = []
    for number, line in enumerate(_whole_lines(file).split(b"\n")[:-1], start=1):
        try:
            row = json.loads(line)
        except ValueError as error:
            raise UsageError(f"line {number} of {file} is no JSON; remove it, and its run is made again") from error
        if not isinstance(row, dict) or not row.keys() >= KEY:
            raise UsageError(f"line {number} of {file} is no row of a run; remove it, and its run is made again")
        rows.append(row)
    return rows


def add_row(file: Path, row: Row) -> None:
    """Writes a row after the others, also those that another process adds meanwhile.

    A full disk may cut off the last row. The next row replaces it.

    Raises:
      UsageError: the file cannot be written.
    """
    with writing(file, ADVICE):
        file.parent.mkdir(parents=True, exist_ok=True)
        with open(file, "ab") as added:
            with contextlib.suppress(OSError):  # some file systems have no locks
                fcntl.flock(added, fcntl.LOCK_EX)
            added.truncate(len(_whole_lines(file)))
            added.write(json.dumps(row).encode() + b"\n")
            added.flush()
            os.fsync(added.fileno())


def check_folder(file: Path) -> None:
    """Makes the folder of the rows, and tries whether it can be written.

    Raises:
      UsageError: it cannot.
    """
    with writing(file, ADVICE):
        file.parent.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=file.parent).close()


def _whole_lines(file: Path) -> bytes:
    try:
        data = file.read_bytes() if file.exists() else b""
    except OSError as error:
        raise UsageError(f"{file} cannot be read: {error}; {ADVICE}") from error
    return data[: data.rfind(b"\n") + 1]
