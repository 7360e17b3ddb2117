"""AlexNet as it was built and trained in 2012, as a functional JAX/Flax program.

`alexnet_jax.load("runs/elpv")` is a trained network: `predict`, `top`, `features`, `classes`, `params` and `apply`.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from alexnet_jax.loading import load
    from alexnet_jax.trained import Trained

__all__ = ["Trained", "load"]
__version__ = "0.1.0"


def __getattr__(name: str) -> object:
    """Imports the network, and JAX with it, at the first use: `alexnet_jax.data` must not start JAX."""
    if name in __all__:
        from alexnet_jax import loading  # which has both names

        return getattr(loading, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
