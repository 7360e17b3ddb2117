"""Several processes as one run: they join, compare their facts, take turns and end together.

JAX's coordination service, which process 0 hosts, carries short texts by name between them. No device takes part: the
service works before the devices are counted. Waiting is polling, so that signals are handled meanwhile.
"""

import contextlib
import json
import os
import re
import socket
import sys
import threading
import time
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from alexnet_jax.errors import UsageError, words_of
from alexnet_jax.runtime import allocator, compat, output
from alexnet_jax.runtime.errors import (
    ClusterError,
    DifferenceError,
    EarlyDevicesError,
    JoinTimeoutError,
    MissingClusterError,
    PlatformError,
    UnknownLauncherError,
)
from alexnet_jax.runtime.watchdog import Watchdog

JOIN_TIMEOUT = 300.0  # seconds within which all processes must have started
FIRST_LINE, LINE_EVERY = 2.0, 30.0  # seconds of waiting before the first line about it, and between two lines
HEARTBEAT_TIMEOUT = 24 * 3600  # seconds, of JAX's own heartbeat: `watchdog` is stricter
OF_MPI = ("OMPI_COMM_WORLD_SIZE", "PMI_SIZE")  # number of processes that Open MPI, or another MPI, has started
ADDRESS, COUNT, INDEX = VARIABLES = "JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID"
HELP = (
    "Whether this process is one of several. on: yes; off: no; auto: yes where JAX recognises a cluster"
    " (TPU VMs, TPUs on GKE, Slurm under srun, Open MPI 4, Indexed Jobs of Kubernetes) or the environment has"
    f" {ADDRESS} (HOST:PORT of process 0), {COUNT} and {INDEX} (from 0)."
)

T = TypeVar("T")
index, count = compat.process_index, compat.process_count

_joining = False
_watchdog: Watchdog | None = None
_turn = 0


def start(mode: str) -> None:
    """Joins the other processes, before JAX counts its devices.

    A process that waits for others prints a line on stderr, again every 30 s, and handles signals.

    Args:
      mode: `auto`, `on` or `off`, as in `HELP`.

    Raises:
      ClusterError: there is no cluster, its description is incomplete, or it cannot be joined.
    """
    global _watchdog
    if mode == "off":
        return
    numbers = _number(COUNT), _number(INDEX)
    # Its C++ handler of SIGTERM would replace that of `Interruption`, by which the processes agree on a step.
    jax.config.update("jax_enable_preemption_service", False)
    try:
        _join(*numbers)
    except ClusterError:
        raise
    except Exception as error:  # JAX has no common error for a missing cluster and one that cannot be joined
        described = [name for name in VARIABLES if name in os.environ]
        if "must be called before" in str(error):
            raise EarlyDevicesError from error
        if "be defined" not in str(error):
            raise ClusterError(f"the other processes cannot be joined: {words_of(error)}") from error
        missing = [name for name in VARIABLES if name not in described]
        if several := next((name for name in OF_MPI if os.environ.get(name, "1") != "1"), None):
            raise UnknownLauncherError(several, os.environ[several], missing) from error
        if described or mode == "on":
            raise MissingClusterError(missing) from error
    if (count() == 1 or _is_alone_on_machine()) and "JAX_LOCAL_DEVICE_IDS" not in os.environ:
        # JAX takes one GPU for each process that Slurm or an MPI has started on a machine: of one process the first.
        jax.config.update("jax_cuda_visible_devices", "all")
        jax.config.update("jax_rocm_visible_devices", "all")
    if count() > 1 and (client := compat.coordination_client()) is not None:
        address = str(compat.coordinator_address())
        _watchdog = Watchdog(client, index=index(), count=count(), coordinator=address)


def _is_alone_on_machine() -> bool:
    """Whether Slurm or Open MPI has started one process on each machine."""
    of_slurm = re.fullmatch(r"1(\(x\d+\))?", os.environ.get("SLURM_STEP_TASKS_PER_NODE", ""))
    return of_slurm is not None or os.environ.get("OMPI_COMM_WORLD_LOCAL_SIZE") == "1"


