"""What the fuzz tests share: commands in forked processes, and the promise that every command keeps."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from tests.conftest import ROOT

STATUSES = (0, 2, 75, 130)
SOME_BROKEN = 1  # status of `predict` and `features` where some pictures cannot be read
MAX_LINES = 3  # of stderr, of a command that fails
MAX_NOTES = 7  # of one that goes on: a line for each kind of entry or figure that is left out


class Result(NamedTuple):
    status: int | None
    out: str
    err: str


class Commands:
    """Starts commands in forked processes (`tests/many_commands.py`).

    Args:
      environment: of the commands.
      within: a command that starts the processes, such as `setpriv`.
    """

    def __init__(self, environment: dict[str, str], *, within: Sequence[str] = ()):
        self._server = subprocess.Popen(
            [*within, sys.executable, "-m", "tests.many_commands"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            env=os.environ | environment,
        )

    def __call__(
        self,
        module: str,
        *arguments: str,
        folder: Path,
        trains: bool = False,
        describes: bool = False,
        seconds: float = 60,
    ) -> Result:
        """The result of a command in `folder/cwd`, with the home folder `folder/home` and files in `folder/tmp`."""
        environment = {"HOME": str(folder / "home"), "TMPDIR": str(folder / "tmp")}
        case = dict(folder=str(folder / "cwd"), environment=environment, trains=trains, describes=describes)
        return self._run(module, arguments, seconds, case)

    def whole(self, module: str, *arguments: object, folder: Path = ROOT, **environment: str) -> Result:
        """The result of a command in a folder, as of `python -m alexnet_jax.MODULE`."""
        case = dict(folder=str(folder), environment=environment, trains=True, describes=False)
        return self._run(module, tuple(map(str, arguments)), 180, case)

    def _run(self, module: str, arguments: tuple[str, ...], seconds: float, case: dict[str, Any]) -> Result:
        case |= dict(module=module, arguments=arguments, seconds=seconds)
        assert self._server.stdin is not None and self._server.stdout is not None
        self._server.stdin.write(json.dumps(case) + "\n")
        self._server.stdin.flush()
        return Result(**json.loads(self._server.stdout.readline()))

    def close(self) -> None:
        self._server.communicate()


def shortened(err: str) -> str:
    """The beginning of each line; of many lines the first one and the last ten."""
    lines = [line[:400] for line in err.splitlines()]
    return "\n".join(lines if len(lines) < 12 else [lines[0], "...", *lines[-10:]])


def check(result: Result, case: object, *, statuses: Sequence[int] = STATUSES) -> None:
    """A status that is documented, and a few lines on stderr, none of them of a traceback."""
    words = f"{case}: status {result.status}\n{shortened(result.err)}"
    assert result.status in statuses, words
    assert len(result.err.splitlines()) <= (MAX_LINES if result.status == 2 else MAX_NOTES), words
    assert not re.search(r"Traceback|^\s+File \"|Exception ignored|[*][*][*] Check failure", result.err, re.M), words
    if result.status == 2:
        assert result.err.splitlines()[-1].startswith("error: "), words
        assert 'File "' not in result.out, words
