"""Small files that are there whole or not at all, whenever the process is cut off."""

from etils import epath


def write_whole(file: epath.Path, text: str) -> None:
    """Writes beside the file and renames.

    Raises:
      OSError: it cannot be written; what was there before is still there.
    """
    part = file.parent / f"{file.name}.part"
    part.write_text(text)
    part.replace(file)