def _join(processes: int | None, process: int | None) -> None:
    """Joins the others in a thread: `initialize` waits in C++, where Python handles no signal."""
    global _joining
    # gRPC would look for process 0, on this machine too, through the proxy that `http_proxy` names.
    os.environ.setdefault("grpc_proxy", "")
    jax.config.update("jax_check_proxy_envs", False)  # JAX's warning about that
    errors: list[Exception] = []

    def initialize() -> None:
        seconds = HEARTBEAT_TIMEOUT if compat.has_coordination_client() else 100
        try:
            jax.distributed.initialize(
                num_processes=processes,
                process_id=process,
                initialization_timeout=int(JOIN_TIMEOUT) + 60,
                heartbeat_timeout_seconds=seconds,
            )
        except Exception as error:
            errors.append(error)

    thread = threading.Thread(target=initialize, daemon=True)
    thread.start()
    _joining = True
    thread.join(FIRST_LINE)
    end = time.monotonic() + JOIN_TIMEOUT
    while thread.is_alive():
        address = compat.coordinator_address() or "an address that JAX looks up"
        if proxy := os.environ.get("grpc_proxy"):  # noqa: SIM112 -- the user's own, which may lead nowhere
            address += f" through grpc_proxy={proxy}"
        if time.monotonic() >= end:
            raise JoinTimeoutError(address, index(), JOIN_TIMEOUT)
        missing = "1" if count() == 2 else f"up to {count() - 1}" if count() > 2 else "some"
        output.warn(f"waiting for {missing} of {count()} processes at {address}")
        thread.join(min(LINE_EVERY, end - time.monotonic()))
    _joining = False
    if errors:
        raise errors[0]


