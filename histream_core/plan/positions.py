"""Temporal positions: the rotary time that a frame has for the chunk that attends to it."""

from dataclasses import dataclass

KINDS = ("clamped", "absolute", "reset", "rerotate")
"""The rules of `TemporalPolicy`."""


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
