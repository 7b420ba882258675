"""Reads what a pickle of torch.save would do, without doing it.

A pickle is a list of instructions to a machine with a stack. torch follows only harmless ones, but these too can ask
for terabytes, or take for ever: names nested in each other whose hash doubles at each level, tensors wider than their
file. Here the instructions are followed with stand-ins for all values except whole numbers.
"""

import math
import re
import struct
from collections.abc import Callable, Iterable
from typing import BinaryIO, TypeGuard

import torch

MAX_PICKLE = 64 * 2**20
"""Largest pickle in bytes, tensors not counted; that of a model with 14 billion parameters has 0.2 million."""

MAX_INSTRUCTIONS = 1_000_000
"""A tensor takes about 40."""

_NEWEST = 3
"""Version of pickles whose instructions are all known; torch writes 2."""

_LONGEST_LINE, _MOST_AXES, _MOST_VALUES = 200, 16, 2**48

_REBUILD = {f"torch._utils._rebuild_tensor{version}": count for version, count in (("", 4), ("_v2", 6), ("_v3", 7))}
"""Functions of torch that make a tensor, and how many values they are given at most."""

_ORDERED, _COUNTER = "collections.OrderedDict", "collections.Counter"
_CALLED = {*_REBUILD, "torch._utils._rebuild_parameter", "torch.Size", "torch.device", _ORDERED, _COUNTER}
_STORAGE = re.compile(r"torch\.(\w+Storage|storage\.(Untyped|Typed)Storage)")
_PLAIN_WIDTHS = {b"N": 0, b"\x88": 0, b"\x89": 0, b"G": 8}
_NUMBERS = {b"J": "<i", b"K": "<B", b"M": "<H"}
_INDICES = {b"h": "<B", b"j": "<I", b"q": "<B", b"r": "<I"}
_TUPLES = {b"\x85": 1, b"\x86": 2, b"\x87": 3}


class ObjectsError(ValueError):
    """Raised for a pickle that holds more than tensors in containers; the message names what."""


class _Name(str):
    """The name of a function or a class."""


class _Made(str):
    """The result of a function of this name."""


class _Dict:
    """A dictionary."""


_DICT, _OTHER = _Dict(), _Made()


def check_instructions(file: BinaryIO, room: int) -> None:
    """Follow one pickle from where the file stands to its end; no tensor may have more than `room` values.

    Raises ObjectsError, and ValueError, LookupError or EOFError for a damaged one.
    """
    _Machine(file, room).run()


