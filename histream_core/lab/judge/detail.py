"""Measures of fine detail. Frames are [..., H, W, 3] in [0, 1], of numpy or torch.

All three channels count: a red object on a blue background may be just as bright. The Laplacian is that of four
neighbours; kornia's has eight, and would change every published sharpness.
"""

from __future__ import annotations

import numpy as np
from torch import Tensor

Frames = np.ndarray | Tensor


def sharpness(frames: Frames) -> float:
    """Root mean square of the Laplacian, without the outermost pixels."""
    middle = frames[..., 1:-1, 1:-1, :]
    beside = frames[..., 1:-1, :-2, :] + frames[..., 1:-1, 2:, :] + frames[..., :-2, 1:-1, :] + frames[..., 2:, 1:-1, :]
    return float(((4 * middle - beside) ** 2).mean()) ** 0.5


def fine_energy(frames: Frames) -> float:
    """Energy of the finest detail: mean square of each pixel minus the mean of the 3x3 pixels around it."""
    rows, columns = (size - 2 for size in frames.shape[-3:-1])
    around = sum(frames[..., i : i + rows, j : j + columns, :] for i in range(3) for j in range(3)) / 9
    return float(((frames[..., 1:-1, 1:-1, :] - around) ** 2).mean())


def likeness(one: float, other: float) -> float:
    """Ratio of the smaller of two amounts to the larger, 0 to 1; 1 where both are 0 or less."""
    low, high = sorted((max(0.0, one), max(0.0, other)))
    return low / high if high else 1.0
