"""The picture files below a folder, in a fixed order and in constant memory."""

import os
import unicodedata
from collections import Counter
from collections.abc import Iterator

from alexnet_jax.data.preparing.sources.folder import ENDINGS, OTHER_PICTURES


class Skipped:
    """The entries of folders that are left out.

    Attributes:
      unreadable: folders that cannot be read, each with the reason.
    """

    def __init__(self) -> None:
        self.unreadable: list[tuple[str, str]] = []
        self._counts: Counter[str] = Counter()
        self._examples: dict[str, str] = {}
        self._others: Counter[str] = Counter()

    def add(self, reason: str, path: str) -> None:
        """Counts an entry that is left out for the reason."""
        self._counts[reason] += 1
        self._examples.setdefault(reason, path)

    def add_file(self, path: str) -> None:
        """Counts a file that has another ending than a picture's."""
        self.add(f"files that do not end in {', '.join(ENDINGS)}", path)
        ending = os.path.splitext(path)[1].lower()
        self._others[ending] += ending in OTHER_PICTURES

    def lines(self) -> list[str]:
        """A line for each reason, with an example."""
        lines = [
            f"ignoring {count:,} {reason}, such as {self._examples[reason]}" for reason, count in self._counts.items()
        ]
        others = ", ".join(f"{count:,} {ending}" for ending, count in sorted((+self._others).items()))
        if others:
            lines.append(f"{others} files among these are pictures; convert them to JPEG to have them taken")
        return lines


def composed(name: str) -> str:
    """The name of a folder in Unicode's composed form; some systems store names in the other one."""
    return unicodedata.normalize("NFC", name)


def pictures_below(folder: str, skipped: Skipped) -> Iterator[str]:
    """The files below a folder whose names end as those of pictures, sorted by name within each folder.

    Links are followed, except back to a folder above. Hidden files and folders are left out.

    Args:
      folder: where to look; the names that are returned start with it.
      skipped: records the entries that are left out.
    """
    yield from _below(folder, (os.path.realpath(folder),), skipped)


def _below(folder: str, above: tuple[str, ...], skipped: Skipped) -> Iterator[str]:
    try:
        with os.scandir(folder) as entries:
            found = sorted(entries, key=lambda entry: entry.name)
    except OSError as error:
        skipped.unreadable.append((folder, error.strerror or str(error)))
        return
    for entry in found:
        path = os.path.join(folder, entry.name)
        if entry.name.startswith("."):
            if os.path.isdir(path) or path.lower().endswith(ENDINGS):  # a .DS_Store is of no concern
                skipped.add("hidden files or folders", path)
        elif os.path.isdir(path):
            real = os.path.realpath(path)
            if any(os.path.commonpath((real, other)) == real for other in above):
                skipped.add("links back to a folder above", path)
            else:
                yield from _below(path, (*above, real), skipped)
        elif not os.path.isfile(path):
            skipped.add("entries that are no file, or a link to nothing", path)
        elif path.lower().endswith(ENDINGS):
            yield path
        else:
            skipped.add_file(path)
