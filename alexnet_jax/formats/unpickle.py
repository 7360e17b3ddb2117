"""Pickles, read as data: nothing is imported and nothing is called.

A pickle is a program for a stack machine, which may call any function that Python can import. This machine knows the
instructions that build numbers, texts and containers. A class or function stays a name, one of those that the caller
allows, and a call stays a note of name and arguments (`Call`), which the caller reads as the array or tensor it means.
"""

import dataclasses
import io
import pickletools
import struct
from collections.abc import Collection
from typing import Any, NamedTuple

from alexnet_jax.errors import words_of
from alexnet_jax.formats.errors import FormatError

MAX_STEPS = 2_000_000  # of the machine; the pickle of a network with its optimizer takes some thousands
DICTS = ("collections OrderedDict", "collections defaultdict", "collections Counter")
KEYS = (str, bytes, int, float, type(None))  # whose hash takes no time or depth that a file could choose

# Instructions that push their own argument.
PLAIN = {
    "INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT", "STRING", "BINSTRING",
    "SHORT_BINSTRING", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8", "UNICODE", "BINUNICODE",
    "SHORT_BINUNICODE", "BINUNICODE8",
}  # fmt: skip
CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
TUPLES = {"EMPTY_TUPLE": 0, "TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
IGNORED = {"PROTO", "FRAME"}


class Name(NamedTuple):
    """A class or function that a pickle names: module and name, with a blank between."""

    text: str


class Stored(NamedTuple):
    """An object that lies beside the pickle.

    Attributes:
      key: the way to find it.
    """

    key: Any


@dataclasses.dataclass(eq=False)
class Call:
    """A call that a pickle asks for, and that does not happen.

    Attributes:
      name: of the class or function.
      arguments: of the call.
      state: set on the result, as the pickle has it.
    """

    name: str
    arguments: tuple
    state: Any = None


class _Mark:
    pass


def read(file: io.BytesIO, allowed: Collection[str]) -> Any:
    """The value of the pickle that starts at the file's position, which is after the pickle then.

    Args:
      file: its bytes, in memory.
      allowed: names of classes and functions that may stand in it.

    Raises:
      FormatError: the pickle is damaged, names another class or function, or uses an instruction that no network needs.
    """
    machine = _Machine(allowed)
    try:
        for step, (instruction, argument, _) in enumerate(pickletools.genops(file)):
            if step > MAX_STEPS:
                raise FormatError(f"its pickle has more than {MAX_STEPS:,} instructions, which no network needs")
            if instruction.name == "STOP":
                return machine.pop()
            machine.run(instruction.name, argument)
    except (ValueError, IndexError, KeyError, TypeError, OverflowError, EOFError, struct.error) as error:
        if isinstance(error, FormatError):
            raise
        raise FormatError(f"its pickle is damaged: {words_of(error)}") from error
    raise FormatError("its pickle is cut off")


class _Machine:
    """The stack machine.

    Args:
      allowed: as in `read`.
    """

    def __init__(self, allowed: Collection[str]):
        self._allowed = allowed
        self._stack: list[Any] = []
        self._memo: dict[int, Any] = {}

    def run(self, name: str, argument: Any) -> None:
        """Runs one instruction.

        Raises:
          FormatError: it is not one of those that build values, or the stack does not fit it.
        """
        if name in PLAIN:
            self._stack.append(argument)
        elif name in CONSTANTS:
            self._stack.append(CONSTANTS[name])
        elif name in TUPLES:
            self._stack.append(tuple(self._take(TUPLES[name])))
        elif name not in IGNORED and not self._run_memo(name, argument) and not self._run_container(name):
            self._run_name(name, argument)

    def pop(self) -> Any:
        """The value on top of the stack."""
        return self._take(1)[0]

    def _take(self, count: int) -> list[Any]:
        values = self._stack[len(self._stack) - count :] if count else []
        if len(values) != count or any(isinstance(value, _Mark) for value in values):
            raise FormatError("its pickle is damaged: an instruction lacks a value")
        del self._stack[len(self._stack) - count :]
        return values

    def _take_to_mark(self) -> list[Any]:
        for at in range(len(self._stack) - 1, -1, -1):
            if isinstance(self._stack[at], _Mark):
                values = self._stack[at + 1 :]
                del self._stack[at:]
                return values
        raise FormatError("its pickle is damaged: an instruction lacks a mark")

    def _top(self, *kinds: type) -> Any:
        if not self._stack or not isinstance(self._stack[-1], kinds):
            raise FormatError("its pickle is damaged: an instruction does not fit the value before it")
        return self._stack[-1]

    def _run_memo(self, name: str, argument: Any) -> bool:
        """Runs an instruction that remembers or repeats a value; False: it is another."""
        if name in ("BINPUT", "LONG_BINPUT", "PUT", "MEMOIZE"):
            self._memo[len(self._memo) if name == "MEMOIZE" else int(argument)] = self._top(object)
        elif name in ("BINGET", "LONG_BINGET", "GET"):
            self._stack.append(self._memo[int(argument)])
        elif name == "MARK":
            self._stack.append(_Mark())
        elif name == "DUP":
            self._stack.append(self._top(object))
        elif name == "POP":
            del self._stack[-1:]
        elif name == "POP_MARK":
            self._take_to_mark()
        else:
            return False
        return True

    def _run_container(self, name: str) -> bool:
        """Runs an instruction that makes or fills a container; False: it is another."""
        match name:
            case "EMPTY_LIST":
                self._stack.append([])
            case "EMPTY_DICT":
                self._stack.append({})
            case "LIST":
                self._stack.append(self._take_to_mark())
            case "TUPLE":
                self._stack.append(tuple(self._take_to_mark()))
            case "DICT":
                values = self._take_to_mark()
                self._stack.append(_filled({}, values))
            case "APPEND" | "APPENDS":
                values = self._take(1) if name == "APPEND" else self._take_to_mark()
                self._top(list).extend(values)
            case "SETITEM" | "SETITEMS":
                values = self._take(2) if name == "SETITEM" else self._take_to_mark()
                _filled(self._top(dict), values)
            case _:
                return False
        return True

    def _run_name(self, name: str, argument: Any) -> None:
        """Runs an instruction that names a class, calls one, or points beside the pickle."""
        match name:
            case "GLOBAL":
                self._stack.append(self._name(str(argument)))
            case "STACK_GLOBAL":
                module, attribute = self._take(2)
                self._stack.append(self._name(f"{module} {attribute}"))
            case "REDUCE" | "NEWOBJ":
                function, arguments = self._take(2)
                if not isinstance(function, Name) or not isinstance(arguments, tuple):
                    raise FormatError("its pickle is damaged: it calls a value that is no function")
                self._stack.append(_called(function.text, arguments))
            case "BUILD":
                (state,) = self._take(1)
                made = self._top(Call, dict)
                if isinstance(made, Call):  # an OrderedDict of PyTorch has attributes, which no array needs
                    made.state = state
            case "BINPERSID":
                self._stack.append(Stored(self.pop()))
            case _:
                raise FormatError(f"its pickle has the instruction {name}, which no network needs")

    def _name(self, text: str) -> Name:
        text = text.replace("__builtin__ ", "builtins ")  # of Python 2
        if text not in self._allowed and text not in DICTS:
            shown = text[:100].replace(" ", ".")
            raise FormatError(
                f"its pickle asks for {shown!r}, and an import takes arrays alone and runs no code of a file; in"
                " PyTorch, torch.save(model.state_dict(), FILE) writes a file without it"
            )
        return Name(text)


def _filled(into: dict, values: list[Any]) -> dict:
    """The dictionary with pairs of keys and values."""
    if len(values) % 2:
        raise FormatError("its pickle is damaged: a key lacks a value")
    for key, value in zip(values[::2], values[1::2], strict=True):
        if not isinstance(key, KEYS):
            raise FormatError(f"its pickle has a key that is a {type(key).__name__}, and arrays have names")
        into[key] = value
    return into


def _called(name: str, arguments: tuple) -> Any:
    """The note of a call; of a dictionary's class, the dictionary."""
    if name not in DICTS:
        return Call(name, arguments)
    first = arguments[0] if arguments else ()
    if isinstance(first, dict):  # of a Counter
        return dict(first)
    pairs = first if isinstance(first, (list, tuple)) else ()
    if not all(isinstance(pair, (list, tuple)) and len(pair) == 2 for pair in pairs):
        raise FormatError("its pickle is damaged: a dictionary is made of other things than pairs")
    return _filled({}, [value for pair in pairs for value in pair])
