"""The machine's C compiler: which one, what it compiles for, and its errors."""

import dataclasses
import os
import platform
import re
import shlex
import shutil
import subprocess
from collections.abc import Mapping, Sequence

FLAGS = ("-std=gnu11", "-O3", "-fno-math-errno", "-fno-trapping-math", "-fvisibility=hidden", "-fPIC", "-pthread")
NATIVE_FLAGS = {"x86_64": "-march=native", "AMD64": "-march=native", "aarch64": "-mcpu=native", "arm64": "-mcpu=native"}
INSTRUCTIONS = {  # by the macro that a compiler defines for them; the first one counts
    "__AVX512F__": "AVX-512",
    "__AVX2__": "AVX2",
    "__AVX__": "AVX",
    "__SSE2__": "SSE2",
    "__ARM_NEON": "NEON",
}
TIMEOUT = 300.0  # seconds that a compiler may take


class BuildError(Exception):
    """The C kernels cannot be built or loaded; the message is one clause."""


@dataclasses.dataclass(frozen=True)
class Compiler:
    """A C compiler and its target.

    Attributes:
      command: the compiler and all flags.
      macros: that the compiler defines, by name. They tell its version and the instructions of the target.
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
    """The standard output of a compiler.

    Raises:
      BuildError: the compiler cannot be run, or fails.
    """
    try:
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=TIMEOUT)
    except OSError as error:
        raise BuildError(f"no C compiler: {command[0]} cannot be run: {error.strerror}") from error
    except subprocess.TimeoutExpired as error:
        raise BuildError(f"the C compiler {command[0]} has not ended after {TIMEOUT:.0f} s") from error
    if done.returncode:
        lines = done.stderr.strip().splitlines()
        reason = next((line for line in lines if "error" in line), lines[-1] if lines else "")
        raise BuildError(f"the C compiler {command[0]} fails: {reason or f'status {done.returncode}'}")
    return done.stdout
