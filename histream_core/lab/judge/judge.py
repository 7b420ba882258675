"""Reads background, colour, shape, direction, size and speed of a demo clip from its pixels. Pure numpy, no learning.

F frames, H W pixels (multiples of GRID), G the side of the small square grid that shapes and motion are read on.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np

from ...demo.painter import COLOURS, DIRECTIONS, SHAPES, SPEED, Combination, paint, signed_distance

GRID = 64
SEEN_FROM = 0.30  # distance in RGB from which a pixel is not background
LEAST_AREA = 0.02  # of the frame, to be an object at all (a true one covers about a quarter)
LAG = 8  # frames between which motion is read: an eighth of the frame at the true speed
LEAST_SPEED = 0.3  # of the true one, to be motion at all
SPARSE = 4  # medians are taken of every fourth pixel of every fourth line


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a clip shows; None where nothing can be read."""

    background: str | None
    colour: str | None
    shape: str | None
    direction: str | None
    speed: float
    """Along the main axis, as a share of the painter's speed."""
    area: float
    """Share of the frame that is not background, averaged over the frames."""
    presence: float
    """Share of the frames that show an object at all."""

    def agrees(self, asked: Combination) -> dict[str, bool]:
        parts = ("background", "colour", "shape", "direction")
        return {part: getattr(self, part) == getattr(asked, part) for part in parts}


@dataclass(frozen=True, slots=True)
class View:
    """A clip taken apart into a plain background and what stands out from it."""

    ground: np.ndarray
    """Colour of the background, [3]."""
    ink: np.ndarray | None
    """Colour of the object, [3]; None where there is none."""
    masks: np.ndarray
    """Which pixels are nearer to the object's colour than to the background's, [F, H, W] bool."""


def look(frames: np.ndarray) -> View:
    """Take frames [F, H, W, 3] in [0, 1] apart. Raises ValueError for other shapes."""
    if frames.ndim != 4 or frames.shape[-1] != 3 or frames.shape[1] % GRID or frames.shape[2] % GRID:
        raise ValueError(f"the judge reads frames [F, H, W, 3] of multiples of {GRID} pixels, got {frames.shape}")
    sparse = frames[:, ::SPARSE, ::SPARSE]
    ground = np.median(sparse.reshape(-1, 3), axis=0)
    contrast = np.linalg.norm(frames - ground, axis=-1)
    masks = contrast > SEEN_FROM
    inside = sparse[masks[:, ::SPARSE, ::SPARSE]]
    if masks.mean() < LEAST_AREA or not len(inside):
        return View(ground, None, masks)
    ink = np.median(inside, axis=0)
    return View(ground, ink, contrast > max(SEEN_FROM, float(np.linalg.norm(ink - ground)) / 2))


def judge(frames: np.ndarray) -> Verdict:
    """What frames [F, H, W, 3] in [0, 1] show. Raises ValueError for fewer than LAG + 1 of them."""
    if len(frames) <= LAG:
        raise ValueError(f"{len(frames)} frames are too few to read motion from: use at least {LAG + 1} frames")
    view = look(frames)
    areas = view.masks.mean((1, 2))
    background, area, presence = _nearest(view.ground), float(areas.mean()), float((areas > LEAST_AREA).mean())
    if view.ink is None:
        return Verdict(background, None, None, None, 0.0, area, presence)
    small = shrink(view.masks)
    direction, speed = _direction(small)
    return Verdict(background, _nearest(view.ink), _shape(small), direction, speed, area, presence)


@cache
def painted_area(shape: str) -> float:
    """Share of the frame that the painter's shape covers, as `judge` reads it."""
    clip = paint(Combination(shape, "white", "black", "right"), [0], training=False)
    return float(look(clip).masks.mean())


def _nearest(colour: np.ndarray) -> str:
    return min(COLOURS, key=lambda name: float(np.linalg.norm(colour - np.asarray(COLOURS[name]))))


def shrink(masks: np.ndarray) -> np.ndarray:
    """[F, H, W] to [F, G, G] by averaging whole boxes."""
    f, h, w = masks.shape
    return masks.reshape(f, GRID, h // GRID, GRID, w // GRID).mean((2, 4), dtype=np.float32)


def correlate(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """How well `a`, rolled by (row, column), covers `b`, for every roll: [..., H, W] both and back."""
    return np.fft.ifft2(np.fft.fft2(b) * np.fft.fft2(a).conj()).real


def _direction(masks: np.ndarray) -> tuple[str | None, float]:
    """The roll that carries all frames best onto those LAG later, wrapped to less than half a frame."""
    fit = correlate(masks[:-LAG], masks[LAG:]).sum(0)
    row, column = np.unravel_index(int(fit.argmax()), fit.shape)
    moved = np.array([(column + GRID // 2) % GRID - GRID // 2, (row + GRID // 2) % GRID - GRID // 2])
    shares = {name: float(moved @ np.array(axis)) / (LAG * SPEED * GRID) for name, axis in DIRECTIONS.items()}
    best = max(shares, key=lambda name: shares[name])
    return (best if shares[best] > LEAST_SPEED else None), shares[best]


def _shape(masks: np.ndarray) -> str | None:
    """The shape whose outline, at the area seen, overlaps most over the clip; position is free, size is given."""
    scores = dict.fromkeys(SHAPES, 0.0)
    for mask in masks[::4]:
        area = mask.mean()
        if area < LEAST_AREA or area > 0.6:
            continue
        for shape in SHAPES:
            template = _template(shape, area)
            common = correlate(template, mask).max()
            scores[shape] += common / (template.sum() + mask.sum() - common)
    return max(scores, key=lambda shape: scores[shape]) if max(scores.values()) else None


def _template(shape: str, area: float) -> np.ndarray:
    """A centred shape that covers `area` of the grid."""
    axis = (np.arange(GRID) + 0.5) / GRID - 0.5
    full = np.clip(0.5 - signed_distance(shape, axis[None], axis[:, None]) * GRID, 0, 1).mean()
    scale = np.sqrt(area / full)
    distance = signed_distance(shape, axis[None] / scale, axis[:, None] / scale) * scale
    return np.clip(0.5 - distance * GRID, 0, 1)
