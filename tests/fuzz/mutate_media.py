"""Hostile versions of pictures, videos, sounds and texts."""

from __future__ import annotations

import io
import struct
import zlib
from random import Random

from .mutate import DIGITS, EVIL_TEXT, EXTREMES, spoil_bytes, zeros_deflated


def spoil_media(chance: Random, data: bytes, suffix: str) -> bytes:
    """The bytes of a picture, video or sound, spoilt by what their format says or anywhere."""
    spoil = {".png": spoil_png, ".mp4": spoil_boxes, ".m4a": spoil_boxes, ".wav": spoil_start, ".ogg": spoil_ogg}
    if chance.random() < 0.35:
        return spoil_bytes(chance, data)
    return spoil.get(suffix, spoil_start)(chance, data)


def spoil_start(chance: Random, data: bytes) -> bytes:
    """Numbers of the first two kilobytes, where most formats describe themselves, set to extremes."""
    found = bytearray(data)
    for _ in range(chance.randint(1, 3)):
        spot, size = chance.randrange(min(2048, len(found))), chance.choice((1, 2, 4))
        number = chance.choice(EXTREMES) % 2 ** (8 * size)
        found[spot : spot + size] = number.to_bytes(size, chance.choice(("big", "little")))
    return bytes(found)


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def spoil_png(chance: Random, data: bytes) -> bytes:
    """A PNG file with a chunk that is changed, dropped, doubled, huge or cut; checksums fit."""
    chunks, at = [], 8
    while at + 12 <= len(data):
        size = int.from_bytes(data[at : at + 4], "big")
        chunks.append((data[at + 4 : at + 8], data[at + 8 : at + 8 + size]))
        at += 12 + size
    if not chunks:
        return spoil_bytes(chance, data)
    at, kind = chance.randrange(len(chunks)), chance.randrange(7)
    name, content = chunks[at]
    if kind == 0:
        side = [chance.choice((0, 1, 3, 16_000, 40_000, 2**31 - 1, 2**32 - 1)) for _ in range(2)]
        chunks[0] = (b"IHDR", struct.pack(">II", *side) + chunks[0][1][8:])
    elif kind == 1:
        chunks[0] = (b"IHDR", chunks[0][1][:8] + chance.randbytes(5))
    elif kind == 2:  # a picture as large as a wall, of zeros
        packed, _ = zeros_deflated(3 * 2**30)
        side = struct.pack(">II", 32_000, 32_000) + b"\x08\x02\0\0\0"
        chunks = [(b"IHDR", side), (b"IDAT", b"\x78\x9c" + packed), (b"IEND", b"")]
    elif kind == 3:
        del chunks[at]
    elif kind == 4:
        chunks.insert(at, (chance.choice((b"tEXt", b"iTXt", b"zTXt", b"eXIf", b"iCCP", name)), chance.randbytes(5000)))
    else:
        chunks[at] = (name, spoil_bytes(chance, content))
    found = data[:8] + b"".join(_chunk(*chunk) for chunk in chunks)
    return found[: chance.randrange(len(found))] if chance.random() < 0.15 else found


_PARENTS = {b"moov", b"trak", b"mdia", b"minf", b"stbl", b"edts", b"udta", b"dinf"}


def _boxes(data: bytes, start: int, stop: int) -> list[tuple[int, int]]:
    """Start and stop of every box between two places, also of those inside of others."""
    found = []
    while start + 8 <= stop:
        size = int.from_bytes(data[start : start + 4], "big")
        if size < 8 or start + size > stop:
            break
        found.append((start, start + size))
        if data[start + 4 : start + 8] in _PARENTS:
            found += _boxes(data, start + 8, start + size)
        start += size
    return found


