"""Exact conversion of frozen dataclasses to JSON and back; values that do not fit are refused by name.

Handled are dataclasses of dataclasses, enums, ranges, tuples, mappings, numbers, strings, booleans and None.
"""

import hashlib
import json
import math
import types
import typing
from collections.abc import Mapping
from dataclasses import MISSING, fields, is_dataclass
from enum import Enum
from typing import Any

MAX_RANGE = 2**53
"""Largest number of a range, and whole number that a float holds exactly."""

SHORT = 80
"""Most characters of a value in a message."""


def plain(value: Any) -> Any:
    """`value` as dicts, lists and scalars. Floats survive JSON exactly, because repr has all digits of a double."""
    if is_dataclass(value):
        return {field.name: plain(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, range):
        return [value.start, value.stop]
    if isinstance(value, Mapping):
        return {plain(key): plain(item) for key, item in value.items()}
    return [plain(item) for item in value] if isinstance(value, (tuple, list)) else value


def digest(value: Any) -> str:
    """The SHA-256 of a value in canonical JSON; equal for equal values. Raises ValueError for what JSON cannot hold."""
    try:
        text = json.dumps(plain(value), sort_keys=True, separators=(",", ":"), allow_nan=False)
    except RecursionError as error:
        raise ValueError("is nested too deep") from error
    return hashlib.sha256(text.encode()).hexdigest()


def short(value: Any) -> str:
    """A value in a message: its beginning."""
    text = value if isinstance(value, str) else repr(value)
    return text if len(text) <= SHORT else f"{text[:SHORT]}..."


def parse(kind: Any, data: Any, where: str) -> Any:
    """Turn the result of `plain` back into a value of type `kind`. Raises ValueError that begins with `where`."""
    if is_dataclass(kind):
        return _parse_dataclass(kind, data, where)
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin in (types.UnionType, typing.Union):
        return None if data is None and type(None) in arguments else parse(arguments[0], data, where)
    if origin is tuple:
        return _parse_tuple(arguments, data, where)
    if origin is not None and issubclass(origin, Mapping):
        return _parse_mapping(arguments, data, where)
    if kind is range:
        start, stop = _parse_tuple((int, int), data, where)
        if not 0 <= start <= stop <= MAX_RANGE:
            raise ValueError(f"{where} is {start} to {stop}: it must rise from 0 or more to at most {MAX_RANGE}")
        return range(start, stop)
    if isinstance(kind, type) and issubclass(kind, Enum):
        names = [member.value for member in kind]
        if data not in names:
            raise ValueError(f"{where} is {short(repr(data))}: it must be one of {', '.join(map(str, names))}")
        return kind(data)
    return _parse_scalar(kind, data, where)


def _parse_dataclass(kind: Any, data: Any, where: str) -> Any:
    hints = typing.get_type_hints(kind)
    names = [field.name for field in fields(kind)]
    _check(data, dict, where)
    needed = [field.name for field in fields(kind) if field.default is MISSING and field.default_factory is MISSING]
    unknown, missing = sorted(data.keys() - set(names)), [name for name in needed if name not in data]
    if unknown or missing:
        what = f"unknown keys {short(', '.join(unknown))}" if unknown else f"no {', '.join(missing)}"
        raise ValueError(f"{where} has {what}")
    return kind(**{name: parse(hints[name], data[name], f"{where}.{name}") for name in names if name in data})


def _parse_tuple(kinds: tuple, data: Any, where: str) -> tuple:
    _check(data, list, where)
    if kinds[-1] is Ellipsis:
        kinds = (kinds[0],) * len(data)
    if len(kinds) != len(data):
        raise ValueError(f"{where} has {len(data)} entries: it must have {len(kinds)}")
    return tuple(parse(kind, item, f"{where}[{i}]") for i, (kind, item) in enumerate(zip(kinds, data, strict=True)))


def _parse_mapping(kinds: tuple, data: Any, where: str) -> dict:
    _check(data, dict, where)
    key, item = kinds
    return {parse(key, name, f"{where} key"): parse(item, value, f"{where}.{name}") for name, value in data.items()}


def _parse_scalar(kind: type, data: Any, where: str) -> Any:
    if kind is float and type(data) is int and abs(data) < MAX_RANGE:
        return float(data)
    _check(data, kind, where)
    if kind is str and _has_half_letters(data):
        raise ValueError(f"{where} is no text: it holds half of a letter")
    if kind is float and not math.isfinite(data):
        raise ValueError(f"{where} is {data}")
    return data


def _has_half_letters(text: Any) -> bool:
    """Whether a text holds surrogates, which no file can be written with."""
    return any("\ud800" <= letter <= "\udfff" for letter in text)


def _check(data: Any, kind: type, where: str) -> None:
    if type(data) is not kind:  # isinstance would accept True as a number
        raise ValueError(f"{where} is {type(data).__name__}: it must be {kind.__name__}")
