"""A decoded frame as the picture that its file shows: its colours, in square pixels, upright.

Pictures are [H, W, 3], RGB, float32 in [0, 1]. The rule for colours is in `colour`. `av` is imported where it is used.
"""

from __future__ import annotations

import struct
from fractions import Fraction
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from .colour import FULL, LIMITED, LINEAR, WEIGHTS, matrix_of
from .exr import SRGB, to_display
from .media import Source, check_size
from .pixels import CHROMA_STEPS, picture_of

_DEPTHS = ("", "10le", "12le", "16le")
"""Suffixes of the pixel formats that are converted here; the library converts all others."""

SQUARE = Fraction(1, 32)
"""Pixels whose sides differ by less count as square: encoders round a picture's size so."""


class Orientation(NamedTuple):
    """How a stored picture is put upright: first rows and columns are exchanged, then their orders are reversed."""

    exchange: bool = False
    rows: bool = False
    columns: bool = False

    @classmethod
    def turned(cls, turns: int) -> Orientation:
        """The orientation that makes so many quarter turns counterclockwise."""
        return cls(turns % 2 == 1, turns % 4 in (1, 2), turns % 4 in (2, 3))

    def apply(self, picture: np.ndarray) -> np.ndarray:
        """The picture [H, W, C] upright."""
        if self.exchange:
            picture = picture.swapaxes(0, 1)
        return np.ascontiguousarray(picture[:: -1 if self.rows else 1, :: -1 if self.columns else 1])


def orientation_of(frame: Any) -> Orientation:
    """How a decoded frame of a video is put upright, by its display matrix: turned and mirrored as the file says."""
    matrix = _display_matrix(frame)
    if matrix is None:
        return Orientation.turned(round(frame.rotation / 90))
    a, b, c, d = matrix
    if abs(b) + abs(c) > abs(a) + abs(d):
        return Orientation(True, rows=b < 0, columns=c < 0)
    return Orientation(False, rows=d < 0, columns=a < 0)


def _display_matrix(frame: Any) -> tuple[int, int, int, int] | None:
    """The part of a frame's display matrix that turns and mirrors; None where there is none."""
    from av.sidedata.sidedata import Type

    try:
        found = frame.side_data.get(Type.DISPLAYMATRIX)
    except ValueError:  # PyAV knows not every kind of side data, such as EXIF, and then gives none
        return None
    if found is None:
        return None
    values = struct.unpack("=9i", bytes(found)[:36])
    return values[0], values[1], values[3], values[4]


def aspect_of(stream: Any) -> Fraction:
    """Width of a stream's pixels by their height; 1 where the file does not say, or where that is nearly 1."""
    aspect = Fraction(stream.sample_aspect_ratio or 1)
    return aspect if aspect > 0 and abs(aspect - 1) > SQUARE else Fraction(1)


def square_size(width: int, height: int, aspect: Fraction) -> tuple[int, int]:
    """The size of a picture in square pixels: one side is stretched, to an even number, and none gets shorter."""
    if aspect > 1:
        return 2 * round(width * aspect / 2), height
    return (width, 2 * round(height / aspect / 2)) if aspect < 1 else (width, height)


def check_aspect(frame: Any, aspect: Fraction, source: Source) -> None:
    """Check the size of a decoded frame in square pixels. Raises ValueError for one that is too large."""
    check_size(*square_size(frame.width, frame.height, aspect), source)


def unit_frame(frame: Any, aspect: Fraction = Fraction(1)) -> Tensor:
    """The picture of a decoded frame of a video, at the bit depth of the file. `aspect`: that of its pixels."""
    picture = _square(colours(frame), aspect)
    return torch.from_numpy(orientation_of(frame).apply(picture))


def colours(frame: Any, *, still: bool = False) -> np.ndarray:
    """The colours of a decoded frame, as it is stored. `still`: it is no frame of a video."""
    depth = frame.format.components[0].bits
    kind, matrix = frame.format.name, matrix_of(frame, still=still)
    if kind[:7] in CHROMA_STEPS and kind[7:] in _DEPTHS:
        planes = [_values(plane, depth) for plane in frame.planes]
        return picture_of(planes, depth, limited=frame.color_range != FULL, weights=WEIGHTS[matrix]).clip(0, 1)
    if kind.startswith("gbrp") and kind[4:] in _DEPTHS:
        green, blue, red = (_values(plane, depth) for plane in frame.planes)
        return np.stack([red, green, blue], axis=-1) / np.float32((1 << depth) - 1)
    if kind[:4] == "gray" and kind[4:] in _DEPTHS and frame.color_range == LIMITED:
        low, span = 16 << (depth - 8), 219 << (depth - 8)
        grey = ((_values(frame.planes[0], depth).astype(np.float32) - low) / np.float32(span)).clip(0, 1)
        return np.repeat(grey[..., None], 3, axis=-1)
    frame.colorspace = matrix
    if depth == 8:
        return frame.to_ndarray(format="rgb24") / np.float32(255)
    picture = frame.to_ndarray(format="rgb48le") / np.float32(65535)
    return to_display(picture) if _is_linear(frame) else picture


def _is_linear(frame: Any) -> bool:
    """Whether values are linear light; the decoder says so of every OpenEXR file, which can name its colours itself."""
    return getattr(frame, "color_trc", None) == LINEAR and frame.metadata.get("colorInteropID") != SRGB


def _square(picture: np.ndarray, aspect: Fraction) -> np.ndarray:
    """The picture in square pixels, by bicubic interpolation."""
    height, width = picture.shape[:2]
    columns, rows = square_size(width, height, aspect)
    if (columns, rows) == (width, height):
        return picture
    planes = torch.from_numpy(np.ascontiguousarray(picture)).movedim(-1, 0)[None]
    scaled = torch.nn.functional.interpolate(planes, (rows, columns), mode="bicubic", align_corners=False)
    return scaled[0].movedim(0, -1).clamp(0, 1).numpy()


def _values(plane: Any, depth: int) -> np.ndarray:
    """The values of one plane [rows, columns], without the padding of its lines."""
    kind = np.uint8 if depth == 8 else np.dtype("<u2")
    return np.frombuffer(plane, kind).reshape(plane.height, -1)[:, : plane.width]
