"""Which words of its prompt a demo clip holds, second by second; of scenes `things` reads them.

A word holds in a second where every frame of it shows the word, so that an object which is gone for some frames, or
becomes another, is seen however short the time. F frames, H W pixels.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from ...demo.painter import COLOURS, DIRECTIONS, SHAPES, SPEED, Combination
from ...demo.scenes import Scene
from ...plan.sizes import FPS
from .detail import likeness
from .judge import LAG, LEAST_AREA, SPARSE, check_length, judge_direction, painted_area, segment, shrink
from .outline import centres, overlaps

WORDS = ("colour", "shape", "direction", "background")
"""Kinds of words in a prompt."""

PRESENCE = "presence"
HELD = (PRESENCE, *WORDS)
"""The words that must hold in a second."""

COLOUR_REACH = 0.25
"""Largest distance in RGB from the painter's colour of one that has its name; no two names are nearer than twice it."""

LEAST_OVERLAP = 0.85
"""Overlap of object and ideal outline that makes a shape; the painter's circle and square have 0.83 in common."""

LEAST_SIZE = 0.5
"""Area of an object that is there, relative to the painter's: half to twice as large."""

FARTHEST_STEP = 4 * SPEED
"""Longest way of a centre from one frame to the next, besides the painter's step: farther is a jump."""


class Shown(Protocol):
    """The words that a second of a clip of any world shows."""

    def holds(self, asked: Any) -> dict[str, bool]:
        """Which words hold, and PRESENCE."""
        ...

    def outline(self, asked: Any) -> float:
        """How well the object's outline or picture is the one asked for, in [0, 1]."""
        ...


@dataclass(frozen=True, slots=True)
class Second:
    """The words that a second of a clip shows in all its frames; None where they differ, or none is shown."""

    background: str | None
    colour: str | None
    shape: str | None
    direction: str | None
    least_area: float
    """Share of the frame that the object covers in the frame where it is smallest."""
    most_area: float
    overlaps: Mapping[str, float]
    """By shape: what the object and the ideal outline at its place have in common, mean over the frames."""

    def outline(self, asked: Combination) -> float:
        """How much of the object lies in the outline that is asked for."""
        return self.overlaps[asked.shape]

    def holds(self, asked: Combination) -> dict[str, bool]:
        """Which of HELD are as a combination asks for."""
        wanted = painted_area(asked.shape)
        there = min(likeness(area, wanted) for area in (self.least_area, self.most_area)) >= LEAST_SIZE
        return {PRESENCE: there} | {word: getattr(self, word) == getattr(asked, word) for word in WORDS}


def read_seconds(frames: np.ndarray) -> list[Second]:
    """The seconds of a clip [F, H, W, 3] in [0, 1]; a rest too short to show motion belongs to the last one.

    Raises ValueError as `judge` does.
    """
    check_length(frames)
    return [_read(frames, stretch) for stretch in stretches(len(frames))]


def throughout(seconds: Sequence[Shown], asked: Combination | Scene) -> dict[str, float]:
    """Scores of the seconds of a clip against its prompt, all in [0, 1]; 1 is best.

    A word has 1 where it holds in every second; "held" is the share of seconds in which all hold, and the first, worst
    and last second have the share of words and presence that holds in them.
    """
    each = [second.holds(asked) for second in seconds]
    shares = [float(np.mean(list(holds.values()))) for holds in each]
    outlines = [second.outline(asked) for second in seconds]
    return {word: float(all(holds[word] for holds in each)) for word in each[0] if word != PRESENCE} | {
        PRESENCE: float(np.mean([holds[PRESENCE] for holds in each])),
        "held": float(np.mean([share == 1 for share in shares])),
        "first_second": shares[0],
        "worst_second": min(shares),
        "last_second": shares[-1],
        "outline": float(np.mean(outlines)),
        "worst_outline": min(outlines),
    }


def course(clips: Sequence[tuple[Sequence[Shown], Combination | Scene]]) -> list[dict[str, float]]:
    """Share of clips in which presence and each word hold, and all of them ("held"), second by second."""
    each = [[second.holds(asked) for second in seconds] for seconds, asked in clips]
    return [
        {word: float(np.mean([holds[word] for holds in now])) for word in now[0]}
        | {"held": float(np.mean([all(holds.values()) for holds in now]))}
        for now in zip(*each, strict=True)
    ]


def stretches(num_frames: int) -> Iterator[range]:
    """Yield the frames of each second."""
    starts = range(0, max(1, num_frames - LAG), FPS)
    for start in starts:
        yield range(start, num_frames if start == starts[-1] else start + FPS)


def _read(frames: np.ndarray, stretch: range) -> Second:
    """Read a second; its motion is read from the frames just before it too."""
    before = max(0, stretch.start - LAG)
    view = segment(frames[before : stretch.stop])
    masks = shrink(view.masks)
    now = slice(stretch.start - before, None)
    areas = masks[now].mean((1, 2))
    found = {shape: float(overlaps(masks[now], shape).mean()) for shape in SHAPES}
    background, colour = _colours(frames[stretch.start : stretch.stop], view.masks[now])
    there = view.ink is not None and areas.min() > LEAST_AREA
    best = max(found, key=lambda shape: found[shape])
    return Second(
        background=background,
        colour=colour if there else None,
        shape=best if there and found[best] >= LEAST_OVERLAP else None,
        direction=_direction(masks) if there and masks.any((1, 2)).all() else None,
        least_area=float(areas.min()),
        most_area=float(areas.max()),
        overlaps=found,
    )


def _colours(frames: np.ndarray, masks: np.ndarray) -> tuple[str | None, str | None]:
    """Names of the background's and the object's colour, where all frames have the same."""
    sparse, inside = frames[:, ::SPARSE, ::SPARSE], masks[:, ::SPARSE, ::SPARSE]
    grounds = {_name(frame[~mask]) for frame, mask in zip(sparse, inside, strict=True)}
    inks = {_name(frame[mask]) for frame, mask in zip(sparse, inside, strict=True)}
    return only(grounds), only(inks)


def only(names: Iterable[str | None]) -> str | None:
    """The one name that all frames have; None where they differ."""
    found = {*names}
    return found.pop() if len(found) == 1 else None


def _name(pixels: np.ndarray) -> str | None:
    """Name of the median colour of pixels [N, 3]; None where it is far from all names, or there is no pixel."""
    if not len(pixels):
        return None
    colour = np.median(pixels, axis=0)
    apart = {name: float(np.linalg.norm(colour - np.asarray(named))) for name, named in COLOURS.items()}
    best = min(apart, key=lambda name: apart[name])
    return best if apart[best] <= COLOUR_REACH else None


def _direction(masks: np.ndarray) -> str | None:
    """Direction of an object that is in every frame and does not jump."""
    direction, _ = judge_direction(masks)
    if direction is None:
        return None
    steps = np.diff(centres(masks, None), axis=0) - np.asarray(DIRECTIONS[direction]) * SPEED
    farthest = np.linalg.norm((steps + 0.5) % 1 - 0.5, axis=1).max()
    return direction if farthest <= FARTHEST_STEP else None
