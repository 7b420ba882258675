"""The drift of a video over time as a picture, drawn with Pillow: a curve each for colour, brightness and sharpness.

Pillow and not matplotlib, because ComfyUI brings the former alone.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw

from ..judge.drift_meter import Second
from .contact_sheet import GAP, INK, LINE_HEIGHT, PAPER, drawable, font

WIDTH, HEIGHT = 720, 130
"""Pixels of one curve, without its text."""
SCALE_WIDTH = 56
"""Pixels of the percentages to the left of a curve."""
LEAST_RANGE = 0.05
"""Smaller changes are drawn small."""
RULE = (90, 90, 90)
CURVES = (
    ("colour", "colour: change of red, green or blue besides brightness", (240, 180, 60)),
    ("brightness", "brightness: change, above the line lighter", (120, 190, 250)),
    ("sharpness", "sharpness: change, below the line softer", (140, 220, 140)),
)


def drift_plot(seconds: Sequence[Second], title: str = "") -> np.ndarray:
    """The picture [H, W, 3] uint8; time runs from left to right, the middle line is the first second."""
    heads = int(bool(title))
    height = (heads + len(CURVES) + 1) * LINE_HEIGHT + len(CURVES) * (HEIGHT + GAP) + 2 * GAP
    picture = Image.new("RGB", (SCALE_WIDTH + WIDTH + 3 * GAP, height), PAPER)
    draw = ImageDraw.Draw(picture)
    top = GAP
    if title:
        _label(draw, (GAP, top), title)
        top += LINE_HEIGHT
    for name, words, colour in CURVES:
        _label(draw, (SCALE_WIDTH, top), words, fill=colour)
        values = [getattr(second, name) - (name == "sharpness") for second in seconds]
        _curve(draw, top + LINE_HEIGHT, [second.start for second in seconds], values, colour)
        top += LINE_HEIGHT + HEIGHT + GAP
    _label(draw, (SCALE_WIDTH, top), "0 s")
    _label(draw, (SCALE_WIDTH + WIDTH, top), f"{seconds[-1].start} s", anchor="rt")
    return np.asarray(picture)


def _curve(
    draw: ImageDraw.ImageDraw, top: int, times: Sequence[float], values: Sequence[float], colour: tuple[int, int, int]
) -> None:
    """Draw a panel whose upper edge is at `top`, its scale, and the values at their times."""
    most = max(LEAST_RANGE, *map(abs, values))
    left, middle = SCALE_WIDTH, top + HEIGHT // 2
    draw.rectangle((left, top, left + WIDTH, top + HEIGHT), outline=RULE)
    draw.line((left, middle, left + WIDTH, middle), fill=RULE)
    for y, amount, anchor in ((top, f"{most:+.0%}", "rt"), (middle, "0%", "rm"), (top + HEIGHT, f"{-most:+.0%}", "rb")):
        _label(draw, (left - GAP, y), amount, anchor=anchor)
    across = np.interp(times, (times[0], times[-1]), (left, left + WIDTH))
    points = [(float(x), middle - HEIGHT / 2 * value / most) for x, value in zip(across, values, strict=True)]
    draw.line(points, fill=colour, width=2, joint="curve")
    x, y = points[-1]
    draw.ellipse((x - 3, y - 3, x + 3, y + 3), fill=INK)


def _label(
    draw: ImageDraw.ImageDraw, place: tuple[float, float], text: str, *, fill: tuple[int, int, int] = INK, anchor="lt"
) -> None:
    draw.text(place, drawable(text), fill=fill, font=font(), anchor=anchor)