def make_devices(cpu_devices: int) -> None:
    """Makes JAX's devices. Before that, `allocator.keep_memory` is called.

    JAX starts threads with the devices of a CPU. If `keep_memory` is called later, each of these threads allocates from
    a separate heap, and a separate heap returns large blocks to the system at once.

    Args:
      cpu_devices: of a CPU, of all processes together. `JAX_NUM_CPU_DEVICES`, of one process, overrides the number.

    Raises:
      EarlyDevicesError: JAX has made its devices before, as a config's code can do.
      PlatformError: JAX cannot use the devices.
    """
    if "JAX_NUM_CPU_DEVICES" not in os.environ:
        try:
            jax.config.update("jax_num_cpu_devices", -(-cpu_devices // count()))
        except RuntimeError as error:  # of `--distributed=off`; joining the others notices the same
            raise EarlyDevicesError from error
    allocator.keep_memory()
    try:
        jax.devices()
    except Exception as error:  # JAX has no common error, and an assertion without a text among them
        reason = " ".join(str(error).partition(" (set JAX_PLATFORMS")[0].rstrip(".").split())
        names = ("JAX_PLATFORMS", "JAX_PLATFORM_NAME")  # JAX reads the second where the first is not set
        variable = next((name for name in names if os.environ.get(name)), names[0])
        platforms = os.environ.get(variable, "")
        raise PlatformError(variable, platforms, reason or "it has none of that kind") from error


def silence_gloo() -> None:
    """Hides the greeting of gloo, the CPU's collectives, on the standard output. Counts the devices."""
    if count() > 1 and jax.default_backend() == "cpu" and (before := sys.stdout) is not None:
        before.flush()
        stdout = os.dup(1)
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, 1)
        os.close(null)
        sys.stdout = os.fdopen(stdout, "w", buffering=1, encoding=before.encoding, errors=before.errors)


def _number(variable: str) -> int | None:
    text = os.environ.get(variable)
    if text is None:
        return None
    try:
        return int(text)
    except ValueError as error:
        raise ClusterError(f"{variable} is {text!r} and should be a whole number") from error


def log(line: str) -> None:
    """Prints a line, on process 0 alone."""
    if index() == 0:
        output.say(line)


def enter(phase: str, *, slow: bool = False) -> None:
    """Reports to the watchdog that this process begins a phase. All processes begin the same ones in the same order.

    Args:
      phase: names the work in messages, such as `update 7`.
      slow: the processes may take very different times for the phase, as in a compilation.
    """
    if _watchdog is not None:
        _watchdog.enter(phase, slow=slow)


def gather(text: str) -> list[str]:
    """The texts of all processes, on process 0; an empty list on the others. All must call it, in the same order."""
    folder, client = _next_turn(), compat.coordination_client()
    client.key_value_set(f"{folder}{index():08}", text)
    while index() == 0:
        texts = sorted(client.key_value_dir_get(folder))
        if len(texts) == count():
            return [text for _, text in texts]
        time.sleep(0.05)
    return []


def broadcast(text: str) -> str:
    """The text of process 0, on all. All must call it, in the same order; the others wait."""
    folder, client = _next_turn(), compat.coordination_client()
    if index() == 0:
        client.key_value_set(f"{folder}0", text)
        return text
    while not (texts := client.key_value_dir_get(folder)):
        time.sleep(0.05)
    return texts[0][1]


def _next_turn() -> str:
    global _turn
    _turn += 1
    return f"alexnet_jax/turn/{_turn}/"


def agree(facts: Mapping[str, Any]) -> None:
    """Checks that all processes have the same facts.

    Args:
      facts: by name, to be compared as JSON.

    Raises:
      DifferenceError: on all processes, with a process that differs, the fact and both values.
    """
    if _watchdog is None:
        return
    enter("comparing the processes", slow=True)
    texts = gather(json.dumps(dict(facts) | {"host": socket.gethostname()}, default=str))
    difference = broadcast(first_difference([json.loads(text) for text in texts]))
    if difference:
        raise DifferenceError(difference)


def have_in_common(folder: str) -> bool:
    """Whether all processes see what process 0 writes into a folder: each host may have its own under this name.

    An address such as `gs://...` is in common where all have the same. All must call it.
    """
    if _watchdog is None:
        return True
    enter("comparing the processes", slow=True)
    file = Path(folder, broadcast(f".shared-{uuid.uuid4().hex}"))
    is_address = "://" in folder
    with contextlib.suppress(OSError):
        if index() == 0 and not is_address:
            file.parent.mkdir(parents=True, exist_ok=True)
            file.touch()
    broadcast("written")
    seen = gather(folder if is_address else "yes" if file.exists() else "no")
    with contextlib.suppress(OSError):  # before the answer, so that no process finds the file afterwards
        if index() == 0 and not is_address:
            file.unlink(missing_ok=True)
    return broadcast("yes" if len(set(seen)) == 1 and seen[0] != "no" else "no") == "yes"


def first_difference(facts: list[dict[str, Any]]) -> str:
    """Names the first process whose facts differ from those of process 0; empty: none does. `host` may differ."""
    for number, theirs in enumerate(facts):
        for name in sorted(facts[0].keys() | theirs.keys()):
            ours, other = facts[0].get(name), theirs.get(name)
            if name != "host" and ours != other:
                return (
                    f"the processes differ in {name}: {ours} in process 0 ({facts[0]['host']}), {other} in process"
                    f" {number} ({theirs['host']}); start all with the same command, packages and data"
                )
    return ""


def first_then_rest(act: Callable[[], T]) -> T:
    """Acts on process 0, then on the others, which on a shared disk find what process 0 made."""
    if count() == 1:
        return act()
    made = act() if index() == 0 else None
    if _watchdog is None:
        multihost_utils.sync_global_devices("first_then_rest")
    else:
        broadcast("done")
    return act() if made is None else made


class DelayedMaximum:
    """The maximum of a number over all processes, as of the call before, so that no process waits for it.

    With each call a reduction goes to the devices, between two updates. The next call reads its result.
    """

    def __init__(self, mesh: Mesh):
        # The devices of the mesh in its order: a GPU needs no second communicator.
        self._sharding = NamedSharding(mesh, PartitionSpec(mesh.axis_names))
        self._devices = len(mesh.local_devices)
        self._reduce = jax.jit(lambda numbers: numbers.max(), out_shardings=NamedSharding(mesh, PartitionSpec()))
        self._running: jax.Array | None = None

    def __call__(self, number: int) -> int:
        """Enters the number of this process; 0 at the first call. All processes must call it, in the same order."""
        before, numbers = self._running, np.full(self._devices, number, np.int32)
        with jax.transfer_guard_host_to_device("allow"):
            everywhere = jax.make_array_from_process_local_data(self._sharding, numbers)
        self._running = self._reduce(everywhere)
        return 0 if before is None else int(jax.device_get(before))


def joining() -> bool:
    """Whether `start` was left before the others came. Then `os._exit` ends the process: JAX still waits in C++."""
    return _joining


def finish() -> None:
    """Waits until all processes have come here, and leaves the cluster."""
    if _watchdog is not None:
        enter("its end")
        gather("")
        broadcast("")
        _watchdog.stop()
        jax.distributed.shutdown()


def fail(error: BaseException, line: str, status: int) -> None:
    """Prints the line and ends this process, and the others with a line that names this process; alone, does nothing.

    An error of the runtime may follow from the end of another process. That process is named if it is found.
    """
    if _watchdog is None:
        return
    with contextlib.suppress(AttributeError, OSError):  # standard output is closed, or its disk is full
        sys.stdout.flush()
    is_ours = str(error).startswith(("INVALID_ARGUMENT", "RESOURCE_EXHAUSTED"))
    if isinstance(error, jax.errors.JaxRuntimeError) and not is_ours:
        _watchdog.await_failure(f"{words_of(error)}: looking whether a process is dead")
    words = str(error) if isinstance(error, UsageError) else f"{type(error).__name__}: {error}"
    reason = f"process {index()} ({socket.gethostname()}) stopped: {' '.join(words.split())[:500]}"
    _watchdog.end_run(line, reason, status)
