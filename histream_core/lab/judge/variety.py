"""How much clips of one prompt differ from seed to seed: where the object begins, how wide it is, and every pixel."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

import numpy as np

from .judge import LEAST_AREA, segment, shrink
from .outline import centres

UNIFORM_DISTANCE = 0.3826
"""Mean distance of two places that are drawn evenly from the frame, across its edges."""

VARIETY = {
    "spread": "mean distance of the start places of two clips, as a share of that of places drawn evenly",
    "widths": "standard deviation of the widths in the first frame, as a share of their mean",
    "least_difference": "mean difference of colour of the two clips that are most alike, 0 is none",
    "shown": "share of clips whose first frame shows an object",
}
"""Names and meanings, in the order in which they are shown."""


def start_of(frame: np.ndarray) -> tuple[np.ndarray, float] | None:
    """Place [2] and width of the flat object in a frame [H, W, 3]; None where there is none."""
    view = segment(frame[None])
    masks = shrink(view.masks)
    if view.ink is None or masks.mean() < LEAST_AREA:
        return None
    return centres(masks, None)[0], float(np.sqrt(masks.mean()))


def variety(starts: Sequence[tuple[np.ndarray, float] | None], clips: Sequence[np.ndarray]) -> dict[str, float]:
    """The figures of VARIETY for clips of several seeds; those of places are 0 where fewer than two show an object.

    Raises ValueError for fewer than two clips.
    """
    if len(clips) < 2:
        raise ValueError(f"{len(clips)} clips cannot be compared: use 2 or more seeds")
    there = [start for start in starts if start is not None]
    places, widths = [place for place, _ in there], [width for _, width in there]
    apart = [float(np.linalg.norm((one - other + 0.5) % 1 - 0.5)) for one, other in combinations(places, 2)]
    return {
        "spread": float(np.mean(apart)) / UNIFORM_DISTANCE if apart else 0.0,
        "widths": float(np.std(widths) / np.mean(widths)) if apart else 0.0,
        "least_difference": min(_difference(one, other) for one, other in combinations(clips, 2)),
        "shown": len(there) / len(clips),
    }


def _difference(one: np.ndarray, other: np.ndarray) -> float:
    """Mean absolute difference of clips [F, H, W, 3] of uint8, as a share of full scale."""
    return float(np.abs(one.astype(np.int16) - other).mean() / 255)
