"""The words of a camera about its still: how it lies, in EXIF or else XMP, and its colour profile.

JPEG (also MPO), PNG, WebP and TIFF.
"""

from __future__ import annotations

import re
import struct
import zlib
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

TAG, COMPRESSION, PROFILE = 0x0112, 0x0103, 0x8773
"""The tags of the orientation, of how the pixels of a TIFF are compressed, and of its colour profile."""

SHORT, LONG = 3, 4
"""The types of a number of two bytes and of four; some programs write the longer."""

_PNG = b"\x89PNG\r\n\x1a\n"

ENTRY = 12
"""Length of an entry in bytes."""

MOST_ENTRIES = 1000

TIFF = {b"II*\0": "<", b"MM\0*": ">"}
"""The first bytes of a TIFF, and of a block of EXIF: the order of its bytes."""

LONGEST_PROFILE, LONGEST_HEAD = 2**24, 2**16
"""Most bytes of a colour profile that are unpacked, and of a file that are searched for what it says of its colours."""

_HEAD, _XMP, _ICC = b"Exif\0\0", b"http://ns.adobe.com/xap/1.0/\0", b"ICC_PROFILE\0"
_PNG_XMP = b"XML:com.adobe.xmp\0"
_IN_XMP = re.compile(rb"tiff:Orientation(?:=\"|>)([1-8])[\"<]")


def orientation_in(data: bytes) -> Orientation:
    """How the still in the file `data` is put upright; as it is stored where the file does not say."""
    for block in _blocks(data):
        found = _value_in(block.removeprefix(_HEAD), TAG)
        if found is not None:
            return ORIENTATIONS.get(found, Orientation())
    said = next((match for text in _xmp(data) if (match := _IN_XMP.search(text))), None)
    return ORIENTATIONS.get(int(said[1]), Orientation()) if said else Orientation()


def profile_in(data: bytes) -> bytes:
    """The colour profile (ICC) of the still in the file `data`; nothing where it has none, or a damaged one."""
    if data[:2] == b"\xff\xd8":
        parts = [body[len(_ICC) :] for marker, body in _segments(data) if marker == 0xE2 and body.startswith(_ICC)]
        return b"".join(part[2:] for part in sorted(parts, key=lambda part: part[:1]))
    if data[:8] == _PNG:
        packed = next((body.partition(b"\0")[2][1:] for kind, body in _png_chunks(data) if kind == b"iCCP"), b"")
        try:
            return zlib.decompressobj().decompress(packed, LONGEST_PROFILE)
        except zlib.error:
            return b""
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return next((body for kind, body in _webp_chunks(data) if kind == b"ICCP"), b"")
    for order, tag, _, count, place in _entries(data):
        if tag == PROFILE and count > 4:
            (start,) = struct.unpack_from(f"{order}I", data, place)
            return data[start : start + count]
    return b""


def is_jpeg_in_tiff(data: bytes) -> bool:
    """Whether the file `data` is a TIFF whose pixels are compressed as JPEG."""
    return data[:4] in TIFF and _value_in(data, COMPRESSION) in (6, 7)


def is_cmyk_in_jp2(data: bytes) -> bool:
    """Whether the file `data` is a JPEG 2000 that says that its colours are those of a printer."""
    place = data.find(b"colr", 0, LONGEST_HEAD) if data[4:8] == b"jP  " else -1
    return place > 0 and data[place + 4 : place + 5] == b"\1" and data[place + 7 : place + 11] == b"\0\0\0\x0c"


def _blocks(data: bytes) -> Iterator[bytes]:
    """Yield the blocks of EXIF of the first picture in a file."""
    if data[:2] == b"\xff\xd8":
        yield from (body for marker, body in _segments(data) if marker == 0xE1 and body.startswith(_HEAD))
    elif data[:8] == _PNG:
        yield from (body for kind, body in _png_chunks(data) if kind == b"eXIf")
    elif data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        yield from (body for kind, body in _webp_chunks(data) if kind == b"EXIF")
    elif data[:4] in TIFF:
        yield data


def _xmp(data: bytes) -> Iterator[bytes]:
    """Yield the XMP of the first picture in a file."""
    if data[:2] == b"\xff\xd8":
        yield from (body for marker, body in _segments(data) if marker == 0xE1 and body.startswith(_XMP))
    elif data[:8] == _PNG:
        yield from (body for kind, body in _png_chunks(data) if kind == b"iTXt" and body.startswith(_PNG_XMP))
    elif data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        yield from (body for kind, body in _webp_chunks(data) if kind == b"XMP ")


def _png_chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yield kind and body of each chunk of a PNG."""
    start = 8
    while start + 8 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, start)
        yield kind, data[start + 8 : start + 8 + length]
        start += 12 + length


def _webp_chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yield kind and body of each chunk of a WebP."""
    start = 12
    while start + 8 <= len(data):
        kind, length = struct.unpack_from("<4sI", data, start)
        yield kind, data[start + 8 : start + 8 + length]
        start += 8 + length + length % 2


def _segments(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield marker and body of each segment of a JPEG before the pixels of the first picture."""
    start = 2
    while start + 4 <= len(data) and data[start] == 0xFF:
        marker, length = struct.unpack_from(">xBH", data, start)
        if marker == 0xFF:  # fill
            start += 1
            continue
        if marker == 0xDA:
            return
        yield marker, data[start + 4 : start + 2 + length]
        start += 2 + max(2, length)


def _value_in(block: bytes, wanted: int) -> int | None:
    """The value of a tag in the first directory of a block of EXIF; None where it is not there, or damaged."""
    for order, tag, kind, _, place in _entries(block):
        if (tag, kind) == (wanted, SHORT):
            return struct.unpack_from(f"{order}H", block, place)[0]
        if (tag, kind) == (wanted, LONG):
            return struct.unpack_from(f"{order}I", block, place)[0]
    return None


def _entries(block: bytes) -> Iterator[tuple[str, int, int, int, int]]:
    """Yield order, tag, type, count and place of the value of each entry in the first directory of TIFF or EXIF."""
    order = TIFF.get(block[:4])
    if order is None or len(block) < 8:
        return
    (start,) = struct.unpack_from(f"{order}I", block, 4)
    if start + 2 > len(block):
        return
    (number,) = struct.unpack_from(f"{order}H", block, start)
    for place in range(start + 2, start + 2 + ENTRY * min(number, MOST_ENTRIES), ENTRY):
        if place + ENTRY > len(block):
            return
        tag, kind, count = struct.unpack_from(f"{order}HHI", block, place)
        yield order, tag, kind, count, place + 8
