"""Ends all processes of a run where one dies, hangs or fails, and names that process.

Each process sends heartbeats with its phase, the piece of work that it is at, through the key-value store of JAX's
coordination service, and reads those of the others. JAX's own means were tried with jax 0.10.2 and 0.12.0.1:

* `heartbeat_timeout_seconds`: JAX aborts all processes with a trace of C++ when one is lost, and does not see a process
  that hangs in Python. A run that a scheduler suspends for longer than the timeout is aborted when it continues.
* The loss of process 0, which hosts the service, aborts the others at once, whatever the timeout and with
  `jax_enable_recoverability` too. A `missed_heartbeat_callback` would replace the abort, but a callback in Python ends
  in `std::bad_cast`, since its argument has no type in Python.
* With `jax_enable_recoverability` the loss of another process is silent, and the query for live processes waits
  for all of them.

So JAX carries the texts, its timeout is a day, and the rules are here.
"""

import contextlib
import ctypes
import dataclasses
import json
import os
import signal
import socket
import threading
import time
from typing import Any, NoReturn

from alexnet_jax.errors import TEMPORARY
from alexnet_jax.runtime import output

TICK = 1.0  # seconds between two looks at the heartbeats
HEARTBEAT_INTERVAL = 2.0  # seconds
HEARTBEAT_TIMEOUT = 60.0  # seconds without a heartbeat, after which a process counts as dead
PHASE_TIMEOUT = 90.0  # seconds for which a process may stay in a phase that another process has passed
SLOW_PHASE_TIMEOUT = 600.0  # the same in a phase with a compilation, a restore or a data set's preparation
STALL_TIMEOUT = 600.0  # seconds for which all processes may stay in their phases
FAREWELL_TIMEOUT = 10.0  # seconds for which process 0 serves the others after the verdict

HEARTBEAT, VERDICT, LEFT = (f"alexnet_jax/{name}/" for name in ("heartbeat", "verdict", "left"))  # keys


@dataclasses.dataclass
class Peer:
    """The last heartbeat of a process, and the times that follow from it, in ticked seconds of this process.

    Attributes:
      host: name of the machine.
      place: number of phases begun.
      phase: the last of them.
      timeout: seconds for which the process may stay in it once another process has passed it.
      beat: number of the heartbeat.
      heard: when it came.
      moved: when the place last changed.
      passed: when another process was first seen at a later place; None: no other is ahead.
    """

    host: str = "host unknown"
    place: int = 0
    phase: str = "start-up"
    timeout: float = SLOW_PHASE_TIMEOUT
    beat: int = 0
    heard: float = 0.0
    moved: float = 0.0
    passed: float | None = None


def find_failure(peers: dict[int, Peer], now: float) -> str | None:
    """Names a process that is dead or hangs; None: all is well.

    Args:
      peers: all processes by number.
      now: in ticked seconds.
    """
    for index, peer in peers.items():
        if now - peer.heard > HEARTBEAT_TIMEOUT:
            return f"process {index} ({peer.host}) has sent no heartbeat for {HEARTBEAT_TIMEOUT:.0f} s: dead or stopped"
    last, peer = min(peers.items(), key=lambda item: item[1].place)
    if peer.passed is not None and now - peer.passed > peer.timeout:
        return (
            f"process {last} ({peer.host}) hangs: for {peer.timeout:.0f} s it is at {peer.phase}, the others are ahead"
        )
    if all(now - each.moved > STALL_TIMEOUT for each in peers.values()):
        return f"no process has moved for {STALL_TIMEOUT:.0f} s; process {last} ({peer.host}) is at {peer.phase}"
    return None


def update(peers: dict[int, Peer], heartbeats: dict[int, list[Any]], now: float) -> None:
    """Enters the heartbeats `[beat, host, place, phase, timeout]` by process, as read at `now`."""
    for index, (beat, host, place, phase, timeout) in heartbeats.items():
        peer = peers[index]
        if beat != peer.beat:
            peer.beat, peer.host, peer.phase, peer.timeout, peer.heard = beat, host, phase, timeout, now
        if place != peer.place:
            peer.place, peer.moved, peer.passed = place, now, None
    first = max(peer.place for peer in peers.values())
    for peer in peers.values():
        if peer.place < first and peer.passed is None:
            peer.passed = now


