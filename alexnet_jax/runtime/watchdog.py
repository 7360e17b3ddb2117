"""Ends all processes of a run where one dies, hangs or fails, and says which.

Each process tells the others, through JAX's coordination service, that it lives and where it is. JAX's own heartbeat
would end the others too, after 100 s, but by an abort with a trace of C++, and it sees no process that only hangs.
"""

import contextlib
import ctypes
import dataclasses
import json
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from typing import Any, NoReturn

TICK = 1.0  # seconds between two looks at the clock
BEAT = 5.0  # seconds between two signs of life
SILENCE = 60.0  # seconds without one after which a process counts as dead
STALL = 90.0  # seconds a process may stay behind the others at one piece of work
STUCK = 600.0  # seconds all may stay at one piece of work: a compilation, a slow storage

STATUS = os.EX_TEMPFAIL  # 75, start me again: the run resumes from its last checkpoint
LIFE, VERDICT = "alexnet_jax/watchdog/life/", "alexnet_jax/watchdog/verdict/"  # folders, which end in a slash


@dataclasses.dataclass
class Seen:
    """What is known of a process.

    Attributes:
      host: its machine.
      place: pieces of work it has begun, 0 until its loop runs.
      doing: the last of them.
      ended: it has done all its work.
      heard, moved: when its last sign of life came, and when its place last changed, by this process's clock.
      behind: since when another process has been at a later place than its present one; None: none is.
      beat: number of its last sign of life.
    """

    host: str
    place: int
    doing: str
    ended: bool
    heard: float
    moved: float
    behind: float | None = None
    beat: int = 0


Sign = tuple[int, str, int, str, bool]  # as sent: beat, host, place, doing, ended


def verdict(seen: dict[int, Seen], now: float) -> str | None:
    """Names the process that is dead or hangs; None: all is well.

    Args:
      seen: all processes, by number.
      now: when they were last looked at, in seconds, by the clock of `Seen`.
    """
    for index, one in seen.items():
        if not one.ended and now - one.heard > SILENCE:
            return f"process {index} ({one.host}) gives no sign of life for {SILENCE:.0f} s: it is dead or stopped"
    working = {index: one for index, one in seen.items() if not one.ended}
    if not all(one.place for one in working.values()) or not working:
        return None
    last = min(working, key=lambda index: working[index].place)
    one = working[last]
    if one.behind is not None and now - one.behind > STALL:
        return f"process {last} ({one.host}) hangs: for {STALL:.0f} s it is at {one.doing}, and the others are ahead"
    if all(now - each.moved > STUCK for each in working.values()):
        return f"no process has moved for {STUCK:.0f} s; process {last} ({one.host}) is at {one.doing}"
    return None


def note(seen: dict[int, Seen], signs: dict[int, Sign], now: float) -> None:
    """Takes the processes' signs of life, by number, read `now`."""
    for index, (beat, host, place, doing, ended) in signs.items():
        one = seen[index]
        if beat != one.beat:
            one.beat, one.host, one.doing, one.ended, one.heard = beat, host, doing, ended, now
        if place != one.place:
            one.place, one.moved, one.behind = place, now, None
    first = max(one.place for one in seen.values())
    for one in seen.values():
        if one.place < first and one.behind is None:
            one.behind = now


def postpone(seen: dict[int, Seen], pause: float) -> None:
    """Leaves so many seconds, in which this process itself stood still, out of account."""
    for one in seen.values():
        one.heard, one.moved = one.heard + pause, one.moved + pause
        one.behind = None if one.behind is None else one.behind + pause


