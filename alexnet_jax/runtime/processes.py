"""Several processes as one run: how they find one another, agree at the start, take turns and end together.

JAX's coordination service, which process 0 hosts, carries short texts by name between them. No device is used: this
works before the devices are counted, and says something where a collective operation would only wait.
"""

import json
import os
import socket
import sys
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any, NoReturn, TypeVar

import jax
import numpy as np
from jax._src import distributed  # its client has no public name, nor have the number and count before devices exist
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from alexnet_jax.errors import UsageError
from alexnet_jax.runtime.watchdog import STATUS, Watchdog

JOIN = 300.0  # seconds within which all processes must have started
ADDRESS, COUNT, INDEX = VARIABLES = "JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID"
HELP = (
    "Whether this is one of several processes. on: it is; off: it is alone; auto: it is where JAX recognises a cluster"
    " (TPU VMs, GKE, Slurm under srun, Open MPI, Indexed Jobs of Kubernetes) or the environment has"
    f" {ADDRESS} (HOST:PORT of process 0), {COUNT} and {INDEX} (from 0)."
)

T = TypeVar("T")

_watchdog: Watchdog | None = None
_turn = 0


def start(distributed_flag: str) -> None:
    """Joins the other processes, before JAX counts its devices.

    Args:
      distributed_flag: `auto`, `on` or `off`, as `HELP` has it.

    Raises:
      UsageError: there is no cluster, it is half described, or it cannot be reached.
    """
    global _watchdog
    if distributed_flag == "off":
        return
    # Its C++ handler of SIGTERM would be in the way of `Interruption`, which the processes agree on by themselves.
    jax.config.update("jax_enable_preemption_service", False)
    number, own = _number(COUNT), _number(INDEX)
    # Where a process does not come, XLA aborts this one with a trace, after its own, longer time.
    alarm = threading.Timer(JOIN, _give_up)
    alarm.daemon = True
    alarm.start()
    try:
        jax.distributed.initialize(
            num_processes=number,
            process_id=own,
            initialization_timeout=int(JOIN) + 60,
            heartbeat_timeout_seconds=24 * 3600,  # the watchdog's are the ones that count: JAX's end in a C++ trace
        )
    except Exception as error:  # JAX has no common error for a cluster that is not there or that it cannot join
        described = [name for name in VARIABLES if name in os.environ]
        if "be defined" not in str(error):
            reason = " ".join(str(error).split())[:200]
            raise UsageError(f"the other processes cannot be joined: {reason}; --distributed=off runs alone") from error
        if described or distributed_flag == "on":
            missing = ", ".join(name for name in VARIABLES if name not in described)
            raise UsageError(f"JAX recognises no cluster here; set {missing}, or start under srun or mpirun") from error
    finally:
        alarm.cancel()
    if count() > 1:
        address = distributed.global_state.coordinator_address
        _watchdog = Watchdog(_client(), index=index(), count=count(), coordinator=str(address))


def _give_up() -> None:
    state = distributed.global_state
    print(
        f"error: process {state.process_id}: after {JOIN:.0f} s not all processes have met at"
        f" {state.coordinator_address}, where process 0 listens; see which one has not started",
        file=sys.stderr,
        flush=True,
    )
    os._exit(STATUS)


def quiet() -> None:
    """Keeps gloo, the CPU's collectives, from greeting on the standard output; called once devices may be counted."""
    if count() > 1 and jax.default_backend() == "cpu":
        own = os.dup(1)
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, 1)
        os.close(nowhere)
        sys.stdout = os.fdopen(own, "w", buffering=1)


def _number(variable: str) -> int | None:
    text = os.environ.get(variable)
    if text is None:
        return None
    try:
        return int(text)
    except ValueError as error:
        raise UsageError(f"{variable} is {text!r} and should be a whole number") from error


def _client() -> Any:
    return distributed.global_state.client


def index() -> int:
    """Of this process, from 0."""
    return distributed.global_state.process_id


def count() -> int:
    """How many processes the run has."""
    return distributed.global_state.num_processes


def say(line: str) -> None:
    """Prints a line, on process 0 alone."""
    if index() == 0:
        print(line, flush=True)


def at(doing: str) -> None:
    """Tells the watchdog that this process has come to its next piece of work, which all do in the same order."""
    if _watchdog is not None:
        _watchdog.at(doing)


