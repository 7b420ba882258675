"""A live stream on a virtual clock: the product's intake, budget and pacer, and a GPU that only costs time."""

from __future__ import annotations

import heapq
import random
import sys
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from itertools import count, pairwise

from ...live.budget import BATCHED, FRAMES, Budget, Choice, Cost, Measured, Spent, Target
from ...live.intake import ALL, EVEN, Intake
from ...live.pacer import Pacer

NOISE = 0.03
"""Standard deviation of the seconds of a piece of work, as a share."""


@dataclass(frozen=True, slots=True)
class Scene:
    """The inputs of a simulated stream."""

    cost: Cost
    target: Target
    seconds: float
    policy: str = EVEN
    held: Choice | None = None
    """This choice throughout, in the place of the budget's."""
    rungs: tuple[Choice, ...] = ()
    """The choices of the budget, where they are not those of the target."""
    endless: bool = False
    """An intake without a bound."""
    load: float = 1.0
    """All work takes so many times as long from `load_at` on."""
    load_at: float = 60.0
    seed: int = 0

    def intake(self) -> Intake[int]:
        """Two chunks of the longest kind, or any number."""
        longest = max(choice.pixel_frames for choice in self.ladder())
        return Intake(sys.maxsize, ALL) if self.endless else Intake(2 * longest, self.policy)

    def ladder(self) -> tuple[Choice, ...]:
        return (self.held,) if self.held else self.rungs or self.target.ladder()


class VirtualClock:
    """Time that passes only from event to event."""

    def __init__(self):
        self.now = 0.0
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._order = count()

    def __call__(self) -> float:
        return self.now

    def at(self, time: float, event: Callable[[], None]) -> None:
        """Run `event` at a time, after those that were asked for earlier."""
        heapq.heappush(self._events, (time, next(self._order), event))

    def run_until(self, end: float) -> None:
        """Run all events up to `end`."""
        while self._events and self._events[0][0] <= end:
            self.now, _, event = heapq.heappop(self._events)
            event()


@dataclass(slots=True)
class _UnderWay:
    """A chunk that is being denoised: capture times of its frames, and how many steps are left."""

    captured: tuple[float, ...]
    left: int

    @property
    def latent_frames(self) -> int:
        return len(self.captured) // FRAMES


@dataclass(frozen=True, slots=True)
class Work:
    """Work of a GPU on a chunk: when it began, its seconds, and the chunks that it finished."""

    began: float
    seconds: float
    period: float
    """Seconds in which the source gives the frames of a chunk."""
    choice: Choice
    spent: Spent
    finished: tuple[tuple[float, ...], ...]
    """The capture times of each chunk's frames."""


class SimulatedGPU:
    """A GPU that does one thing after the other, as long as costs and noise say, and keeps the chunks under way."""

    def __init__(self, scene: Scene):
        self._scene = scene
        self._random = random.Random(scene.seed)
        self._under_way: list[_UnderWay] = []
        self._choice: Choice | None = None

    def compute(self, captured: tuple[float, ...], choice: Choice, now: float) -> Work:
        """Encode a chunk, denoise as the choice asks for, and decode the chunks that are finished by that.

        At a change of the choice the chunks under way are finished first.
        """
        calls: list[tuple[int, float]] = []
        finished: list[tuple[float, ...]] = []
        if choice != self._choice:
            while self._under_way:
                calls.append(self._call(finished, now))
        self._choice = choice
        self._under_way.append(_UnderWay(captured, choice.steps))
        for _ in range(1 if choice.order == BATCHED else choice.steps):
            calls.append(self._call(finished, now))
        cost, decoded = self._scene.cost, sum(len(frames) for frames in finished) // FRAMES
        spent = Spent(
            self._seconds(cost.encode, now), tuple(calls), self._seconds(cost.decode, now) if decoded else None
        )
        seconds = choice.chunk_frames * spent.encode + sum(s for _, s in calls) + decoded * (spent.decode or 0.0)
        return Work(now, seconds, self._scene.target.period(choice), choice, spent, tuple(finished))

    def _call(self, finished: list[tuple[float, ...]], now: float) -> tuple[int, float]:
        """One network call over all chunks under way: its latent frames and its seconds."""
        frames = sum(row.latent_frames for row in self._under_way)
        for row in self._under_way:
            row.left -= 1
        finished += [row.captured for row in self._under_way if not row.left]
        self._under_way = [row for row in self._under_way if row.left]
        return frames, self._seconds(self._scene.cost.fixed + self._scene.cost.row * frames, now)

    def _seconds(self, seconds: float, now: float) -> float:
        load = self._scene.load if now >= self._scene.load_at else 1.0
        return max(0.0, seconds * load * self._random.gauss(1, NOISE))


