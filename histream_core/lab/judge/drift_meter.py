"""Change of a video over time against its first second: colour, brightness, sharpness.

Frames are [H, W, 3] float in [0, 1]. Changes that belong to the scene count too; only the sentence of
`describe_drift` tells new scenes from drift.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby, pairwise
from typing import NamedTuple

import numpy as np
from torch import Tensor

from ...video.pixels import BLUE, GREEN, RED
from .detail import sharpness

LOOKS_PER_SECOND = 4
"""Frames that are measured in each second; drift is slower."""
AT_ONCE = 0.1
"""Change of colour or brightness from one second to the next that is taken for a new scene; drift is slower."""


class FrameLook(NamedTuple):
    """Mean colour and sharpness of a frame."""

    time: float
    """Seconds from the first frame."""
    colour: np.ndarray
    """Mean red, green and blue."""
    sharpness: float


TOO_SHORT = "a video of less than two seconds has no second to compare with its first: give a longer one"


@dataclass(frozen=True)
class Second:
    """Difference of one second of a video from the first."""

    start: int
    """Seconds from the first frame."""
    colour: float
    """Largest change of mean red, green or blue that brightness does not explain, as a share of full scale."""
    brightness: float
    """Change of mean brightness, as a share of full scale; below 0: darker."""
    sharpness: float
    """Relative to the first second; 1 is equal."""


def check_length(num_frames: int, fps: float) -> None:
    """Raise ValueError for a video whose last frame is in its first second."""
    if (num_frames - 1) / fps < 1:
        raise ValueError(TOO_SHORT)


def meter(frames: Iterable[Tensor], fps: float) -> tuple[Second, ...]:
    """Drift of every second of a video. Raises ValueError for less than two seconds, and a rate of 0 or less."""
    if not fps > 0:
        raise ValueError(f"{fps:g} frames per second is no rate: use 16")
    by_second = [list(found) for _, found in groupby(_looks(frames, fps), key=lambda look: int(look.time))]
    if len(by_second) < 2:
        raise ValueError(TOO_SHORT)
    return tuple(_against(by_second[0], later) for later in by_second)


def _looks(frames: Iterable[Tensor], fps: float) -> Iterator[FrameLook]:
    step = max(1, int(fps // LOOKS_PER_SECOND))
    for index, frame in enumerate(frames):
        if index % step == 0:
            yield FrameLook(index / fps, np.array(frame.float().mean((0, 1)).tolist()), sharpness(frame))


def _against(first: Sequence[FrameLook], now: Sequence[FrameLook]) -> Second:
    change = np.mean([look.colour for look in now], axis=0) - np.mean([look.colour for look in first], axis=0)
    brightness = float(change @ (RED, GREEN, BLUE))
    before, after = (float(np.mean([look.sharpness for look in looks])) for looks in (first, now))
    return Second(
        start=int(now[0].time),
        colour=float(np.abs(change - brightness).max()),
        brightness=brightness,
        sharpness=after / before if before else 1.0,
    )


def describe_drift(seconds: Sequence[Second]) -> str:
    """The last second and the one with the largest change of colour, in a sentence; or the scenes, where there are."""
    scenes = split_scenes(seconds)
    if len(scenes) > 1:
        return _describe_scenes(scenes)
    worst, last = max(seconds, key=lambda second: second.colour), seconds[-1]
    return (
        f"in second {last.start}: colour off by {last.colour:.1%}, brightness by {last.brightness:+.1%}, sharpness "
        f"{last.sharpness:.0%} of the first second's; colour is off most in second {worst.start}, by {worst.colour:.1%}"
    )


def split_scenes(seconds: Sequence[Second]) -> list[list[Second]]:
    """The seconds in groups: a new one begins where colour or brightness change AT_ONCE."""
    scenes = [[seconds[0]]]
    for before, now in pairwise(seconds):
        if max(abs(now.colour - before.colour), abs(now.brightness - before.brightness)) > AT_ONCE:
            scenes.append([])
        scenes[-1].append(now)
    return scenes


def _describe_scenes(scenes: Sequence[Sequence[Second]]) -> str:
    starts = ", ".join(str(scene[0].start) for scene in scenes[1:])
    colour, brightness = (
        max(abs(getattr(scene[-1], name) - getattr(scene[0], name)) for scene in scenes)
        for name in ("colour", "brightness")
    )
    return (
        f"the picture changes at once in second {starts}: a new scene, which is no drift; within a scene colour moves "
        f"by {colour:.1%} at most, brightness by {brightness:.1%}"
    )