class Watchdog:
    """Two threads: one talks with the coordination service, the other watches the clock, for when no answer comes.

    Args:
      client: of the coordination service.
      index, count: of this process, and how many there are.
      coordinator: address of process 0, which hosts the service.
    """

    def __init__(self, client: Any, *, index: int, count: int, coordinator: str):
        self._client, self._index, self._coordinator = client, index, coordinator
        self._place, self._doing, self._ended, self._beats = 0, "", False, 0
        self._looked = time.monotonic()
        unknown = Seen("host unknown", 0, "", False, self._looked, self._looked)
        self._seen = {number: dataclasses.replace(unknown) for number in range(count)}
        self._over, self._talking, self._leaving = threading.Event(), threading.Lock(), threading.Lock()
        self._hold_aborts()
        self._exchange()
        self._talker = threading.Thread(target=self._talk, daemon=True)
        self._talker.start()
        threading.Thread(target=self._watch, daemon=True).start()

    def at(self, doing: str) -> None:
        """This process has begun its next piece of work."""
        self._doing = doing
        self._place += 1

    def end(self) -> None:
        """Returns when all processes have done their work, and watches no longer."""
        self._ended = True
        while not all(one.ended for one in self._seen.values()):
            with contextlib.suppress(Exception):  # the other thread sees how long this lasts
                self._exchange()
            time.sleep(0.1)
        self._over.set()
        self._talker.join()
        _on_abort(signal.SIG_DFL)

    def leave(self, line: str, told: str, status: int) -> NoReturn:
        """Prints the line, makes the other processes print what is told them, and ends them all with the status."""
        if not self._leaving.acquire(blocking=False):
            threading.Event().wait()  # the other thread is about to end the process
        print(line, file=sys.stderr, flush=True)
        if time.monotonic() - self._looked < SILENCE:
            with contextlib.suppress(Exception):  # another process was faster
                self._client.key_value_set(VERDICT + "first", json.dumps([told, status]))
            with contextlib.suppress(Exception):
                self._ended = True
                self._exchange()
                if self._index == 0:
                    self._linger()
        os._exit(status)

    def await_verdict(self) -> None:
        """Waits as long as it takes to find a process dead, which ends this one too; returns if there is none."""
        time.sleep(SILENCE + 2 * BEAT)

    def _linger(self) -> None:
        """Process 0 hosts the service: it stays until the others have read the verdict, or are late."""
        until = time.monotonic() + 3 * BEAT
        while time.monotonic() < until and not all(one.ended for one in self._seen.values()):
            time.sleep(0.1)
            self._exchange()

    def _talk(self) -> None:
        while not self._over.wait(BEAT):
            try:
                self._exchange()
                told = self._client.key_value_dir_get(VERDICT)
            except Exception:  # the other thread sees how long this lasts
                continue
            if told:
                line, status = json.loads(told[0][1])
                self.leave(f"error: {line}", line, status)

    def _watch(self) -> None:
        ticked = time.monotonic()
        while not self._over.wait(TICK):
            pause, ticked = time.monotonic() - ticked - TICK, time.monotonic()
            if pause > BEAT:  # the whole run may have been stopped: by a scheduler, or with the machine
                self._looked += pause
                postpone(self._seen, pause)
            if time.monotonic() - self._looked > SILENCE:
                where = f"process 0 ({self._coordinator})"
                line = f"{where} gives no answer for {SILENCE:.0f} s: it is dead or stopped"
            else:
                line = verdict(self._seen, self._looked) or ""
            if line:
                line = f"{line}; the same command resumes from the last checkpoint"
                self.leave(f"error: {line}", line, STATUS)

    def _exchange(self) -> None:
        """Gives a sign of life, and takes those of the others."""
        with self._talking:
            self._beats += 1
            sign = [self._beats, socket.gethostname(), self._place, self._doing, self._ended]
            self._client.key_value_set(f"{LIFE}{self._index}", json.dumps(sign), allow_overwrite=True)
            signs = self._client.key_value_dir_get(LIFE)
            self._looked = time.monotonic()
            note(self._seen, {int(name.rsplit("/", 1)[1]): json.loads(text) for name, text in signs}, self._looked)

    def _hold_aborts(self) -> None:
        """Holds back the abort by which XLA ends a process when another one is gone, until it is known which.

        Python's own handlers cannot: they run after the C one has returned, which ends the process.
        """

        def hold(_: int) -> None:
            self.await_verdict()
            told = f"process {self._index} ({socket.gethostname()}) aborted; its own output says why"
            self.leave("error: aborted, and no other process is dead; the lines above say why", told, STATUS)

        _on_abort(hold)


_handlers: list[Any] = []  # what C may still call must not be collected


def _on_abort(handler: Callable[[int], None] | signal.Handlers) -> None:
    kind = ctypes.CFUNCTYPE(None, ctypes.c_int)
    function = kind(handler) if callable(handler) else ctypes.cast(int(handler), kind)
    _handlers.append(function)
    ctypes.CDLL(None).signal(int(signal.SIGABRT), function)
