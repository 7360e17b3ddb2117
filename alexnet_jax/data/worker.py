"""A process that fills parts of batches: `python -m alexnet_jax.data.worker FILE PARENT`, started by `process.py`.

FILE is the descriptor of an arena, PARENT the number of the process that started this one. Each line on the standard
input is a JSON list: `[stream, place, size, ring]` opens a stream, whose region of the arena ends with its plan;
`[stream, slot, batch, part]` is a part of a batch to fill. The answer to a part is `[stream, slot]` on the standard
output, with an error as third.

Nothing here imports JAX, Flax or TFDS: the process starts in less than a second and takes 60 MB.
"""

import contextlib
import json
import os
import select
import signal
import sys
import threading
import traceback
from typing import Any, NamedTuple

from alexnet_jax.data import ring as rings
from alexnet_jax.data.filling import Fill, from_json
from alexnet_jax.data.records import Files
from alexnet_jax.errors import UsageError

PARENT_CHECK_MS = 5000  # another process may keep the pipe of a dead parent open


class Stream(NamedTuple):
    """A stream of batches, as a worker knows it."""

    ring: rings.Ring
    memory: Any
    fill: Fill


def describe(files: Files, plan: str) -> bytes:
    """The end of a stream's region: the plan of its batches, and the files of its examples."""
    return json.dumps([[files.name, files.parts, files.shape], plan]).encode()


def open_stream(file: int, place: int, size: int, measures: list[Any]) -> Stream:
    """The stream in a region of the arena.

    Args:
      file: of the arena.
      place, size: of the region, bytes.
      measures: the fields of the ring.
    """
    rows, row_shape, parts, slots = measures
    ring = rings.Ring(rows, tuple(row_shape), parts, slots)
    memory = rings.region(file, place, size)
    (name, listed, shape), plan = json.loads(memory[ring.size :])
    files = Files(name, tuple(tuple(part) for part in listed), shape and tuple(shape))
    return Stream(ring, memory, from_json(plan).fill(files.open()))


def describe_error(error: Exception) -> dict[str, Any]:
    """An error in an answer: that of a user as the text alone, any other as the traceback."""
    if isinstance(error, UsageError):
        return {"usage": True, "text": str(error)}
    return {"usage": False, "text": "".join(traceback.format_exception(error)).rstrip()}


def serve(file: int, questions: Any, answers: Any) -> None:
    """Answers until the questions end."""
    streams: dict[int, Stream] = {}
    for line in questions:
        number, *rest = json.loads(line)
        if number not in streams:
            streams[number] = open_stream(file, *rest)
            continue
        stream, (slot, batch, part) = streams[number], rest
        answer: list[Any] = [number, slot]
        try:
            target = stream.ring.batch(rings.slot(stream.memory, stream.ring, slot))
            stream.fill(target, batch, stream.ring.part(part))
        except Exception as error:
            answer.append(describe_error(error))
        answers.write(json.dumps(answer).encode() + b"\n")


def end_with_parent(file: int, parent: int) -> None:
    """Ends this process as soon as nobody can write to the pipe, whatever the process is doing."""
    poll = select.poll()
    poll.register(file, 0)  # an end of the pipe without a writer is reported nevertheless
    while not poll.poll(PARENT_CHECK_MS) and os.getppid() == parent:
        pass
    os._exit(0)


def main() -> None:
    """Serves the process that started this one."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)  # for a whole group of processes; the parent saves its work first
    answers = os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)  # a library that prints would garble the answers
    threading.Thread(target=end_with_parent, args=(0, int(sys.argv[2])), daemon=True).start()
    with contextlib.suppress(BrokenPipeError):  # the parent has just closed its ends
        serve(int(sys.argv[1]), sys.stdin.buffer, answers)


if __name__ == "__main__":
    main()
