"""Temporal consistency, drift and detail of any video, in one pass that holds two frames at a time.

H W pixels; frames are [H, W, 3] float in [0, 1].
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise, zip_longest

import numpy as np
import torch.nn.functional as F
from torch import Tensor

from .detail import fine_energy, likeness, sharpness
from .flow import LEAST_SIDE_DIS, FindFlow, find_flow, visible, warp

FLOW_WIDTH = 512
"""Largest width of the pictures that motion is read from."""

PARTS = 10
"""Drift is measured between the first and the last of this many parts of a video: minutes 1 and 10 of ten."""

MEASURES = {
    "warp_error": "mean square of what the flow from the frame before does not explain, where both see the same",
    "flicker": "mean change from frame to frame besides motion, as a share of full scale",
    "visible": "share of the picture that the frame before shows too",
    "sharpness": "root mean square of the Laplacian",
    "detail": "energy of the finest detail",
    "detail_ratio": "detail as a share of the reference's",
    "drift_colour": "largest change of mean red, green, blue or saturation, from the first tenth to the last",
    "drift_sharpness": "relative change of sharpness, from the first tenth to the last",
    "drift_detail": "relative change of the finest detail, from the first tenth to the last",
    "clip_consistency": "100 x cosine of the CLIP features of one sampled frame and the next",
    "clip_reference": "100 x cosine of the CLIP features of a frame and of the reference's",
    "clip_prompt": "100 x cosine of the CLIP features of a frame and of the prompt",
}
"""Names and meanings, in the order in which they are shown."""

COLOURS = ("red", "green", "blue", "saturation")
STILL = (*COLOURS, "sharpness", "detail")
"""Measures of single frames."""

MOVING = ("warp_error", "flicker", "visible")
"""Measures of two consecutive frames."""

Encode = Callable[[Tensor], Tensor]
"""Maps a frame to its CLIP features, [D], of unit length."""


@dataclass(frozen=True, slots=True)
class MeasureSettings:
    """How often motion is read, and what CLIP scores need."""

    motion_every: int = 1
    """Motion is read between every n-th frame and the one before it."""
    encode: Encode | None = None
    encode_every: int = 8
    prompt: Tensor | None = None
    """CLIP features of the prompt, [D]."""
    flicker: bool = True
    """Whether flicker is measured, which takes the video's own flow, besides the reference's where there is one."""
    flow: FindFlow | None = None
    """How motion is read; None: by `find_flow`, as in all tables of ours."""


@dataclass
class Readings:
    """Measures of a video, frame by frame."""

    still: dict[str, list[float]] = field(default_factory=lambda: {name: [] for name in STILL})
    moving: dict[str, list[float]] = field(default_factory=lambda: {name: [] for name in MOVING})
    reference_detail: list[float] = field(default_factory=list)
    features: list[Tensor] = field(default_factory=list)
    reference_features: list[Tensor] = field(default_factory=list)


def measure(
    frames: Iterable[Tensor], reference: Iterable[Tensor] | None = None, settings: MeasureSettings | None = None
) -> dict:
    """The MEASURES that apply to a video, and under "parts" the means of PARTS stretches of it.

    With a `reference` (what the video was made from, or the ground truth) the flow is the reference's, as in
    StreamDiffusionV2's tables, and detail and CLIP features are compared with it. Raises ValueError for fewer than two
    frames, and a reference of another size or length.
    """
    settings, readings = settings or MeasureSettings(), Readings()
    before: tuple[Tensor, Tensor] | None = None
    for index, (frame, guide) in enumerate(_pairs(frames, reference)):
        _read_still(readings, index, frame, guide, settings)
        now = frame, frame if guide is None else guide
        if before is not None and index % settings.motion_every == 0:
            _read_motion(readings, before, now, settings)
        before = now
    if not readings.moving["visible"]:
        raise ValueError(
            f"{len(readings.still['detail'])} frames show no motion: give a video of more than {settings.motion_every}"
        )
    return _summary(readings, settings)


def _pairs(frames: Iterable[Tensor], reference: Iterable[Tensor] | None) -> Iterator[tuple[Tensor, Tensor | None]]:
    if reference is None:
        yield from ((frame, None) for frame in frames)
        return
    for index, (frame, guide) in enumerate(zip_longest(frames, reference)):
        if frame is None or guide is None:
            raise ValueError(
                f"the {'video' if frame is None else 'reference'} ends after {index} frames, the other not"
            )
        if frame.shape != guide.shape:
            sizes = [f"{one.shape[1]}x{one.shape[0]}" for one in (frame, guide)]
            raise ValueError(f"the video is {sizes[0]} and its reference {sizes[1]}: give both in one size")
        yield frame, guide


def _read_still(readings: Readings, index: int, frame: Tensor, guide: Tensor | None, settings: MeasureSettings) -> None:
    found = [*frame.mean((0, 1)).tolist(), float((frame.amax(-1) - frame.amin(-1)).mean())]
    for name, value in zip(STILL, [*found, sharpness(frame), fine_energy(frame)], strict=True):
        readings.still[name].append(value)
    if guide is not None:
        readings.reference_detail.append(fine_energy(guide))
    if settings.encode is not None and index % settings.encode_every == 0:
        readings.features.append(settings.encode(frame))
        if guide is not None:
            readings.reference_features.append(settings.encode(guide))


def _small(frame: Tensor) -> Tensor:
    """Shrink a frame to at most FLOW_WIDTH pixels of width."""
    height, width = frame.shape[:2]
    if width <= FLOW_WIDTH:
        return frame
    size = max(LEAST_SIDE_DIS, round(height * FLOW_WIDTH / width)), FLOW_WIDTH
    return F.interpolate(frame.permute(2, 0, 1)[None], size, mode="area")[0].permute(1, 2, 0)


def _read_motion(
    readings: Readings, before: tuple[Tensor, Tensor], now: tuple[Tensor, Tensor], settings: MeasureSettings
) -> None:
    """Compare a frame with the one before; each is given with the picture that the flow is read from, often itself."""
    earlier, later = _small(before[0]), _small(now[0])
    find = settings.flow or find_flow
    flow, seen = _motion(_small(before[1]), _small(now[1]), find)
    if settings.flicker:
        own = flow if now[1] is now[0] else find(later, earlier)
        readings.moving["flicker"].append(float((warp(earlier, own) - later).abs().mean()))
    readings.moving["visible"].append(float(seen.float().mean()))
    if seen.any():
        readings.moving["warp_error"].append(float((warp(earlier, flow) - later)[seen].square().mean()))


def _motion(before: Tensor, now: Tensor, find: FindFlow) -> tuple[Tensor, Tensor]:
    there, back = find(now, before), find(before, now)
    return there, visible(there, back)


def _summary(readings: Readings, settings: MeasureSettings) -> dict:
    parts = list(_parts(readings.still))
    first, last = parts[0], parts[-1]
    warp, flicker = readings.moving["warp_error"], readings.moving["flicker"]
    found = {
        "warp_error": float(np.mean(warp)) if warp else None,
        **({"flicker": float(np.mean(flicker))} if flicker else {}),
        "visible": float(np.mean(readings.moving["visible"])),
        "sharpness": float(np.mean(readings.still["sharpness"])),
        "detail": float(np.mean(readings.still["detail"])),
        "drift_colour": max(abs(last[name] - first[name]) for name in COLOURS),
        "drift_sharpness": 1 - likeness(last["sharpness"], first["sharpness"]),
        "drift_detail": 1 - likeness(last["detail"], first["detail"]),
        **_clip_scores(readings, settings),
    }
    if truth := sum(readings.reference_detail):
        found["detail_ratio"] = sum(readings.still["detail"]) / truth
    ordered = {name: found[name] for name in MEASURES if name in found}
    return {"frames": len(readings.still["detail"]), **ordered, "parts": parts}


def _parts(still: Mapping[str, Sequence[float]]) -> Iterator[dict[str, float]]:
    """Yield means over PARTS stretches of equal length, or over each frame where there are fewer."""
    count = len(still["detail"])
    for stretch in np.array_split(np.arange(count), min(PARTS, count)):
        start, end = int(stretch[0]), int(stretch[-1]) + 1
        yield {"start": start, "end": end} | {name: float(np.mean(still[name][start:end])) for name in STILL}


def _clip_scores(readings: Readings, settings: MeasureSettings) -> dict[str, float]:
    ours = readings.features
    pairs = {
        "clip_consistency": list(pairwise(ours)),
        "clip_reference": list(zip(ours, readings.reference_features, strict=False)),
        "clip_prompt": [(one, settings.prompt) for one in ours] if settings.prompt is not None else [],
    }
    return {name: 100 * math.fsum(float(a @ b) for a, b in both) / len(both) for name, both in pairs.items() if both}
