"""OpenEXR files: half float, one part, ZIP, with colour space, frame rate and text.

FFmpeg's encoder stores neither the colour space nor text, so the files are laid out here. Source of the layout:
openexr.com, "OpenEXR File Layout".
"""

from __future__ import annotations

import struct
import zlib

import numpy as np

from .pixels import Metadata

EXR_ROWS = 16
"""Rows in a compressed block, by the definition of ZIP in OpenEXR."""


SRGB = "srgb_rec709_display"
"""The name of sRGB's values in an OpenEXR file, as `colorInteropID`; others hold linear light."""


def to_display(picture: np.ndarray) -> np.ndarray:
    """sRGB values of linear light in [0, 1] (IEC 61966-2-1)."""
    low = picture <= np.float32(0.0031308)
    return np.where(
        low, picture * np.float32(12.92), np.float32(1.055) * picture ** np.float32(1 / 2.4) - np.float32(0.055)
    )


def to_linear(picture: np.ndarray) -> np.ndarray:
    """Linear light of sRGB values (IEC 61966-2-1)."""
    low = picture <= np.float32(0.04045)
    return np.where(low, picture / np.float32(12.92), ((picture + np.float32(0.055)) / np.float32(1.055)) ** 2.4)


def encode_exr(picture: np.ndarray, *, linear: bool, rate: tuple[int, int], metadata: Metadata | None = None) -> bytes:
    """The bytes of an OpenEXR file of a picture: BT.709 primaries, tagged as linear light or sRGB.

    It holds half floats, and a picture that is not `linear` may be of those already.
    `rate` is frames per second as a fraction; `metadata` becomes text in the file.
    """
    height, width = picture.shape[:2]
    halves = np.moveaxis((to_linear(picture) if linear else picture)[..., ::-1], -1, 1)  # rows of blue, green, red
    rows = np.ascontiguousarray(halves.astype("<f2")).view(np.uint8).reshape(height, -1)
    header = _exr_header(width, height, linear, rate, metadata or {})
    blocks = [
        struct.pack("<ii", top, len(packed)) + packed
        for top in range(0, height, EXR_ROWS)
        for packed in (_exr_pack(rows[top : top + EXR_ROWS].ravel()),)
    ]
    sizes = [len(header) + 8 * len(blocks), *(len(block) for block in blocks[:-1])]
    return b"".join([header, np.cumsum(sizes, dtype="<u8").tobytes(), *blocks])


def _exr_pack(data: np.ndarray) -> bytes:
    apart = np.concatenate([data[0::2], data[1::2]])
    apart[1:] = apart[1:] - apart[:-1] + np.uint8(128)
    packed = zlib.compress(apart.tobytes(), 4)
    return packed if len(packed) < len(data) else data.tobytes()


def _exr_header(width: int, height: int, linear: bool, rate: tuple[int, int], metadata: Metadata) -> bytes:
    window = struct.pack("<iiii", 0, 0, width - 1, height - 1)
    channels = b"".join(name + b"\0" + struct.pack("<iB3xii", 1, 0, 1, 1) for name in (b"B", b"G", b"R")) + b"\0"
    attributes = [
        ("channels", "chlist", channels),
        ("chromaticities", "chromaticities", struct.pack("<8f", 0.64, 0.33, 0.3, 0.6, 0.15, 0.06, 0.3127, 0.329)),
        ("colorInteropID", "string", b"lin_rec709_scene" if linear else SRGB.encode()),
        ("compression", "compression", b"\3"),
        ("dataWindow", "box2i", window),
        ("displayWindow", "box2i", window),
        ("framesPerSecond", "rational", struct.pack("<iI", *rate)),
        ("lineOrder", "lineOrder", b"\0"),
        ("pixelAspectRatio", "float", struct.pack("<f", 1)),
        ("screenWindowCenter", "v2f", struct.pack("<ff", 0, 0)),
        ("screenWindowWidth", "float", struct.pack("<f", 1)),
        *((key, "string", value.encode()) for key, value in metadata.items()),
    ]
    body = b"".join(
        name.encode() + b"\0" + kind.encode() + b"\0" + struct.pack("<i", len(data)) + data
        for name, kind, data in attributes
    )
    return struct.pack("<ii", 20000630, 2) + body + b"\0"
