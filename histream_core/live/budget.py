"""The budget of a live stream: what to compute for each chunk, so that it is there in time, from measured costs.

Service-level objectives (SLO): a frame rate that the source gives, and a delay that the viewer is promised.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from ..plan.order import BATCHED, CHUNKS

BUDGET = 1.0
"""Seconds from the last picture of a chunk until the chunk must be made, where nothing else is chosen."""

FRAMES = 4
"""Pixel frames of a latent frame."""

WEIGHT = 0.2
"""Weight of a new measurement in the moving average."""
SHORTEST = 1e-9
"""Seconds that a network call takes at least, also where a clock saw none."""
JUMP = 0.25
"""A measurement that is off by more than this share replaces the average: the load has changed."""

DOWN, DOWN_CHUNKS = 0.95, 2
"""Above this utilisation for that many chunks less is computed."""
UP, UP_CHUNKS, UP_SECONDS = 0.7, 8, 4.0
"""Below this utilisation for that many chunks, and seconds of the source, more is computed, where that fits."""
MOST_UP_CHUNKS = 64
"""Where more was too much at once, twice as many chunks are waited for, up to so many."""
ROOM = 0.9
"""Utilisation that a new choice may have by the measured costs."""

WORTH_BATCHING = 0.25
"""Share of a call with one row that does not grow with rows, from which rows are computed together."""


@dataclass(frozen=True, slots=True)
class Choice:
    """The order, steps and frames by which a chunk is computed."""

    order: str
    """CHUNKS, or BATCHED: the steps of successive chunks in one network call."""
    steps: int
    every: int = 1
    """One frame of so many is used."""
    chunk_frames: int = 1
    """Latent frames of a chunk."""

    @property
    def pixel_frames(self) -> int:
        return FRAMES * self.chunk_frames


@dataclass(frozen=True, slots=True)
class Cost:
    """Seconds for a latent frame: its encoding, a network call's fixed part, each row of the call, its decoding."""

    encode: float
    fixed: float
    row: float
    decode: float
    apart: bool = False
    """Whether a chunk is decoded beside the work on the next one, on a processor of its own."""
    passes: float = 0.0
    """Seconds for a latent frame of network calls that are the same for any number of steps: the clean passes."""

    def chunk_seconds(self, choice: Choice) -> float:
        """Seconds from one chunk to the next."""
        computing = self._steps(choice) + choice.chunk_frames * (self.encode + self.passes)
        decoding = choice.chunk_frames * self.decode
        return max(computing, decoding) if self.apart else computing + decoding

    def delay_seconds(self, choice: Choice) -> float:
        """Seconds from a chunk's last frame until its first frames can be shown.

        What came before that frame is encoded by then, and the clean passes are made afterwards.
        """
        return self.encode + self._steps(choice) + self.decode

    def _steps(self, choice: Choice) -> float:
        """Seconds of the steps of a chunk."""
        calls = 1 if choice.order == BATCHED else choice.steps
        return calls * self.fixed + choice.chunk_frames * choice.steps * self.row

    @property
    def fixed_share(self) -> float:
        """Share of a call of one row that further rows do not cost again."""
        return self.fixed / (self.fixed + self.row) if self.fixed else 0.0


@dataclass(frozen=True, slots=True)
class Spent:
    """Seconds that one chunk took."""

    encode: float
    """For a latent frame."""
    calls: tuple[tuple[int, float], ...]
    """The network calls: latent frames of all rows together, and seconds."""
    decode: float | None
    """For a latent frame. None: no chunk was finished."""
    passes: float = 0.0
    """Seconds of clean passes, for a latent frame."""


class Measured:
    """The cost of a latent frame as a moving average of measurements, from a first estimate on."""

    def __init__(self, cost: Cost):
        self.cost = cost
        self._last: tuple[int, float] | None = None

    def add(self, spent: Spent) -> None:
        """Take a chunk's seconds into the average."""
        cost = self.cost
        decode = cost.decode if spent.decode is None else _averaged(cost.decode, spent.decode)
        encode, passes = _averaged(cost.encode, spent.encode), _averaged(cost.passes, spent.passes)
        self.cost = replace(cost, encode=encode, decode=decode, passes=passes)
        for rows, seconds in spent.calls:
            self._add_call(rows, seconds)

    def _add_call(self, rows: int, seconds: float) -> None:
        """Scale fixed part and rows alike; two calls of different numbers of rows tell them apart."""
        fixed, row = self.cost.fixed, self.cost.row
        expected = fixed + row * rows
        average = max(_averaged(expected, seconds), SHORTEST)
        row *= average / expected
        if self._last and self._last[0] != rows:
            slope = (seconds - self._last[1]) / (rows - self._last[0])
            row += WEIGHT * (min(max(slope, 0.0), average / rows) - row)
        self.cost = replace(self.cost, fixed=max(average - row * rows, 0.0), row=row)
        self._last = rows, seconds


