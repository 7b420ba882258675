"""The anchor's content: the first frames, a walk over more of them, or an average; where new anchors may begin.

Pure values, no tensors.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count
from typing import TYPE_CHECKING, NamedTuple

from .order import CHUNKS
from .sizes import PIXEL_FRAMES_PER_LATENT, pixel_frames
from .window import MAX_WINDOW

if TYPE_CHECKING:
    from .chunks import Plan


@dataclass(frozen=True, slots=True)
class AnchorSource:
    """The content of the anchor while the video goes on: its first frames, unless it walks or is an average."""

    walk: int = 0
    """Latent frames, from the anchor's first on, that it walks over and back as the video goes on (Rolling Sink, arXiv
    2602.07775); 0: it stands still."""
    share: float = 1.0
    """Share of the anchor that stays when a frame that leaves the window is mixed into it (Reward Forcing's EMA sink,
    arXiv 2512.04678); 1: nothing is mixed in."""

    def __post_init__(self):
        if not 0 <= self.walk <= MAX_WINDOW:
            raise ValueError(f"an anchor cannot walk over {self.walk} latent frames: use 9, or 0 to let it stand still")
        if not 0 < self.share <= 1:
            raise ValueError(
                f"an anchor cannot keep a share of {self.share:g} of itself: use 0.9, or 1 to mix nothing into it"
            )
        if self.walk and self.averages:
            raise ValueError("an anchor walks over frames or is an average of them, not both: leave one of them out")

    @property
    def stays(self) -> bool:
        """Whether the anchor is the same frames for every chunk."""
        return not self.walk and not self.averages

    @property
    def averages(self) -> bool:
        """Whether frames that leave the window are mixed into the anchor."""
        return self.share < 1

    def kept(self, start: int, anchor: int) -> range:
        """The frames before frame `start` that are kept for a walk, seen or not; `anchor` is the first of them."""
        return range(anchor, max(anchor, min(anchor + self.walk, start)))

    def shown(self, start: int, anchor: int, anchor_frames: int) -> tuple[int, ...]:
        """The anchor's frames as the chunk at frame `start` sees them, by their place in time.

        `anchor` is the first frame that it may have. Once all frames of a walk are made, it goes on by a frame for each
        frame of the video; on the way back time runs backwards in it.
        """
        first, back = anchor, False
        if self.walk:
            room = self.walk - anchor_frames
            gone = max(0, start - anchor - self.walk) % (2 * room)
            back = gone > room
            first += min(gone, 2 * room - gone)
        frames = range(first, first + anchor_frames)
        return tuple(reversed(frames)) if back else tuple(frames)


FIRST_FRAMES = AnchorSource()
"""An anchor of the first frames, for ever or until another one takes its place."""


class Starts(NamedTuple):
    """The first latent frames of what prompts begin."""

    anchors: Sequence[int] = ()
    scenes: Sequence[int] = ()
    jumps: Sequence[int] = ()
    """First frames of the chunks that jump in time."""


NO_STARTS = Starts()


def check_source(plan: Plan) -> None:
    """Raise ValueError for a plan whose anchor cannot walk or be an average; the message says what would work."""
    window, source = plan.window, plan.anchor_source
    what = "walks" if source.walk else "is an average"
    if not window.anchor_frames or not window.local_frames:
        raise ValueError(f"an anchor that {what} needs a window with anchor and local frames: use anchor 1 and local 2")
    if plan.sinks:
        raise ValueError(f"an anchor that {what} cannot give way too: leave out the rule for sinks, or this")
    if plan.temporal.kind != "clamped":
        raise ValueError(f"an anchor that {what} needs clamped positions, not {plan.temporal.kind}: use clamped")
    if plan.order != CHUNKS:
        raise ValueError(f"an anchor that {what} needs one chunk after the other: take the order {CHUNKS}")
    least = window.anchor_frames + window.local_frames
    if source.walk and source.walk < least:
        raise ValueError(
            f"a walk over {source.walk} latent frames would meet the frames before the chunk: use {least} or more"
        )


def is_idle(plan: Plan) -> bool:
    """Whether every chunk sees the anchor that it would see if the anchor stood still.

    A walk that is back at its beginning whenever a chunk begins counts as one that moves.
    """
    source_stays = plan.restyle is not None and not plan.restyle.share  # then no chunk sees another
    limit = _idle_frames(plan)
    return plan.anchor_source.stays or source_stays or all(last - anchor <= limit for anchor, last in _seen(plan))


def describe_idle(plan: Plan) -> list[str]:
    """A line about an anchor that was to walk or to be an average and does not, with a length at which it would."""
    if plan.anchor_source.stays or not is_idle(plan):
        return []
    nothing = "the anchor never walks" if plan.anchor_source.walk else "nothing is mixed into the anchor"
    if plan.restyle is not None and not plan.restyle.share:
        return [f"{nothing}, as the source stays as it is: use a strength above 0"]
    limit = _idle_frames(plan)
    why = f"no chunk begins more than {limit} latent frames behind the first of its anchor"
    alone = len(plan.anchors) == 1
    starts = count(plan.first_chunk_frames if alone else 0, plan.window.chunk_frames)
    least = next(start for start in starts if start > limit) + 1
    longer = f"use {pixel_frames(least)} frames or more"
    last = f"let {PIXEL_FRAMES_PER_LATENT * least} frames or more follow the last new anchor or scene"
    return [f"{nothing}, as {why}: {longer if alone else last}"]


def _idle_frames(plan: Plan) -> int:
    """How many frames behind its anchor a chunk begins at most while it sees the anchor as it was.

    A walk begins behind its last frame. An average begins where a frame leaves what is seen besides the anchor.
    """
    window = plan.window
    return plan.anchor_source.walk or window.anchor_frames + max(window.local_frames or 0, window.chunk_frames)


def _seen(plan: Plan) -> list[tuple[int, int]]:
    """The first frame of each anchor, and that of the last chunk that sees it."""
    ends = [anchor - plan.window.chunk_frames * (anchor in plan.scenes) for anchor in plan.anchors[1:]]
    return [*zip(plan.anchors, [*ends, plan.chunks[-1].frames.start], strict=True)]


def check_anchors(plan: Plan, anchors: Sequence[int]) -> None:
    """Raise ValueError for first frames of anchors that a plan cannot have."""
    window, kept = plan.window, plan.kept_anchor_frames
    if window.local_frames is None or not window.anchor_frames:
        why = "every chunk sees the whole video" if window.local_frames is None else "there are no anchor frames"
        raise ValueError(f"{why}, so there is no anchor to be changed: leave the new anchor out")
    for index, anchor in enumerate(anchors[1:], start=1):
        earliest = anchors[index - 1] + kept
        if index > 1:  # its room in the caches is that of the last but one, of which nothing may be seen any more
            earliest = max(earliest, anchors[index - 2] + kept + window.local_frames)
        if anchor < earliest:
            raise ValueError(
                f"a new anchor at latent frame {anchor} comes too soon after the one at {anchors[index - 1]}: "
                f"let it be at {earliest} or later"
            )
        if not plan.begins_chunk(anchor) or anchor >= plan.generated_frames:
            starts = (chunk.frames.start for chunk in plan.chunks)
            near = min(starts, key=lambda start: abs(start - anchor))
            raise ValueError(f"no chunk begins at latent frame {anchor}, so it cannot be a new anchor: use {near}")
