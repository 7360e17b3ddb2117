"""The machine's C compiler: which one, what it compiles for, and its errors."""

import dataclasses
import os
import platform
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence

from alexnet_jax.errors import reason_of

FLAGS = ("-std=gnu11", "-O3", "-fno-math-errno", "-fno-trapping-math", "-fvisibility=hidden", "-fPIC", "-pthread")
NATIVE_FLAGS = {"x86_64": "-march=native", "AMD64": "-march=native", "aarch64": "-mcpu=native", "arm64": "-mcpu=native"}
INSTRUCTIONS = {  # by the macro that a compiler defines for them; the first one counts
    "__AVX512F__": "AVX-512",
    "__AVX2__": "AVX2",
    "__AVX__": "AVX",
    "__SSE2__": "SSE2",
    "__ARM_NEON": "NEON",
}
TIMEOUT = 300.0  # seconds that a compiler may take; one machine takes two
SILENT_FOR, LINE_EVERY = 10.0, 30.0  # seconds until a line says that the program waits, and until the next ones


class BuildError(Exception):
    """Native kernels cannot be built or loaded; the message is one clause."""


@dataclasses.dataclass(frozen=True)
class Compiler:
    """A C compiler and its target.

    Attributes:
      command: the compiler and all flags.
      macros: that the compiler defines, by name. They give its version and the instructions of the target.
    """

    command: tuple[str, ...]
    macros: Mapping[str, str]

    def __str__(self) -> str:
        if "__clang__" in self.macros:
            version = "clang {__clang_major__}.{__clang_minor__}"
        elif "__GNUC__" in self.macros:
            version = "gcc {__GNUC__}.{__GNUC_MINOR__}"
        else:
            version = self.command[0]
        used = next((name for macro, name in INSTRUCTIONS.items() if macro in self.macros), platform.machine())
        return f"{version.format_map(self.macros)}, {used}"


def find_compiler() -> Compiler:
    """The C compiler that CC names, else cc, gcc or clang.

    Raises:
      BuildError: no compiler is installed, or the compiler fails.
    """
    try:
        command = shlex.split(os.environ.get("CC", ""))
    except ValueError as error:
        raise BuildError(f"no C compiler: CC is {os.environ['CC']!r}: {error}") from error
    if not command:
        installed = [name for name in ("cc", "gcc", "clang") if shutil.which(name)]
        if not installed:
            raise BuildError("no C compiler: neither cc, gcc nor clang is installed")
        command = installed[:1]
    if native := NATIVE_FLAGS.get(platform.machine()):
        command.append(native)
    command += FLAGS
    defined = run([*command, "-dM", "-E", "-x", "c", os.devnull])
    macros = re.findall(r"#define (\w+) (.*)", defined)
    return Compiler(tuple(command), dict(macros))


def run(command: Sequence[str]) -> str:
    """The standard output of a compiler. Lines on standard error name a compiler that takes long.

    Raises:
      BuildError: the compiler cannot be run, fails, or does not end.
    """
    try:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
        )
    except OSError as error:
        raise BuildError(f"no C compiler: {command[0]} cannot be run: {reason_of(error)}") from error
    with process:
        try:
            out, err = _communicate(process, command[0])
        except BaseException:  # also of Ctrl-C
            process.kill()
            raise
    if process.returncode:
        lines = err.strip().splitlines()
        reason = next((line for line in lines if "error" in line), lines[-1] if lines else "")
        raise BuildError(f"the C compiler {command[0]} fails: {reason or f'status {process.returncode}'}")
    return out


def _communicate(process: "subprocess.Popen[str]", name: str) -> tuple[str, str]:
    waited, patience = 0.0, SILENT_FOR
    while waited < TIMEOUT:
        try:
            return process.communicate(timeout=min(patience, TIMEOUT - waited))
        except subprocess.TimeoutExpired:
            waited += patience
            patience = LINE_EVERY
        if waited < TIMEOUT:
            print(
                f"waiting for the C compiler {name} for {waited:.0f} s, at most {TIMEOUT:.0f}; CC names another, and"
                " --native=off needs none",
                file=sys.stderr,
                flush=True,
            )
    raise BuildError(f"the C compiler {name} has not ended after {TIMEOUT:.0f} s")