def _averaged(old: float, new: float) -> float:
    return new if abs(new - old) > JUMP * old else old + WEIGHT * (new - old)


@dataclass(frozen=True, slots=True)
class Target:
    """The goals of a stream: its source's frames per second, the longest delay in seconds, steps of a chunk."""

    fps: float
    latency: float = 1.0
    """From the capture of a chunk's last frame until the chunk can be shown."""
    steps: int = 2
    chunk_frames: int = 1
    most_every: int = 4
    """1: no frame may be dropped."""
    most_chunk_frames: int = 1
    """Chunks may become so long, for weights that know chunks of several lengths."""

    def __post_init__(self):
        if not self.fps > 0 or not self.latency > 0 or self.steps < 1 or self.chunk_frames < 1 or self.most_every < 1:
            raise ValueError(
                f"{self.fps:g} frames per second, {self.latency:g} s, {self.steps} steps and chunks of "
                f"{self.chunk_frames} frames are no target: use more than 0 of each, such as 16, 1, 2 and 1"
            )

    def period(self, choice: Choice) -> float:
        """Seconds in which the source gives the frames of a chunk."""
        return choice.pixel_frames * choice.every / self.fps

    def delay(self, choice: Choice, cost: Cost) -> float:
        """Seconds from a chunk's last frame until the chunk is computed; in a batch it waits for those behind it."""
        waits = choice.steps - 1 if choice.order == BATCHED else 0
        return cost.delay_seconds(choice) + waits * max(cost.chunk_seconds(choice), self.period(choice))

    def ladder(self) -> tuple[Choice, ...]:
        """All choices, the best one first: frames are worth more than steps, and short chunks more than both."""
        lengths = range(self.chunk_frames, max(self.chunk_frames, self.most_chunk_frames) + 1)
        return tuple(
            Choice(order, steps, every, length)
            for length in lengths
            for every in range(1, self.most_every + 1)
            for steps in range(self.steps, 0, -1)
            for order in ((CHUNKS, BATCHED) if steps > 1 else (CHUNKS,))
        )


class Budget:
    """Chooses what is computed, with hysteresis: quickly less, slowly more, and only what fits by measured costs."""

    def __init__(self, target: Target, cost: Cost, ladder: Sequence[Choice] | None = None):
        self.target = target
        self._ladder = tuple(ladder or target.ladder())
        self._rung = self._first_fit(cost, range(len(self._ladder)))
        self._over = self._under = 0
        self._risen, self._patience = MOST_UP_CHUNKS, UP_CHUNKS

    @property
    def choice(self) -> Choice:
        return self._ladder[self._rung]

    def utilisation(self, cost: Cost) -> float:
        """Seconds of computing for a second of the source, with the present choice."""
        return self._utilisation(cost, self.choice)

    def frame_rate(self, cost: Cost) -> float:
        """Frames per second that can be shown: those of the source, or as many as can be computed."""
        return self.target.fps / self.choice.every / max(1.0, self.utilisation(cost))

    def choose(self, cost: Cost) -> Choice:
        """Return the choice for the next chunk; call it once after each."""
        now = self.utilisation(cost)
        self._over = self._over + 1 if now > DOWN else 0
        self._under = self._under + 1 if now < UP else 0
        self._risen += 1
        if self._over >= DOWN_CHUNKS:
            self._patience = min(2 * self._patience, MOST_UP_CHUNKS) if self._risen <= UP_CHUNKS else UP_CHUNKS
            self._move(self._first_fit(cost, range(self._rung, len(self._ladder))))
        elif self._under >= self._patience and self._under * self.target.period(self.choice) >= UP_SECONDS:
            self._risen = 0
            self._move(self._first_fit(cost, range(self._rung + 1)))
        return self.choice

    def offer(self, ladder: Sequence[Choice], cost: Cost) -> None:
        """Choose anew among other choices, at once."""
        self._ladder = tuple(ladder)
        self._move(self._first_fit(cost, range(len(self._ladder))))

    def _move(self, rung: int) -> None:
        self._rung = rung
        self._over = self._under = 0

    def _first_fit(self, cost: Cost, rungs: range) -> int:
        """The best of `rungs` that fits; where none is in time, the best that keeps up, or else the cheapest."""
        for fits in (self._fits, self._keeps_up):
            for rung in rungs:
                if fits(cost, self._ladder[rung]):
                    return rung
        return min(rungs, key=lambda rung: self._utilisation(cost, self._ladder[rung]))

    def _fits(self, cost: Cost, choice: Choice) -> bool:
        in_time = self.target.delay(choice, cost) <= self.target.latency
        return in_time and self._keeps_up(cost, choice)

    def _keeps_up(self, cost: Cost, choice: Choice) -> bool:
        if choice.order == BATCHED and cost.fixed_share <= WORTH_BATCHING:
            return False
        return self._utilisation(cost, choice) <= ROOM

    def _utilisation(self, cost: Cost, choice: Choice) -> float:
        return cost.chunk_seconds(choice) / self.target.period(choice)
