"""The orientation that a camera's still says in its EXIF: JPEG (also MPO), PNG, WebP, TIFF."""

from __future__ import annotations

import struct
from collections.abc import Iterator

from .frames import Orientation

ORIENTATIONS = {
    2: Orientation(columns=True),
    3: Orientation(rows=True, columns=True),
    4: Orientation(rows=True),
    5: Orientation(exchange=True),
    6: Orientation(exchange=True, columns=True),
    7: Orientation(exchange=True, rows=True, columns=True),
    8: Orientation(exchange=True, rows=True),
}
"""How a picture is put upright, by the value of the tag; every other value means that it is upright."""

TAG, COMPRESSION = 0x0112, 0x0103
"""The tags of the orientation, and of how the pixels of a TIFF are compressed."""

SHORT, LONG = 3, 4
"""The types of a number of two bytes and of four; some programs write the longer."""

ENTRY = 12
"""Length of an entry in bytes."""

MOST_ENTRIES = 1000

TIFF = {b"II*\0": "<", b"MM\0*": ">"}
"""The first bytes of a TIFF, and of a block of EXIF: the order of its bytes."""

_HEAD = b"Exif\0\0"


def orientation_in(data: bytes) -> Orientation:
    """How the still in the file `data` is put upright; as it is stored where the file does not say."""
    for block in _blocks(data):
        found = _value_in(block.removeprefix(_HEAD), TAG)
        if found is not None:
            return ORIENTATIONS.get(found, Orientation())
    return Orientation()


def is_jpeg_in_tiff(data: bytes) -> bool:
    """Whether the file `data` is a TIFF whose pixels are compressed as JPEG."""
    return data[:4] in TIFF and _value_in(data, COMPRESSION) in (6, 7)


def _blocks(data: bytes) -> Iterator[bytes]:
    """Yield the blocks of EXIF of the first picture in a file."""
    if data[:2] == b"\xff\xd8":
        yield from _in_jpeg(data)
    elif data[:8] == b"\x89PNG\r\n\x1a\n":
        yield from (data[start + 8 : stop] for kind, start, stop in _chunks(data, 8, ">I4s", 12) if kind == b"eXIf")
    elif data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        chunks = ((kind, start, stop) for kind, start, stop in _chunks(data, 12, "<4sI", 8))
        yield from (data[start + 8 : stop] for kind, start, stop in chunks if kind == b"EXIF")
    elif data[:4] in TIFF:
        yield data


def _chunks(data: bytes, start: int, head: str, around: int) -> Iterator[tuple[bytes, int, int]]:
    """Yield kind, start and end of body of each chunk of PNG or WebP; `around`: bytes of a chunk besides its body."""
    while start + 8 <= len(data):
        length, kind = sorted(struct.unpack_from(head, data, start), key=lambda part: isinstance(part, bytes))
        yield kind, start, start + 8 + length
        start += around + length + (length % 2 if around == 8 else 0)


def _in_jpeg(data: bytes) -> Iterator[bytes]:
    """Yield the blocks of EXIF before the pixels of the first picture."""
    start = 2
    while start + 4 <= len(data) and data[start] == 0xFF:
        marker, length = struct.unpack_from(">xBH", data, start)
        if marker == 0xFF:  # fill
            start += 1
            continue
        if marker == 0xDA:
            return
        if marker == 0xE1 and data[start + 4 : start + 10] == _HEAD:
            yield data[start + 4 : start + 2 + length]
        start += 2 + max(2, length)


def _value_in(block: bytes, wanted: int) -> int | None:
    """The value of a tag in the first directory of a block of EXIF; None where it is not there, or damaged."""
    order = TIFF.get(block[:4])
    if order is None or len(block) < 8:
        return None
    (start,) = struct.unpack_from(f"{order}I", block, 4)
    if start + 2 > len(block):
        return None
    (count,) = struct.unpack_from(f"{order}H", block, start)
    for place in range(start + 2, start + 2 + ENTRY * min(count, MOST_ENTRIES), ENTRY):
        if place + ENTRY > len(block):
            return None
        tag, kind, _, value = struct.unpack_from(f"{order}HHIH", block, place)
        if (tag, kind) == (wanted, SHORT):
            return value
        if (tag, kind) == (wanted, LONG):
            return struct.unpack_from(f"{order}I", block, place + 8)[0]
    return None
