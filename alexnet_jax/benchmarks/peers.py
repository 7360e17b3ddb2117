"""The peers: other libraries that a benchmark measures beside this program."""

import importlib

from alexnet_jax.errors import UsageError


def check_peer(peer: str | None) -> None:
    """Checks that the peer can be imported, before a long measurement starts.

    Raises:
      UsageError: the peer is not installed.
    """
    if peer is None:
        return
    try:
        importlib.import_module(peer)
    except ImportError as error:
        raise UsageError(f"--peer={peer} needs PyTorch: pip install {peer}") from error
