"""Paths and addresses that users name: `~` at their start, storage that epath can reach, and their form in messages."""

import os
import unicodedata

from etils import epath

from alexnet_jax.errors import UsageError, words_of

PACKAGES = {"gs": "gcsfs", "s3": "s3fs", "az": "adlfs", "hf": "huggingface_hub"}  # which reach the storage, by scheme
# Unicode's categories of control characters, of bytes that are not UTF-8, and of ends of lines and paragraphs.
NO_TEXT = ("Cc", "Cs", "Zl", "Zp")


def in_one_line(name: str) -> str:
    """A name of a file in one line: what breaks a line or is no text is escaped, as in Python's strings."""
    return "".join(repr(letter)[1:-1] if unicodedata.category(letter) in NO_TEXT else letter for letter in name)


def absolute(name: str) -> str:
    """A local path as an absolute one, which orbax needs, with `~` expanded; `gs://...` and the like unchanged.

    Raises:
      UsageError: no user has the name after `~`.
    """
    return name if "://" in name else os.path.abspath(expand_home(name))


def expand_home(name: str) -> str:
    """A path with the home folder in place of `~` or `~USER`. A file whose own name begins with `~` keeps its name.

    Raises:
      UsageError: no user has that name.
    """
    expanded, start = os.path.expanduser(name), name.partition(os.sep)[0]
    if not expanded.startswith("~") or os.path.lexists(start):
        return expanded
    missing = f"there is no user {start[1:]!r}" if start[1:] else "HOME is not set"
    raise UsageError(f"{name} begins with a home folder, and {missing}; write the whole path, or ./{name}")


def check_address(name: str) -> None:
    """Checks that the storage behind an address such as `gs://bucket/run` can be reached. A local path passes.

    Raises:
      UsageError: no storage has such addresses, its package is not installed, or it does not answer.
    """
    scheme, separator, rest = name.partition("://")
    if not separator:
        return
    if scheme == "file":
        raise UsageError(f"{name} is an address; name the path alone: {rest or '/'}")
    if scheme not in PACKAGES:
        raise UsageError(
            f"{name} is no address of storage that can be read; name a folder, or an address that begins with"
            f" {', '.join(f'{known}://' for known in PACKAGES)}"
        )
    try:
        epath.Path(name).exists()
    except ImportError as error:
        package = PACKAGES[scheme]
        raise UsageError(f"{name}: the package for {scheme}:// is not installed; pip install {package}") from error
    except Exception as error:  # of the network or the credentials; the packages have no common error
        raise UsageError(
            f"{name} cannot be reached: {words_of(error)}; check the address, the network and who may read"
        ) from error


def is_missing(path: epath.Path) -> bool:
    """Whether nothing is at the path. `exists` says so, too, of what lies in a folder that may not be searched.

    Raises:
      OSError: a folder above may not be searched, a link leads to itself, or the name is too long.
    """
    if "://" in str(path):
        return not path.exists()
    try:
        os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        return True
    return False


def is_file(path: epath.Path) -> bool:
    """Whether the path is a plain file or a link to one: the read of a device or a pipe might never end."""
    return path.is_file() if "://" in str(path) else os.path.isfile(path)  # epath counts a device as a file