class SimulatedStream:
    """Source, intake, GPU, budget, pacer and viewer as events of one virtual clock."""

    def __init__(self, scene: Scene):
        self.scene, self.clock = scene, VirtualClock()
        self.intake, self.measured = scene.intake(), Measured(scene.cost)
        self.budget = Budget(scene.target, scene.cost, scene.ladder())
        self.pacer = Pacer(self.budget.frame_rate(scene.cost), scene.target.latency, self.clock)
        self.intake.keep_every(self.budget.choice.every)
        self.work: list[Work] = []
        self._gpu = SimulatedGPU(scene)
        self._busy = self._showing = False
        self._refused: int | None = None
        self._rates: deque[float] = deque()
        self._ready: deque[tuple[float, float]] = deque()

    def run(self) -> SimulatedStream:
        """Let the scene pass."""
        self.clock.at(0.0, partial(self._frame, 0))
        self.clock.run_until(self.scene.seconds)
        return self

    def _frame(self, index: int) -> None:
        """A frame of the source. Where the intake has no room the source waits until there is some."""
        if not self.intake.put(index, self.clock()):
            self._refused = index
            return
        self.clock.at(self.clock() + 1 / self.scene.target.fps, partial(self._frame, index + 1))
        self._begin()

    def _begin(self) -> None:
        """Compute a chunk where the GPU is free and the frames are there."""
        choice = self.budget.choice
        taken = None if self._busy else self.intake.take(choice.pixel_frames)
        if taken is None:
            return
        self._busy = True
        self._rates.append(self.budget.frame_rate(self.measured.cost))
        work = self._gpu.compute(tuple(frame.time for frame in taken), choice, self.clock())
        self.work.append(work)
        self.clock.at(self.clock() + work.seconds, partial(self._computed, work))
        if self._refused is not None:
            waiting, self._refused = self._refused, None
            self._frame(waiting)

    def _computed(self, work: Work) -> None:
        """Show the chunks that are finished, measure, and choose for the next one."""
        self._busy = False
        self.measured.add(work.spent)
        choice = self.budget.choose(self.measured.cost)
        self.intake.keep_every(choice.every)
        if self.intake.policy != ALL:
            self.intake.skip(self.pacer.surplus())
        for captured in work.finished:
            self.pacer.chunk_ready(captured)
            rate = self._rates.popleft()
            self._ready.extend((time, rate) for time in captured)
        self._show_next()
        self._begin()

    def _show_next(self) -> None:
        """Let the pacer place the next frame, at the rate that its chunk was made for."""
        if self._ready and not self._showing:
            self._showing = True
            self.pacer.set_rate(self._ready[0][1])
            self.clock.at(self.pacer.due(), self._shown)

    def _shown(self) -> None:
        captured, _ = self._ready.popleft()
        self.pacer.shown(captured)
        self._showing = False
        self._show_next()


def changes(work: Sequence[Work]) -> list[int]:
    """The chunks that were computed by another choice than the one before."""
    return [index for index, (one, two) in enumerate(pairwise(work), 1) if one.choice != two.choice]


def over_budget_after(work: Sequence[Work], time: float) -> int:
    """Chunks from `time` on until one takes no longer than the source gives its frames."""
    after = [chunk for chunk in work if chunk.began >= time]
    within = (index for index, chunk in enumerate(after) if chunk.seconds <= chunk.period)
    return next(within, len(after))


def plain(stream: SimulatedStream) -> dict:
    """The figures of a stream as its viewer saw it, and every change of the choice, as plain values."""
    work, intake = stream.work, stream.intake
    log = [(0, work[0]), *((index, work[index]) for index in changes(work))] if work else []
    return {
        "policy": "endless" if stream.scene.endless else intake.policy,
        "load": stream.scene.load,
        **asdict(stream.pacer.report()),
        "arrived": intake.arrived,
        "dropped": intake.dropped,
        "waiting": len(intake),
        "choices": [{"chunk": index, "second": chunk.began, **asdict(chunk.choice)} for index, chunk in log],
    }
