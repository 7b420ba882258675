"""The feed of a live stream: frames come in by a source's thread and go out to the stream's, a chunk at a time.

Frames are [H, W, 3], uint8.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from .clock import Clock
from .intake import ALL, Intake, Stamped

AWAY_SECONDS = 30.0
"""A source that gives nothing for so long is gone, and the stream ends."""

GAP_SECONDS = 2.0
"""A source that gave nothing for longer shows something else when it is back: a new scene begins."""

TREMBLE = 1e-6
"""Times that differ by less are the same."""

LOOK_SECONDS = 0.1
"""Longest wait before what else may have happened is looked at."""


Viewer = Callable[[np.ndarray, float], None]
"""Function that is given each frame and the time of its capture. It returns at once: one that is slow keeps the newest
frame alone."""


class EndedError(Exception):
    """There are no more frames: the source has ended, is gone, or the stream was stopped."""


class Feed:
    """An intake that waits for frames, and knows when its source pauses, is away, or has ended."""

    def __init__(
        self,
        intake: Intake[Tensor],
        clock: Clock,
        *,
        seconds: float | None = None,
        patient: bool = False,
    ):
        """`seconds`: the stream ends when its frames are so far from the first one.

        `patient`: the first frame may take as long as it likes.
        """
        self._patient = patient
        self._intake, self._clock = intake, clock
        self._seconds, self._first = seconds, 0.0
        self._changed = threading.Condition()
        self._heard = self._given = clock()
        self._scene = self.begins_scene = False
        """Whether the frames that were taken last have nothing to do with those before."""
        self._paused = self._ended = False
        self._why = ""
        self.viewers: list[Viewer] = []
        """Are given each frame that the source gives, by its thread; not those of a paused stream."""

    def put(self, frame: Tensor, time: float) -> bool:
        """Add a frame captured at `time`, and say whether more are wanted.

        Waits for room where the policy loses no frame. A frame of a paused stream is left out.
        """
        with self._changed:
            self._heard = self._clock()
            if self._intake.arrived and not self._paused and self._silent():
                self._cut()
            if not self._intake.arrived:
                self._first = time
            elif self._seconds is not None and time - self._first >= self._seconds - TREMBLE:
                self._end(f"{self._seconds:g} s are over")
            while not self._ended and not self._paused and not self._intake.put(frame, time):
                self._clock.wait(self._changed, LOOK_SECONDS)
                self._heard = self._clock()  # it waits, and is not away
            self._heard = self._clock()
            self._changed.notify_all()
            goes_on, shown = not self._ended, not self._ended and not self._paused
            if shown:
                self._given = self._heard
        for viewer in self.viewers if shown else ():
            viewer(frame.numpy(), time)
        return goes_on

    def take(self, count: int, anew: int | None = None) -> Sequence[Stamped[Tensor]]:
        """The frames of the next chunk, as soon as they are there; fewer where the source has ended or is away.

        Where a scene begins with them there are `anew`, and `begins_scene` says so. Raises EndedError when there are
        none any more.
        """
        goes_on = count
        with self._changed:
            while True:
                count = anew if anew and self._scene else goes_on
                waiting = len(self._intake)
                if waiting < count and not self._ended and self._seconds_away() > AWAY_SECONDS:
                    self._end(f"the source has given no picture for {AWAY_SECONDS:g} s")
                if self._ended and not waiting:
                    raise EndedError(self._why)
                taken = self._intake.take(min(count, waiting) if self._breaks_off() else count)
                if taken is not None:
                    self.begins_scene, self._scene = self._scene, False
                    self._changed.notify_all()
                    return taken
                self._clock.wait(self._changed, LOOK_SECONDS)

    def reserve(self, count: int, whole: int) -> Sequence[Stamped[Tensor]] | None:
        """The first `count` of the next chunk's `whole` frames, as soon as they are there; `take` begins with them.

        None where that chunk waits for nothing more, a scene begins, or the source is away.
        """
        with self._changed:
            while len(self._intake) < whole and not self._scene and not self._breaks_off():
                reserved = self._intake.reserve(count)
                if reserved is not None:
                    return reserved
                if self._seconds_away() > AWAY_SECONDS:
                    break
                self._clock.wait(self._changed, LOOK_SECONDS)
        return None

    @property
    def over(self) -> bool:
        """Whether no more frames are taken."""
        return self._ended

    def end(self, why: str = "the source has ended", *, drop: bool = False) -> None:
        """Take no more frames. Those that wait become the last chunks, or with `drop` are left out."""
        with self._changed:
            self._end(why)
            if drop:
                self._intake.clear()

    def pause(self, paused: bool) -> None:
        """Leave the frames out that come from now on, or take them again."""
        with self._changed:
            self._paused = paused
            self._heard = self._clock()
            self._changed.notify_all()

    def cut(self) -> None:
        """Let a new scene begin with the next frame, as where the source was moved to another place of a video."""
        with self._changed:
            self._cut()

    def adapt(self, every: int, skipped: int) -> None:
        """Keep one frame of `every` from now on, and leave out the next `skipped` ones."""
        with self._changed:
            if self._intake.policy != ALL:
                self._intake.keep_every(every)
                self._intake.skip(skipped)

    def report(self) -> dict:
        """The frames so far in numbers, and what the source does, as plain values."""
        with self._changed:
            return {
                "arrived": self._intake.arrived,
                "dropped": self._intake.dropped,
                "waiting": len(self._intake),
                "state": "ended" if self._ended else "paused" if self._paused else self._here(),
            }

    def _cut(self) -> None:
        """Begin a scene; what still waits of the one before is left out, unless none may be."""
        self._scene = self._scene or self._intake.taken + self._intake.reserved > 0
        if self._intake.policy != ALL:
            self._intake.clear()

    def _breaks_off(self) -> bool:
        """Whether nothing is added to what waits."""
        return self._ended or (len(self._intake) > 0 and not self._paused and self._silent())

    def _silent(self) -> bool:
        """Whether the source has given no frame for longer than within a scene."""
        return self._clock() - self._given > GAP_SECONDS

    def _here(self) -> str:
        return "away" if self._seconds_away() > 1 else "on"

    def _seconds_away(self) -> float:
        waits = self._paused or (self._patient and not self._intake.arrived)
        return 0.0 if waits else self._clock() - self._heard

    def _end(self, why: str) -> None:
        if not self._ended:
            self._ended, self._why = True, why
        self._changed.notify_all()


def unit(frames: Sequence[Stamped[Tensor]]) -> list[Tensor]:
    """The frames as floats in [0, 1]."""
    return [stamped.frame.to(torch.float32).div_(255) for stamped in frames]
