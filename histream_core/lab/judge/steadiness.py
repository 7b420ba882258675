"""Drift of a demo clip from its first to its last third, and flicker from frame to frame.

Frames are [F, H, W, 3] float in [0, 1], a flat object that drifts over a plain background and wraps around the edges.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from .detail import likeness, sharpness
from .judge import Segments, correlate, segment, shrink

LEAST_FRAMES = 3


def drift(frames: np.ndarray) -> dict[str, float]:
    """Differences between the first and the last third of a clip, each in [0, 1]; 0 is none.

    `colour`: the largest change of a channel of the object's or the background's colour. `sharpness`: its relative
    change. `outline`: see `outline_change`. Those that need an object are 1 where a third shows none. Raises ValueError
    for fewer than three frames.
    """
    third = len(frames) // 3
    if not third:
        raise ValueError(f"{len(frames)} frames have no thirds to compare: use at least {LEAST_FRAMES}")
    first, last = segment(frames[:third]), segment(frames[-third:])
    return {
        "colour": _colour_change(first, last),
        "sharpness": 1 - likeness(sharpness(frames[:third]), sharpness(frames[-third:])),
        "outline": outline_change(first, last),
    }


def _colour_change(first: Segments, last: Segments) -> float:
    if first.ink is None or last.ink is None:
        return 1.0
    return float(max(np.abs(first.ground - last.ground).max(), np.abs(first.ink - last.ink).max()))


def outline_change(first: Segments, last: Segments) -> float:
    """1 minus the intersection over union of the object's masks in two clips of as many frames, when aligned."""
    if first.ink is None or last.ink is None:
        return 1.0
    one, other = (shrink(view.masks) > 0.5 for view in (first, last))
    common = correlate(one.astype(np.float32), other.astype(np.float32)).max((1, 2))
    union = one.sum((1, 2)) + other.sum((1, 2)) - common
    shared = np.where(union > 0, common / np.maximum(union, 1), 0)
    return float(1 - shared.mean().clip(0, 1))


def flicker(frames: np.ndarray) -> float:
    """Mean absolute difference of consecutive frames after the motion is undone, as a share of full scale.

    Motion is the roll that aligns a frame best with the next, so an object that keeps its colour and outline has no
    flicker. Independent noise in every frame has about 1/3.
    """
    seen = ((frame, _spectrum(frame)) for frame in frames)
    return float(np.mean([_change(now, following) for now, following in pairwise(seen)]))


def _spectrum(frame: np.ndarray) -> Tensor:
    """Spectrum [3, H, W / 2 + 1] of a frame [H, W, 3] without its mean colour."""
    found = torch.fft.rfft2(torch.from_numpy(np.ascontiguousarray(frame.transpose(2, 0, 1))))
    found[:, 0, 0] = 0
    return found


def _change(now: tuple[np.ndarray, Tensor], following: tuple[np.ndarray, Tensor]) -> float:
    """Mean absolute difference of two aligned frames, each given with its spectrum."""
    (one, before), (other, after) = now, following
    fit = torch.fft.irfft2((after * before.conj()).sum(0), one.shape[:2])
    return float(np.abs(np.roll(one, np.unravel_index(int(fit.argmax()), fit.shape), (0, 1)) - other).mean())
