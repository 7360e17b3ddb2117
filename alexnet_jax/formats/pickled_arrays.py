"""Arrays in pickles: NumPy's, and PyTorch's `.pth` in its two forms, read without NumPy's unpickling and without torch.

Since PyTorch 1.6 a file is a zip archive: a pickle that describes tensors, and a file for the numbers of each storage.
Before, it was a row of pickles, with the numbers of all storages at the end.
"""

import io
import math
import zipfile
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np

from alexnet_jax.errors import words_of
from alexnet_jax.formats import unpickle
from alexnet_jax.formats.errors import FormatError
from alexnet_jax.formats.unpickle import Call, Name, Stored

STORAGES = {
    "Float": "<f4", "Double": "<f8", "Half": "<f2", "BFloat16": "bfloat16", "Long": "<i8", "Int": "<i4", "Short": "<i2",
    "Char": "i1", "Byte": "u1", "Bool": "u1",
}  # fmt: skip
TENSORS = ("torch._utils _rebuild_tensor_v2", "torch._utils _rebuild_tensor")
PARAMETER = "torch._utils _rebuild_parameter"
NUMPY_ARRAYS = ("numpy.core.multiarray _reconstruct", "numpy._core.multiarray _reconstruct")
NUMPY_BUFFERS = ("numpy.core.numeric _frombuffer", "numpy._core.numeric _frombuffer")  # since pickle's protocol 5
NUMPY_SCALARS = ("numpy.core.multiarray scalar", "numpy._core.multiarray scalar")  # such as a best error; left out
EMPTY, ENCODED = "builtins bytes", "_codecs encode"  # bytes as a text, in pickles for Python 2
ALLOWED = {
    *TENSORS, PARAMETER, *NUMPY_ARRAYS, *NUMPY_BUFFERS, *NUMPY_SCALARS, EMPTY, ENCODED, "numpy ndarray", "numpy dtype",
    "builtins dict", *(f"torch {name}Storage" for name in STORAGES),
}  # fmt: skip
NUMPY_KINDS = {"f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "b1"}
MAGIC = 0x1950A86A20F9469CFC6C  # of PyTorch's files before 1.6
LEGACY_PROTOCOL = 1001
MAX_ARRAYS, MAX_DEPTH = 10_000, 10  # Lightning counts the steps of its loops six dictionaries deep

Numbers = Callable[[tuple], np.ndarray]  # of the storage that a key names


def read(data: bytes) -> dict[str, np.ndarray]:
    """The arrays in a file, by the names of the dictionaries around them: `AlexNet_0/Conv_0/kernel`.

    Raises:
      FormatError: the file is damaged, holds objects that are no arrays, or asks for code.
    """
    if data[:2] == b"PK":
        return _read_zip(data)
    file = io.BytesIO(data)
    value = unpickle.read(file, ALLOWED)
    if value == MAGIC:
        return _read_legacy(file, data)
    return _arrays_of(value, _no_storage)


def _read_zip(data: bytes) -> dict[str, np.ndarray]:
    try:
        archive = zipfile.ZipFile(io.BytesIO(data))
        names = {info.filename: info for info in archive.infolist()}
        [pickle] = [name for name in names if name.rpartition("/")[2] == "data.pkl"]
        folder = pickle.removesuffix("data.pkl")

        before: dict[str, bytes] = {}

        def member(name: str) -> bytes:
            if name not in before:
                taken = names[name].file_size + sum(map(len, before.values()))
                if names[name].compress_type != zipfile.ZIP_STORED or taken > len(data):  # it might unpack to terabytes
                    raise FormatError("it is compressed, and PyTorch writes archives that are not")
                before[name] = archive.read(names[name])
            return before[name]

        order = member(f"{folder}byteorder") if f"{folder}byteorder" in names else b"little"
        if order.strip() != b"little":
            raise FormatError("its numbers are big-endian, from another kind of machine; save it on this kind")
        value = unpickle.read(io.BytesIO(member(pickle)), ALLOWED)
        return _arrays_of(value, lambda key: _numbers(key, member(f"{folder}data/{key[2]}")))
    except FormatError:
        raise
    except Exception as error:  # of a damaged archive, zipfile raises errors of a dozen kinds
        reason = f"{type(error).__name__}: {words_of(error)}"
        raise FormatError(f"it is no archive of PyTorch, or is damaged ({reason})") from error


def _read_legacy(file: io.BytesIO, data: bytes) -> dict[str, np.ndarray]:
    """The rest of a file of before PyTorch 1.6, after the first pickle."""
    if unpickle.read(file, ALLOWED) != LEGACY_PROTOCOL:
        raise FormatError("it has an unknown version of PyTorch's form of before 1.6")
    about = unpickle.read(file, ALLOWED)
    if not isinstance(about, dict) or about.get("little_endian") is not True:
        raise FormatError("its numbers are big-endian, from another kind of machine; save it on this kind")
    value, keys = unpickle.read(file, ALLOWED), unpickle.read(file, ALLOWED)
    places: dict[str, int] = {}  # where the count and the numbers of a storage begin
    sizes = {str(stored[2]): _size(stored) for stored in map(_key_of, _stored(value))}
    if not isinstance(keys, list) or not all(isinstance(key, str) for key in keys) or {*keys} != {*sizes}:
        raise FormatError("its list of storages is damaged")
    at = file.tell()
    for key in keys:
        count, width = sizes[key]
        if int.from_bytes(data[at : at + 8], "little") != count:
            raise FormatError("its storages are cut off or damaged")
        places[key], at = at + 8, at + 8 + count * width
    whole = memoryview(data)
    return _arrays_of(value, lambda key: _numbers(key, whole[places[key[2]] : places[key[2]] + math.prod(_size(key))]))


def _stored(value: Any, depth: int = 0) -> list[Any]:
    """The keys of all storages that a value refers to."""
    if depth > 4 * MAX_DEPTH:
        raise FormatError("its objects are nested deeper than those of a network")
    inner: Any = ()
    if isinstance(value, Stored):
        return [value.key]
    if isinstance(value, dict):
        inner = value.values()
    elif isinstance(value, Call):
        inner = value.arguments
    elif isinstance(value, (list, tuple)) and not isinstance(value, Name):
        inner = value
    keys: list[Any] = []
    for part in inner:
        keys += _stored(part, depth + 1)
        if len(keys) > MAX_ARRAYS:
            raise FormatError(f"it holds more than {MAX_ARRAYS:,} arrays, which no network has")
    return keys


def _no_storage(key: tuple) -> np.ndarray:
    raise FormatError("its pickle points to numbers that are not in the file")


def _key_of(key: Any) -> tuple:
    """Checks the key of a storage: `("storage", class, name, place, count, ...)`."""
    good = isinstance(key, tuple) and len(key) >= 5 and key[0] == "storage" and isinstance(key[1], Name)
    if not good or not isinstance(key[2], str) or type(key[4]) is not int or key[4] < 0:
        raise FormatError("its pickle points to numbers in an unknown way")
    return key


def _dtype_of(key: tuple) -> np.dtype:
    kind = STORAGES.get(key[1].text.removeprefix("torch ").removesuffix("Storage"))
    if kind is None:
        raise FormatError(f"its pickle takes {key[1].text!r} for the type of numbers")
    return np.dtype(jnp.bfloat16) if kind == "bfloat16" else np.dtype(kind)


def _size(key: tuple) -> tuple[int, int]:
    """How many numbers a storage has, and the bytes of each."""
    return key[4], _dtype_of(key).itemsize


def _numbers(key: tuple, data: bytes | memoryview) -> np.ndarray:
    if len(data) != math.prod(_size(key)):
        raise FormatError(f"it holds {len(data):,} bytes for {key[4]:,} numbers; the file is cut off or damaged")
    return np.frombuffer(data, _dtype_of(key))


def _arrays_of(value: Any, numbers: Numbers) -> dict[str, np.ndarray]:
    """The arrays in dictionaries of dictionaries, named by the way to them. Other values are left out."""
    arrays: dict[str, np.ndarray] = {}
    seen = 0

    def walk(value: Any, path: str, depth: int) -> None:
        nonlocal seen
        seen += 1
        if seen > MAX_ARRAYS or depth > MAX_DEPTH:
            raise FormatError("its dictionaries are larger or nested deeper than those of a network")
        if isinstance(value, dict):
            for name, inner in value.items():
                if isinstance(inner, (dict, Call)):
                    walk(inner, f"{path}/{name}" if path else str(name), depth + 1)
        elif isinstance(value, Call) and (array := _array_of(value, numbers)) is not None:
            arrays[path] = array

    walk(value, "", 0)
    return arrays


def _array_of(call: Call, numbers: Numbers) -> np.ndarray | None:
    """The array that a call would have made; None: it makes something else."""
    if call.name == PARAMETER and call.arguments and isinstance(call.arguments[0], Call):
        call = call.arguments[0]
    if call.name in TENSORS:
        return _tensor(call.arguments, numbers)
    if call.name in NUMPY_ARRAYS:
        if not isinstance(call.state, tuple) or len(call.state) != 5:
            raise FormatError("its pickle describes an array in an unknown way")
        _, shape, kind, is_fortran, data = call.state  # the first is a version
        return _numpy_array(data, kind, shape, "F" if is_fortran else "C")
    if call.name in NUMPY_BUFFERS and len(call.arguments) == 4:
        return _numpy_array(*call.arguments)
    return None


def _tensor(arguments: tuple, numbers: Numbers) -> np.ndarray:
    """A tensor: numbers of a storage from an offset on, with a stride for each axis."""
    if len(arguments) < 4 or not isinstance(arguments[0], Stored):
        raise FormatError("its pickle describes a tensor in an unknown way")
    storage, offset, shape, strides = arguments[:4]
    array = numbers(_key_of(storage.key))
    good = type(offset) is int and _is_shape(shape) and _is_shape(strides) and len(shape) == len(strides)
    if not good or math.prod(shape) > array.size:
        raise FormatError(f"its pickle describes a tensor of {shape} in a storage of {array.size:,} numbers")
    last = offset + sum((length - 1) * stride for length, stride in zip(shape, strides, strict=True))
    if offset < 0 or (math.prod(shape) and last >= array.size):
        raise FormatError(f"its pickle describes a tensor beyond its storage of {array.size:,} numbers")
    steps = [stride * array.itemsize for stride in strides]
    return np.lib.stride_tricks.as_strided(array[offset:], shape, steps, writeable=False)


def _is_shape(value: Any) -> bool:
    return isinstance(value, tuple) and len(value) <= 8 and all(type(n) is int and 0 <= n < 2**40 for n in value)


def _numpy_array(data: Any, kind: Any, shape: Any, order: Any) -> np.ndarray:
    dtype = _numpy_dtype(kind)
    if isinstance(data, Call) and data.name == ENCODED and data.arguments:
        data = data.arguments[0]
    if isinstance(data, Call) and data.name == EMPTY and not data.arguments:
        data = b""
    if isinstance(data, str):  # of Python 2, or encoded for it
        data = data.encode("latin-1")
    if not isinstance(data, (bytes, bytearray)) or not _is_shape(shape) or order not in ("C", "F"):
        raise FormatError("its pickle describes an array in an unknown way")
    if len(data) != math.prod(shape) * dtype.itemsize:
        raise FormatError(f"its pickle describes an array of {shape} with {len(data):,} bytes")
    return np.frombuffer(data, dtype).reshape(shape, order="F" if order == "F" else "C")


def _numpy_dtype(kind: Any) -> np.dtype:
    name = kind.arguments[0] if isinstance(kind, Call) and kind.name == "numpy dtype" and kind.arguments else None
    if not isinstance(name, str) or name not in NUMPY_KINDS:
        raise FormatError("its pickle has arrays of other things than numbers")
    order = kind.state[1] if isinstance(kind.state, tuple) and len(kind.state) > 1 else "<"
    return np.dtype(name).newbyteorder(">" if order == ">" else "<")
