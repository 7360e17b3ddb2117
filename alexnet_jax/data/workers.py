"""Worker processes that read images: they fill batches in shared memory, from where the devices copy them.

Threads share the interpreter's lock, which is held for a tenth of an image's time. The processes share no lock and pass
no pixels: a line of some bytes goes each way for a part of a batch.
"""

import collections
import contextlib
import dataclasses
import selectors
import threading
import weakref
from collections.abc import Callable, Iterator
from typing import Any

from alexnet_jax.data import ring as rings
from alexnet_jax.data.batch import Batch
from alexnet_jax.data.errors import ReaderDiedError, StorageError
from alexnet_jax.data.filling import Plan, to_json
from alexnet_jax.data.process import Process
from alexnet_jax.data.records import Files
from alexnet_jax.data.ring import HELD, Ring
from alexnet_jax.data.worker import describe
from alexnet_jax.errors import reason_of


class Workers:
    """Processes that fill batches for any number of streams.

    Args:
      count: how many, at least 1.
      refused: called with the reason, once, where there is no room for the processes or their memory.
    """

    def __init__(self, count: int, refused: Callable[[str], None]):
        self._count, self._refused = count, refused
        self._processes: list[Process] = []
        self._streams: list[Stream] = []
        self._selector = selectors.DefaultSelector()
        self._arena = rings.Arena()
        self._ended: tuple[int, str] | None = None  # the process that died, and how
        self.lock = threading.RLock()
        self.close = weakref.finalize(self, _end, self._processes, self._selector, self._arena)

    def start(self) -> bool:
        """Starts the processes, unless they run; returns whether they run. A second before they are needed is best."""
        with self.lock:
            missing = self._count - len(self._processes)
            try:
                for _ in range(missing):
                    process = Process(self._arena.file)
                    self._processes.append(process)
                    self._selector.register(process.answers, selectors.EVENT_READ, process)
            except OSError as error:
                self._refuse(f"{self._count} worker processes cannot be started ({reason_of(error)})")
            return self._count > 0

    def stream(self, files: Files, plan: Plan) -> "Stream | None":
        """A stream of batches that nobody reads at present; None: threads must make them.

        Args:
          files: of the examples.
          plan: of the batches.

        Raises:
          ReaderDiedError: a process is dead.
        """
        text = describe(files, to_json(plan))
        with self.lock:
            self._check()
            if not self.close.alive:
                return None
            for stream in self._streams:
                if stream.text == text and not stream.taken:
                    return stream
            return self._open(text, rings.ring_of(plan, self._count)) if self.start() else None

    def _open(self, text: bytes, ring: Ring) -> "Stream | None":
        size = ring.size + len(text)
        try:
            place = self._arena.add(size)
            memory = rings.region(self._arena.file, place, size)
        except OSError as error:
            need = f"{self._count} worker processes need {size / 2**20:,.0f} MiB of shared memory"
            self._refuse(f"{need} ({reason_of(error)})")
            return None
        memory[ring.size :] = text
        stream = Stream(self, len(self._streams), text, ring, memory)
        self._streams.append(stream)
        for process in self._processes:
            self._tell(process, [stream.number, place, size, list(dataclasses.astuple(ring))])
        return stream

    def _refuse(self, reason: str) -> None:
        """Leaves the work to threads from now on; streams that are open go on."""
        self._count = 0
        if not self._streams:
            self.close()
        self._refused(reason)

    def ask(self, part: list[int]) -> None:
        """Gives a part of a batch to the worker that has the least to do."""
        self._check()
        process = min(self._processes, key=lambda process: process.outstanding)
        process.outstanding += 1
        self._tell(process, part)

    def receive(self) -> None:
        """Waits for an answer, and takes those that are there.

        Raises:
          ReaderDiedError: a process is dead.
        """
        self._check()
        for key, _ in self._selector.select():
            answers = key.data.read()
            if answers is None:
                self._bury(key.data)
            for stream, slot, *errors in answers:
                self._streams[stream].answer(slot, errors)

    def _tell(self, process: Process, message: list[Any]) -> None:
        try:
            process.write(message)
        except BrokenPipeError:
            self._bury(process)

    def _bury(self, process: Process) -> None:
        self._ended = process.pid, process.ending()
        self.close()
        self._check()

    def _check(self) -> None:
        if self._ended is not None:
            raise ReaderDiedError(*self._ended)


def _end(processes: list[Process], selector: selectors.BaseSelector, arena: rings.Arena) -> None:
    selector.close()
    for process in processes:
        process.hang_up()
    for process in processes:
        process.join()
    arena.close()


