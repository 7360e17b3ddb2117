"""Caches compiled programs on disk: the second start of a run takes seconds less.

The folder is `JAX_COMPILATION_CACHE_DIR`, else `alexnet_jax` in the user's cache folder.
`JAX_ENABLE_COMPILATION_CACHE=0` disables the cache. JAX's own store writes entries in place, keeps a half-written
entry for ever and locks the folder to bound its size. This store renames complete entries into place and ignores an
entry whose digest is wrong, so that processes may die and run side by side. No failure of the cache stops a run.
"""

import contextlib
import hashlib
import math
import os
import re
import time
import uuid
from pathlib import Path

import jax

from alexnet_jax import paths
from alexnet_jax.runtime import compat, output

MAX_BYTES = 512 * 2**20  # of all entries; those of the default config take some 10 MB
SUFFIX = ".compiled"
PARTIAL = ".part"
ABANDONED_AFTER = 3600.0  # seconds without a change, after which the writer of a partial entry counts as dead
DIGEST_BYTES = hashlib.sha256().digest_size


def default_folder() -> str:
    """`JAX_COMPILATION_CACHE_DIR`, else a folder by the XDG convention.

    Raises:
      UsageError: no user has the name after `~`.
    """
    home = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    return paths.expand_home(os.environ.get("JAX_COMPILATION_CACHE_DIR") or os.path.join(home, "alexnet_jax"))


def use(folder: str) -> None:
    """Makes JAX cache what it compiles in a folder. JAX's own store serves an address such as `gs://...`.

    Call it before the first compilation.
    """
    jax.config.update("jax_compilation_cache_dir", folder)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)  # fifty small programs add up to seconds
    jax.config.update("jax_persistent_cache_enable_xla_caches", "none")  # XLA's caches have no bound and no digest
    compat.set_compilation_store(None if "://" in folder else Entries(Path(folder)))


class Entries:
    """A folder of compiled programs by key. The least recently used are evicted.

    No method raises an `OSError`: an entry that cannot be read is a miss, and the first entry that cannot be written
    is a warning on stderr.

    Args:
      folder: made by the first `put`.
      max_bytes: of all entries.
    """

    def __init__(self, folder: Path, *, max_bytes: int = MAX_BYTES):
        self._path, self._max_bytes, self._warned = folder, max_bytes, False
        self._slack = max_bytes // 64  # bytes that are written before all entries are listed again
        self._written = math.inf  # since then; the entries of earlier starts are not listed yet

    def get(self, key: str) -> bytes | None:
        """The program of the key; None: not cached, or damaged and now removed."""
        file = self._path / (key + SUFFIX)
        try:
            stored = file.read_bytes()
        except OSError:
            return None
        digest, value = stored[:DIGEST_BYTES], stored[DIGEST_BYTES:]
        if digest != _digest(key, value):
            with contextlib.suppress(OSError):
                file.unlink()
            return None
        with contextlib.suppress(OSError):  # the file may belong to another user
            os.utime(file)
        return value

    def put(self, key: str, value: bytes) -> None:
        """Stores the program of the key."""
        partial = self._path / (uuid.uuid4().hex + PARTIAL)
        try:
            self._path.mkdir(parents=True, exist_ok=True)
            try:
                partial.write_bytes(_digest(key, value) + value)
                partial.replace(self._path / (key + SUFFIX))
            finally:
                partial.unlink(missing_ok=True)
            self._written += len(value)
            if self._written > self._slack:
                self._evict()
                self._written = 0
        except OSError as error:
            if not self._warned:
                output.warn(
                    f"warning: compiled programs cannot be cached in {self._path}: {error}; every start compiles anew;"
                    " name another folder in JAX_COMPILATION_CACHE_DIR, or set JAX_ENABLE_COMPILATION_CACHE=0"
                )
            self._warned = True

    def _evict(self) -> None:
        """Removes the least recently used entries until the rest fits. Other processes may do so at the same time."""
        entries = []
        for file in self._path.iterdir():
            with contextlib.suppress(FileNotFoundError):
                status = file.stat()
                if file.suffix == SUFFIX:
                    entries.append((status.st_mtime, status.st_size, file))
                elif file.suffix == PARTIAL and _is_abandoned(file.stem, status.st_mtime):
                    file.unlink()
        total = sum(size for _, size, _ in entries)
        for _, size, file in sorted(entries):
            if total <= self._max_bytes - self._slack:
                return
            file.unlink(missing_ok=True)
            total -= size


def _is_abandoned(stem: str, changed: float) -> bool:
    """Whether a dead process has left the file. Files of other names are another program's."""
    return re.fullmatch(r"[0-9a-f]{32}", stem) is not None and changed < time.time() - ABANDONED_AFTER


def _digest(key: str, value: bytes) -> bytes:
    return hashlib.sha256(key.encode() + value).digest()