def gather(text: str) -> list[str]:
    """The texts of all processes, on process 0; an empty list on the others. All must call it, in the same order."""
    global _turn
    _turn += 1
    _client().key_value_set(f"alexnet_jax/gather/{_turn}/{index()}", text)
    if index():
        return []
    while True:
        found = dict(_client().key_value_dir_get(f"alexnet_jax/gather/{_turn}/"))
        if len(found) == count():
            return [text for _, text in sorted(found.items(), key=lambda item: int(item[0].rsplit("/", 1)[1]))]
        time.sleep(0.05)


def from_first(text: str) -> str:
    """The text of process 0, on all. All must call it, in the same order; the others wait."""
    global _turn
    _turn += 1
    name = f"alexnet_jax/from_first/{_turn}/"
    if index() == 0:
        _client().key_value_set(f"{name}0", text)
        return text
    while not (found := _client().key_value_dir_get(name)):
        time.sleep(0.05)
    return found[0][1]


def agree(facts: Mapping[str, Any]) -> None:
    """Sees that all processes have the same facts.

    Args:
      facts: by name, to be compared as JSON.

    Raises:
      UsageError: on all processes; it names a process that differs, the fact and both values.
    """
    if count() == 1:
        return
    told = gather(json.dumps(dict(facts) | {"host": socket.gethostname()}, default=str))
    complaint = from_first(difference([json.loads(text) for text in told]))
    if complaint:
        raise UsageError(complaint)


def difference(told: list[dict[str, Any]]) -> str:
    """Names the first process whose facts are not process 0's; empty where there is none. `host` may differ."""
    for number, facts in enumerate(told):
        for name in sorted(told[0].keys() | facts.keys()):
            here, there = told[0].get(name), facts.get(name)
            if name != "host" and here != there:
                return (
                    f"the processes differ in {name}: {here} in process 0 ({told[0]['host']}), {there} in process"
                    f" {number} ({facts['host']}); start all with the same command, packages and data"
                )
    return ""


def first_then_rest(act: Callable[[], T]) -> T:
    """Process 0 acts first and the others after it: on a shared disk they find what it made, else make their own."""
    if count() == 1:
        return act()
    made = act() if index() == 0 else None
    from_first("done")
    return act() if made is None else made


class Largest:
    """The largest of the processes' numbers, as of the call before: nobody waits for it.

    A reduction of one number goes to the devices with each call, between two updates, and is read with the next.
    """

    def __init__(self, mesh: Mesh):
        # The mesh's own devices in its own order, so that a GPU needs no second communicator.
        self._sharding = NamedSharding(mesh, PartitionSpec(mesh.axis_names))
        self._places = len(mesh.local_devices)
        self._reduce = jax.jit(lambda numbers: numbers.max(), out_shardings=NamedSharding(mesh, PartitionSpec()))
        self._running: jax.Array | None = None

    def __call__(self, number: int) -> int:
        """Takes this process's number; 0 at the first call. All processes must call alike."""
        before, numbers = self._running, np.full(self._places, number, np.int32)
        with jax.transfer_guard_host_to_device("allow"):
            given = jax.make_array_from_process_local_data(self._sharding, numbers)
        self._running = self._reduce(given)
        return 0 if before is None else int(jax.device_get(before))


def watched() -> bool:
    """Whether there are other processes, which must not be left waiting."""
    return _watchdog is not None


def finish() -> None:
    """Waits until all processes have come here, and leaves the cluster."""
    if _watchdog is not None:
        _watchdog.end()
        jax.distributed.shutdown()


def fail(error: BaseException, line: str, status: int) -> NoReturn:
    """Prints the line and ends this process, and the others with a line that names it; waits for none of them.

    Where the error may come of another process's end, that one is named if it is found.
    """
    sys.stdout.flush()
    assert _watchdog is not None
    own = str(error).startswith(("INVALID_ARGUMENT", "RESOURCE_EXHAUSTED"))
    if isinstance(error, jax.errors.JaxRuntimeError) and not own:
        print(f"{' '.join(str(error).split())[:200]}: looking whether a process is gone", file=sys.stderr, flush=True)
        _watchdog.await_verdict()
    reason = str(error) if isinstance(error, UsageError) else f"{type(error).__name__}: {error}"
    told = f"process {index()} ({socket.gethostname()}) stopped: {' '.join(reason.split())[:500]}"
    _watchdog.leave(line, told, status)
