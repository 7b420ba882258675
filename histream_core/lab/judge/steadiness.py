"""What changes in a demo clip that should not: drift from its first to its last third, flicker from frame to frame.

Frames are [F, H, W, 3] float in [0, 1], a flat object that drifts over a plain background and wraps around the edges.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from .detail import likeness, sharpness
from .judge import View, correlate, look, shrink

LEAST_FRAMES = 3


def drift(frames: np.ndarray) -> dict[str, float]:
    """How much the last third of a clip differs from its first, each in [0, 1], 0 for not at all.

    `colour`: the largest change of a channel of the object's or the background's colour. `sharpness`: its relative
    change. `outline`: the part of the object's outlines, laid upon each other, that they do not share. All that needs
    an object is 1 where a third shows none. Raises ValueError for fewer than three frames.
    """
    third = len(frames) // 3
    if not third:
        raise ValueError(f"{len(frames)} frames have no thirds to compare: use at least {LEAST_FRAMES}")
    first, last = look(frames[:third]), look(frames[-third:])
    return {
        "colour": _colour_change(first, last),
        "sharpness": 1 - likeness(sharpness(frames[:third]), sharpness(frames[-third:])),
        "outline": outline_change(first, last),
    }


def _colour_change(first: View, last: View) -> float:
    if first.ink is None or last.ink is None:
        return 1.0
    return float(max(np.abs(first.ground - last.ground).max(), np.abs(first.ink - last.ink).max()))


def outline_change(first: View, last: View) -> float:
    """The part of the outlines of two views of as many frames, laid upon each other, that they do not share."""
    if first.ink is None or last.ink is None:
        return 1.0
    one, other = (shrink(view.masks) > 0.5 for view in (first, last))
    common = correlate(one.astype(np.float32), other.astype(np.float32)).max((1, 2))
    union = one.sum((1, 2)) + other.sum((1, 2)) - common
    shared = np.where(union > 0, common / np.maximum(union, 1), 0)
    return float(1 - shared.mean().clip(0, 1))


def flicker(frames: np.ndarray) -> float:
    """What changes from one frame to the next besides motion: the mean absolute difference, as a share of full scale.

    Motion is the roll that lays a frame best upon the next, so an object that keeps its colour and outline has none,
    wherever it goes. Noise that is new in every frame has about 1/3.
    """
    spectra = (np.fft.rfft2((frame - frame.mean((0, 1))).transpose(2, 0, 1)) for frame in frames)
    return float(np.mean([_change(now, following) for now, following in pairwise(zip(frames, spectra, strict=True))]))


def _change(now: tuple[np.ndarray, np.ndarray], following: tuple[np.ndarray, np.ndarray]) -> float:
    """What a frame and the next, each with its spectrum [3, H, W / 2 + 1], do not share when laid upon each other."""
    (one, before), (other, after) = now, following
    fit = np.fft.irfft2((after * before.conj()).sum(0), one.shape[:2])
    return float(np.abs(np.roll(one, np.unravel_index(int(fit.argmax()), fit.shape), (0, 1)) - other).mean())
