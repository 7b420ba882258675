"""HEIF stills (HEIC of telephones, AVIF): which item is the picture, the tiles it is made of, and how it is upright.

FFmpeg gives the items as streams whose id is the item's. Source of the layout: ISO/IEC 23008-12 and 14496-12.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

from .frames import Orientation

BRANDS = (b"mif1", b"mif2", b"heic", b"heix", b"heim", b"heis", b"avif")
"""Brands of files with stills."""

LONGEST_HEAD = 512
"""Most bytes of a file type box that are read."""

GRID = 12
"""Most bytes of the item that says how tiles are put together."""

MIRRORS = (Orientation(rows=True), Orientation(columns=True))
"""How a picture is mirrored, by the axis in the property `imir`."""


@dataclass(frozen=True)
class Still:
    """The layout of the primary picture of a file."""

    tiles: tuple[int, ...]
    """Ids of the items that it is made of, row by row."""
    columns: int
    """Tiles in a row."""
    size: tuple[int, int] | None
    """Width and height; None: those of the only item."""
    orientations: tuple[Orientation, ...]
    """How it is put upright, one after the other."""
    crop: tuple[Fraction, ...] | None = None
    """Width and height of the part that is shown, and how far its centre is right of and below that of the whole."""
    profile: bytes = field(default=b"", repr=False)
    """Its colour profile (ICC)."""
    primaries: int = 2
    """FFmpeg's code of its primaries; 2: not said."""


class _Boxes:
    """The boxes in a part of a file, by their kind."""

    def __init__(self, data: bytes) -> None:
        self._found: dict[bytes, list[bytes]] = {}
        for kind, body in _boxes(data):
            self._found.setdefault(kind, []).append(body)

    def __getitem__(self, kind: bytes) -> bytes:
        """The first box of a kind. Raises ValueError where there is none."""
        if kind not in self._found:
            raise ValueError(f"a box {kind.decode('latin-1')} is missing")
        return self._found[kind][0]

    def get(self, kind: bytes) -> bytes:
        """The first box of a kind, or nothing."""
        return self._found.get(kind, [b""])[0]


def is_heif(head: bytes) -> bool:
    """Whether the first bytes of a file are those of a file with stills."""
    if head[4:8] != b"ftyp":
        return False
    (length,) = struct.unpack_from(">I", head)
    brands = head[8 : min(length, LONGEST_HEAD)]
    return any(brands[at : at + 4] in BRANDS for at in range(0, len(brands), 4) if at != 4)


def find_still(data: bytes) -> Still | None:
    """The primary picture of the file `data`; None where it has no stills. Raises ValueError for what is not read."""
    boxes = _Boxes(data)
    if not boxes.get(b"meta"):
        return None
    try:
        return _still_in(_Boxes(boxes[b"meta"][4:]), data)
    except (struct.error, IndexError) as error:
        raise ValueError("its list of pictures is damaged") from error


def _still_in(meta: _Boxes, data: bytes) -> Still:
    primary = struct.unpack_from(">I" if meta[b"pitm"][0] else ">H", meta[b"pitm"], 4)[0]
    kinds = dict(_kinds(meta[b"iinf"]))
    properties = list(_properties(_Boxes(meta[b"iprp"]), primary))
    shown = _shown(properties)
    kind = kinds.get(primary)
    if kind in (b"hvc1", b"av01"):
        return Still((primary,), 1, None, **shown)
    if kind != b"grid":
        raise ValueError(f"its picture is of the kind {(kind or b'').decode('latin-1')!r}, which is not read")
    tiles = _tiles(meta[b"iref"], primary)
    grid = _item(meta, data, primary)
    rows, columns = grid[2] + 1, grid[3] + 1
    size = struct.unpack_from(">II" if grid[1] & 1 else ">HH", grid, 4)
    if len(tiles) != rows * columns:
        raise ValueError(f"{len(tiles)} tiles are listed for {columns}x{rows}")
    return Still(tiles, columns, (size[0], size[1]), **shown)


