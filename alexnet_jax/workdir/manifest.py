"""Sizes and checksums of a checkpoint's files, which find damage and name the file before a reader opens it.

Storage formats have checksums for a part of the bytes. These do not name the file, and a reader that fails halfway
leaves threads behind that still read.
"""

import hashlib
import json
import os
from collections.abc import Container

from etils import epath

from alexnet_jax.errors import reason_of
from alexnet_jax.paths import is_file
from alexnet_jax.workdir.atomic import storage_errors, write_atomically

FILE = "MANIFEST"  # the first line is the checksum of the rest, which is JSON: {name: [bytes, SHA-256]}
CHUNK = 2**24  # bytes of one read


def extend(folder: epath.Path, *, but: Container[str] = ()) -> None:
    """Lists the files that the manifest does not hold yet. Files that it holds must not change any more.

    Args:
      folder: of one checkpoint.
      but: names of files that will still be written to, and so are not listed.
    """
    listed = _read(folder) if (folder / FILE).exists() else {}
    for name in _names(folder):
        if name not in listed and name not in but:
            listed[name] = _measure(folder / name)
    text = json.dumps(listed, indent=1)
    write_atomically(folder / FILE, f"{_digest(text)}\n{text}\n")


def damage(folder: epath.Path, *, below: str = "") -> str | None:
    """A description of the first damaged file; None: every listed file is as written, or there is no manifest.

    Files that are not listed are not damage: the listed files do not refer to them.

    Args:
      folder: of one checkpoint.
      below: the start of the names to check, such as `metrics/`; empty: all are checked.
    """
    if (folder / FILE).exists() and not is_file(folder / FILE):
        return f"{FILE} is not a file"
    try:
        with storage_errors(folder):
            listed = _read(folder)
    except FileNotFoundError:
        return None
    except ValueError:
        return f"{FILE} has changed since it was written"
    except OSError as error:
        return f"{FILE} cannot be read ({reason_of(error)})"
    try:
        present = set(_names(folder))  # a forged manifest could name files outside the folder
    except OSError as error:
        return f"{error.filename or folder} cannot be read ({reason_of(error)})"
    for name, (size, digest) in listed.items():
        if not name.startswith(below):
            continue
        if name not in present or not is_file(folder / name):
            return f"{name} is missing"
        try:
            with storage_errors(folder):
                size_now, digest_now = _measure(folder / name)
        except OSError as error:
            return f"{name} cannot be read ({reason_of(error)})"
        if size_now != size:
            return f"{name} has {size_now:,} bytes, and {size:,} were written"
        if digest_now != digest:
            return f"{name} has changed since it was written"
    return None


def _names(folder: epath.Path) -> list[str]:
    """All files below the folder but the manifest, relative to the folder.

    Raises:
      OSError: a folder cannot be read.
    """
    names = []  # not by `walk`, whose paths lack the `gs://` of the folder
    for path in folder.iterdir():
        if path.is_dir():
            names += [f"{path.name}/{name}" for name in (() if os.path.islink(path) else _names(path))]
        elif not path.name.startswith(FILE):
            names.append(path.name)
    return sorted(names)


def _measure(path: epath.Path) -> tuple[int, str]:
    """Bytes and SHA-256. Processors compute SHA-256 faster than disks read."""
    size, digest = 0, hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            size += len(chunk)
            digest.update(chunk)
    return size, digest.hexdigest()


def _read(folder: epath.Path) -> dict[str, tuple[int, str]]:
    """The listed files.

    Raises:
      FileNotFoundError: there is no manifest.
      ValueError: the manifest is damaged.
    """
    digest, _, text = (folder / FILE).read_bytes().decode("ascii").partition("\n")
    if digest != _digest(text.removesuffix("\n")) or not text.endswith("\n"):
        raise ValueError(f"{folder / FILE} is damaged")
    return {name: (size, digest) for name, (size, digest) in json.loads(text).items()}


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
