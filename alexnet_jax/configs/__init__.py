"""The configs, importable from every folder: `from alexnet_jax.configs import default`.

The files are those of `configs/` at the top of the repository, where a command names them by path. A wheel holds them
as this package (pyproject.toml, `package-dir`). In a checkout this package leads to that folder.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

__path__.append(str(Path(__file__).parents[2] / "configs"))

if TYPE_CHECKING:  # a type checker does not follow `__path__`

    def __getattr__(name: str) -> Any: ...
