"""Colour profiles (ICC) of stills, to sRGB: those of curves and a matrix, as cameras and editors write them.

Pictures are [H, W, 3], RGB, float32 in [0, 1]. Source of the layout: ICC.1:2022.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

import numpy as np

from .exr import to_display

SRGB_TO_D50 = np.array(
    ((0.4360747, 0.3850649, 0.1430804), (0.2225045, 0.7168786, 0.0606169), (0.0139322, 0.0971045, 0.7141733))
)
"""Linear light of sRGB as XYZ under the white of profiles, D50 (Bradford)."""

P3_TO_D50 = np.array(
    ((0.5151187, 0.2919778, 0.1571035), (0.2411892, 0.6922441, 0.0665668), (-0.0010505, 0.0418791, 0.7840713))
)
"""That of Display P3, whose curve is that of sRGB."""

NO_CHANGE = 1 / 512
"""Largest change of a value by a profile that is taken for that of sRGB: less than a step of 8 bits shows."""

ROWS = 64
"""Rows that are changed at once."""

_CURVES = ((0,), (0, 1, 2), (0, 1, 2, 3), (0, 1, 2, 3, 4), (0, 1, 2, 3, 4, 5, 6))
"""Which numbers of a curve each type of `para` has."""


class Curve(NamedTuple):
    """A curve from a value to linear light: by a table, or (a * x + b) ** g + e from d on, and c * x + f below it."""

    table: np.ndarray | None = None
    g: float = 1
    a: float = 1
    b: float = 0
    c: float = 0
    d: float = 0
    e: float = 0
    f: float = 0

    def light(self, values: np.ndarray) -> np.ndarray:
        """Linear light of values."""
        if self.table is not None:
            return np.interp(values, np.linspace(0, 1, len(self.table)), self.table)
        power = np.maximum(self.a * values + self.b, 0) ** self.g + self.e
        return np.where(values >= self.d, power, self.c * values + self.f)


SRGB_CURVE = Curve(None, 2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045)


class Profile(NamedTuple):
    """The colours of a still."""

    curves: tuple[Curve, ...]
    """A curve each for red, green and blue."""
    matrix: np.ndarray
    """Linear light as that of sRGB."""


DISPLAY_P3 = Profile((SRGB_CURVE,) * 3, np.linalg.inv(SRGB_TO_D50) @ P3_TO_D50)


def read_profile(data: bytes) -> Profile | None:
    """The profile in `data`; None for that of sRGB, for one of other colours than RGB and grey, and for a damaged one.

    Raises ValueError for one that is made of tables alone.
    """
    try:
        found = _profile_of(data)
    except (struct.error, IndexError):
        return None
    values = np.stack(np.meshgrid(*[np.linspace(0, 1, 6)] * 3), axis=-1).reshape(36, 6, 3)
    if found is None:
        return None
    with np.errstate(all="ignore"):
        change = np.abs(to_srgb(values, found) - values).max()
    return found if change >= NO_CHANGE else None  # one that is no number is of a damaged curve


def to_srgb(picture: np.ndarray, profile: Profile) -> np.ndarray:
    """The picture in sRGB; colours that it does not have become the nearest of each channel."""
    made = np.empty(picture.shape, np.float32)
    for top in range(0, len(picture), ROWS):
        rows = picture[top : top + ROWS]
        light = np.stack([curve.light(rows[..., index]) for index, curve in enumerate(profile.curves)], axis=-1)
        made[top : top + ROWS] = to_display((light @ profile.matrix.T).clip(0, 1).astype(np.float32))
    return made


def _profile_of(data: bytes) -> Profile | None:
    space = data[16:20]
    if data[36:40] != b"acsp" or space not in (b"RGB ", b"GRAY"):
        return None
    (count,) = struct.unpack_from(">I", data, 128)
    tags = {}
    for place in range(132, 132 + 12 * min(count, 200), 12):
        name, start, length = struct.unpack_from(">4sII", data, place)
        tags[name] = data[start : start + length]
    if space == b"GRAY":
        return Profile((_curve(tags[b"kTRC"]),) * 3, np.eye(3)) if b"kTRC" in tags else None
    colours, curves = ([tags.get(name + end, b"") for name in (b"r", b"g", b"b")] for end in (b"XYZ", b"TRC"))
    if not all((*colours, *curves)):
        raise ValueError("its colour profile is made of tables, which are not read")
    matrix = np.array([_numbers(colour, 8, 3) for colour in colours]).T
    return Profile(tuple(map(_curve, curves)), np.linalg.inv(SRGB_TO_D50) @ matrix)


def _curve(tag: bytes) -> Curve:
    if tag[:4] == b"para":
        (kind,) = struct.unpack_from(">H", tag, 8)
        numbers = _numbers(tag, 12, len(_CURVES[kind]))
        if kind == 0:
            return Curve(g=numbers[0])
        g, a, b, *rest = numbers
        if kind < 3:
            level = rest[0] if rest else 0
            return Curve(None, g, a, b, 0, -b / a if a else 0, level, level)
        c, d, *more = rest
        return Curve(None, g, a, b, c, d, *more)
    (count,) = struct.unpack_from(">I", tag, 8)
    if count == 0:
        return Curve()
    if count == 1:
        return Curve(g=struct.unpack_from(">H", tag, 12)[0] / 256)
    return Curve(np.array(struct.unpack_from(f">{count}H", tag, 12)) / 65535)


def _numbers(tag: bytes, place: int, count: int) -> list[float]:
    """Numbers of 16 bits before the point and 16 behind it."""
    return [value / 65536 for value in struct.unpack_from(f">{count}i", tag, place)]
