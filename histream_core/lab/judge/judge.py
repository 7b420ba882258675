"""Background, colour, shape, direction, size and speed of a demo clip, read from its pixels with numpy.

F frames, H W pixels (multiples of GRID), G the side of the square grid that shapes and motion are read on.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np

from ...demo.painter import COLOURS, DIRECTIONS, SHAPES, SPEED, Combination, paint, signed_distance

GRID = 64
SEEN_FROM = 0.30  # distance in RGB from which a pixel is not background
LEAST_AREA = 0.02  # share of the frame that makes an object (the painter's cover about a quarter)
LAG = 8  # frames between which motion is read: an eighth of the frame at the painter's speed
LEAST_SPEED = 0.3  # share of the painter's speed that makes a motion
SPARSE = 4  # medians are taken over every fourth pixel of every fourth line


@dataclass(frozen=True, slots=True)
class Verdict:
    """The words that a clip shows, None where it shows none, and its object's speed and size."""

    background: str | None
    colour: str | None
    shape: str | None
    direction: str | None
    speed: float
    """Along the direction of motion, relative to the painter's speed."""
    area: float
    """Share of the frame that is not background, averaged over the frames."""
    presence: float
    """Share of the frames that show an object at all."""

    def agrees(self, asked: Combination) -> dict[str, bool]:
        parts = ("background", "colour", "shape", "direction")
        return {part: getattr(self, part) == getattr(asked, part) for part in parts}


@dataclass(frozen=True, slots=True)
class Segments:
    """A clip segmented into a plain background and one object."""

    ground: np.ndarray
    """Colour of the background, [3]."""
    ink: np.ndarray | None
    """Colour of the object, [3]; None where there is none."""
    masks: np.ndarray
    """The pixels of the object, [F, H, W] bool: nearer to its colour than to the background's."""


def segment(frames: np.ndarray) -> Segments:
    """Segment frames [F, H, W, 3] in [0, 1]. Raises ValueError for other shapes."""
    if frames.ndim != 4 or frames.shape[-1] != 3 or frames.shape[1] % GRID or frames.shape[2] % GRID:
        raise ValueError(f"the judge reads frames [F, H, W, 3] of multiples of {GRID} pixels, got {frames.shape}")
    sparse = frames[:, ::SPARSE, ::SPARSE]
    ground = _median(sparse.reshape(-1, 3))
    contrast = np.stack([_distance(frame, ground) for frame in frames])
    masks = contrast > SEEN_FROM
    inside = sparse[masks[:, ::SPARSE, ::SPARSE]]
    if np.count_nonzero(masks) / masks.size < LEAST_AREA or not len(inside):
        return Segments(ground, None, masks)
    ink = _median(inside)
    return Segments(ground, ink, contrast > max(SEEN_FROM, float(np.linalg.norm(ink - ground)) / 2))


def judge(frames: np.ndarray) -> Verdict:
    """The verdict on frames [F, H, W, 3] in [0, 1]. Raises ValueError for fewer than LAG + 1 of them."""
    check_length(frames)
    view = segment(frames)
    areas = np.array([np.count_nonzero(mask) / mask.size for mask in view.masks])
    background, area, presence = _nearest(view.ground), float(areas.mean()), float((areas > LEAST_AREA).mean())
    if view.ink is None:
        return Verdict(background, None, None, None, 0.0, area, presence)
    small = shrink(view.masks)
    direction, speed = judge_direction(small)
    return Verdict(background, _nearest(view.ink), _shape(small), direction, speed, area, presence)


def check_length(frames: np.ndarray) -> None:
    """Refuse fewer frames than motion can be read from. Raises ValueError."""
    if len(frames) <= LAG:
        raise ValueError(f"{len(frames)} frames are too few to read motion from: use at least {LAG + 1} frames")


@cache
def painted_area(shape: str) -> float:
    """Share of the frame that the painter's shape covers, as `judge` reads it."""
    clip = paint(Combination(shape, "white", "black", "right"), [0], training=False)
    return float(segment(clip).masks.mean())


def _nearest(colour: np.ndarray) -> str:
    return min(COLOURS, key=lambda name: float(np.linalg.norm(colour - np.asarray(COLOURS[name]))))


def shrink(masks: np.ndarray) -> np.ndarray:
    """Masks [F, H, W] of bool at [F, G, G], by averaging whole boxes."""
    f, h, w = masks.shape
    rows = masks.view(np.uint8).reshape(f, GRID, h // GRID, w).sum(2, dtype=np.uint16)
    return rows.reshape(f, GRID, GRID, w // GRID).sum(3, dtype=np.float32) / (h * w // GRID**2)


def _median(pixels: np.ndarray) -> np.ndarray:
    """Median [3] of colours [N, 3]; each channel in one piece of memory is faster."""
    return np.median(np.ascontiguousarray(pixels.T), axis=1)


def _distance(frame: np.ndarray, colour: np.ndarray) -> np.ndarray:
    """Distances in RGB [H, W] of a frame [H, W, 3] from a colour, channel by channel, which is fastest."""
    red, green, blue = np.subtract(frame.transpose(2, 0, 1), colour[:, None, None], order="C")
    return np.sqrt(red * red + green * green + blue * blue)


def correlate(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Circular cross-correlation [..., H, W]: at (row, column) the sum of `b` times `a` rolled by it."""
    return _fit(np.fft.fft2(a), np.fft.fft2(b))


def _fit(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """The cross-correlation of two pictures from their spectra."""
    return np.fft.ifft2(b * a.conj()).real


def judge_direction(masks: np.ndarray) -> tuple[str | None, float]:
    """Direction and speed of the roll that matches frames best with those LAG later, of less than half a frame."""
    fit = correlate(masks[:-LAG], masks[LAG:]).sum(0)
    row, column = np.unravel_index(int(fit.argmax()), fit.shape)
    moved = np.array([(column + GRID // 2) % GRID - GRID // 2, (row + GRID // 2) % GRID - GRID // 2])
    shares = {name: float(moved @ np.array(axis)) / (LAG * SPEED * GRID) for name, axis in DIRECTIONS.items()}
    best = max(shares, key=lambda name: shares[name])
    return (best if shares[best] > LEAST_SPEED else None), shares[best]


def _shape(masks: np.ndarray) -> str | None:
    """The shape that overlaps most with the masks over the clip, at the best position and with the area seen."""
    scores = dict.fromkeys(SHAPES, 0.0)
    for mask in masks[::4]:
        area = mask.mean()
        if area < LEAST_AREA or area > 0.6:
            continue
        spectrum = np.fft.fft2(mask)
        for shape in SHAPES:
            template = _template(shape, area)
            common = _fit(np.fft.fft2(template), spectrum).max()
            scores[shape] += common / (template.sum() + mask.sum() - common)
    return max(scores, key=lambda shape: scores[shape]) if max(scores.values()) else None


def _template(shape: str, area: float) -> np.ndarray:
    """Mask of a centred shape that covers the share `area` of the grid."""
    axis = (np.arange(GRID) + 0.5) / GRID - 0.5
    scale = np.sqrt(area / _full_area(shape))
    distance = signed_distance(shape, axis[None] / scale, axis[:, None] / scale) * scale
    return np.clip(0.5 - distance * GRID, 0, 1)


@cache
def _full_area(shape: str) -> np.floating:
    """Share of the grid that the painter's shape covers."""
    axis = (np.arange(GRID) + 0.5) / GRID - 0.5
    return np.clip(0.5 - signed_distance(shape, axis[None], axis[:, None]) * GRID, 0, 1).mean()
