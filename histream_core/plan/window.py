"""The Anchor-Guided Sliding Window: which earlier frames a chunk sees."""

from collections.abc import Iterable
from dataclasses import dataclass

from .positions import TemporalPolicy
from .sizes import PIXEL_FRAMES_PER_LATENT

MAX_WINDOW = 10_000
"""Most latent frames of a chunk, of an anchor, and before a chunk."""


@dataclass(frozen=True, slots=True)
class Window:
    """Sizes of the window: the `anchor_frames` of the anchor and the `local_frames` before the chunk.

    `local_frames` None: the chunk sees the full history.
    """

    chunk_frames: int = 3
    anchor_frames: int = 1
    local_frames: int | None = 2

    def __post_init__(self):
        if self.chunk_frames < 1:
            raise ValueError(f"chunk_frames {self.chunk_frames} makes no chunk: use 3, or at least 1")
        if self.anchor_frames < 0 or (self.local_frames or 0) < 0:
            raise ValueError("anchor and local frames cannot be negative: use anchor 1 and local 2")
        most = max(self.chunk_frames, self.anchor_frames, self.local_frames or 0)
        if most > MAX_WINDOW:
            raise ValueError(f"a window of {most} latent frames is too long: use {MAX_WINDOW}, or fewer")

    def context(self, start: int, anchor: int = 0, scene: int = 0) -> tuple[int, ...]:
        """The frames, in temporal order, that the chunk at frame `start` sees; none is before frame `scene`.

        `anchor` is the first frame of the chunk's anchor.
        """
        if self.local_frames is None:
            return tuple(range(scene, start))
        anchors = range(anchor, min(anchor + self.anchor_frames, start))
        seen = {*anchors, *range(max(0, start - self.local_frames), start)}
        return tuple(sorted(frame for frame in seen if frame >= scene))

    def seen(self, start: int, sinks: Iterable[int]) -> tuple[int, ...]:
        """The frames, in temporal order, that the chunk at frame `start` sees where `sinks` are the anchor's frames."""
        return tuple(sorted({*sinks, *range(max(0, start - (self.local_frames or 0)), start)}))

    def pages(self, num_latent_frames: int) -> tuple[int, int]:
        """Number of cache pages for the anchor and for the ring behind it, in a video of that length."""
        if self.local_frames is None:
            return 0, num_latent_frames
        return self.anchor_frames, self.local_frames + self.chunk_frames

    def latents_of(self, num_pixel_frames: int) -> int:
        """Number of latent frames that a video of so many pixel frames fills the window with, so that it can go on.

        They are whole chunks, at most as many as anchor, local frames and a chunk take, or three where a chunk sees the
        full history. 1 for a video shorter than a chunk, whose last frame is then a first frame.
        """
        local = 2 * self.chunk_frames if self.local_frames is None else self.local_frames
        there = 1 + (num_pixel_frames - 1) // PIXEL_FRAMES_PER_LATENT
        return min(there, self.anchor_frames + local + self.chunk_frames) // self.chunk_frames * self.chunk_frames or 1

    def past_frames(self, num_latent_frames: int) -> int:
        """Largest number of frames that a chunk sees besides itself and the anchor, in a video of that length."""
        return max(0, self.pages(num_latent_frames)[1] - self.chunk_frames)


def check_rerotation(temporal: TemporalPolicy, window: Window) -> None:
    """Raise ValueError where keys would be re-rotated to times before 0."""
    if window.local_frames is None:
        raise ValueError("a chunk that sees the whole video has no ring to re-rotate: use clamped positions")
    if temporal.restart < window.local_frames:
        raise ValueError(
            f"a restart at {temporal.restart} leaves no times for the {window.local_frames} frames before the chunk: "
            f"restart at {window.local_frames} or later"
        )
