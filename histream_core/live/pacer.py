"""The pacer of a live stream: when each frame is shown, and what the viewer saw of the promise."""

from __future__ import annotations

import math
from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import median

REMEMBERED, FEWEST = 64, 20
"""Chunks whose jitter is remembered, and how many there must be before it counts."""

SURE = 8
"""Chunks that must all have waited too long before frames are skipped."""

SLOWER = 0.9
"""A source that gives less than this share of its frames is slower than it says: a camera in the dark, for one."""

LONGEST_GAP = 3.0
"""A gap between two frames counts at most as so many usual ones; a longer one is an absence."""


@dataclass(frozen=True, slots=True)
class Report:
    """Frames shown so far; delays are seconds from the capture of a frame until it is shown."""

    frames: int
    fps: float
    ttff: float
    """Time to first frame: from the first capture until the first frame is shown."""
    delay: float
    """Delay of the newest frame."""
    p50: float
    p95: float
    p99: float
    jitter: float
    """99th percentile of how far the time between two frames is from the play-out interval, in seconds."""
    misses: int
    """Chunks that were ready later than promised."""
    late: int
    """Frames more than one frame late, each of which set the clock anew."""


class Percentiles:
    """Percentiles of any number of seconds within 1%, in memory that does not grow with them."""

    def __init__(self):
        self._counts: Counter[int] = Counter()
        self._width = math.log(1.01)

    def add(self, seconds: float) -> None:
        self._counts[round(math.log(min(max(seconds, 1e-4), 1e6)) / self._width)] += 1

    def at(self, share: float) -> float:
        """The smallest value that `share` of them do not exceed."""
        wanted = share * self._counts.total()
        for bucket in sorted(self._counts):
            wanted -= self._counts[bucket]
            if wanted <= 0:
                return math.exp(bucket * self._width)
        return 0.0


def shown_rate(promised: float, captured: Sequence[float]) -> float:
    """The frames per second to show frames at: the promised ones, or those of a source that gives clearly fewer.

    `captured` are the times of the frames of a chunk, behind that of the frame before it.
    """
    gaps = [two - one for one, two in pairwise(captured)]
    longest = LONGEST_GAP * median(gaps) if gaps else 0.0
    seconds = sum(min(gap, longest) for gap in gaps)
    return len(gaps) / seconds if seconds * promised * SLOWER > len(gaps) else promised


class Pacer:
    """A play-out clock: frames at even times, never faster.

    A frame that is more than one frame late is shown at once, and the clock goes on from there: nothing is skipped or
    hurried to catch up. The intake drops frames instead.
    """

    def __init__(self, fps: float, latency: float, clock: Callable[[], float]):
        self._latency, self._clock = latency, clock
        self.set_rate(fps)
        self._due: float | None = None
        self._delays: deque[float] = deque(maxlen=REMEMBERED)
        self._waiting: deque[tuple[float, int]] = deque()
        self._waits: deque[float] = deque(maxlen=SURE)
        self._chunk, self._left = 1, 0
        self._first_capture = self._first = self._last = self._delay = 0.0
        self._seen, self._gaps = Percentiles(), Percentiles()
        self.frames = self.misses = self.late = 0

    def set_rate(self, fps: float) -> None:
        """Show that many frames per second from now on."""
        if not fps > 0:
            raise ValueError(f"a stream of {fps:g} frames per second shows nothing: use 16, or more than 0")
        self._interval = 1 / fps

    def chunk_ready(self, captured: Sequence[float], complete: float | None = None) -> None:
        """Take note of a chunk that can be shown now, by the capture times of its frames.

        `complete` is when a whole chunk was captured, where this one was cut short: it follows sooner on the one before
        than it can be computed.
        """
        now = self._clock()
        self._waiting.append((now, len(captured)))
        delay = now - (captured[-1] if complete is None else complete)
        self._delays.append(delay)
        self._chunk = len(captured)
        self.misses += delay > self._latency

    def due(self) -> float:
        """Time at which the next frame is shown; ask when the frame is there and the one before it was shown."""
        now = self._clock()
        if self._due is None:
            self._due = now
        elif now > self._due + self._interval:
            self.late += 1
            self._due = now
        return max(self._due, now)

    def shown(self, captured: float) -> None:
        """Take note that the next frame, captured then, is shown now."""
        now = self._clock()
        if self._waiting and not self._left:
            ready, self._left = self._waiting.popleft()
            self._waits.append(now - ready)
        self._left = max(0, self._left - 1)
        hold = 0.0
        if self.frames:
            self._gaps.add(abs(now - self._last - self._interval))
        else:
            self._first_capture, self._first, hold = captured, now, self._interval
        self._delay = now - captured
        self._seen.add(self._delay)
        self._last = now
        self.frames += 1
        self._due = (now if self._due is None else self._due) + self._interval + hold

    def surplus(self) -> int:
        """1 where the last chunks all waited for a frame longer than the buffer asks: the source may skip a frame.

        So a delay that came with a stall or another choice goes again, without a hurry. Ask once after each chunk.
        """
        if len(self._waits) < SURE or min(self._waits) < self._buffer() + self._interval:
            return 0
        self._waits = deque((wait - self._interval for wait in self._waits), maxlen=SURE)
        return 1

    def report(self) -> Report:
        """The stream so far in numbers."""
        seconds = self._last - self._first
        return Report(
            frames=self.frames,
            fps=(self.frames - 1) / seconds if seconds else 0.0,
            ttff=self._first - self._first_capture,
            delay=self._delay,
            p50=self._seen.at(0.5),
            p95=self._seen.at(0.95),
            p99=self._seen.at(0.99),
            jitter=self._gaps.at(0.99),
            misses=self.misses,
            late=self.late,
        )

    def _buffer(self) -> float:
        """Seconds that frames wait so that chunks may be late: one frame, or the chunks' jitter, at most a chunk."""
        jitter = 0.0
        if len(self._delays) >= FEWEST:
            inorder = sorted(self._delays)
            jitter = inorder[math.ceil(0.95 * len(inorder)) - 1] - inorder[0]
        return min(max(self._interval, jitter), self._chunk * self._interval)
