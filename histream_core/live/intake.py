"""The intake of a live stream: a bounded ring of stamped frames between a source and the encoder."""

from __future__ import annotations

from collections import deque
from itertools import islice
from typing import Generic, NamedTuple, TypeVar

Frame = TypeVar("Frame")

ALL, EVEN, NEWEST = "all", "even", "newest"

POLICIES = {
    ALL: "every frame, in order; a full intake makes the source wait",
    EVEN: "frames at even distances from all that have come; the rest is dropped",
    NEWEST: "the newest frames; the rest is dropped",
}
"""Which frames a chunk is made of where more have come than it takes."""


class Stamped(NamedTuple, Generic[Frame]):
    """A frame, and the time of its capture in seconds."""

    frame: Frame
    time: float


class Intake(Generic[Frame]):
    """Frames that wait for the next chunk, at most `capacity` of them, in the order of their capture.

    Every frame that was put is taken, dropped and counted, or still waits.
    """

    def __init__(self, capacity: int, policy: str = EVEN):
        if capacity < 1:
            raise ValueError(f"an intake of {capacity} frames holds none: use two chunks, 8 frames or more")
        if policy not in POLICIES:
            raise ValueError(f'there is no policy "{policy}": use {", ".join(POLICIES)}')
        self.capacity, self.policy = capacity, policy
        self._waiting: deque[Stamped[Frame]] = deque()
        self._every, self._skip = 1, 0
        self.reserved = 0
        """How many of the oldest frames are in the next chunk whatever comes."""
        self.arrived = self.taken = self.dropped = 0

    def __len__(self) -> int:
        return len(self._waiting)

    def keep_every(self, every: int) -> None:
        """From now on keep one frame of `every` and drop the others as they come."""
        if every < 1 or (every > 1 and self.policy == ALL):
            raise ValueError(f'the policy "{self.policy}" cannot keep one frame of {every}: use 1, or "{EVEN}"')
        self._every = every

    def skip(self, frames: int) -> None:
        """Drop that many of the next frames, so that those after them are shown earlier."""
        if frames and self.policy == ALL:
            raise ValueError(f'the policy "{ALL}" cannot skip frames: use "{EVEN}"')
        self._skip += frames

    def put(self, frame: Frame, time: float) -> bool:
        """Add a frame captured at `time`. False: the policy loses none and there is no room, so offer it again."""
        full = len(self._waiting) == self.capacity
        if full and self.policy == ALL:
            return False
        self.arrived += 1
        if self.arrived % self._every:
            self.dropped += 1
            return True
        if self._skip:
            self._skip -= 1
            self.dropped += 1
            return True
        if full:
            del self._waiting[self.reserved]
            self.dropped += 1
        self._waiting.append(Stamped(frame, time))
        return True

    def clear(self) -> None:
        """Drop the frames that wait."""
        self.dropped += len(self._waiting)
        self._waiting.clear()
        self.reserved = 0

    def reserve(self, count: int) -> tuple[Stamped[Frame], ...] | None:
        """The oldest `count` frames, which the next chunk begins with whatever comes; None while fewer have come."""
        if not 1 <= count < self.capacity:
            raise ValueError(f"an intake of {self.capacity} frames cannot reserve {count}: use 1 or more, and fewer")
        if len(self._waiting) < count:
            return None
        self.reserved = max(self.reserved, count)
        return tuple(islice(self._waiting, count))

    def take(self, count: int) -> tuple[Stamped[Frame], ...] | None:
        """Take the `count` frames of the next chunk; None while fewer have come."""
        if not 1 <= count <= self.capacity:
            raise ValueError(f"an intake of {self.capacity} frames cannot give {count} at once: use 1 to that many")
        if len(self._waiting) < count:
            return None
        self.taken += count
        reserved, self.reserved = self.reserved, 0
        if self.policy == ALL:
            return tuple(self._waiting.popleft() for _ in range(count))
        first, there = tuple(self._waiting)[:reserved], tuple(self._waiting)[reserved:]
        self._waiting.clear()
        count -= len(first)
        self.dropped += len(there) - count
        if self.policy == NEWEST:
            return first + there[len(there) - count :]
        return first + tuple(there[(pick + 1) * len(there) // count - 1] for pick in range(count))
