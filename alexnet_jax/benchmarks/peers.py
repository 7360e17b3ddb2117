"""What a benchmark may run beside the program."""

import importlib

from alexnet_jax.errors import UsageError


def check_peer(peer: str | None) -> None:
    """Sees that the peer can be imported, before anything long begins.

    Raises:
      UsageError: it is not installed.
    """
    if peer is None:
        return
    try:
        importlib.import_module(peer)
    except ImportError as error:
        raise UsageError(f"--peer={peer} needs PyTorch: pip install {peer}") from error
