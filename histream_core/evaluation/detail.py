"""How much fine detail a picture holds. Pictures are luma [..., H, W] in [0, 1], numpy or torch alike."""

from __future__ import annotations

from typing import TypeVar

from ..pixels import BLUE, RED

Picture = TypeVar("Picture")


def luma(frames: Picture) -> Picture:
    """Brightness [..., H, W] of frames [..., H, W, 3], by the weights of BT.709."""
    return RED * frames[..., 0] + (1 - RED - BLUE) * frames[..., 1] + BLUE * frames[..., 2]


def sharpness(picture: Picture) -> float:
    """How strongly neighbouring pixels differ: root mean square of the Laplacian, without the outermost pixels."""
    middle = picture[..., 1:-1, 1:-1]
    beside = picture[..., 1:-1, :-2] + picture[..., 1:-1, 2:] + picture[..., :-2, 1:-1] + picture[..., 2:, 1:-1]
    return float(((4 * middle - beside) ** 2).mean()) ** 0.5


def fine_energy(picture: Picture) -> float:
    """Energy of the finest detail: mean square of each pixel less the mean of the 3x3 pixels around it."""
    rows, columns = (size - 2 for size in picture.shape[-2:])
    around = sum(picture[..., i : i + rows, j : j + columns] for i in range(3) for j in range(3)) / 9
    return float(((picture[..., 1:-1, 1:-1] - around) ** 2).mean())


def likeness(one: float, other: float) -> float:
    """How alike two amounts are: the smaller as a share of the larger, 0 to 1; 1 where both are nothing."""
    low, high = sorted((max(0.0, one), max(0.0, other)))
    return low / high if high else 1.0
