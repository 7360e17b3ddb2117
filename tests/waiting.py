"""Waiting for what other processes do, and looking at them."""

import os
import subprocess
import time
from collections.abc import Callable
from pathlib import Path


def wait_until(condition: Callable[[], object], running: subprocess.Popen | None = None, seconds: float = 150) -> None:
    """Returns when the condition holds. It fails after so many seconds, or where the process has ended."""
    end = time.monotonic() + seconds
    while not condition():
        assert running is None or running.poll() is None, running.communicate()
        assert time.monotonic() < end, f"waited in vain for {seconds:.0f} s"
        time.sleep(0.05)


def children(pid: int | None = None) -> set[int]:
    """The processes that a process, or this one, has started."""
    tasks = Path(f"/proc/{pid or os.getpid()}/task").glob("*/children")
    return {int(child) for task in tasks for child in task.read_text().split()}


def is_gone(pid: int) -> bool:
    """Whether a process has ended; its parent may not have asked yet."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z"
    except OSError:
        return True
