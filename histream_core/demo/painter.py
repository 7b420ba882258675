"""Painter of the demo model's world: one flat shape moves over a plain background and wraps around the edges.

Pure numpy. Clips are [F, H, W, 3] float32 in [0, 1]; positions are fractions of the frame, x to the right, y down.
The speed is the same for every clip: 1/64 of the frame per pixel frame, hence 1/16 of it per latent frame, which is
one cell of the low latent grid (16 cells) and two of the high one (32 cells).
"""

import itertools
from collections.abc import Sequence
from dataclasses import astuple, dataclass
from pathlib import Path

import numpy as np

from ..files.reading import parse_json, read_text

SHAPES = ("circle", "square", "triangle")
COLOURS = {
    "red": (0.90, 0.10, 0.12),
    "green": (0.10, 0.65, 0.20),
    "blue": (0.12, 0.25, 0.85),
    "yellow": (0.98, 0.85, 0.10),
    "purple": (0.60, 0.15, 0.75),
    "white": (0.97, 0.97, 0.97),
    "black": (0.04, 0.04, 0.05),
}
OBJECT_COLOURS = ("red", "green", "blue", "yellow", "purple", "white")
BACKGROUNDS = ("blue", "green", "white", "black")
DIRECTIONS = {"right": (1, 0), "left": (-1, 0), "down": (0, 1), "up": (0, -1)}
SPEED = 1 / 64

CIRCLE_RADIUS = 0.28
SQUARE_HALF_SIDE = 0.25
TRIANGLE_HALF_BASE = 0.32
TRIANGLE_HALF_HEIGHT = 0.28

SENTENCES = (
    "a {c} {s} moves {d} on a {b} background",
    "a {c} {s} moving {d} on {b}",
    "{c} {s} {d}, {b} background",
    "on a {b} background, a {c} {s} moves {d}",
    "{b} background, {c} {s}, {d}",
)
"""Full captions: colour, shape, direction, background."""


class HeldOutError(ValueError):
    """Raised for a combination that training must never see."""


@dataclass(frozen=True, slots=True, order=True)
class Combination:
    """Shape, colour, background and direction of one clip."""

    shape: str
    colour: str
    background: str
    direction: str

    def caption(self, sentence: str = SENTENCES[0]) -> str:
        return sentence.format(c=self.colour, s=self.shape, d=self.direction, b=self.background)


_HELD_OUT_ROWS = parse_json(read_text(Path(__file__).with_name("held_out.json")))
HELD_OUT = frozenset(Combination(*row) for row in _HELD_OUT_ROWS)


def all_combinations() -> list[Combination]:
    """All combinations in which the object differs in colour from its background."""
    every = itertools.product(SHAPES, OBJECT_COLOURS, BACKGROUNDS, DIRECTIONS)
    return [Combination(*parts) for parts in every if parts[1] != parts[2]]


def training_combinations() -> list[Combination]:
    return [c for c in all_combinations() if c not in HELD_OUT]


def paint(
    combination: Combination,
    times: Sequence[float],
    *,
    size: int = 256,
    start: tuple[float, float] = (0.5, 0.5),
    training: bool,
    window: tuple[int, int, int, int] | None = None,
    colours: tuple[Sequence[float], Sequence[float]] | None = None,
    scale: float = 1.0,
) -> np.ndarray:
    """Paint the pixel frames at `times`, [len(times), H, W, 3] float32 in [0, 1], of a world `size` pixels wide.

    `window` (top, left, height, width) selects a part of it; `colours` (object, background) overrides the named ones;
    `scale` makes the object larger. With `training` a held-out combination raises HeldOutError.
    """
    if training and combination in HELD_OUT:
        raise HeldOutError(f"{' '.join(astuple(combination))} is held out: evaluation only")
    top, left, height, width = window or (0, 0, size, size)
    dx, dy = DIRECTIONS[combination.direction]
    t = np.asarray(times, np.float32)[:, None]
    # Offsets from the centre of the object to every pixel centre, on the torus, in [-0.5, 0.5).
    x = (np.arange(left, left + width) + 0.5) / size - (start[0] + dx * SPEED * t) + 0.5
    y = (np.arange(top, top + height) + 0.5) / size - (start[1] + dy * SPEED * t) + 0.5
    x, y = (x % 1 - 0.5)[:, None, :] / scale, (y % 1 - 0.5)[:, :, None] / scale
    distance = scale * signed_distance(combination.shape, x, y)
    cover = np.clip(0.5 - distance * size, 0, 1)[..., None].astype(np.float32)
    named = COLOURS[combination.colour], COLOURS[combination.background]
    ink, ground = (np.asarray(c, np.float32) for c in (colours or named))
    return ground + (ink - ground) * cover


def signed_distance(shape: str, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Signed distance to the outline, negative inside; the triangle points up."""
    if shape == "circle":
        return np.hypot(x, y) - CIRCLE_RADIUS
    if shape == "square":
        return np.maximum(np.abs(x), np.abs(y)) - SQUARE_HALF_SIDE
    if shape == "triangle":
        slope = TRIANGLE_HALF_BASE / (2 * TRIANGLE_HALF_HEIGHT)
        side = (np.abs(x) - slope * (y + TRIANGLE_HALF_HEIGHT)) / np.hypot(1, slope)
        return np.maximum(side, y - TRIANGLE_HALF_HEIGHT)
    raise ValueError(f"unknown shape {shape!r}: one of {', '.join(SHAPES)}")
