"""The wire format of protocol buffers, without a schema: fields by number.

Source: protobuf.dev/programming-guides/encoding.
"""

import struct
from collections.abc import Iterator, Sequence
from typing import TypeAlias

import numpy as np

from alexnet_jax.formats.errors import FormatError

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5  # wire types
MAX_VALUES = 1_000_000  # of a message, beside packed numbers

Value: TypeAlias = int | float | memoryview


class Message:
    """The fields of a message.

    Args:
      data: the bytes of the message.

    Raises:
      FormatError: they are no message.
    """

    def __init__(self, data: memoryview | bytes):
        self._fields: dict[int, list[Value]] = {}
        for count, (number, value) in enumerate(_fields_of(memoryview(data))):
            if count >= MAX_VALUES:
                raise FormatError(f"it is no file of Caffe: a message has more than {MAX_VALUES:,} fields")
            self._fields.setdefault(number, []).append(value)

    def has(self, number: int) -> bool:
        """Whether the message has the field."""
        return number in self._fields

    def messages(self, number: int) -> "list[Message]":
        """The messages of a repeated field.

        Raises:
          FormatError: the field holds something else.
        """
        return [Message(data) for data in self._bytes(number)]

    def message(self, number: int) -> "Message":
        """The last message of a field; without one, an empty message.

        Raises:
          FormatError: as in `messages`.
        """
        return Message((self._bytes(number) or [memoryview(b"")])[-1])

    def texts(self, number: int) -> list[str]:
        """The texts of a repeated field.

        Raises:
          FormatError: as in `messages`.
        """
        return [bytes(data).decode("utf-8", "replace") for data in self._bytes(number)]

    def text(self, number: int) -> str:
        """The last text of a field; without one, an empty text.

        Raises:
          FormatError: as in `messages`.
        """
        return (self.texts(number) or [""])[-1]

    def numbers(self, number: int) -> list[int]:
        """The whole numbers of a repeated field, packed or not.

        Raises:
          FormatError: as in `messages`.
        """
        found: list[int] = []
        for value in self._fields.get(number, []):
            match value:
                case int():
                    found.append(value)
                case memoryview():
                    at = 0
                    while at < len(value) and len(found) <= MAX_VALUES:
                        whole, at = _varint(value, at)
                        found.append(whole)
                case _:
                    raise FormatError(f"it is no file of Caffe: field {number} of a message is no whole number")
        return found

    def real(self, number: int, default: float) -> float:
        """The last number with a fraction of a field, or the default.

        Raises:
          FormatError: as in `messages`.
        """
        found = self._fields.get(number, [default])[-1]
        if not isinstance(found, float):
            raise FormatError(f"it is no file of Caffe: field {number} of a message is no number with a fraction")
        return found

    def array(self, number: int, dtype: str) -> np.ndarray:
        """The numbers of a repeated field of `<f4` or `<f8`, packed or not. Packed numbers are not copied.

        Raises:
          FormatError: as in `messages`.
        """
        parts: list[np.ndarray] = []
        for value in self._fields.get(number, []):
            if isinstance(value, memoryview) and len(value) % np.dtype(dtype).itemsize == 0:
                parts.append(np.frombuffer(value, dtype))
            elif isinstance(value, float):
                parts.append(np.array([value], dtype))
            else:
                raise FormatError(f"it is no file of Caffe: field {number} of a message is no list of numbers")
        return parts[0] if len(parts) == 1 else np.concatenate([np.zeros(0, dtype), *parts])

    def _bytes(self, number: int) -> list[memoryview]:
        found = [value for value in self._fields.get(number, []) if isinstance(value, memoryview)]
        if len(found) != len(self._fields.get(number, [])):
            raise FormatError(f"it is no file of Caffe: field {number} of a message is a number, not a text or message")
        return found


def _fields_of(data: memoryview) -> Iterator[tuple[int, Value]]:
    """The fields in the order of the bytes, with their numbers. Texts and messages are not copied."""
    at = 0
    while at < len(data):
        tag, at = _varint(data, at)
        number, kind = tag >> 3, tag & 7
        value: Value
        if kind == VARINT:
            value, at = _varint(data, at)
        elif kind in (FIXED64, FIXED32):
            width = 8 if kind == FIXED64 else 4
            (value,) = struct.unpack("<d" if width == 8 else "<f", _slice(data, at, width))
            at += width
        elif kind == BYTES:
            length, at = _varint(data, at)
            value = _slice(data, at, length)
            at += length
        else:
            raise FormatError(f"it is damaged, or no file of Caffe: field {number} has the wire type {kind}")
        yield number, value


def _slice(data: memoryview, at: int, length: int) -> memoryview:
    if length > len(data) - at:
        raise FormatError("it is cut off, or no file of Caffe: a field is longer than the rest")
    return data[at : at + length]


def _varint(data: memoryview, at: int) -> tuple[int, int]:
    """A number of up to ten bytes, seven bits in each, and the place after it."""
    value = 0
    for shift in range(0, 70, 7):
        if at >= len(data):
            raise FormatError("it is cut off, or no file of Caffe: a number lacks its end")
        byte, at = data[at], at + 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value & (2**64 - 1), at
    raise FormatError("it is damaged, or no file of Caffe: a number has more than ten bytes")


def encode(*fields: tuple[int, int | float | str | bytes | np.ndarray | Sequence[int]]) -> bytes:
    """A message.

    Args:
      fields: number and value of each: int, float (32 bits), text, bytes (also those of a message), an array of
        float32 (packed), or a list of ints (packed).
    """
    parts: list[bytes] = []
    for number, value in fields:
        match value:
            case int():
                parts += [_encode_varint(number << 3 | VARINT), _encode_varint(value)]
                continue
            case float():
                parts += [_encode_varint(number << 3 | FIXED32), struct.pack("<f", value)]
                continue
            case str():
                data = value.encode()
            case bytes():
                data = value
            case np.ndarray():
                data = np.ascontiguousarray(value, "<f4").tobytes()
            case _:
                data = b"".join(map(_encode_varint, value))
        parts += [_encode_varint(number << 3 | BYTES), _encode_varint(len(data)), data]
    return b"".join(parts)


def _encode_varint(value: int) -> bytes:
    parts = bytearray()
    while value > 0x7F:
        parts.append(value & 0x7F | 0x80)
        value >>= 7
    parts.append(value)
    return bytes(parts)
