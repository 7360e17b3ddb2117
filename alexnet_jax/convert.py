"""Networks from and for other programs.

    python -m alexnet_jax.convert import bvlc_alexnet.caffemodel --workdir=runs/bvlc
    python -m alexnet_jax.convert import alexnet-owt-7be5be79.pth --workdir=runs/torchvision
    python -m alexnet_jax.convert export --workdir=runs/bvlc --to=alexnet.caffemodel

`import` makes a workdir of the file, which the other commands take as that of a training run.
"""

import os
import sys

if not __package__:  # `python alexnet_jax/convert.py` puts this folder on the path; its parent holds the package
    sys.path[0] = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))

from alexnet_jax import cli
from alexnet_jax.errors import UsageError
from alexnet_jax.hints import hints

COMMANDS = "import FILE, export"


@hints()
def main(command: str | None = None, file: str | None = None) -> None:
    """Does what the first word names."""
    if command == "import":
        return run_import(file)
    if command == "export":
        return run_export(file)
    raise UsageError(f"{'what to do' if command is None else repr(command)}? Known: {COMMANDS}")


def run_import(file: str | None) -> None:
    """Makes a workdir of a file."""
    raise UsageError("import is not there yet")


def run_export(file: str | None) -> None:
    """Writes a file of the network of a workdir."""
    raise UsageError("export is not there yet")


if __name__ == "__main__":
    cli.run(main, words=2)
