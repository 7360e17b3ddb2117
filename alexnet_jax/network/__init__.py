"""Section 3 of the paper: the layers, the tower, and where towers run.

For a training loop of one's own, without config and data: `from alexnet_jax.network import make_tower, init_variables,
make_forward, make_mesh`. `docs/use-in-python.md` has an example.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from alexnet_jax.network.forward import compile_options, init_variables, make_features, make_forward
    from alexnet_jax.network.recipes import RECIPES, Layer
    from alexnet_jax.network.sharding import make_mesh
    from alexnet_jax.network.tower import Tower, make_tower

__all__ = [
    "RECIPES",
    "Layer",
    "Tower",
    "compile_options",
    "init_variables",
    "make_features",
    "make_forward",
    "make_mesh",
    "make_tower",
]


def __getattr__(name: str) -> object:
    """Imports a name at its first use: this file runs before each of the room's files, which need not Flax."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from alexnet_jax.network import forward, recipes, sharding, tower

    return next(getattr(file, name) for file in (tower, forward, sharding, recipes) if hasattr(file, name))


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
