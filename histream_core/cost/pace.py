"""Where a run stands while it goes: which chunk and step, seconds for each frame, and how long it still takes."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace

from ..network.model import WanConfig
from ..plan.chunks import Chunk, Plan
from ..plan.order import CHUNKS, Call, calls
from ..plan.schedule import JoinedStep, Step, join_steps
from ..plan.sizes import PIXEL_FRAMES_PER_LATENT, pixel_frames
from ..video.writing import Times
from .cost import PassSize, pass_flops


@dataclass(frozen=True)
class Stop:
    """One denoising step of a run."""

    chunk: int
    number: int
    """Counted from 1 within its chunk, of `count`."""
    count: int
    step: Step
    work: int
    """Floating-point operations, by which the seconds of different steps are compared."""


class Pace:
    """The progress of a run, from its network calls.

    Only denoising steps count; cache passes, decoding and writing are part of the seconds that a step takes. The first
    chunk also loads and compiles, so later only what came after it is extrapolated.
    """

    def __init__(
        self, plan: Plan, config: WanConfig, *, batch: int = 1, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.plan, self.batch = plan, batch
        self.stops = stops_of(plan, config)
        self._clock = clock
        self._position = 0
        self._missing = [chunk.index for chunk in plan.chunks if chunk.steps]
        self._marks: list[tuple[float, int]] = []
        """Seconds and position when the first step began, and when its chunk was finished."""

    def split(self, step: Step) -> int:
        """Expect the rows of a joint call one by one, where `step` is the first of them alone; so many calls more."""
        stop = self.stops[self._position] if self._position < len(self.stops) else None
        if stop is None or not isinstance(stop.step, JoinedStep) or not self._alike(step, stop.step.rows[0]):
            return 0
        rows, ahead = stop.step.rows, len(stop.step.rows) - 1
        work = stop.work // len(rows)  # full rows see as much
        alone = [
            replace(stop, chunk=stop.chunk + ahead - i, number=stop.number - ahead + i, step=row, work=work)
            for i, row in enumerate(rows)
        ]
        self.stops = (*self.stops[: self._position], *alone, *self.stops[self._position + 1 :])
        return ahead

    def begin(self, step: Step) -> None:
        """A network call is about to be made."""
        if not self._marks and self._expects(step):
            self._marks.append((self._clock(), 0))

    def end(self, step: Step) -> None:
        """A network call was made; one that is no denoising step of this run changes nothing."""
        if self._marks and self._expects(step):
            self._position += 1

    def finish(self) -> None:
        """The frames of a chunk are finished; before the first step those are of an earlier attempt."""
        if not self._marks or not self._missing:
            return
        chunk = self._missing.pop(0)
        self._position = 1 + max(index for index, stop in enumerate(self.stops) if stop.chunk == chunk)
        if len(self._marks) == 1:
            self._marks.append((self._clock(), self._position))

    @property
    def position(self) -> int:
        """Denoising steps that are done."""
        return self._position

    @property
    def frames(self) -> int:
        """Frames of the video that are finished, given ones too."""
        return self.plan.num_pixel_frames - sum(frames_of(self.plan, chunk) for chunk in self._missing)

    @property
    def seconds(self) -> float:
        """Since the first step began; 0 before."""
        return self._clock() - self._marks[0][0] if self._marks else 0.0

    @property
    def seconds_per_frame(self) -> float | None:
        """Mean over the frames that were made, in all videos of a batch; None before there are any."""
        made = {stop.chunk for stop in self.stops} - set(self._missing)
        frames = sum(frames_of(self.plan, chunk) for chunk in made)
        return self.seconds / (frames * self.batch) if frames else None

    @property
    def seconds_left(self) -> float | None:
        """An estimate; None until a step is done."""
        if not self._position:
            return None
        since, first = [mark for mark in self._marks if mark[1] < self._position][-1]
        done = sum(stop.work for stop in self.stops[first : self._position])
        left = sum(stop.work for stop in self.stops[self._position :])
        return (self._clock() - since) * left / done

    def describe(self, bottleneck: str = "") -> str:
        """All of it in a line; `bottleneck` is what is slowest, where that is known."""
        parts = [self._where(), f"{self.frames} of {self.plan.num_pixel_frames} frames"]
        if self.seconds_per_frame is not None:
            parts.append(f"{self.seconds_per_frame:.2f} s for each")
        if self.seconds_left:
            parts.append(f"about {duration(self.seconds_left)} left")
        if bottleneck:
            parts.append(f"slowest: {bottleneck}")
        return ", ".join(parts)

    def _where(self) -> str:
        if not self._marks:
            given = len(self.plan.chunks) - len(self._missing)
            return f"taking up {given} finished chunks" if given else "starting"
        if self._position == len(self.stops):
            return "all chunks sampled"
        stop = self.stops[self._position]
        return f"chunk {stop.chunk + 1} of {len(self.plan.chunks)}, step {stop.number} of {stop.count}"

    def _expects(self, step: Step) -> bool:
        return self._position < len(self.stops) and self._alike(step, self.stops[self._position].step)

    def _alike(self, step: Step, planned: Step) -> bool:
        """Whether a step is the planned one, which is told another level where noise follows motion."""
        if isinstance(step, JoinedStep) and isinstance(planned, JoinedStep):
            pairs = zip(step.rows, planned.rows, strict=False)
            return len(step.rows) == len(planned.rows) and all(self._alike(*pair) for pair in pairs)
        restyle = self.plan.restyle
        told = restyle is not None and restyle.may_tell(step.sigma) and restyle.may_tell(planned.sigma)
        return step == (replace(planned, sigma=step.sigma) if told else planned)


class DecodePace:
    """The progress of decoding a batch, one video after the other, from the frames that are written.

    The first ones also wait for the VAE to be loaded, so later only what came after them is extrapolated.
    """

    def __init__(self, num_videos: int, num_latents: int, *, clock: Callable[[], float] = time.monotonic) -> None:
        """`num_latents` latent frames in each video."""
        self.num_videos, self.num_latents = num_videos, num_latents
        self.times = Times()
        self.frames = 0
        """Frames that are written, of all videos."""
        self._clock, self._start = clock, clock()
        self._first: tuple[float, int] | None = None
        self._end: float | None = None

    def add(self, num_frames: int) -> None:
        """So many frames more are written."""
        self.frames += num_frames
        self._end = self._clock()
        self._first = self._first or (self._end, self.frames)

    @property
    def num_frames(self) -> int:
        """Frames there will be, in all videos."""
        return self.num_videos * pixel_frames(self.num_latents)

    @property
    def latents(self) -> int:
        """Latent frames that are decoded, of all videos."""
        videos, frames = divmod(self.frames, pixel_frames(self.num_latents))
        return videos * self.num_latents + (frames + PIXEL_FRAMES_PER_LATENT - 1) // PIXEL_FRAMES_PER_LATENT

    @property
    def seconds(self) -> float:
        """Until the last frames that were written."""
        return self._end - self._start if self._end is not None else 0.0

    @property
    def seconds_per_frame(self) -> float:
        return self.seconds / self.frames if self.frames else 0.0

    @property
    def seconds_left(self) -> float | None:
        """An estimate; None until there is something behind the first frames."""
        if self._first is None or self._end is None or self.frames == self._first[1]:
            return None
        since, first = self._first
        return (self._end - since) * (self.num_frames - self.frames) / (self.frames - first)

    def describe(self) -> str:
        """All of it in a line."""
        if not self.frames:
            return f"loading the VAE, 0 of {self.num_frames} frames"
        parts = [
            f"{self._where()}{self.frames} of {self.num_frames} frames",
            f"{self.seconds_per_frame:.2f} s for each",
        ]
        if self.seconds_left:
            parts.append(f"about {duration(self.seconds_left)} left")
        return ", ".join([*parts, f"slowest: {self.times.bottleneck}"])

    def _where(self) -> str:
        if self.frames == self.num_frames:
            return "all decoded, "
        video, latents = divmod(self.latents, self.num_latents)
        which = f"video {video + 1} of {self.num_videos}, " if self.num_videos > 1 else ""
        return f"{which}latent frame {latents + 1} of {self.num_latents}, "


def stops_of(plan: Plan, config: WanConfig) -> tuple[Stop, ...]:
    """The denoising steps of a plan, in order; chunks that are given have none."""

    def work(chunk, step: Step) -> int:
        frames, tokens = len(chunk.frames), plan.tokens_per_frame(step.scale)
        visible = (frames + len(chunk.context)) * tokens
        return pass_flops(config, PassSize(frames, tokens=frames * tokens, visible=visible))

    if plan.order != CHUNKS:
        return tuple(_stop_of(plan, call, work) for call in calls(plan))
    return tuple(
        Stop(chunk.index, number, len(chunk.steps), step, work(chunk, step))
        for chunk in plan.chunks
        for number, step in enumerate(chunk.steps, start=1)
    )


def _stop_of(plan: Plan, call: Call, work: Callable[[Chunk, Step], int]) -> Stop:
    """The stop of a call of several rows: the step of its oldest chunk, which it may finish."""
    rows = [(plan.chunks[row.chunk], plan.chunks[row.chunk].steps[row.step]) for row in call]
    (oldest, _), step = rows[-1], join_steps(tuple(step for _, step in rows))
    done = sum(work(chunk, step) for chunk, step in rows)
    return Stop(oldest.index, call[-1].step + 1, len(oldest.steps), step, done)


def frames_of(plan: Plan, chunk: int) -> int:
    """Frames of the video that a chunk becomes, what is cropped at the end left out."""
    frames = plan.chunks[chunk].frames
    stop = min(frames.stop, plan.num_latent_frames)
    return pixel_frames(stop) - (pixel_frames(frames.start) if frames.start else 0)


def duration(seconds: float) -> str:
    """A time in the two units that tell it best: 45 s, 2 min 10 s, 1 h 05 min."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02} min"
