"""What a listing of folders saw: how far the listing is, and which entries make no picture."""

import os
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple, TypeVar

from alexnet_jax.paths import in_one_line

ENDINGS = (".jpg", ".jpeg", ".jfif", ".jpe", ".jif", ".png", ".webp", ".bmp")  # browsers save JPEGs as .jfif, too
OTHER_PICTURES = (".heic", ".heif", ".avif", ".gif", ".tif", ".tiff", ".jp2", ".dng", ".cr2", ".nef", ".arw", ".psd")
RESOURCES = "__MACOSX"  # the folder of macOS's resources in an unpacked ZIP archive: it holds no picture
SAY_EVERY = 10.0  # seconds between two lines of progress

Entry = TypeVar("Entry")


class Reason(NamedTuple):
    """Why entries are left out, in words for one entry and for several."""

    one: str
    several: str


ENDING_LIST = ", ".join(ENDINGS)
OTHER_FILE = Reason(f"file that does not end in {ENDING_LIST}", f"files that do not end in {ENDING_LIST}")
HIDDEN = Reason("hidden file or folder", "hidden files or folders")
LINK_BACK = Reason("link back to a folder above", "links back to a folder above")
NO_FILE = Reason("entry that is no file, or a link to nothing", "entries that are no file, or a link to nothing")
OUTSIDE = Reason("image outside of class folders", "images outside of class folders")


class Seen:
    """Counts the entries of folders, and records those that are left out.

    Args:
      say: takes a line of progress every `SAY_EVERY` seconds; None: nothing is said.
      below: a folder, below which `lines` names entries; None: `lines` names whole paths.

    Attributes:
      unreadable: folders that cannot be read, each with the reason; the caller adds them.
      endings: how many pictures that have to be converted were left out, by ending.
    """

    def __init__(self, say: Callable[[str], None] | None = None, *, below: Path | None = None):
        self.unreadable: list[tuple[str, str]] = []
        self._say, self._below = say, below
        self._said = time.monotonic()
        self._total = 0
        self._counts: Counter[Reason] = Counter()
        self._examples: dict[Reason, str] = {}
        self.endings: Counter[str] = Counter()

    def count(self, entries: Iterable[Entry], folder: str | Path, each: int = 1) -> Iterator[Entry]:
        """The entries, and every `SAY_EVERY` seconds a line with the count so far.

        Args:
          entries: of the folder.
          folder: its path.
          each: what an entry adds to the count; 0: another iteration over the entries counts them.
        """
        for entry in entries:
            self._total += each
            if self._say and time.monotonic() - self._said >= SAY_EVERY:
                self._say(f"{self._total:,} files and folders listed so far, now in {folder}")
                self._said = time.monotonic()
            yield entry

    def leave_out(self, reason: Reason, path: str) -> None:
        """Records an entry that is left out."""
        self._counts[reason] += 1
        self._examples.setdefault(reason, path)

    def leave_out_file(self, path: str) -> None:
        """Records a file that has another ending than a picture's."""
        self.leave_out(OTHER_FILE, path)
        ending = os.path.splitext(path)[1].lower()
        self.endings[ending] += ending in OTHER_PICTURES

    def lines(self) -> Iterator[str]:
        """A line for each reason, with an example, and one about pictures that have to be converted."""
        for reason, count in self._counts.items():
            example = Path(self._examples[reason])
            what = f"{count:,} {reason.several}, such as" if count > 1 else f"1 {reason.one}:"
            shown = example.relative_to(self._below) if self._below else example
            yield f"ignoring {what} {in_one_line(str(shown))}"
        if (total := self.endings.total()) > 1:
            yield f"{by_ending(self.endings)} among these are pictures; convert them to JPEG to have them taken"
        elif total:
            yield f"{by_ending(self.endings)} among these is a picture; convert it to JPEG to have it taken"


def is_hidden(name: str) -> bool:
    """Whether a file or folder of this name is left out, as an entry that users do not see or did not make."""
    return name.startswith(".") or name == RESOURCES


def is_folder(entry: "os.DirEntry[str]") -> bool:
    """Whether the entry is a folder or a link to one. `is_dir` raises on a link to itself."""
    try:
        return entry.is_dir()
    except OSError:
        return False


def is_file(entry: "os.DirEntry[str]") -> bool:
    """Whether the entry is a file or a link to one."""
    try:
        return entry.is_file()
    except OSError:
        return False


def by_ending(endings: Counter[str]) -> str:
    """Numbers of files by ending, in words: `2 .gif, 1 .heic files`."""
    numbers = ", ".join(f"{count:,} {ending}" for ending, count in sorted((+endings).items()))
    return f"{numbers} file{'s' * (endings.total() > 1)}"
