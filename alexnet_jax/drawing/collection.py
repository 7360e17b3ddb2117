"""Exhibits in a folder: pictures as files, and all of them in one page."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence

from etils import epath

from alexnet_jax.drawing.canvas import SUFFIXES, Figure, as_bytes
from alexnet_jax.drawing.page import POLICY, Section, page
from alexnet_jax.errors import UsageError
from alexnet_jax.paths import is_file
from alexnet_jax.workdir.atomic import write_atomically

PAGE = "index.html"


class UnwritableOutputError(UsageError):
    """The folder of the figures cannot be written, or holds a page that would be lost."""

    def __init__(self, folder: epath.Path, reason: OSError | str):
        problem = "it is not a folder" if isinstance(reason, FileExistsError) else reason
        super().__init__(f"figures cannot be written to {folder}: {problem}")


@dataclasses.dataclass(frozen=True)
class Exhibit:
    """A section of the page, and its pictures as files.

    Attributes:
      figures: by the name of the file, without suffix.
      section: of the page.
    """

    figures: Mapping[str, Figure]
    section: Section


class Collection:
    """The exhibits until now, and the lines on what is left out.

    Attributes:
      folder: of the files.
      files: written until now.
      left_out: what is missing, and why.

    Args:
      folder: is made.
      say: takes a line about what is left out.

    Raises:
      UnwritableOutputError: the folder cannot be written, or its page is of another program.
    """

    def __init__(self, folder: epath.Path, *, say: Callable[[str], None]):
        self.folder, self._say = folder, say
        self.files: list[epath.Path] = []
        self.left_out: list[str] = []
        self._sections: list[Section] = []
        try:
            folder.mkdir(parents=True, exist_ok=True)
            is_foreign = is_file(folder / PAGE) and POLICY.encode() not in (folder / PAGE).read_bytes()
        except OSError as error:
            raise UnwritableOutputError(folder, error) from error
        if is_foreign:
            raise UnwritableOutputError(folder, f"its {PAGE} is of another program, and would be replaced")

    def add(self, exhibit: Exhibit) -> None:
        """Takes in an exhibit, and writes its pictures at once: a later exhibit may take long.

        Raises:
          UnwritableOutputError: a file cannot be written.
        """
        for name, figure in exhibit.figures.items():
            for suffix in SUFFIXES:
                self._write(f"{name}{suffix}", as_bytes(figure, suffix))
        self._sections.append(exhibit.section)

    def leave_out(self, missing: str, reason: str) -> None:
        """Notes what is left out, and why."""
        self.left_out.append(f"{missing}: {reason}")
        self._say(f"left out: {self.left_out[-1]}")

    def write_page(self, title: str, facts: Sequence[tuple[str, str]]) -> None:
        """Writes the page of all exhibits.

        Args:
          title: of the page.
          facts: of the run, by name.

        Raises:
          UnwritableOutputError: the file cannot be written.
        """
        self._write(PAGE, page(title, facts, self._sections, self.left_out))

    def _write(self, name: str, content: str | bytes) -> None:
        try:
            write_atomically(self.folder / name, content)
        except OSError as error:
            raise UnwritableOutputError(self.folder, error) from error
        self.files.append(self.folder / name)
