"""The picture files below a folder, in a fixed order and in constant memory."""

import os
import unicodedata
from collections.abc import Iterator

from alexnet_jax.data.folder_listing import ENDINGS, HIDDEN, LINK_BACK, NO_FILE, Seen, is_file, is_folder, is_hidden
from alexnet_jax.errors import reason_of


def composed(name: str) -> str:
    """The name of a folder in Unicode's composed form; some systems store names in the other one."""
    return unicodedata.normalize("NFC", name)


def pictures_below(folder: str, seen: Seen) -> Iterator[str]:
    """The files below a folder whose names end as those of pictures, sorted by name within each folder.

    Links are followed, except back to a folder above. Hidden files and folders are left out.

    Args:
      folder: where to look; the names that are returned start with it.
      seen: counts all entries, and records those that are left out.
    """
    yield from _below(folder, (os.path.realpath(folder),), seen)


def _below(folder: str, above: tuple[str, ...], seen: Seen) -> Iterator[str]:
    try:
        with os.scandir(folder) as entries:
            ordered = sorted(seen.count(entries, folder, each=0), key=lambda entry: entry.name)
    except OSError as error:
        seen.unreadable.append((folder, reason_of(error)))
        return
    for entry in seen.count(ordered, folder):
        path = os.path.join(folder, entry.name)
        if is_hidden(entry.name):
            if is_folder(entry) or path.lower().endswith(ENDINGS):  # a .DS_Store is of no concern
                seen.leave_out(HIDDEN, path)
        elif is_folder(entry):
            real = os.path.realpath(path)
            if any(os.path.commonpath((real, other)) == real for other in above):
                seen.leave_out(LINK_BACK, path)
            else:
                yield from _below(path, (*above, real), seen)
        elif not is_file(entry):
            seen.leave_out(NO_FILE, path)
        elif path.lower().endswith(ENDINGS):
            yield path
        else:
            seen.leave_out_file(path)
