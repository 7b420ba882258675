"""Hostile versions of bytes, of JSON and of files of weights; the same `chance` gives the same ones."""

from __future__ import annotations

import contextlib
import io
import json
import os
import struct
import zipfile
import zlib
from collections.abc import Callable
from functools import cache
from random import Random
from typing import Any

import torch

from histream_core.files.values import digest

EXTREMES = (0, 1, 2**7, 2**8 - 1, 2**15, 2**16 - 1, 2**24, 2**31 - 1, 2**31, 2**32 - 1)
EVIL_TEXT = "\x1b]0;owned\x07\x1b[2J\x1b[31mred\u202eder\x00"
DIGITS = "9" * 400
"""A number of 400 digits."""

_DEEP, _LONG = "@deep@", "@long@"
_RAW = {f'"{_DEEP}"': "[" * 100_000 + "]" * 100_000, f'"{_LONG}"': "1" * 5_000}
"""Texts that json.dumps cannot write, by what stands for them."""
NUMBERS = (
    0, -1, 1, 7, 2**16, 2**31, 2**53 + 1, 2**63, 2**64, -(2**63), 10**12, int(DIGITS), 0.5, -0.0, 1e-320, 1e300, -1e300,
    float("nan"), float("inf"), float("-inf"),
)  # fmt: skip
TEXTS = (
    "", " ", ".", "..", "../../dear/letter.txt", "../dear", "/etc/passwd", "con", "a/b", "x" * 100_000, EVIL_TEXT,
    "\ud800", "\N{ARABIC-INDIC DIGIT THREE}", DIGITS, "%s%n{0}{x!r}", "demo", "nan", "http://127.0.0.1:9/x", "\n\n",
)  # fmt: skip
VALUES: tuple[Any, ...] = (
    None, True, [], {}, [[]], [None], {"": None}, [0] * 100_000, {str(n): n for n in range(10_000)}, _DEEP, _LONG,
    *NUMBERS, *TEXTS,
)  # fmt: skip


def spoil_bytes(chance: Random, data: bytes) -> bytes:
    """The bytes with one to three pieces flipped, cut, repeated, moved, replaced or set to an extreme number."""
    found = bytearray(data)
    for _ in range(chance.randint(1, 3)):
        start = (
            chance.randrange(len(found) + 1) if chance.random() < 0.6 else chance.randrange(min(len(found), 256) + 1)
        )
        size = chance.choice((1, 2, 4, 8, 64, 1024))
        piece = bytes(found[start : start + size])
        kind = chance.randrange(9)
        if kind <= 2 and piece:
            found[start] ^= 1 << chance.randrange(8)
        elif kind == 3:
            del found[start:]
        elif kind == 4:
            found[start:start] = chance.randbytes(size)
        elif kind == 5:
            found[start:start] = piece * chance.choice((1, 3, 100))
        elif kind == 6:
            del found[start : start + size]
        elif kind == 7:
            found[start : start + 4] = chance.choice(EXTREMES).to_bytes(4, chance.choice(("big", "little")))
        else:
            found[start : start + size] = chance.choice((b"\0", b"\xff")) * len(piece)
    return bytes(found)


def spoil_value(chance: Random, value: Any) -> Any:
    """A JSON value with one value in it replaced by a hostile one, dropped, doubled, added, or under another name."""
    if isinstance(value, dict) and value and chance.random() < 0.9:
        key = chance.choice(list(value))
        kind = chance.random()
        if kind < 0.08:
            return {name: item for name, item in value.items() if name != key}
        if kind < 0.14:
            return value | {chance.choice(TEXTS): chance.choice(VALUES)}
        if kind < 0.18:
            return {(chance.choice(TEXTS) if name == key else name): item for name, item in value.items()}
        return value | {key: spoil_value(chance, value[key])}
    if isinstance(value, list) and value and chance.random() < 0.8:
        at = chance.randrange(len(value))
        kind = chance.random()
        if kind < 0.15:
            return [*value[:at], *value[at + 1 :]]
        if kind < 0.3:
            return [*value, *value[at:]] * chance.choice((1, 1, 200))
        return [*value[:at], spoil_value(chance, value[at]), *value[at + 1 :]]
    near = (value - 1, value + 1, -value, value * 1000) if type(value) in (int, float) else ()
    return chance.choice((*near, *near, *NUMBERS, *VALUES) if near else VALUES)


def write_json(chance: Random, value: Any) -> bytes:
    """JSON of a hostile value, sometimes with a key twice."""
    text = json.dumps(value, indent=chance.choice((None, 1)))
    for name, raw in _RAW.items():
        text = text.replace(name, raw)
    if chance.random() < 0.05:
        text = text.replace("{", '{"format": 7, ', 1)
    return text.encode()


