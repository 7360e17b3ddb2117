"""The cache of compiled libraries, in a folder that other processes and JAX's compiled programs share.

The name of a library has two digests: of the key, which is all that the library was made of, and of the content. A
library is complete when its name appears, and a damaged one does not match its name.
"""

import contextlib
import hashlib
import os
import re
import time
import uuid
from pathlib import Path

LIBRARIES = 16  # of other processors, compilers and versions that stay; those used last
ABANDONED = 3600.0  # seconds after which the writer of an unfinished file counts as dead


def find(folder: Path, key: str) -> Path | None:
    """The library of a key; None: there is none. Removes damaged ones."""
    library = None
    with contextlib.suppress(OSError):
        for file in folder.glob(f"{key}-*.so"):
            with contextlib.suppress(OSError):  # of a file that is someone else's
                if file.name == _name(key, file.read_bytes()):
                    library = file
                    os.utime(file)  # the libraries used last stay
                else:
                    file.unlink()
    return library


def put(folder: Path, key: str, content: bytes) -> Path:
    """Writes a library, and removes those used longest ago.

    Raises:
      OSError: the folder cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    file, unfinished = folder / _name(key, content), folder / f"{uuid.uuid4().hex}.part"
    try:
        unfinished.write_bytes(content)
        unfinished.replace(file)
    finally:
        unfinished.unlink(missing_ok=True)
    _evict(folder)
    return file


def _name(key: str, content: bytes) -> str:
    return f"{key}-{hashlib.sha256(content).hexdigest()}.so"


def _evict(folder: Path) -> None:
    """Removes all but the libraries used last, and unfinished files that a dead process has left."""
    libraries = []
    for file in folder.iterdir():
        with contextlib.suppress(OSError):  # another process may evict, too
            used = file.stat().st_mtime
            if re.fullmatch(r"[0-9a-f]{64}(-[0-9a-f]{64})?\.so", file.name):  # without a digest: of an older version
                libraries.append((used, file))
            elif re.fullmatch(r"[0-9a-f]{32}\.part", file.name) and used < time.time() - ABANDONED:
                file.unlink()
    for _, file in sorted(libraries)[:-LIBRARIES]:
        with contextlib.suppress(OSError):
            file.unlink()
