"""Where a run stands while it goes: which chunk and step, seconds for each frame, and how long it still takes."""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property

from ..plan.chunks import Chunk, Plan
from ..plan.order import CHUNKS, calls
from ..plan.schedule import JoinedStep, Step, join_steps
from ..plan.sizes import PIXEL_FRAMES_PER_LATENT, pixel_frames
from ..video.writing import Times
from .cost import Cost
from .rates import FRAMES, Kind, Rates, kind_of


@dataclass(frozen=True)
class PlannedCall:
    """One network call of a run."""

    number: int
    """The denoising step of its chunk, counted from 1 to `count`; 0 for a call that only fills the caches."""
    count: int
    step: Step
    rows: tuple[tuple[Chunk, Step], ...]
    """The steps that it computes, the oldest chunk's last."""
    cost: Cost

    @property
    def chunk(self) -> int:
        """The oldest of its chunks, which it may finish."""
        return self.rows[-1][0].index

    @property
    def kind(self) -> Kind:
        return kind_of(self.step)

    @cached_property
    def work(self) -> int:
        """Floating-point operations, by which the seconds of different calls are compared."""
        return sum(self.cost.call_flops(chunk, step) for chunk, step in self.rows)


class Pace:
    """The progress of a run, and a prediction of the time that it still takes.

    The prediction is the plan's operations that are not done, by kind of call and for the frames of a chunk, times the
    seconds that an operation of that kind took so far (`Rates`). Decoding and all else between calls belong to the
    frames, and are measured whenever a chunk is finished; the file is written beside it, and counts where it is slower
    or behind. The first call also loads and compiles, and is not measured.
    """

    def __init__(
        self,
        cost: Cost,
        *,
        times: Times | None = None,
        decodes: bool = True,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`times` are those of the run's writer; `decodes` tells whether chunks are decoded as they are made."""
        self.plan, self.batch = cost.plan, cost.batch
        self.times, self.decodes = times or Times(), decodes
        self.calls = list(planned_calls(cost))
        self._clock, self._cost = clock, cost
        self._next = self._steps_done = 0
        self._matched: PlannedCall | None = None
        self._running: deque[PlannedCall | None] = deque()
        """The calls that have begun and whose seconds are not known; None for one that is not planned."""
        self._num_measured = 0
        self._pending: Counter[Kind] | None = None
        """Operations of the calls whose seconds are not known; None before the first of them is made."""
        self._missing = [chunk.index for chunk in self.plan.chunks if chunk.steps]
        self._unfinished = list(range(len(self.plan.chunks)))
        self._pending_frames, self._pending_latents = self.plan.num_pixel_frames, self.plan.num_latent_frames
        self._start: float | None = None
        self._mark: float | None = None
        """When the last chunk was finished, or the first one was begun."""
        self._counted = self._waited = 0.0
        """Seconds of network calls since the mark, and of waiting for the writer at the mark."""

    def skip(self, num_chunks: int) -> None:
        """Note that the frames of the first chunks are there already, so that these will not be finished."""
        for _ in range(num_chunks):
            self._take_unfinished()

    def begin_at(self, chunk: int) -> int:
        """Expect no call of the chunks before `chunk`, which others make; so many calls less."""
        before = len(self.calls)
        self.calls = [call for call in self.calls if call.chunk >= chunk]
        return before - len(self.calls)

    def split(self, step: Step) -> int:
        """Expect the rows of a joint call one by one, where `step` is the first of them alone; so many calls more."""
        call = self.calls[self._next] if self._next < len(self.calls) else None
        if call is None or not isinstance(call.step, JoinedStep) or not self._alike(step, call.step.rows[0]):
            return 0
        ahead = len(call.rows) - 1
        self.calls[self._next : self._next + 1] = [
            replace(call, number=call.number - ahead + i, step=row[1], rows=(row,)) for i, row in enumerate(call.rows)
        ]
        return ahead

    def start(self) -> None:
        """The first chunk is about to be made: what it takes before its first call, such as a source, counts from now.

        Without it all counts from the first call.
        """
        if self._mark is None:
            self._mark, self._waited = self._clock(), self.times.wait

    def begin(self, step: Step) -> None:
        """A network call is about to be made."""
        self.start()
        self._matched = self._match(step)
        self._running.append(self._matched)
        if self._start is None and self._matched and self._matched.number:
            self._start = self._clock()

    def measure(self, seconds: float) -> None:
        """The oldest call of which they are not known took so many seconds."""
        self._weigh()
        call = self._running.popleft()
        self._counted += seconds
        self._num_measured += 1
        if call is None:
            return
        self._drop(call)
        if self._num_measured > 1:
            self._rates.measure(call.kind, call.work, seconds)

    def end(self, step: Step) -> None:  # noqa: ARG002 - it is the call that has begun
        """A network call was made; one that is no denoising step of this run changes nothing."""
        self._weigh()
        if self._matched:
            self._next += 1
            self._steps_done += bool(self._matched.number)

    def finish(self) -> None:
        """The frames of the next chunk are finished."""
        if not self._unfinished:
            return
        now, chunk = self._clock(), self._take_unfinished()
        self._missing = [index for index in self._missing if index > chunk]
        self._leave_behind(chunk)
        if self._mark is not None:
            between = now - self._mark - self._counted - (self.times.wait - self._waited)
            self._rates.measure(FRAMES, latents_of(self.plan, chunk) * self._latent_work, between)
        self._mark, self._counted, self._waited = now, 0.0, self.times.wait

    @property
    def position(self) -> int:
        """Denoising steps that are done."""
        return self._steps_done

    @property
    def frames(self) -> int:
        """Frames of the video that are finished, given ones too."""
        return self.plan.num_pixel_frames - sum(frames_of(self.plan, chunk) for chunk in self._missing)

    @property
    def seconds(self) -> float:
        """Since the first step began; 0 before."""
        return self._clock() - self._start if self._start is not None else 0.0

    @property
    def seconds_per_frame(self) -> float | None:
        """Mean over the frames that were made, in all videos of a batch; None before there are any."""
        made = {call.chunk for call in self.calls if call.number} - set(self._missing)
        frames = sum(frames_of(self.plan, chunk) for chunk in made)
        return self.seconds / (frames * self.batch) if frames else None

    @property
    def seconds_left(self) -> float | None:
        """A prediction; None until the second call is made, as the first one also loads and compiles."""
        left = self._predict(self._pending) if self._pending is not None else None
        if left is None:
            return None
        left += self._pending_latents * self._latent_work * (self._rates.of(FRAMES) or 0.0)
        return self._with_writing(max(0.0, left - self._spent()))

    def describe_left(self) -> str:
        """The time left in words; empty where it is not known, and at the end."""
        left = self.seconds_left
        if not left or (left < 0.5 and not self._unfinished):
            return ""
        return f"about {duration(left)}{'' if self.decodes else ' of sampling'} left"

    def describe(self, bottleneck: str = "") -> str:
        """All of it in a line; `bottleneck` is what is slowest, where that is known."""
        parts = [self.where(), self.describe_left(), f"slowest: {bottleneck}" if bottleneck else ""]
        return ", ".join(part for part in parts if part)

    def where(self) -> str:
        """Chunk, step, frames and seconds for each, as they are when the run is stopped."""
        parts = [self._place(), f"{self.frames} of {self.plan.num_pixel_frames} frames"]
        if self.seconds_per_frame is not None:
            parts.append(f"{self.seconds_per_frame:.2f} s for each")
        return ", ".join(parts)

    def _place(self) -> str:
        if self._start is None:
            given = len(self.plan.chunks) - len(self._missing)
            return f"taking up {given} finished chunks" if given else "starting"
        call = next((call for call in self.calls[self._next :] if call.number), None)
        if call is None:
            return "all chunks sampled"
        return f"chunk {call.chunk + 1} of {len(self.plan.chunks)}, step {call.number} of {call.count}"

    @cached_property
    def _rates(self) -> Rates:
        return Rates()

    @cached_property
    def _latent_work(self) -> int:
        """Operations between calls for each latent frame.

        All count alike: the first one becomes a single frame, but while it is decoded all is set up.
        """
        return self._cost.frame_flops * PIXEL_FRAMES_PER_LATENT if self.decodes else 1

    def _take_unfinished(self) -> int:
        """The next chunk whose frames are finished; they are not waited for any more."""
        chunk = self._unfinished.pop(0)
        self._pending_frames -= frames_of(self.plan, chunk)
        self._pending_latents -= latents_of(self.plan, chunk)
        return chunk

    def _weigh(self) -> None:
        """Count the operations of all calls, when the first one is made: until then nobody waits for it."""
        if self._pending is None:
            self._pending = Counter()
            for call in self.calls[self._next :]:
                self._pending[call.kind] += call.work

    def _drop(self, call: PlannedCall) -> None:
        """Wait no more for a call: it is measured, or never comes."""
        if self._pending is not None:
            self._pending[call.kind] -= call.work

    def _predict(self, work: Counter[Kind]) -> float | None:
        """Seconds that calls take; None where nothing is known."""
        parts = [(amount, self._rates.of(kind)) for kind, amount in work.items() if amount]
        known = [amount * rate for amount, rate in parts if rate is not None]
        return sum(known) if len(known) == len(parts) else None

    def _spent(self) -> float:
        """Seconds since the mark that went into what is still pending: at most what is under way now."""
        if self._mark is None or not self._unfinished:
            return 0.0
        spent = self._clock() - self._mark - self._counted - (self.times.wait - self._waited)
        under_way: Counter[Kind] = Counter()
        for call in self._running:
            if call:
                under_way[call.kind] += call.work
        latents = latents_of(self.plan, self._unfinished[0])
        frames = latents * self._latent_work * (self._rates.of(FRAMES) or 0.0)
        return max(0.0, min(spent, frames + (self._predict(under_way) or 0.0)))

    def _with_writing(self, left: float) -> float:
        """The time left of all, from that of calls and frames: the writer works beside them, and ends after them."""
        times, writing = self.times, self.times.writing
        waiting = times.handed_frames - times.written_frames
        if not waiting and not times.written_frames:
            return left
        each = times.write / times.written_frames if times.written_frames else writing / waiting
        last = each * frames_of(self.plan, len(self.plan.chunks) - 1) if self._unfinished else 0.0
        return max(left + last, each * (waiting + self._pending_frames) - min(writing, each * waiting))

    def _leave_behind(self, chunk: int) -> None:
        """Expect no step any more of a chunk that is finished."""
        while self._next < len(self.calls):
            call = self.calls[self._next]
            if call.chunk > chunk or (call.chunk == chunk and not call.number):
                return
            self._next += 1
            self._steps_done += bool(call.number)
            self._drop(call)

    def _match(self, step: Step) -> PlannedCall | None:
        """The planned call that is made now; calls that only fill caches may be left out before it."""
        for index in range(self._next, len(self.calls)):
            call = self.calls[index]
            if self._alike(step, call.step):
                for skipped in self.calls[self._next : index]:
                    self._drop(skipped)
                self._next = index
                return call
            if call.number:
                return None
        return None

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
            return self.where()
        left = f"about {duration(self.seconds_left)} left" if self.seconds_left else ""
        parts = [self.where(), left, f"slowest: {self.times.bottleneck}"]
        return ", ".join(part for part in parts if part)

    def where(self) -> str:
        """Latent frame, frames and seconds for each, as they are when it is stopped."""
        if not self.frames:
            return f"loading the VAE, 0 of {self.num_frames} frames"
        done = f"{self._where()}{self.frames} of {self.num_frames} frames"
        return f"{done}, {self.seconds_per_frame:.2f} s for each"

    def _where(self) -> str:
        if self.frames == self.num_frames:
            return "all decoded, "
        video, latents = divmod(self.latents, self.num_latents)
        which = f"video {video + 1} of {self.num_videos}, " if self.num_videos > 1 else ""
        return f"{which}latent frame {latents + 1} of {self.num_latents}, "


def planned_calls(cost: Cost) -> Iterator[PlannedCall]:
    """The network calls of a plan, in order; a chunk enters the caches before the steps of the next one."""
    plan = cost.plan
    if plan.order != CHUNKS:
        for call in calls(plan):
            rows = tuple((chunk, chunk.steps[row.step]) for row in call for chunk in [plan.chunks[row.chunk]])
            step = join_steps(tuple(step for _, step in rows))
            yield PlannedCall(call[-1].step + 1, len(rows[-1][0].steps), step, rows, cost)
        return
    for chunk in plan.chunks:
        again = (chunk.kept,) if chunk.kept and not chunk.steps else ()
        for number, step in enumerate(chunk.steps, start=1):
            yield PlannedCall(number, len(chunk.steps), step, ((chunk, step),), cost)
        for step in (*again, *chunk.cache_steps):
            yield PlannedCall(0, len(chunk.steps), step, ((chunk, step),), cost)


def frames_of(plan: Plan, chunk: int) -> int:
    """Frames of the video that a chunk becomes, what is cropped at the end left out."""
    frames = plan.chunks[chunk].frames
    stop = min(frames.stop, plan.num_latent_frames)
    return pixel_frames(stop) - (pixel_frames(frames.start) if frames.start else 0)


def latents_of(plan: Plan, chunk: int) -> int:
    """Latent frames of the video in a chunk, what is cropped at the end left out."""
    frames = plan.chunks[chunk].frames
    return min(frames.stop, plan.num_latent_frames) - frames.start


def duration(seconds: float) -> str:
    """A time in the two units that tell it best: 45 s, 2 min 10 s, 1 h 05 min."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02} min"
