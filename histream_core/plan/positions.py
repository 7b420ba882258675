"""Temporal positions: the rotary time that a frame has for the chunk that attends to it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .chunks import Plan

KINDS = ("clamped", "absolute", "reset", "rerotate")
"""The rules of `TemporalPolicy`."""

JUMP = 42
"""Latent frames by which a chunk that jumps stands later: at 45 to 47 behind frames 1 and 2, as in Infinity-RoPE's RoPE
cut (arXiv 2511.20649)."""


@dataclass(frozen=True, slots=True)
class TemporalPolicy:
    """Rule for the rotary time of a frame, as the attending chunk sees it.

    `absolute`: the frame's index in the video. `clamped`: the index too, but the anchor is never further behind the
    chunk than `span`, the distance seen in training; equal to `absolute` while the chunk starts within the span.
    `reset`: from frame `span` on the chunk's time jumps back to `restart` and counts up to `span` again; cached
    keys keep the time they were written at (StreamDiffusionV2's T_reset, arXiv 2511.07399). `rerotate`: as `reset`,
    and the keys of the frames before the chunk are rotated to the new time, so that only the anchor's distance jumps.
    """

    kind: str = "clamped"
    span: int = 18
    restart: int = 5

    def __post_init__(self):
        if self.kind not in KINDS:
            raise ValueError(f'temporal policy "{self.kind}" does not exist: use one of {", ".join(KINDS)}')
        if self.span < 1:
            raise ValueError(f"the trained span is {self.span} latent frames: use 18, or at least 1")
        if self.resets and not 0 <= self.restart < self.span:
            raise ValueError(f"restart {self.restart} must lie below the span of {self.span} latent frames")

    @property
    def resets(self) -> bool:
        """Whether the chunk's time jumps back."""
        return self.kind in ("reset", "rerotate")

    def chunk_time(self, start: int) -> int:
        """Time of the first frame of the chunk that starts at frame `start`."""
        if self.resets and start >= self.span:
            return self.restart + (start - self.span) % (self.span - self.restart)
        return start

    def anchor_time(self, start: int, anchor: int = 0) -> int:
        """Time of the anchor's first frame, frame `anchor`, as the chunk that starts at frame `start` sees it."""
        return max(anchor, start - self.span) if self.kind == "clamped" else self.chunk_time(anchor)

    def sink_time(self, start: int, sink: int, rank: int) -> int:
        """Time of the frame `sink`, as the chunk that starts at frame `start` sees it: of its sinks number `rank`."""
        return max(sink, start - self.span + rank) if self.kind == "clamped" else self.chunk_time(sink)


def check_jumps(plan: Plan) -> None:
    """Raise ValueError for chunks that cannot jump in time; the message says what would work."""
    for frame in plan.jumps:
        if frame <= 0 or not plan.begins_chunk(frame):
            raise ValueError(
                f"a jump in time at latent frame {frame} cannot be: let it begin with a chunk behind the first"
            )
        if frame in plan.scenes:
            raise ValueError(
                f"a scene begins at latent frame {frame} and sees nothing to jump away from: leave one out"
            )
    if plan.temporal.kind == "reset":
        raise ValueError("a jump in time needs keys that are rotated anew: use positions clamped, absolute or rerotate")
