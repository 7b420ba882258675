"""From frames to the planes of a pixel format, and the encoding of pictures as PNG and OpenEXR.

Pictures are [H, W, 3], red green blue, float32 in [0, 1], gamma-encoded for a display. The arithmetic is numpy's, one
thread: the same picture gives the same bytes on any number of cores.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Mapping

import numpy as np
from torch import Tensor

RED, GREEN, BLUE = 0.2126, 0.7152, 0.0722
"""Luma weights of ITU-R BT.709."""

CHROMA_STEPS = {"yuv420p": (2, 2), "yuv422p": (1, 2), "yuv444p": (1, 1)}
"""Rows and columns of the picture for one of chroma."""

EXR_ROWS = 16
"""Rows that are compressed together: what ZIP means in OpenEXR."""

Metadata = Mapping[str, str]


def pictures_of(frames: Tensor | np.ndarray, size: tuple[int, int]) -> list[np.ndarray]:
    """The frames [F, H, W, 3] as F pictures of `size` (width, height), cropped at the centre, in [0, 1].

    Floats are clamped; uint8, the only kind in numpy, is divided by 255. Raises ValueError for other shapes and kinds,
    and for smaller frames.
    """
    if frames.ndim != 4 or frames.shape[-1] != 3:
        raise ValueError(f"frames must be [F, H, W, 3], got {list(frames.shape)}")
    if isinstance(frames, np.ndarray) and frames.dtype != np.uint8:
        raise ValueError(f"frames in numpy must be uint8, got {frames.dtype}")
    width, height = size
    rows, columns = frames.shape[1:3]
    top, left = (rows - height) // 2, (columns - width) // 2
    if top < 0 or left < 0:
        raise ValueError(f"frames of {columns}x{rows} are smaller than the video of {width}x{height}")
    frames = frames[:, top : top + height, left : left + width]
    return [_unit(picture) for picture in (frames.cpu().numpy() if isinstance(frames, Tensor) else frames)]


def _unit(picture: np.ndarray) -> np.ndarray:
    if picture.dtype == np.uint8:
        return picture.astype(np.float32) / np.float32(255)
    return np.clip(picture.astype(np.float32, copy=False), 0, 1)


def quantise(values: np.ndarray, depth: int) -> np.ndarray:
    """Values in [0, 1] as whole numbers of `depth` bits, rounded half up."""
    return (values * np.float32((1 << depth) - 1) + np.float32(0.5)).astype(np.uint8 if depth == 8 else np.uint16)


def planes_of(picture: np.ndarray, pixels: str, depth: int) -> list[np.ndarray]:
    """The planes of one picture in a pixel format: YUV of BT.709 in limited range, or RGB in full range."""
    if pixels.startswith("gbrp"):
        red, green, blue = np.moveaxis(quantise(picture, depth), -1, 0)
        return [green, blue, red]
    if pixels == "bgr0":
        return [np.pad(quantise(picture, depth)[..., ::-1], ((0, 0), (0, 0), (0, 1))).reshape(len(picture), -1)]
    return _yuv(picture, CHROMA_STEPS[pixels[:7]], depth)


def _yuv(picture: np.ndarray, steps: tuple[int, int], depth: int) -> list[np.ndarray]:
    red, green, blue = np.moveaxis(picture, -1, 0)
    luma = np.float32(RED) * red + np.float32(GREEN) * green + np.float32(BLUE) * blue
    scale, kind = 1 << (depth - 8), np.uint8 if depth == 8 else np.uint16
    planes = [luma * np.float32(219 * scale) + np.float32(16 * scale + 0.5)]
    for colour, weight in ((blue, BLUE), (red, RED)):
        chroma = _shrink((colour - luma) * np.float32(0.5 / (1 - weight)), steps)
        planes.append(chroma * np.float32(224 * scale) + np.float32(128 * scale + 0.5))
    return [plane.astype(kind) for plane in planes]


def _shrink(plane: np.ndarray, steps: tuple[int, int]) -> np.ndarray:
    """Fewer rows (means of two) and columns (weights 1 2 1 around the even ones, where video has its chroma)."""
    if steps[0] == 2:
        plane = (plane[0::2] + plane[1::2]) * np.float32(0.5)
    if steps[1] == 2:
        wide = np.pad(plane, ((0, 0), (1, 0)), mode="edge")
        plane = (wide[:, 0:-1:2] + wide[:, 2::2]) * np.float32(0.25) + wide[:, 1::2] * np.float32(0.5)
    return plane


def picture_of(planes: list[np.ndarray], depth: int, *, limited: bool, weights: tuple[float, float]) -> np.ndarray:
    """The picture of YUV planes, unclamped; `weights` are the luma weights of red and blue. Undoes `planes_of`."""
    scale = np.float32(1 << (depth - 8))
    low, luma_range, chroma_range = (16, 219, 224) if limited else (0, 255 + (1 - 1 / scale), 255 + (1 - 1 / scale))
    rows, columns = planes[0].shape
    luma = (planes[0].astype(np.float32) / scale - low) / np.float32(luma_range)
    blue_less, red_less = (
        (_stretch(plane.astype(np.float32), (rows, columns)) / scale - 128) / np.float32(chroma_range)
        for plane in planes[1:]
    )
    red_weight, blue_weight = weights
    red = luma + np.float32(2 - 2 * red_weight) * red_less
    blue = luma + np.float32(2 - 2 * blue_weight) * blue_less
    green = (luma - red_weight * red - blue_weight * blue) / np.float32(1 - red_weight - blue_weight)
    return np.stack([red, green, blue], axis=-1).astype(np.float32)


def _stretch(plane: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """As many rows and columns as luma has, in straight lines between the chroma that there is."""
    rows, columns = shape
    if len(plane) < rows:  # each row of chroma lies between two of luma
        above, below = np.concatenate([plane[:1], plane[:-1]]), np.concatenate([plane[1:], plane[-1:]])
        pairs = np.stack([plane * 0.75 + above * 0.25, plane * 0.75 + below * 0.25], axis=1)
        plane = pairs.reshape(-1, plane.shape[1])[:rows]
    if plane.shape[1] < columns:  # each column of chroma lies on an even one of luma
        right = np.concatenate([plane[:, 1:], plane[:, -1:]], axis=1)
        plane = np.stack([plane, (plane + right) * 0.5], axis=2).reshape(len(plane), -1)[:, :columns]
    return plane


def png(picture: np.ndarray, depth: int, metadata: Metadata | None = None) -> bytes:
    """A picture as a PNG file of 8 or 16 bits, tagged as sRGB; `metadata` becomes text in it."""
    height, width = picture.shape[:2]
    rows = quantise(picture, depth).astype(f">u{depth // 8}").reshape(height, -1).view(np.uint8)
    chunks = [
        (b"IHDR", struct.pack(">IIBBBBB", width, height, depth, 2, 0, 0, 0)),
        (b"gAMA", struct.pack(">I", 45455)),
        (b"sRGB", b"\0"),
        *(_png_text(key, value) for key, value in (metadata or {}).items()),
        (b"IDAT", zlib.compress(_png_rows(rows, 3 * depth // 8).tobytes(), 5)),
        (b"IEND", b""),
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    )


def _png_text(key: str, value: str) -> tuple[bytes, bytes]:
    try:
        return b"tEXt", key.encode("latin-1") + b"\0" + value.encode("latin-1")
    except UnicodeEncodeError:
        return b"iTXt", key.encode("latin-1", "replace") + b"\0\0\0\0\0" + value.encode()


def _png_rows(rows: np.ndarray, pixel_bytes: int) -> np.ndarray:
    """Each row as the difference from the pixel before or the row above, whichever is smaller, with its mark."""
    before, above = rows.copy(), rows.copy()
    before[:, pixel_bytes:] -= rows[:, :-pixel_bytes]
    above[1:] -= rows[:-1]
    sums = [np.minimum(kind, -kind).sum(axis=1, dtype=np.int64) for kind in (before, above)]
    is_above = (sums[1] < sums[0])[:, None]
    return np.concatenate([1 + is_above.astype(np.uint8), np.where(is_above, above, before)], axis=1)


def to_linear(picture: np.ndarray) -> np.ndarray:
    """Linear light from sRGB-encoded values (IEC 61966-2-1)."""
    low = picture <= np.float32(0.04045)
    return np.where(low, picture / np.float32(12.92), ((picture + np.float32(0.055)) / np.float32(1.055)) ** 2.4)


def exr(picture: np.ndarray, *, linear: bool, rate: tuple[int, int], metadata: Metadata | None = None) -> bytes:
    """A picture as an OpenEXR file: half float, one part, ZIP, BT.709 primaries, tagged as linear light or sRGB.

    `rate` is frames per second as a fraction. Source of the layout: openexr.com, "OpenEXR File Layout".
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
        ("colorInteropID", "string", b"lin_rec709_scene" if linear else b"srgb_rec709_display"),
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
