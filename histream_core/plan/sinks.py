"""Sinks that give way: a frame of the anchor is replaced where it no longer looks like the video.

StreamDiffusionV2 (arXiv 2511.07399) calls the frames of the anchor sinks. Pure values, no tensors.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from .levers import CLEAN_ANCHOR

if TYPE_CHECKING:
    from .chunks import Plan


@dataclass(frozen=True, slots=True)
class SinkRule:
    """A rule for one sink at most to give way to a finished frame: the least alike, if it is less so than `threshold`.

    The threshold is a cosine: at -1 no sink ever gives way, at 1 one does at every frame.
    """

    threshold: float

    def __post_init__(self):
        if not -1 <= self.threshold <= 1:
            raise ValueError(
                f"sinks cannot give way below a cosine of {self.threshold:g}: use a number from -1, where they stay, "
                "to 1, where one gives way at every frame"
            )

    def next_sinks(self, sinks: tuple[int, ...], frame: int, likeness: Sequence[float]) -> tuple[int, ...]:
        """The sinks after a frame, in temporal order; `likeness` are its cosines with each of `sinks`."""
        least = min(likeness)
        if not least < self.threshold:
            return sinks
        leaving = sinks[likeness.index(least)]
        return (*(sink for sink in sinks if sink != leaving), frame)


def check_sinks(plan: Plan) -> None:
    """Raise ValueError for a plan whose sinks cannot give way; the message says what would work."""
    window, temporal = plan.window, plan.temporal
    if window.chunk_frames != 1:
        raise ValueError(
            f"sinks give way to single frames, and the chunks have {window.chunk_frames}: take weights with chunks of "
            "one frame, such as StreamDiffusionV2's, or let the sinks stay"
        )
    if not window.anchor_frames or not window.local_frames:
        raise ValueError("sinks that give way need a window with anchor and local frames: use anchor 3 and local 2")
    if len(plan.anchors) > 1:
        raise ValueError(
            "sinks that give way are replaced by themselves, not by a new anchor or scene: leave the new anchor out, "
            "or let the sinks stay"
        )
    if plan.order != "chunks":
        raise ValueError(
            f"in the order {plan.order} a frame is seen before it is finished, so no sink can give way to it: take the "
            "order chunks, or let the sinks stay"
        )
    if CLEAN_ANCHOR in plan.levers:
        raise ValueError(f"{CLEAN_ANCHOR} needs to know the anchor beforehand: leave it out, or let the sinks stay")
    needed = window.anchor_frames + window.local_frames
    if temporal.kind == "clamped" and temporal.span < needed:
        raise ValueError(
            f"positions within a span of {temporal.span} frames have no room for a window of {needed}: use a span of "
            f"{needed} or more, or let the sinks stay"
        )