def _boxes(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yield kind and body of each box."""
    start = 0
    while start + 8 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, start)
        head = 8
        if length == 1 and start + 16 <= len(data):
            (length,), head = struct.unpack_from(">Q", data, start + 8), 16
        stop = len(data) if length == 0 else start + length
        if stop < start + head:
            return
        yield kind, data[start + head : stop]
        start = stop


def _kinds(box: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield the id and the kind of each item (`iinf`)."""
    for kind, body in _boxes(box[6:] if box[0] == 0 else box[8:]):
        if kind == b"infe" and body[0] >= 2:
            item, _, name = struct.unpack_from(">HH4s" if body[0] == 2 else ">IH4s", body, 4)
            yield item, name


def _tiles(box: bytes, item: int) -> tuple[int, ...]:
    """The items that an item is made of (`iref`, `dimg`)."""
    wide = "I" if box[0] else "H"
    for kind, body in _boxes(box[4:]):
        if kind == b"dimg":
            first, count = struct.unpack_from(f">{wide}H", body)
            if first == item:
                return struct.unpack_from(f">{count}{wide}", body, struct.calcsize(f">{wide}H"))
    return ()


def _properties(properties: _Boxes, item: int) -> Iterator[tuple[bytes, bytes]]:
    """Yield kind and body of an item's properties, in order (`iprp`)."""
    known = list(_boxes(properties[b"ipco"]))
    for index in _associations(properties[b"ipma"], item):
        if index:
            yield known[index - 1]


def _shown(properties: list[tuple[bytes, bytes]]) -> dict[str, Any]:
    """How a picture is shown, by its properties, as fields of a `Still`."""
    turns, more = [], {}
    for kind, body in properties:
        if kind == b"irot":
            turns.append(Orientation.turned(body[0] & 3))
        elif kind == b"imir":
            turns.append(MIRRORS[body[0] & 1])
        elif kind == b"clap":
            numbers = struct.unpack_from(">4I", body) + struct.unpack_from(">iIiI", body, 16)
            more["crop"] = tuple(Fraction(numbers[at], numbers[at + 1] or 1) for at in range(0, 8, 2))
        elif kind == b"colr" and body[:4] in (b"prof", b"rICC"):
            more["profile"] = body[4:]
        elif kind == b"colr" and body[:4] == b"nclx":
            (more["primaries"],) = struct.unpack_from(">H", body, 4)
    return {"orientations": tuple(turns), **more}


def _associations(box: bytes, item: int) -> Iterator[int]:
    """Yield the numbers of an item's properties, from 1 on (`ipma`)."""
    wide, (count,) = box[3] & 1, struct.unpack_from(">I", box, 4)
    place, ids = 8, ">IB" if box[0] else ">HB"
    for _ in range(count):
        found, number = struct.unpack_from(ids, box, place)
        place += struct.calcsize(ids)
        numbers = struct.unpack_from(f">{number}{'H' if wide else 'B'}", box, place)
        place += number * (1 + wide)
        if found == item:
            yield from (value & (0x7FFF if wide else 0x7F) for value in numbers)


def _item(meta: _Boxes, data: bytes, item: int) -> bytes:
    """The bytes of an item as long as a grid (`iloc`), in the file or in the box `idat`."""
    box = meta[b"iloc"]
    version, sizes = box[0], struct.unpack_from(">H", box, 4)[0]
    offset, length, base, index = (sizes >> shift & 15 for shift in (12, 8, 4, 0))
    ids = ">I" if version == 2 else ">H"
    (count,), place = struct.unpack_from(ids, box, 6), 6 + struct.calcsize(ids)

    def take(width: int) -> int:
        nonlocal place
        place += width
        if place > len(box):
            raise IndexError
        return int.from_bytes(box[place - width : place], "big")

    for _ in range(count):
        found = take(struct.calcsize(ids))
        method = take(2) & 15 if version else 0
        take(2)
        start, parts = take(base), []
        for _ in range(take(2)):
            take(index if version else 0)
            at = start + take(offset)
            parts.append((at, at + take(length)))
        if found == item:
            where = meta.get(b"idat") if method == 1 else data
            return b"".join(where[first : min(last, first + GRID)] for first, last in parts)
    raise IndexError
