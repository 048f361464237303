"""Tensors of a TorchScript archive (``.jit``), read without running or importing anything of it.

Such an archive is a zip of program code and of a pickle that says which modules hold which tensors.
The code is never opened, and the pickle is never unpickled: only instructions that build nested
dictionaries and name tensors are followed; any other refuses the file.
"""

import math
import pickletools
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ursa_core.errors import CheckpointError, unreadable

_DTYPES = {
    "torch DoubleStorage": torch.float64,
    "torch FloatStorage": torch.float32,
    "torch HalfStorage": torch.float16,
    "torch BFloat16Storage": torch.bfloat16,
    "torch LongStorage": torch.int64,
    "torch IntStorage": torch.int32,
    "torch BoolStorage": torch.bool,
}
_MAX_PICKLE_BYTES = 16 * 2**20
_MAX_MODULES = 10_000


class _Name(NamedTuple):  # of a class or function in the pickle, never looked up
    text: str


def is_torchscript(file: Path) -> bool:
    """Whether a file is a zip with the parts of a TorchScript archive."""
    try:
        with zipfile.ZipFile(file) as archive:
            return any(name.endswith("/constants.pkl") for name in archive.namelist())
    except (OSError, ValueError, zipfile.BadZipFile):
        return False


def read_torchscript(file: Path) -> dict[str, Tensor]:
    """Tensors of all modules of an archive, on the CPU, by dotted name.

    Memory holds the file's tensors once; they may be views of one another. A file that is damaged,
    or holds more than modules and tensors, is a CheckpointError.
    """
    try:
        with zipfile.ZipFile(file) as archive:
            return _Archive(archive, file.stat().st_size).tensors()
    except OSError as error:
        raise unreadable(file, error, "give another file", CheckpointError) from error
    # What damaged or hostile bytes make the readers of zip, pickle and tensors raise.
    except (
        ArithmeticError, AttributeError, EOFError, LookupError, NotImplementedError, RuntimeError,
        TypeError, ValueError, struct.error, zipfile.BadZipFile,
    ) as error:  # fmt: skip
        raise CheckpointError(
            f"{file} is damaged, or no archive of modules and tensors: {error}",
            "get it again, from a source that you trust",
        ) from error


class _Archive:
    """An opened archive of ``size`` bytes; the methods raise ValueError where it isn't sound."""

    def __init__(self, archive: zipfile.ZipFile, size: int) -> None:
        self.archive = archive
        self.left = size  # bytes that may still be read; a sound archive has no part twice
        names = [name for name in archive.namelist() if name.endswith("/data.pkl")]
        self.root = min(names, key=len, default="/data.pkl").removesuffix("data.pkl")
        self.storages: dict[tuple[_Name, str, int], Tensor] = {}

    def tensors(self) -> dict[str, Tensor]:
        if f"{self.root}byteorder" in self.archive.namelist():
            order = self._read(f"{self.root}byteorder", 16)
            if order != b"little":
                raise ValueError(f"its numbers have the byte order {order!r}")
        pickle = self._read(f"{self.root}data.pkl", _MAX_PICKLE_BYTES)
        return _tensors(_modules(pickle, self._storage))

    def _read(self, name: str, most: int) -> bytes:
        """A part of the archive, of at most ``most`` bytes, checked by its checksum."""
        info = self.archive.getinfo(name)
        self.left -= info.file_size
        if info.compress_type != zipfile.ZIP_STORED or info.file_size > most or self.left < 0:
            raise ValueError(f"its part {name} is too large or compressed")
        return self.archive.read(info)

    def _storage(self, kind: str, dtype: _Name, key: str, _: object, length: int) -> Tensor:
        """Numbers of the archive, in a file of their own, as a tensor (length,)."""
        if kind != "storage" or dtype.text not in _DTYPES or not key.isalnum():
            raise ValueError(f"it stores numbers as {dtype.text} {key}")
        place, number = (dtype, key, length), _DTYPES[dtype.text]
        if place not in self.storages:
            content = bytearray(self._read(f"{self.root}data/{key}", length * number.itemsize))
            if len(content) != length * number.itemsize:
                raise ValueError(f"its part data/{key} is cut short")
            empty = torch.empty(0, dtype=number)  # which frombuffer doesn't make
            self.storages[place] = torch.frombuffer(content, dtype=number) if content else empty
        return self.storages[place]


