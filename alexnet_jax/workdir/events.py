"""TensorBoard events, written when they are told.

tensorboardX's own writer has a thread that dies of a full disk, and a queue of ten behind it, for which training would
then wait for ever.
"""

import contextlib
import os
import sys
import time
from collections.abc import Iterator, Mapping
from typing import Any

from etils import epath


@contextlib.contextmanager
def _without_torch() -> Iterator[None]:
    """Hides PyTorch, which tensorboardX imports where it is installed: as long as all other imports together take."""
    modules: dict[str, Any] = sys.modules
    if "torch" in modules:
        yield
        return
    modules["torch"] = None
    try:
        yield
    finally:
        del modules["torch"]


with _without_torch():
    from tensorboardX.event_file_writer import EventsWriter
    from tensorboardX.proto.event_pb2 import Event, SessionLog
    from tensorboardX.summary import scalar


class Events:
    """An events file.

    Args:
      workdir: gets the file.
      purge_step: TensorBoard forgets what earlier files of the workdir say of this step and later ones.

    Raises:
      OSError: the file cannot be written; so `add` and `close`, after which the file is of no use any more.
    """

    def __init__(self, workdir: epath.Path, *, purge_step: int):
        # The name holds the second; a clock set back must not lead to a file that is there.
        self._writer = EventsWriter(str(workdir / "events"), filename_suffix=f".{purge_step}.{os.getpid()}")
        self._writer.write_event(
            Event(wall_time=time.time(), step=purge_step, session_log=SessionLog(status=SessionLog.START))
        )
        self._writer.flush()

    def add(self, step: int, row: Mapping[str, float]) -> None:
        """A point of every curve."""
        for name, value in row.items():
            self._writer.write_event(Event(wall_time=time.time(), step=step, summary=scalar(name, value)))
        self._writer.flush()

    def close(self) -> None:
        """Ends the file."""
        try:
            self._writer.close()
        except OSError:  # tensorboardX then leaves the file open, of which Python would complain later
            with contextlib.suppress(OSError):
                self._writer._py_recordio_writer.close()
            raise
