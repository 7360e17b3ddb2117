"""Processes that are measured in turn. Each answers words on its standard input with lines of JSON."""

import json
import os
import shlex
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from alexnet_jax.errors import UsageError

ENVIRONMENT = {"XLA_PYTHON_CLIENT_PREALLOCATE": "false"}  # of all processes: each takes the memory that it needs


class Process:
    """A running `python -m MODULE`, whose main calls `serve`.

    Args:
      module: name of the module.
      arguments: of the command line.
      environment: further variables, or other values.
    """

    def __init__(self, module: str, *arguments: str, environment: Mapping[str, str] = {}):
        self._module = module
        self._process = subprocess.Popen(
            [sys.executable, "-m", module, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | ENVIRONMENT | dict(environment),
        )

    def ask(self, word: str) -> Any:
        """The answer to a word, or to a word and its arguments, quoted as in a shell.

        Raises:
          UsageError: the process has ended for a mistake of the user.
          RuntimeError: the process has ended; its standard error has the reason.
        """
        assert self._process.stdin is not None and self._process.stdout is not None
        try:
            self._process.stdin.write(word + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            pass
        answer = self._process.stdout.readline()
        if not answer:
            status = self._process.wait()
            if status == UsageError.status:
                raise UsageError(f"{self._module} did not start; its message is above")
            raise RuntimeError(f"{self._module} ended with status {status} when asked for {word!r}")
        return json.loads(answer)

    def close(self) -> None:
        """Ends the process."""
        self._process.kill()
        self._process.communicate()


def serve(answers: Mapping[str, Callable[..., Any]]) -> None:
    """Answers the words on standard input, until standard input ends."""
    for line in sys.stdin:
        word, *arguments = shlex.split(line)
        print(json.dumps(answers[word](*arguments)), flush=True)


def peak_memory() -> int:
    """Peak memory of this process, bytes. `ru_maxrss` would include the memory of the parent process."""
    status = Path("/proc/self/status").read_text()
    return 1024 * int(status.split("VmHWM:")[1].split()[0])
