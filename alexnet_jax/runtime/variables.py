"""The environment variables of JAX and XLA that would change a run's numbers, break it, or end it in C++."""

import os

import jax

from alexnet_jax.errors import UsageError, reason_of
from alexnet_jax.runtime import compat
from alexnet_jax.runtime.errors import VariableError

# Options that the program sets: a run gives the same numbers in every environment, and guards its own loop.
SET = {
    "jax_transfer_guard": "allow",
    "jax_enable_x64": False,
    "jax_threefry_partitionable": True,
    "jax_default_prng_impl": "threefry2x32",
    "jax_random_seed_offset": 0,
}
# Options under which the program does not work, with the values that do, and the reason.
REFUSED = {
    "jax_disable_jit": ((False,), "the steps are compiled for a mesh of devices"),
    "jax_check_tracer_leaks": ((False,), "libraries of the program keep tracers"),
    "jax_default_device": ((None,), "JAX_PLATFORMS selects the devices"),
    "jax_no_tracing": ((False,), "nothing can be compiled"),
    "jax_no_execution": ((False,), "nothing can be computed"),
    "jax_array_garbage_collection_guard": ((None, "allow"), "libraries of the program leave arrays in cycles"),
}


def check_precision() -> None:
    """Checks, for programs that import this one, that arrays are float32 unless they are asked to be float64.

    Raises:
      UsageError: they are float64.
    """
    if getattr(jax.config, "jax_enable_x64", False):
        raise UsageError(
            "jax_enable_x64 is on, and the network computes in float32; jax.config.update('jax_enable_x64', False)"
            " turns it off"
        )


def check() -> None:
    """Sets the options of `SET`, and checks the others. Call it before JAX counts the devices.

    Raises:
      VariableError: a variable has a value that does not work.
    """
    for option, value in SET.items():
        if hasattr(jax.config, option):  # a later version of JAX may have one way alone
            jax.config.update(option, value)
    for option, (works, reason) in REFUSED.items():
        if getattr(jax.config, option, works[0]) not in works:
            raise VariableError(option.upper(), os.environ.get(option.upper(), ""), reason)
    folder = os.environ.get("JAX_DUMP_IR_TO")
    if folder and "://" not in folder and folder != "sponge":  # JAX's word for a folder of its own
        try:
            os.makedirs(folder, exist_ok=True)
        except OSError as error:
            raise VariableError("JAX_DUMP_IR_TO", folder, reason_of(error)) from error
    if os.environ.get("XLA_FLAGS") and (words := compat.xla_complaint()):
        raise VariableError("XLA_FLAGS", os.environ["XLA_FLAGS"], words)