class Stream:
    """Batches of one plan, one after the other, in a ring that all workers write to.

    Args:
      workers: that fill the batches.
      number: of the stream.
      text: what the stream holds.
      ring: its measures.
      memory: of the ring.

    Attributes:
      taken: whether an iterator is at work.
    """

    def __init__(self, workers: Workers, number: int, text: bytes, ring: Ring, memory: Any):
        self.number, self.text, self.taken = number, text, False
        self._workers, self._ring, self._memory = workers, ring, memory
        # A slot is free, or being filled, or in the hands of the consumer.
        self._free = collections.deque(range(ring.slots))
        self._missing = [0] * ring.slots  # parts
        self._dropped: set[int] = set()  # slots that are being filled for nobody
        self._errors: dict[int, dict[str, Any]] = {}

    def batches(self, numbers: range) -> "Batches":
        """The batches with these numbers. One iterator at a time."""
        return Batches(self._workers, self, numbers)

    def begin(self, number: int) -> int | None:
        """Has a batch filled. The slot; None: none is free."""
        if not self._free:
            return None
        slot = self._free.popleft()
        self._missing[slot] = self._ring.parts
        for part in range(self._ring.parts):
            self._workers.ask([self.number, slot, number, part])
        return slot

    def answer(self, slot: int, errors: list[dict[str, Any]]) -> None:
        """Notes that a part is filled, or why not."""
        self._missing[slot] -= 1
        if errors:
            self._errors[slot] = errors[0]
        if not self._missing[slot] and slot in self._dropped:
            self._dropped.discard(slot)
            self._release(slot)

    def is_filled(self, slot: int) -> bool:
        """Whether all parts are there."""
        return not self._missing[slot]

    def drop(self, slot: int) -> None:
        """Gives up a batch before it is handed out."""
        if self._missing[slot]:
            self._dropped.add(slot)
        else:
            self._release(slot)

    def _release(self, slot: int) -> None:
        self._errors.pop(slot, None)
        self._free.append(slot)

    def hand_out(self, slot: int, making: int) -> Batch:
        """The batch in a slot, which is free again when no array of the batch is left.

        A device may read an array after the call that copies it, and on a CPU its array is this memory. A consumer that
        keeps more than `HELD` batches gets copies of the others.

        Args:
          slot: filled.
          making: slots that are being filled.

        Raises:
          StorageError: the examples cannot be read.
        """
        if (error := self._errors.get(slot)) is not None:
            self._release(slot)
            raise (StorageError if error["usage"] else RuntimeError)(error["text"])
        memory = rings.slot(self._memory, self._ring, slot)
        batch = self._ring.batch(memory)
        held = self._ring.slots - len(self._free) - len(self._dropped) - making
        if held > HELD:
            copies: list[Any] = [array.copy() for array in batch]
            self._free.append(slot)
            return Batch(*copies)
        weakref.finalize(memory, self._free.append, slot).atexit = False
        return batch


class Batches(Iterator[Batch]):
    """The batches of a stream, in order."""

    def __init__(self, workers: Workers, stream: Stream, numbers: range):
        self._workers, self._stream, self._left = workers, stream, iter(numbers)
        self._making: collections.deque[int] = collections.deque()  # slots, in the order of their batches
        self._next: int | None = next(self._left, None)
        self._closed, stream.taken = False, True
        with workers.lock:
            self._begin()

    def __next__(self) -> Batch:
        """The next batch.

        Raises:
          StorageError, ReaderDiedError: the storage fails, or a worker is dead.
        """
        with self._workers.lock:
            try:
                while not self._making:
                    self._begin()
                    if self._next is None and not self._making:
                        raise StopIteration
                    if not self._making:  # all slots are being filled for nobody
                        self._workers.receive()
                while not self._stream.is_filled(self._making[0]):
                    self._workers.receive()
                batch = self._stream.hand_out(self._making.popleft(), len(self._making))
            except BaseException:
                self.close()
                raise
            with contextlib.suppress(ReaderDiedError):  # which is for the first batch that lacks a part
                self._begin()
            return batch

    def close(self) -> None:
        """Gives up the batches that nobody took. Closed again, it leaves the stream to the iterator that has it now."""
        with self._workers.lock:
            if self._closed:
                return
            while self._making:
                self._stream.drop(self._making.popleft())
            self._next, self._closed, self._stream.taken = None, True, False

    def __del__(self) -> None:
        self.close()

    def _begin(self) -> None:
        while self._next is not None and (slot := self._stream.begin(self._next)) is not None:
            self._making.append(slot)
            self._next = next(self._left, None)
