"""The errors of the machine: its processes and devices. They hold facts and name no flag."""

from alexnet_jax.errors import TEMPORARY, UsageError


class ClusterError(UsageError):
    """There is no cluster, its description is incomplete, or its processes cannot be joined."""


class MissingClusterError(ClusterError):
    """JAX recognises no cluster.

    Args:
      missing: environment variables that would describe one.
    """

    def __init__(self, missing: list[str]):
        super().__init__(f"JAX recognises no cluster here; set {', '.join(missing)}, or start under srun or mpirun")


class UnknownLauncherError(ClusterError):
    """An MPI has started several processes, and JAX does not recognise that MPI.

    Args:
      variable, value: of the MPI: the number of processes.
      missing: environment variables that would describe the cluster to JAX.
    """

    def __init__(self, variable: str, value: str, missing: list[str]):
        super().__init__(
            f"{variable} is {value}, and this JAX does not recognise its launcher; set"
            f" {', '.join(missing)} in each process, or start a single one"
        )


class EarlyDevicesError(UsageError):
    """JAX's devices were made before the program chose them."""

    def __init__(self) -> None:
        super().__init__(
            "the config, or a module that it imports, uses JAX's devices, which the program chooses after it has read"
            " the config; take the number of devices from the command line, or leave the layout to config.mesh"
        )


class JoinTimeoutError(ClusterError):
    """Not all processes have started in time. A later start may succeed.

    Args:
      address: where process 0 listens.
      index: of this process.
      seconds: of waiting.
    """

    status = TEMPORARY

    def __init__(self, address: str, index: int, seconds: float):
        super().__init__(
            f"process {index}: after {seconds:.0f} s not all processes have met at {address}, where process 0 listens;"
            " start the missing ones, and see that the address is reachable"
        )


class DifferenceError(UsageError):
    """The processes of a run have different facts, such as a key of the config."""


class VariableError(UsageError):
    """An environment variable of a library has a value that does not work."""

    def __init__(self, variable: str, value: str, reason: str):
        super().__init__(f"{variable} is {value!r}: {reason}; correct or unset it")


class PlatformError(UsageError):
    """JAX cannot use the devices that were asked for.

    Args:
      variable: that names platforms.
      platforms: as the variable names them; empty: JAX chooses.
      reason: of JAX.
    """

    def __init__(self, variable: str, platforms: str, reason: str):
        asked = f"{variable} is {platforms!r}, and " if platforms else ""
        mend = "unset it, or name an installed platform such as cpu" if platforms else "JAX_PLATFORMS=cpu needs none"
        if "cuda" in platforms:
            mend = f"see whether nvidia-smi shows a driver of version 580 or newer, else {mend}"
        super().__init__(f"{asked}JAX cannot use the devices of this machine: {reason}; {mend}")
