"""The rule by which colours of other people's files are read, for every reader of pictures and videos.

- Matrix: the one that the file names. Where it names none: BT.601 for stills and SD video, BT.709 for larger video.
- Range: the one that the file names. Where it names none: limited for YUV, full for RGB and grey.
- Transfer: values are display values (sRGB, BT.709, BT.601 and BT.2020 alike); linear light gets sRGB's curve. HDR (PQ,
  HLG) and logarithmic values are refused.
- Primaries: taken as those of BT.709, so wider ones (BT.2020, P3) come out paler. Stills with an ICC profile of curves
  and a matrix, and HEIF stills of Display P3, are converted (`profiles`); profiles of tables are refused, those of CMYK
  left out.

Everything that is written is BT.709. Numbers are FFmpeg's codes, which are those of ITU-T H.273.
"""

from __future__ import annotations

from typing import Any

from .pixels import BLUE, RED

RGB, UNKNOWN = 0, 2
"""Codes of a matrix: no YUV at all, and not said."""

BT601, BT709 = 6, 1
"""Codes of the matrices that are taken where a file names none."""

WEIGHTS = {
    BT709: (RED, BLUE),
    4: (0.3, 0.11),  # FCC
    5: (0.299, 0.114),  # BT.601, 625 lines
    BT601: (0.299, 0.114),
    7: (0.212, 0.087),  # SMPTE 240M
    9: (0.2627, 0.0593),  # BT.2020, non-constant luminance
}
"""Luma coefficients of red and blue by the code of the matrix."""

UNREAD_MATRICES = {8: "YCgCo", 10: "BT.2020 constant luminance", 11: "YDzDx", 12: "chromaticity-derived"}
UNREAD_MATRICES |= {13: "chromaticity-derived", 14: "ICtCp", 15: "IPT-C2", 16: "YCgCo-Re", 17: "YCgCo-Ro"}
"""Matrices that are refused, by their codes."""

LINEAR = 8
"""Code of linear light."""

UNREAD_TRANSFERS = {16: "HDR (PQ)", 18: "HDR (HLG)", 9: "logarithmic", 10: "logarithmic", 17: "of digital cinema (XYZ)"}
"""Transfer characteristics that are refused, by their codes: values in [0, 1] would have other colours."""

LIMITED, FULL = 1, 2
"""Codes of a range."""

SD = 576, 1279
"""Longest shorter and longer side of SD video."""


def check_colours(picture: Any, name: str) -> None:
    """Check the tags of a decoder or of a decoded frame. Raises ValueError for colours that are not read."""
    transfer = UNREAD_TRANSFERS.get(getattr(picture, "color_trc", UNKNOWN))  # older versions of PyAV: decoder only
    if transfer:
        raise ValueError(f"{name} is {transfer}: convert it to SDR, BT.709")
    matrix = UNREAD_MATRICES.get(picture.colorspace)
    if matrix:
        raise ValueError(f"{name} has a colour matrix that is not read ({matrix}): convert it to BT.709")


def matrix_of(frame: Any, *, still: bool = False) -> int:
    """The code of the matrix that a decoded frame is read with. `still`: it is no frame of a video."""
    if frame.colorspace in WEIGHTS or frame.format.is_rgb:
        return frame.colorspace
    shorter, longer = sorted((frame.width, frame.height))
    return BT601 if still or (shorter <= SD[0] and longer <= SD[1]) else BT709
