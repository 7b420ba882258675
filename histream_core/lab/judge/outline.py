"""Where the object of a demo clip is, and how much of it lies in the ideal outline of a shape at that place.

Masks are [F, G, G], the share of each cell of the grid that the object covers; positions are fractions of the frame, x
to the right and y down, on a torus.
"""

from __future__ import annotations

from functools import cache

import numpy as np

from ...demo.painter import Combination, paint, signed_distance
from .judge import GRID, painted_area, segment, shrink

MOST_AREA = 0.6
"""Share of the frame above which what is not background is no object that has an outline."""


def centres(masks: np.ndarray, shape: str | None) -> np.ndarray:
    """Centres [F, 2] of objects of a shape, as the painter counts them.

    That of a triangle is above its centre of mass.
    """
    mass = _centre_of_mass(masks)
    if shape is None:
        return mass
    return mass - _offset(shape) * _scales(masks, shape)[:, None]


def overlaps(masks: np.ndarray, shape: str) -> np.ndarray:
    """Intersection over union [F] of masks and the ideal outlines of a shape, each as large and where the object is.

    0 where there is no object, or hardly anything else.
    """
    found = zip(masks, centres(masks, shape), _scales(masks, shape), strict=True)
    return np.array(
        [
            _overlap(mask, _ideal(shape, centre, scale)) if 0 < mask.mean() <= MOST_AREA else 0.0
            for mask, centre, scale in found
        ]
    )


def _overlap(mask: np.ndarray, ideal: np.ndarray) -> float:
    return float(np.minimum(mask, ideal).sum() / np.maximum(mask, ideal).sum())


def _ideal(shape: str, centre: np.ndarray, scale: float) -> np.ndarray:
    """Share of each cell [G, G] that a shape covers, `scale` times as large as the painter's."""
    x, y = (((np.arange(GRID) + 0.5) / GRID - place + 0.5) % 1 - 0.5 for place in centre)
    distance = scale * signed_distance(shape, x[None] / scale, y[:, None] / scale)
    return np.clip(0.5 - distance * GRID, 0, 1)


def _scales(masks: np.ndarray, shape: str) -> np.ndarray:
    """Width [F] of the object, relative to that of the painter's shape."""
    return np.sqrt(masks.mean((1, 2)) / painted_area(shape))


def _centre_of_mass(masks: np.ndarray) -> np.ndarray:
    """Circular means [F, 2] of where masks are set."""
    turn = np.exp(2j * np.pi * (np.arange(GRID) + 0.5) / GRID)
    both = (masks.sum(1) @ turn, masks.sum(2) @ turn)
    return np.stack([np.angle(way) / (2 * np.pi) for way in both], axis=1) % 1


@cache
def _offset(shape: str) -> np.ndarray:
    """Where a painted shape has its centre of mass, from its centre."""
    clip = paint(Combination(shape, "white", "black", "right"), [0], training=False)
    return _centre_of_mass(shrink(segment(clip).masks))[0] - 0.5
