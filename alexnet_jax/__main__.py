"""Lists the commands, because `python -m alexnet_jax` alone is no command."""

import sys
from pathlib import Path

if __name__ == "__main__":
    files = sorted(Path(__file__).parent.glob("*.py"))
    names = ", ".join(file.stem for file in files if "\n    cli.run(" in file.read_text(encoding="utf-8"))
    print(f"error: which command? `python -m alexnet_jax.NAME --help` explains one; there are {names}", file=sys.stderr)
    sys.exit(2)
