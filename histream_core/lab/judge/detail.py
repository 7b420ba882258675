"""How much fine detail frames hold. Frames are [..., H, W, 3] in [0, 1], numpy or torch alike.

All three channels count: a red object on blue ground can be just as bright.
"""

from __future__ import annotations

from typing import TypeVar

Frames = TypeVar("Frames")


def sharpness(frames: Frames) -> float:
    """How strongly neighbouring pixels differ: root mean square of the Laplacian, without the outermost pixels."""
    middle = frames[..., 1:-1, 1:-1, :]
    beside = frames[..., 1:-1, :-2, :] + frames[..., 1:-1, 2:, :] + frames[..., :-2, 1:-1, :] + frames[..., 2:, 1:-1, :]
    return float(((4 * middle - beside) ** 2).mean()) ** 0.5


def fine_energy(frames: Frames) -> float:
    """Energy of the finest detail: mean square of each pixel less the mean of the 3x3 pixels around it."""
    rows, columns = (size - 2 for size in frames.shape[-3:-1])
    around = sum(frames[..., i : i + rows, j : j + columns, :] for i in range(3) for j in range(3)) / 9
    return float(((frames[..., 1:-1, 1:-1, :] - around) ** 2).mean())


def likeness(one: float, other: float) -> float:
    """How alike two amounts are: the smaller as a share of the larger, 0 to 1; 1 where both are nothing."""
    low, high = sorted((max(0.0, one), max(0.0, other)))
    return low / high if high else 1.0
