"""The line of progress of the commands that start from a trained network."""

import sys
import time
from collections.abc import Callable

from alexnet_jax.runtime import processes
from alexnet_jax.workdir.progress import REDRAW_EVERY, duration

LINE = 60  # letters of the line, blanks at its end included: a shorter line covers a longer one


def progress_line(what: str, of: int, unit: str = "images") -> Callable[[int], None]:
    """Shows `what done/of images` and the time left on one line of a terminal, and nothing elsewhere.

    Args:
      what: such as `evaluated`.
      of: how many there are.
      unit: of which there are so many.
    """
    begun = shown = 0.0
    first = 0  # images at the first call, which ends the time of compilation and starts the clock

    def show(done: int) -> None:
        nonlocal begun, shown, first
        now = time.monotonic()
        if not sys.stderr.isatty() or processes.index() or (done != of and now - shown < REDRAW_EVERY):
            return
        if not shown:
            begun, first = now, done
        shown = now
        line = f"{what} {done:,}/{of:,} {unit}"
        if first < done < of:
            line += f"  left {duration((of - done) * (now - begun) / (done - first))}"
        print(f"\r{line:<{LINE}}", end="\n" if done == of else "", file=sys.stderr, flush=True)

    return show
