"""Sizes and checksums of a checkpoint's files: damage is found, and the file named, before anything reads them.

Storage formats have checksums of their own for a part of the bytes; they do not tell the file, and a reader that fails
halfway leaves others at work behind it.
"""

import hashlib
import json
from collections.abc import Container

from etils import epath

from alexnet_jax.workdir.atomic import write_whole

FILE = "MANIFEST"  # its first line is the checksum of the rest: JSON, {name: [bytes, SHA-256]}
CHUNK = 2**24  # bytes read at once


def extend(folder: epath.Path, *, but: Container[str] = ()) -> None:
    """Lists the files that the manifest does not hold yet; those that it holds must not change any more.

    Args:
      folder: of one checkpoint.
      but: names of files that are still to be written to.
    """
    listed = _read(folder) if (folder / FILE).exists() else {}
    for name in _names(folder):
        if name not in listed and name not in but:
            listed[name] = _measure(folder / name)
    text = json.dumps(listed, indent=1)
    write_whole(folder / FILE, f"{_digest(text)}\n{text}\n")


def damage(folder: epath.Path, *, below: str = "") -> str | None:
    """What is wrong with a checkpoint, by file; None: nothing, or it has no manifest, and nobody can tell.

    Files that are not listed are no damage: the listed ones do not refer to them.

    Args:
      folder: of one checkpoint.
      below: a folder in it that alone is looked at, such as `metrics/`.
    """
    try:
        listed = _read(folder)
    except FileNotFoundError:
        return None
    except ValueError:
        return f"{FILE} has changed since it was written"
    there = set(_names(folder))  # a manifest is not to be trusted with names of files elsewhere
    for name, (size, digest) in listed.items():
        if not name.startswith(below):
            continue
        if name not in there:
            return f"{name} is missing"
        found_size, found_digest = _measure(folder / name)
        if found_size != size:
            return f"{name} has {found_size:,} bytes, and {size:,} were written"
        if found_digest != digest:
            return f"{name} has changed since it was written"
    return None


def _names(folder: epath.Path) -> list[str]:
    """All files below the folder, relative to it, but for the manifest itself."""
    paths = [root / file for root, _, files in folder.walk() for file in files]
    return sorted(path.relative_to(folder).as_posix() for path in paths if not path.name.startswith(FILE))


def _measure(path: epath.Path) -> tuple[int, str]:
    """Bytes and SHA-256, which processors of today compute faster than their disks read."""
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
      ValueError: it is damaged.
    """
    digest, _, text = (folder / FILE).read_bytes().decode("ascii").partition("\n")
    if digest != _digest(text.removesuffix("\n")) or not text.endswith("\n"):
        raise ValueError(f"{folder / FILE} is damaged")
    return {name: (size, digest) for name, (size, digest) in json.loads(text).items()}


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
