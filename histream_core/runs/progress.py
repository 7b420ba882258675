"""Progress of a run: network calls, chunks, frames, seconds, and the time left."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar, cast

import torch
from torch import Tensor

from ..cost.cost import Cost
from ..cost.pace import Pace
from ..plan import Scale, Step
from ..stream.stream import Ask
from ..video.writing import Times

Call = TypeVar("Call", bound=Ask)

Report = Callable[["Progress"], None]
"""Called before and after every network call, and after every chunk."""


def silent(_: Progress) -> None:
    """Report nothing."""


class Watch(Protocol):
    """Is told of every network call; an exception in it ends the run before the call."""

    times: Times

    def begin_call(self, step: Step) -> None:
        """Note that a network call is about to be made."""
        ...

    def measure_call(self, seconds: float) -> None:
        """Note the seconds of the oldest call of which they are not known; a device tells them later."""
        ...

    def end_call(self, step: Step) -> None:
        """Note that a network call was made."""
        ...


@dataclass
class Progress:
    """Progress of a run; passed to `report` before and after every network call and after every chunk."""

    pace: Pace
    num_calls: int
    num_chunks: int
    num_frames: int
    report: Report = silent
    calls: Counter[Scale] = field(default_factory=Counter)
    """Network calls so far at each scale, cache passes included."""
    chunks: int = 0
    frames: int = 0
    """Number of finished pixel frames, written or passed to the writer."""
    skipped_frames: int = 0
    """Number of these frames that an earlier attempt had made."""
    started: float = field(default_factory=time.monotonic)
    first_frames: float | None = None
    """Seconds from the start of sampling until the first chunk was written, or finished if there is no file."""
    times: Times = field(default_factory=Times)

    @property
    def seconds(self) -> float:
        return time.monotonic() - self.started

    @property
    def seconds_per_frame(self) -> float:
        """Seconds per frame that this attempt made; 0 if there was nothing left to make."""
        made = self.frames - self.skipped_frames
        return self.seconds / made if made else 0.0

    def begin_call(self, step: Step) -> None:
        """Note that a network call is about to be made."""
        self.num_calls += self.pace.split(step)
        self.pace.begin(step)
        self.report(self)

    def measure_call(self, seconds: float) -> None:
        """Note the seconds of the oldest call of which they are not known; a device tells them later."""
        self.pace.measure(seconds)

    def end_call(self, step: Step) -> None:
        """Note that a network call was made."""
        self.calls[step.scale] += 1
        self.pace.end(step)
        self.report(self)

    def count_chunk(self, num_frames: int) -> None:
        """Note that a chunk of `num_frames` pixel frames is finished; waits for the device that made it."""
        self.times.settle()
        self.chunks += 1
        self.frames += num_frames
        self.pace.finish()

    def note_first(self, num_written: int, num_frames: int) -> None:
        """Set `first_frames` once `num_written` frames are at least the first chunk's `num_frames`."""
        if self.first_frames is None and num_written >= num_frames > 0:
            self.first_frames = self.seconds

    def describe(self) -> str:
        """One line with chunk, step, frames, seconds and the time left."""
        return self.pace.describe(self.times.bottleneck if self.first_frames is not None else "")

    def describe_left(self) -> str:
        """The time left in words; empty where it is not known, and at the end."""
        return self.pace.describe_left()


def new_progress(cost: Cost, *, decodes: bool = True, report: Report = silent) -> Progress:
    """The progress of a run that has not begun; `decodes` tells whether its chunks are decoded as they are made."""
    plan, times = cost.plan, Times()
    pace = Pace(cost, times=times, decodes=decodes)
    return Progress(pace, plan.num_calls(), plan.num_chunks, plan.num_pixel_frames, report=report, times=times)


def counted(denoise: Call, progress: Watch) -> Call:
    """Wrap the network call so that its number and seconds are added to the progress."""

    def call(latent: Tensor, step: Step, *rest: Any) -> Any:
        progress.begin_call(step)
        with progress.times.count("denoise", device=latent.device, note=progress.measure_call):
            clean = denoise(latent, step, *rest)
        progress.end_call(step)
        return clean

    return cast(Call, call)


def timed_decode(items: Iterator, times: Times) -> Iterator:
    """Pass items through; count the time they take, minus that of network calls, as decoding."""
    while True:
        start, before = time.perf_counter(), times.denoise
        item = next(items, None)
        _wait_for(item)
        times.settle()
        times.decode += time.perf_counter() - start - (times.denoise - before)
        if item is None:
            return
        yield item


def _wait_for(item: object) -> None:
    """Wait until the device has finished the frames; the copy to main memory, which is next, would wait as well."""
    frames = getattr(item, "frames", item)
    if isinstance(frames, Tensor) and frames.is_cuda:
        torch.cuda.current_stream(frames.device).synchronize()