def _tensors(root: object) -> dict[str, Tensor]:
    if not isinstance(root, dict):
        raise TypeError("it holds no modules")
    found: dict[str, Tensor] = {}
    modules = [("", root)]
    for prefix, module in modules:
        if len(modules) > _MAX_MODULES:  # modules that hold one another
            raise ValueError("it has too many modules")
        for key, value in module.items():
            if not isinstance(key, str):
                raise TypeError("a name in it isn't a text")
            if isinstance(value, Tensor):
                found[prefix + key] = value
            elif isinstance(value, dict):
                modules.append((f"{prefix}{key}.", value))
    return found


_MARK = _Name("mark")
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "MARK": _MARK, "EMPTY_TUPLE": ()}


def _modules(pickle: bytes, storage: Callable[..., Tensor]) -> object:
    """Content of a pickle, modules as dictionaries, and tensors by what gives their numbers."""
    stack: list[Any] = []
    memo: dict[int, object] = {}
    for opcode, given, _ in pickletools.genops(pickle):
        argument: Any = given
        match opcode.name:
            case "PROTO":
                pass
            case "STOP":
                return stack.pop()
            case "GLOBAL":
                stack.append(_Name(argument))
            case "BINUNICODE" | "BININT" | "BININT1" | "BININT2":
                stack.append(argument)
            case "NONE" | "NEWTRUE" | "NEWFALSE" | "MARK" | "EMPTY_TUPLE":
                stack.append(_CONSTANTS[opcode.name])
            case "EMPTY_DICT":
                stack.append({})
            case "TUPLE":
                stack.append(tuple(_to_mark(stack)))
            case "BINPUT" | "LONG_BINPUT":
                memo[argument] = stack[-1]
            case "BINGET" | "LONG_BINGET":
                stack.append(memo[argument])
            case "SETITEMS":
                items = _to_mark(stack)
                stack[-1].update(zip(items[::2], items[1::2], strict=True))
            case "NEWOBJ":
                _, name = stack.pop(), stack.pop()
                if not name.text.startswith("__torch__."):
                    raise ValueError(f"it wants to make a {name.text}")
                stack.append({})
            case "BUILD":
                state = stack.pop()
                stack[-1].update(state)
            case "BINPERSID":
                stack.append(storage(*stack.pop()))
            case "REDUCE":
                arguments, name = stack.pop(), stack.pop()
                stack.append(_result(name.text, arguments))
            case other:
                raise ValueError(f"its pickle has the instruction {other}")
    raise ValueError("its pickle has no end")


def _to_mark(stack: list[Any]) -> list[Any]:
    """Remove the last mark and what lies above it, which is returned."""
    items: list[Any] = []
    while (item := stack.pop()) is not _MARK:
        items.append(item)
    return items[::-1]


def _result(name: str, arguments: tuple[Any, ...]) -> object:
    """Result of one of the two functions that describe a tensor; no other may be called."""
    if name == "torch._utils _rebuild_tensor_v2":
        storage, offset, size, stride = arguments[:4]
        numbers = (offset, *size, *stride)
        if not isinstance(storage, Tensor) or not all(type(n) is int for n in numbers):
            raise TypeError("a tensor in it is not described by whole numbers")
        numel = math.prod(size)
        last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
        is_sound = min(numbers) >= 0 and numel <= len(storage)
        if not is_sound or (numel and last >= len(storage)):
            raise ValueError(f"a tensor of shape {size} doesn't fit its numbers")
        return storage.as_strided(size, stride, offset)
    if name == "collections OrderedDict" and arguments == ():
        return {}
    raise ValueError(f"it wants to call {name}")