def spoil_json(chance: Random, data: bytes) -> bytes:
    """A JSON file with one or two values spoilt, or its bytes."""
    if chance.random() < 0.2 or not _is_json(data):
        return spoil_bytes(chance, data)
    value = json.loads(data)
    for _ in range(chance.randint(1, 2)):
        value = spoil_value(chance, value)
    return write_json(chance, value)


def _is_json(data: bytes) -> bool:
    try:
        return bool(json.loads(data))
    except (ValueError, RecursionError):
        return False


def resign(chance: Random, data: bytes) -> bytes:
    """A manifest whose run was changed, with the checksum that a forger computes for it."""
    manifest = json.loads(data)
    run = manifest["run"]
    for _ in range(chance.choice((1, 1, 1, 2, 4))):
        run = spoil_value(chance, run)
    manifest["run"] = run
    with contextlib.suppress(ValueError, RecursionError):  # a value such as NaN has no checksum
        manifest["sha256"] = digest(run)
    return write_json(chance, manifest)


DTYPES = (
    "F64",
    "F32",
    "F16",
    "BF16",
    "U8",
    "I8",
    "U16",
    "U32",
    "U64",
    "I64",
    "BOOL",
    "F8_E4M3",
    "F8_E8M0",
    "F4",
    "C64",
)


def spoil_safetensors(chance: Random, data: bytes) -> bytes:
    """A safetensors file with another header, or other bytes."""
    if chance.random() < 0.25:
        return spoil_bytes(chance, data)
    size = int.from_bytes(data[:8], "little")
    text, body = data[8 : 8 + size], data[8 + size :]
    header = json.loads(text) if _is_json(text) else None
    if not isinstance(header, dict):  # spoilt before
        return spoil_bytes(chance, data)
    header, body = _spoil_header(chance, header, body)
    text = write_json(chance, header)
    length = len(text) if chance.random() < 0.85 else chance.choice((*EXTREMES, 2**63, 2**64 - 1, len(text) - 1))
    return length.to_bytes(8, "little") + text + body


