"""The player of a live stream: shows finished frames when the pacer says so, and a recorder that keeps each of them.

Frames are [H, W, 3], uint8.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from ..video.writers import Writer
from .clock import Clock
from .feed import LOOK_SECONDS, Viewer
from .pacer import Pacer, Report

MOST_HELD = 1.0
"""A recording shows the same frame for at most so many seconds, also where the source was away for longer."""

MISSED = 32
"""Chunks that came too late whose numbers are kept, the newest."""


class _Ready(NamedTuple):
    frame: np.ndarray
    captured: float
    rate: float


class Player:
    """Finished frames on their way to the viewers; whoever makes them waits while `room` frames are not shown yet."""

    def __init__(self, pacer: Pacer, clock: Clock, viewers: Sequence[Viewer], room: int):
        self._pacer, self._clock, self.viewers, self._room = pacer, clock, list(viewers), room
        self._changed = threading.Condition()
        self._ready: deque[_Ready] = deque()
        self._due: float | None = None
        self._closed = False
        self.missed: deque[int] = deque(maxlen=MISSED)
        """The newest chunks that were ready later than promised."""

    def __len__(self) -> int:
        return len(self._ready)

    def chunk_ready(self, chunk: int, captured: Sequence[float], complete: float | None = None) -> None:
        """Take note that the first frames of a chunk are there; see `Pacer.chunk_ready`."""
        with self._changed:
            misses = self._pacer.misses
            self._pacer.chunk_ready(captured, complete)
            if self._pacer.misses > misses:
                self.missed.append(chunk)

    def add(self, frames: np.ndarray, captured: Sequence[float], rate: float) -> None:
        """Add frames [F, H, W, 3] to be shown at `rate` frames per second."""
        with self._changed:
            while len(self._ready) >= self._room and not self._closed:
                self._clock.wait(self._changed, LOOK_SECONDS)
            self._ready.extend(_Ready(*one, rate) for one in zip(frames, captured, strict=True))
            self._changed.notify_all()

    def surplus(self) -> int:
        """The frames that the source may leave out, so that the delay becomes shorter; ask once after each chunk."""
        with self._changed:
            return self._pacer.surplus()

    def show_due(self) -> float:
        """Show a frame whose time has come; returns the seconds until the next one, as far as that is known."""
        with self._changed:
            if not self._ready:
                return LOOK_SECONDS
            first = self._ready[0]
            if self._due is None:
                self._pacer.set_rate(first.rate)
                self._due = self._pacer.due()
            left = self._due - self._clock()
            if left > 0:
                return left
            self._ready.popleft()
            self._due = None
            self._pacer.shown(first.captured)
            self._changed.notify_all()
        for viewer in self.viewers:
            viewer(first.frame, first.captured)
        return 0.0

    def run(self) -> None:
        """Show frames until the player is closed and all are shown; the work of a thread."""
        while True:
            left = self.show_due()
            with self._changed:
                if self._closed and not self._ready:
                    return
                if left > 0:
                    self._clock.wait(self._changed, min(left, LOOK_SECONDS))

    def close(self, *, drop: bool = False) -> None:
        """Let `run` end once all frames are shown; with `drop` those that wait are left out."""
        with self._changed:
            self._closed = True
            if drop:
                self._ready.clear()
            self._changed.notify_all()

    def report(self) -> Report:
        """The frames shown so far in numbers."""
        with self._changed:
            return self._pacer.report()


class Recorder:
    """A recording at an even rate: each frame is there, and is held for as long as the next one took to be captured."""

    def __init__(self, writer: Writer, fps: float, name: str = ""):
        """`name` is that of its file, without a folder."""
        self._writer, self._fps, self.name = writer, fps, name
        self._start, self._count = 0.0, 0
        self._last: np.ndarray | None = None
        self.left = name
        """The file that holds what was written where an error ends the recording."""

    def add(self, frames: np.ndarray, captured: Sequence[float]) -> None:
        """Write frames [F, H, W, 3]; waits where the disk is behind. An error closes the file as it is."""
        written: list[np.ndarray] = []
        for frame, time in zip(frames, captured, strict=True):
            if self._last is None:
                self._start = time
            else:
                written += [self._last] * self._missing(time, self._count + len(written))
            written.append(frame)
            self._last = frame
        self._count += len(written)
        left = self._writer.leave_unfinished()
        self.left = left.name if left else self.name
        try:
            self._writer.write(np.stack(written))
        except BaseException:
            self._writer.discard()
            raise

    @property
    def seconds(self) -> float:
        """How long the recording is so far."""
        return self._count / self._fps

    def close(self) -> None:
        """Finish the file; nothing is left of a recording without a frame. Raises OSError."""
        if self._count:
            self._writer.close()
        else:
            self._writer.discard()

    def _missing(self, time: float, count: int) -> int:
        """The times that the last frame is shown again before one captured at `time`, which would be frame `count`."""
        missing, most = round((time - self._start) * self._fps) - count, round(MOST_HELD * self._fps)
        if missing > most:
            self._start += (missing - most) / self._fps
        return max(0, min(missing, most))