class _Machine:
    def __init__(self, file: BinaryIO, room: int) -> None:
        self.file, self.room, self.left = file, room, MAX_PICKLE
        self.stack: list = []
        self.outer: list[list] = []
        self.memo: dict[int, object] = {}
        self.steps: dict[bytes, Callable[[], None]] = {
            b"(": self._mark, b"t": self._tuple, b"c": self._name, b"R": self._call, b"b": self._build,
            b"Q": self._storage, b"a": self._append, b"e": self._extend, b"s": self._set_one, b"u": self._set_many,
            b"X": lambda: self._text(4), b"U": lambda: self._text(1), b"\x8a": self._long,
            b")": lambda: self.stack.append(()), b"]": lambda: self.stack.append(_OTHER),
            b"}": lambda: self.stack.append(_DICT), b"\x80": self._version,
        }  # fmt: skip

    def run(self) -> None:
        for _ in range(MAX_INSTRUCTIONS):
            code = self._read(1)
            if code == b".":
                return
            self._follow(code)
        raise ObjectsError(f"more than {MAX_INSTRUCTIONS} instructions")

    def _follow(self, code: bytes) -> None:
        if code in _PLAIN_WIDTHS:
            self._read(_PLAIN_WIDTHS[code])
            self.stack.append(None)
        elif code in _NUMBERS:
            self.stack.append(self._number(_NUMBERS[code]))
        elif code in _TUPLES:
            count = _TUPLES[code]
            self.stack.append(tuple([self.stack.pop() for _ in range(count)][::-1]))
        elif code in _INDICES:
            index = self._number(_INDICES[code])
            if code in b"hj":
                self.stack.append(self.memo[index])
            else:
                self.memo[index] = self.stack[-1]
        elif code in self.steps:
            self.steps[code]()
        else:
            raise ObjectsError(f"instruction {code!r}")

    def _read(self, count: int) -> bytes:
        self.left -= count
        if self.left < 0:
            raise ObjectsError(f"more than {MAX_PICKLE} bytes beside the tensors")
        data = self.file.read(count)
        if len(data) < count:
            raise EOFError("it ends in mid-instruction")
        return data

    def _number(self, layout: str) -> int:
        return struct.unpack(layout, self._read(struct.calcsize(layout)))[0]

    def _version(self) -> None:
        if (version := self._read(1)[0]) > _NEWEST:
            raise ObjectsError(f"a pickle of protocol {version}, and torch writes and reads 2")

    def _long(self) -> None:
        self.stack.append(int.from_bytes(self._read(self._number("<B")), "little", signed=True))

    def _text(self, width: int) -> None:
        self._read(int.from_bytes(self._read(width), "little"))
        self.stack.append(None)

    def _name(self) -> None:
        lines = [self.file.readline(_LONGEST_LINE) for _ in range(2)]
        if not all(line.endswith(b"\n") for line in lines):
            raise EOFError("it ends in a name")
        module, name = (line[:-1].decode() for line in lines)
        full = f"{module}.{name}"
        dtype = module == "torch" and isinstance(getattr(torch, name, None), torch.dtype)
        if not (dtype or full in _CALLED or _STORAGE.fullmatch(full)):
            raise ObjectsError(full)
        self.stack.append(_Name(full))

    def _mark(self) -> None:
        self.outer.append(self.stack)
        self.stack = []

    def _since_mark(self) -> list:
        items, self.stack = self.stack, self.outer.pop()
        return items

    def _tuple(self) -> None:
        items = tuple(self._since_mark())
        self.stack.append(items)

    def _append(self) -> None:
        self.stack.pop()

    def _extend(self) -> None:
        self._since_mark()

    def _set_one(self) -> None:
        self.stack.pop()
        self._check_plain([self.stack.pop()], "a dictionary with names that are no names")

    def _set_many(self) -> None:
        self._check_plain(self._since_mark()[::2], "a dictionary with names that are no names")

    def _storage(self) -> None:
        told = self.stack.pop()
        self._check_plain(told if isinstance(told, tuple) else [told], "a storage that is none")
        if isinstance(told, tuple) and any(not 0 <= number <= self.room for number in told if isinstance(number, int)):
            raise ValueError("its values would be larger than the file")
        self.stack.append(_OTHER)

    def _call(self) -> None:
        given, name = self.stack.pop(), self.stack.pop()
        if not isinstance(name, _Name) or name not in _CALLED or not isinstance(given, tuple):
            raise ObjectsError(f"a call of {name if isinstance(name, _Name) else 'no function'}")
        if name in _REBUILD:
            self._check_tensor(given, _REBUILD[name])
        if (name == _ORDERED and given) or (name == _COUNTER and given not in ((), (_DICT,))):
            raise ObjectsError(f"a {name} of other values")
        self.stack.append(_Made(name))

    def _build(self) -> None:
        self.stack.pop()
        made = self.stack[-1]
        if not (isinstance(made, _Made) and made == _ORDERED):
            raise ObjectsError("an object with attributes")

    def _check_tensor(self, given: tuple, count: int) -> None:
        """Check the values of a call that makes a tensor: storage, first value, shape, strides, and more."""
        if not 4 <= len(given) <= count:
            raise ObjectsError("a tensor of another kind")
        first, shape, strides = given[1:4]
        if not (_lengths((first,)) and _lengths(shape) and _lengths(strides) and len(shape) == len(strides)):
            raise ObjectsError("a tensor without a shape")
        last = first + sum(max(length - 1, 0) * stride for length, stride in zip(shape, strides, strict=True))
        wide = math.prod(max(length, 1) for length in shape) > _MOST_VALUES
        if wide or math.prod(shape) > self.room or last > self.room:
            raise ValueError("a tensor would be larger than the file")

    def _check_plain(self, values: Iterable[object], what: str) -> None:
        """Refuse values of which a hash could take for ever."""
        if not all(value is None or isinstance(value, (int, _Name)) for value in values):
            raise ObjectsError(what)


def _lengths(values: object) -> TypeGuard[tuple[int, ...]]:
    """Whether these are the lengths of the axes of a tensor."""
    if not isinstance(values, tuple) or len(values) > _MOST_AXES:
        return False
    return all(isinstance(length, int) and 0 <= length < 2**63 for length in values)
