"""The drift of a video over time as a picture: a curve each for colour, brightness and sharpness."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..judge.drift_meter import Second
from .contact_sheet import INK, PAPER, draw_text

WIDTH, HEIGHT = 720, 110
"""Of one curve, without its words."""
LEAST_RANGE = 0.05
"""Smaller changes are drawn small."""
RULE = 90
CURVES = (
    ("colour", "colour: change of red, green or blue besides brightness", (240, 180, 60)),
    ("brightness", "brightness: change, above the line lighter", (120, 190, 250)),
    ("sharpness", "sharpness: change, below the line softer", (140, 220, 140)),
)


def drift_plot(seconds: Sequence[Second], title: str = "") -> np.ndarray:
    """The picture [H, W, 3] uint8; time runs from left to right, the middle line is the first second."""
    times = [second.start for second in seconds]
    parts = [draw_text(title, width=WIDTH)] if title else []
    for name, words, colour in CURVES:
        values = [getattr(second, name) - (name == "sharpness") for second in seconds]
        most = max(LEAST_RANGE, *map(abs, values))
        parts.append(draw_text(f"{words}; {-most:+.0%} to {most:+.0%}", width=WIDTH))
        parts.append(_curve(times, values, most, colour))
    parts.append(draw_text(f"0 to {times[-1]} seconds", width=WIDTH))
    return np.concatenate(parts)


def _curve(times: Sequence[float], values: Sequence[float], most: float, colour: tuple[int, int, int]) -> np.ndarray:
    panel = np.full((HEIGHT, WIDTH, 3), PAPER, np.uint8)
    panel[[0, HEIGHT // 2, -1]] = RULE
    panel[:, [0, -1]] = RULE
    along = np.interp(np.arange(WIDTH + 1), np.linspace(0, WIDTH, len(times)), values)
    rows = np.rint((HEIGHT - 3) / 2 * (1 - along / most)).astype(int) + 1
    for column in range(WIDTH):
        low, high = sorted(rows[column : column + 2])
        panel[low : high + 1, column] = colour
    panel[rows[-1] - 1 : rows[-1] + 2, -3:] = INK
    return panel