def spoil_boxes(chance: Random, data: bytes) -> bytes:
    """An MP4 file with a box whose numbers or size are extreme, or that is dropped, doubled or renamed."""
    found, boxes = bytearray(data), _boxes(data, 0, len(data))
    if not boxes:
        return spoil_bytes(chance, data)
    start, stop = chance.choice([box for box in boxes if data[box[0] + 4 : box[0] + 8] != b"mdat"] or boxes)
    kind = chance.randrange(8)
    if kind <= 3:  # tables of times, sizes and places
        for _ in range(chance.randint(1, 3)):
            spot = start + 8 + 4 * chance.randrange(max(1, (stop - start - 8) // 4))
            found[spot : spot + 4] = chance.choice(EXTREMES).to_bytes(4, "big")
    elif kind == 4:
        found[start : start + 4] = chance.choice(EXTREMES).to_bytes(4, "big")
    elif kind == 5:
        del found[start:stop]
    elif kind == 6:
        found[start:start] = data[start:stop]
    else:
        found[start + 4 : start + 8] = chance.choice((b"free", b"moov", b"trak", b"\0\0\0\0", b"uuid"))
    return bytes(found)


def _ogg_crc(page: bytes) -> int:
    crc = 0
    for byte in page:
        crc ^= byte << 24
        for _ in range(8):
            crc = (crc << 1 ^ (0x04C11DB7 if crc & 0x80000000 else 0)) & 0xFFFFFFFF
    return crc


def spoil_ogg(chance: Random, data: bytes) -> bytes:
    """An Ogg file with a page whose time, number or kind is extreme; its checksum fits."""
    pages = [f"OggS{part}" for part in data.decode("latin-1").split("OggS")[1:]]
    if not pages:
        return spoil_bytes(chance, data)
    at = chance.randrange(len(pages))
    page = bytearray(pages[at].encode("latin-1"))
    spot, size = chance.choice(((6, 8), (14, 4), (18, 4), (5, 1)))
    page[spot : spot + size] = (chance.choice((*EXTREMES, 2**63, 2**64 - 1)) % 2 ** (8 * size)).to_bytes(size, "little")
    page[22:26] = bytes(4)
    page[22:26] = _ogg_crc(page).to_bytes(4, "little")
    pages[at] = page.decode("latin-1")
    return "".join(pages).encode("latin-1")


def forged_times(chance: Random, packed: bytes, key: str) -> bytes:
    """A packed sound whose metadata `key` says other times of its packets."""
    import av

    text = chance.choice(("", "1/0", "1/48000", f"1/{DIGITS}", f"1/48000 0 1024x{DIGITS}", "x" * 5000, "1/48000 0 -1x9",
                          "1/48000 0 1024x1000000000", "nan", f"1/48000 {DIGITS} 1024", "0/1 0 1x1", EVIL_TEXT[:4],
                          "-1/48000 0 1024x99", "1/48000 0 99999999999999999999x1"))  # fmt: skip
    file = io.BytesIO()
    with av.open(io.BytesIO(packed)) as source, av.open(file, "w", format="matroska") as target:
        target.metadata[key] = text
        out = target.add_stream_from_template(source.streams.audio[0])
        for packet in source.demux(source.streams.audio[0]):
            if packet.size:
                packet.stream = out
                target.mux_one(packet)
    return file.getvalue()


def playlist(chance: Random, other: str, port: int) -> tuple[str, bytes]:
    """A name and a text that names another file or place, as players know several."""
    url = chance.choice(
        (other, f"file:{other}", f"http://127.0.0.1:{port}/x.ts", f"tcp://127.0.0.1:{port}", f"concat:{other}")
    )
    name, text = chance.choice((
        ("list.m3u8", f"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\n{url}\n#EXT-X-ENDLIST\n"),
        ("clip.mp4", f"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\n{url}\n#EXT-X-ENDLIST\n"),
        ("list.ffconcat", f"ffconcat version 1.0\nfile '{url}'\n"),
        ("clip.mkv", f"ffconcat version 1.0\nfile '{url}'\n"),
        ("list.sdp", f"v=0\no=- 0 0 IN IP4 127.0.0.1\nc=IN IP4 127.0.0.1\nt=0 0\nm=video {port} RTP/AVP 96\n"),
        ("list.mpd", f'<?xml version="1.0"?><MPD><Period><AdaptationSet><Representation><BaseURL>{url}</BaseURL>'
                     "</Representation></AdaptationSet></Period></MPD>"),
        ("list.txt", f"{url}\n" * 99),
    ))  # fmt: skip
    return name, text.encode()


_TIMES = (
    "0:00", "0", "0:01", "1", "0.5", "2", "1:00:00", "99:99", "-1", "1e3", "nan", DIGITS, f"{DIGITS}:{DIGITS}", "0:00.",
    "\N{ARABIC-INDIC DIGIT THREE}", "\N{SUPERSCRIPT TWO}", "", "0:0.0000000001", f"0.{DIGITS}", "infinity",
)  # fmt: skip
_CHANGES = (
    "", ", cut", ", recache", ", scene", ", blend 3", ", blend 1000000", f", blend {DIGITS}", ", blend 0",
    ", spherical", ", New Anchor", ", new  anchor", ", cut, new anchor", ", blend -1", ", blend \N{SUPERSCRIPT TWO}",
    f", {EVIL_TEXT}", ", blend 2, scene", ",,,,", ", spherical 99999999999",
)  # fmt: skip
_PROMPTS = (
    "a red circle moves right",
    "a blue square moves up",
    "",
    EVIL_TEXT,
    "word " * 2000,
    "[0:00] x",
    "\ud800",
    "]",
)


def timeline(chance: Random) -> str:
    """A timeline, of which some lines are wrong."""
    if chance.random() < 0.03:
        return "\n".join(f"[{n}] x" for n in range(60_000))
    lines = []
    for number in range(chance.randint(1, 4)):
        right = chance.random() < 0.6
        time = f"{number * 0.6:.1f}" if right else chance.choice(_TIMES)
        end = f"-{chance.choice(_TIMES)}" if chance.random() < 0.15 else ""
        how = chance.choice(_CHANGES) if number or not right else ""
        lines.append(f"[{time}{end}{how}] {chance.choice(_PROMPTS[: 2 if right else None])}")
    text = "\n".join(lines)
    if chance.random() < 0.15:
        text = spoil_bytes(chance, text.encode("utf-8", "surrogatepass")).decode("utf-8", "surrogateescape")
    return text