class Watchdog:
    """Two threads: one exchanges heartbeats, the other judges them, also while an exchange does not return.

    Time is counted in ticks of the second thread. A run that is suspended as a whole, by a scheduler or with its
    machine, ticks no more, and so loses no process.

    Args:
      client: of the coordination service.
      index: of this process.
      count: of all processes.
      coordinator: HOST:PORT of process 0, which hosts the service.
    """

    def __init__(self, client: Any, *, index: int, count: int, coordinator: str):
        self._client, self._index, self._count, self._coordinator = client, index, count, coordinator
        self._phase: tuple[int, str, float] = 0, "start-up", SLOW_PHASE_TIMEOUT
        self._beats, self._now, self._answered = 0, 0.0, 0.0
        self._peers = {number: Peer() for number in range(count)}
        self._stopped, self._ending = threading.Event(), threading.Lock()
        _delay_aborts()
        self._exchange()
        self._exchanging = threading.Thread(target=self._exchange_until_stopped, daemon=True)
        self._exchanging.start()
        threading.Thread(target=self._judge_until_stopped, daemon=True).start()

    def enter(self, phase: str, *, slow: bool) -> None:
        """Begins the next phase of this process."""
        self._phase = self._phase[0] + 1, phase, SLOW_PHASE_TIMEOUT if slow else PHASE_TIMEOUT

    def stop(self) -> None:
        """Ends the watch. All processes have met at their end before."""
        self._stopped.set()
        self._exchanging.join()

    def end_run(self, line: str, reason: str, status: int) -> NoReturn:
        """Prints the line, ends this process with the status, and the others with the status and the reason."""
        if not self._ending.acquire(blocking=False):
            threading.Event().wait()  # for the other thread, which ends the process
        output.warn(line)
        if not self._overdue():
            farewell = threading.Thread(target=self._send_verdict, args=(reason, status), daemon=True)
            farewell.start()
            farewell.join(FAREWELL_TIMEOUT)
        os._exit(status)

    def await_failure(self, line: str) -> None:
        """Prints the line and waits until a dead process would be found, which ends this one. Returns if none is."""
        if self._ending.locked():
            threading.Event().wait()  # for the other thread, which ends the process
        output.warn(line)
        time.sleep(HEARTBEAT_TIMEOUT + 2 * HEARTBEAT_INTERVAL + TICK)

    def _send_verdict(self, reason: str, status: int) -> None:
        with contextlib.suppress(Exception):  # another process was faster
            self._client.key_value_set(f"{VERDICT}first", json.dumps([reason, status]))
        with contextlib.suppress(Exception):
            self._client.key_value_set(f"{LEFT}{self._index}", "")
            while self._index == 0 and len(self._client.key_value_dir_get(LEFT)) < self._count:
                time.sleep(0.1)

    def _exchange(self) -> None:
        self._beats += 1
        heartbeat = json.dumps([self._beats, socket.gethostname(), *self._phase])
        self._client.key_value_set(f"{HEARTBEAT}{self._index}", heartbeat, allow_overwrite=True)
        texts = self._client.key_value_dir_get(HEARTBEAT)
        self._answered = self._now
        heartbeats = {int(key.rsplit("/", 1)[1]): json.loads(text) for key, text in texts}
        update(self._peers, heartbeats, self._now)

    def _exchange_until_stopped(self) -> None:
        while not self._stopped.wait(HEARTBEAT_INTERVAL):
            with contextlib.suppress(Exception):  # the other thread judges how long this lasts
                self._exchange()
                if verdicts := self._client.key_value_dir_get(VERDICT):
                    reason, status = json.loads(verdicts[0][1])
                    self.end_run(f"error: {reason}", reason, status)

    def _judge_until_stopped(self) -> None:
        while not self._stopped.wait(TICK):
            self._now += TICK
            if failure := self._failure():
                reason = f"{failure}; the same command resumes from the last checkpoint"
                self.end_run(f"error: {reason}", reason, TEMPORARY)

    def _failure(self) -> str | None:
        if self._now - self._answered > HEARTBEAT_TIMEOUT:
            return f"process 0 ({self._coordinator}) has not answered for {HEARTBEAT_TIMEOUT:.0f} s: dead or stopped"
        if self._overdue() and _is_closed(self._coordinator):
            return f"process 0 ({self._coordinator}) is dead: nothing listens at its address"
        return find_failure(self._peers, self._answered)

    def _overdue(self) -> bool:
        return self._now - self._answered > HEARTBEAT_INTERVAL + TICK


def _is_closed(address: str) -> bool:
    """Whether the machine refuses a connection. Another failure, such as of DNS, does not show that nothing listens."""
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=TICK).close()
    except OSError as error:
        return isinstance(error, ConnectionRefusedError)
    return False


def _delay_aborts() -> None:
    """Makes an abort of this process last 6 s, within which the watchdog names the process that is dead.

    XLA aborts a process as soon as the connection to process 0 breaks. The handler of SIGABRT is the C library's own
    `sleep`, which may be called in a handler (POSIX) and takes the number of the signal, 6, as seconds. Then the abort
    proceeds. A handler in Python cannot delay an abort: Python runs the handler after the C handler has returned.
    """
    library = ctypes.CDLL(None)
    library.signal(int(signal.SIGABRT), ctypes.cast(library.sleep, ctypes.c_void_p))
