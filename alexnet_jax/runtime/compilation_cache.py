"""Keeps compiled programs on disk, so that the second start of a run takes seconds less.

Where: `JAX_COMPILATION_CACHE_DIR`, else `alexnet_jax` in the user's cache folder. `JAX_ENABLE_COMPILATION_CACHE=0` goes
without. JAX's own store writes entries in place, keeps a half-written one for ever and locks the folder for its bounds;
this one renames whole entries into place and takes none whose digest is wrong, so processes may die and meet as they
like. A cache is a help and no more: whatever is wrong with it, the run goes on.
"""

import contextlib
import hashlib
import os
import sys
import time
import uuid
from pathlib import Path

import jax
from jax._src import compilation_cache as jax_cache  # there is no public way to bring one's own store
from jax._src.compilation_cache_interface import CacheInterface

LARGEST = 512 * 2**20  # bytes of all entries; the default config's take some 10 MB
SUFFIX = ".compiled"
UNFINISHED = ".part"
ABANDONED = 3600.0  # seconds after which whoever was writing a part is taken for dead
DIGEST = hashlib.sha256().digest_size


def default_folder() -> str:
    """As the user says, else as the XDG convention has it."""
    home = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    return os.environ.get("JAX_COMPILATION_CACHE_DIR") or os.path.join(home, "alexnet_jax")


def use(folder: str) -> None:
    """Lets JAX keep what it compiles in a folder, or at an address such as `gs://...`, which JAX's own store serves.

    Call it before the first compilation.
    """
    jax.config.update("jax_compilation_cache_dir", folder)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)  # fifty small programs make up seconds
    jax.config.update("jax_persistent_cache_enable_xla_caches", "none")  # which have no bound and no digest
    if "://" not in folder:
        jax_cache.reset_cache()
        jax_cache._cache, jax_cache._cache_initialized = Entries(Path(folder)), True


class Entries(CacheInterface):
    """A folder of programs by key, at most `largest` bytes of them: those used last.

    Never raises an `OSError`: what cannot be read is not there, and what cannot be written is told once, on stderr.
    """

    def __init__(self, folder: Path, *, largest: int = LARGEST):
        self._path, self._largest, self._told = folder, largest, False

    def get(self, key: str) -> bytes | None:
        """The program that was put there; None: there is none, or it is damaged, and then removed."""
        file = self._path / (key + SUFFIX)
        try:
            stored = file.read_bytes()
        except OSError:
            return None
        digest, value = stored[:DIGEST], stored[DIGEST:]
        if digest != _digest(key, value):
            with contextlib.suppress(OSError):
                file.unlink()
            return None
        with contextlib.suppress(OSError):  # not ours to touch
            os.utime(file)
        return value

    def put(self, key: str, value: bytes) -> None:
        """Keeps a program."""
        beside = self._path / (uuid.uuid4().hex + UNFINISHED)
        try:
            self._path.mkdir(parents=True, exist_ok=True)
            try:
                beside.write_bytes(_digest(key, value) + value)
                beside.replace(self._path / (key + SUFFIX))
            finally:
                beside.unlink(missing_ok=True)
            self._evict()
        except OSError as error:
            if not self._told:
                print(
                    f"warning: compiled programs cannot be kept in {self._path}: {error}; every start compiles anew;"
                    " name another folder in JAX_COMPILATION_CACHE_DIR or go without by JAX_ENABLE_COMPILATION_CACHE=0",
                    file=sys.stderr,
                )
            self._told = True

    def _evict(self) -> None:
        """Removes the entries not used for longest until the rest fits; other processes may do so too."""
        found = []
        for file in self._path.iterdir():
            with contextlib.suppress(FileNotFoundError):
                status = file.stat()
                if file.suffix == SUFFIX:
                    found.append((status.st_mtime, status.st_size, file))
                elif file.suffix == UNFINISHED and status.st_mtime < time.time() - ABANDONED:
                    file.unlink()
        total = sum(size for _, size, _ in found)
        for _, size, file in sorted(found):
            if total <= self._largest:
                return
            file.unlink(missing_ok=True)
            total -= size


def _digest(key: str, value: bytes) -> bytes:
    return hashlib.sha256(key.encode() + value).digest()