def _spoil_header(chance: Random, header: dict, body: bytes) -> tuple[dict, bytes]:
    names = [name for name, about in header.items() if name != "__metadata__" and isinstance(about, dict)]
    name = chance.choice(names or [""])
    about, kind = dict(header[name]) if names else {}, chance.randrange(8)
    shape = about.get("shape") if isinstance(about.get("shape"), list) else []
    if kind == 0:
        about["dtype"] = chance.choice(DTYPES)
    elif kind == 1:  # the same number of bytes
        about["shape"] = [*shape, 1] if chance.random() < 0.5 else [1, *shape]
    elif kind == 2:
        about |= {"shape": [0, chance.choice((2**62, 2**40, 7)), 3], "data_offsets": [0, 0]}
    elif kind == 3:
        many = 200_000 if chance.random() < 0.04 else 1000
        empty = {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}
        return header | {f"{name}.{number}": empty for number in range(many)}, body
    elif kind == 4:  # numbers that are none
        spot = 4 * chance.randrange(len(body) // 4 or 1)
        return header, body[:spot] + struct.pack("<f", chance.choice((float("nan"), float("inf"), 3e38))) + body[
            spot + 4 :
        ]
    elif kind == 5:
        return header | {chance.choice((EVIL_TEXT, "blocks.99.ffn.0.weight", name + "_scale", "x" * 5000)): about}, body
    elif kind == 6:
        told = header.get("__metadata__") or {"config": "{}"}
        return header | {"__metadata__": spoil_value(chance, told)}, body
    else:
        return spoil_value(chance, header), body
    return header | {name: about}, body


class Program:
    """An object whose pickle runs a program when it is loaded as one."""

    def __reduce__(self) -> tuple:
        return os.system, ("touch ../dear/owned",)


def hostile_torch(chance: Random, weights: dict[str, torch.Tensor]) -> bytes:
    """A file of torch.save with something in it that is no plain weight."""
    name = chance.choice(list(weights))
    content = chance.choice(_CONTENTS)(weights, name)
    file = io.BytesIO()
    torch.save(content, file, _use_new_zipfile_serialization=chance.random() < 0.7)
    return file.getvalue()


def _itself(weights: dict, name: str) -> dict:
    found: dict = {}
    found["model"] = found
    return found


def _deep(weights: dict, name: str) -> dict:
    found: dict = dict(weights)
    for _ in range(150):
        found = {"model": found}
    return found


def _one(make: Callable[[torch.Tensor], Any]) -> Callable[[dict, str], dict]:
    return lambda weights, name: weights | {name: make(weights[name])}


_CONTENTS: tuple[Callable[[dict, str], Any], ...] = (
    _itself,
    _deep,
    lambda weights, name: {"generator": weights, "generator_ema": {}, "step": 1},
    lambda weights, name: [weights],
    lambda weights, name: {3: weights[name], None: 1},
    lambda weights, name: {name: weights[name].flatten()[0]},
    lambda weights, name: {"embeds": torch.zeros(1).expand(2**20, 2**20)},
    lambda weights, name: {"embeds": torch.quantize_per_tensor(torch.ones(7, 64), 0.1, 0, torch.qint8)},
    _one(lambda x: Program()),
    _one(lambda x: x.to_sparse()),
    _one(lambda x: torch.zeros(1).expand(2**40)),
    _one(lambda x: torch.zeros(1).expand(*x.shape)),
    _one(lambda x: x.to("meta")),
    _one(lambda x: torch.quantize_per_tensor(x.float(), 0.1, 0, torch.qint8)),
    _one(lambda x: x.to(torch.complex64)),
    _one(lambda x: x.to(torch.float8_e4m3fn)),
    _one(lambda x: x.bool()),
    _one(lambda x: torch.empty(0, 2**30, 2**30)),
    _one(lambda x: torch.nested.nested_tensor([x, x])),
    _one(lambda x: torch.nn.Parameter(x) * float("nan")),
    _one(lambda x: str(x)),
)


@cache
def zeros_deflated(num_bytes: int) -> tuple[bytes, int]:
    """So many zeros (whole MiB) as a raw deflate stream that takes a thousandth of them, and their CRC."""
    block, crc = bytes(2**20), 0
    packer = zlib.compressobj(9, wbits=-15)
    piece = packer.compress(block) + packer.flush(zlib.Z_FULL_FLUSH)
    for _ in range(num_bytes >> 20):
        crc = zlib.crc32(block, crc)
    return piece * (num_bytes >> 20) + zlib.compressobj(wbits=-15).flush(), crc


def spoil_zip(chance: Random, data: bytes) -> bytes:
    """A zip file whose members are renamed, doubled, replaced by three gigabytes of zeros, or of another size."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            listed = [item for item in archive.infolist() if item.file_size < 2**24]
            members = [(item.filename, archive.read(item)) for item in listed]
    except (zipfile.BadZipFile, ValueError, OSError, RuntimeError, EOFError, zlib.error, struct.error):
        members = []
    if not members:
        return spoil_bytes(chance, data)
    at, kind = chance.randrange(len(members)), chance.randrange(7)
    name, content = members[at]
    if kind == 0:
        members[at] = (chance.choice(("../../dear/owned", "archive/code/x.py", "archive/data.pkl", "x")), content)
    elif kind == 1:
        members.insert(at, members[chance.randrange(len(members))])
    elif kind == 2:
        members[at] = (name, spoil_bytes(chance, content))
    elif kind == 3:
        del members[at]
    if kind == 4:
        return _with_bomb(members, at)
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED if kind == 5 else zipfile.ZIP_STORED) as archive:
        for name, content in members:
            archive.writestr(zipfile.ZipInfo(name), content)
    if kind < 6:
        return file.getvalue()
    found = bytearray(file.getvalue())  # a size in the list at the end that is not that of the member
    spot = found.rfind(b"PK\x01\x02", 0, chance.randrange(len(found) // 2, len(found))) + chance.choice((20, 24, 42))
    found[spot : spot + 4] = chance.choice(EXTREMES).to_bytes(4, "little")
    return bytes(found)


def _with_bomb(members: list[tuple[str, bytes]], at: int) -> bytes:
    """The members as a zip file, the one at `at` with three gigabytes of zeros in the place of its content."""
    found, listed = bytearray(), bytearray()
    for index, (name, content) in enumerate(members):
        packed, crc = zeros_deflated(3 * 2**30) if index == at else (content, zlib.crc32(content))
        size, method = (3 * 2**30, 8) if index == at else (len(content), 0)
        common = struct.pack("<HHHHHIIIHH", 20, 0, method, 0, 33, crc, len(packed), size, len(name.encode()), 0)
        listed += b"PK\x01\x02" + struct.pack("<H", 20) + common
        listed += struct.pack("<HHHII", 0, 0, 0, 0, len(found)) + name.encode()
        found += b"PK\x03\x04" + common + name.encode() + packed
    end = struct.pack("<HHHHIIH", 0, 0, len(members), len(members), len(listed), len(found), 0)
    return bytes(found + listed + b"PK\x05\x06" + end)
