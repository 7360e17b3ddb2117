"""Lists the commands, because `python -m alexnet_jax` alone is no command."""

import sys
from pathlib import Path

if __name__ == "__main__":
    folder = Path(__file__).parent
    files = {file.stem: file for file in folder.glob("*.py")}
    files |= {file.parent.name: file for file in folder.glob("*/__main__.py")}
    names = ", ".join(name for name in sorted(files) if "\n    cli.run(" in files[name].read_text(encoding="utf-8"))
    print(f"error: which command? `python -m alexnet_jax.NAME --help` explains one; there are {names}", file=sys.stderr)
    sys.exit(2)
