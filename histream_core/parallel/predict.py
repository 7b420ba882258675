"""Predicted frames a second of a video on several GPUs, for each way to split it: a simulation of its plan.

Every network call of the plan takes the seconds that follow from its operations and a GPU's rates; a call begins when
all is there that it needs, as in a run. Nothing here is measured.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from ..cost.cost import Cost
from ..cost.pace import PlannedCall, frames_of, planned_calls
from ..plan.histories import Level
from ..plan.sharing import (
    AUTO,
    MAX_GPUS,
    PIPELINE,
    ROWS_EACH,
    SEQUENCE,
    SPLITS,
    Sharing,
    check_split,
    level_of,
    ring_rows,
    shared_levels,
    sharings,
    why_not,
)
from .balance import Split, best_split
from .devices import Machine
from .events import Job, finish_times
from .seconds import TERA, call_seconds, hop_seconds

MAX_CHUNKS = 60
"""Chunks of a plan that are simulated; of a longer one the first so many."""

CLEARLY = 1.03
"""A split is taken where it is faster by more than this factor than a simpler one; one GPU is the simplest."""


@dataclass(frozen=True, slots=True)
class Rate:
    """A predicted rate."""

    sharing: Sharing
    fps: float
    """Frames a second of the whole video, with its beginning and its end."""


@dataclass(frozen=True, slots=True)
class Choice:
    """How a video is made on several GPUs."""

    sharing: Sharing
    levels: tuple[Level, ...]
    """The levels whose passes sequence ranks share; empty for another split."""
    why: str
    """One sentence."""


def choose(cost: Cost, gpus: int, machine: Machine, split: str = AUTO) -> Choice:
    """The fastest way in which a split makes a video on up to so many GPUs; `auto`: the fastest of all splits.

    Raises ValueError where there is none, with what works.
    """
    check_gpus(gpus)
    if split != AUTO:
        check_split(cost.plan, split, gpus, cost.config.num_heads, cost.config.num_layers)
    rates = {name: rate for name in SPLITS if (rate := best_rate(cost, name, gpus, machine))}
    taken = rates[split] if split != AUTO else fastest(rates.values())
    levels = shared_levels(cost.plan, taken.sharing.ranks) if taken.sharing.split == SEQUENCE else ()
    return Choice(taken.sharing, levels, _why(rates, taken, split))


def best_rate(cost: Cost, split: str, gpus: int, machine: Machine) -> Rate | None:
    """The fastest way in which a split uses the most of so many GPUs that it can; None where it needs more."""
    for number in range(gpus, 0, -1):
        if not why_not(cost.plan, split, number, cost.config.num_heads, cost.config.num_layers):
            return fastest(Rate(way, predict(cost, way, machine)) for way in sharings(split, number))
    return None


def fastest(rates: Iterable[Rate]) -> Rate:
    """The fastest one; of nearly equal ones the first, which is the simplest."""
    taken, *others = rates
    for rate in others:
        taken = rate if rate.fps > CLEARLY * taken.fps else taken
    return taken


def predict(cost: Cost, sharing: Sharing, machine: Machine) -> float:
    """Frames a second of a plan's video that is made in one way."""
    run = _Run(cost, sharing, machine)
    return run.num_frames / run.seconds()


def check_gpus(gpus: int) -> None:
    """Raise ValueError for a number of GPUs that no video is made by."""
    if not 1 <= gpus <= MAX_GPUS:
        raise ValueError(f"one video is not made by {gpus} GPUs: use 1 to {MAX_GPUS}, and a farm for more videos")


def _why(rates: dict[str, Rate], taken: Rate, split: str) -> str:
    others = ", ".join(f"{name} {rate.fps:.3g}" for name, rate in rates.items() if rate is not taken)
    how = "as asked for" if split != AUTO else "the fastest" if others else "the only way"
    return f"{taken.sharing}: {how}, {taken.fps:.3g} predicted frames a second" + (f"; {others}" if others else "")


class _Run:
    """The jobs of a run that is made in one way. Workers are the ranks by number, then the VAE's GPU."""

    def __init__(self, cost: Cost, sharing: Sharing, machine: Machine):
        self.cost, self.sharing, self.machine, self.plan = cost, sharing, machine, cost.plan
        self.num_chunks = min(self.plan.num_chunks, MAX_CHUNKS)
        frames = [frames_of(self.plan, index) for index in range(self.num_chunks)]
        self.num_frames = sum(frames)
        speed = machine.device.vae * TERA
        self.decoding = [count * cost.decode_flops / speed for count in frames]
        self.encoding = [count * cost.encode_flops / speed for count in frames]
        self.jobs: list[Job] = []

    def seconds(self) -> float:
        return max(finish_times(self.ring() if self.sharing.split == PIPELINE else self.in_turn()))

    def in_turn(self) -> list[Job]:
        """One call after the other, by one GPU or by all ranks together; the VAE beside them where it lies apart.

        A chunk is begun when that before the last one is decoded, and chunk 1 when chunk 0 is. Where the VAE has both
        to do, it encodes first, as the ranks wait for that.
        """
        vae = int(self.sharing.vae_apart)
        shared = shared_levels(self.plan, self.sharing.ranks) if self.sharing.split == SEQUENCE else ()
        begun = ended = last = -1
        decodes: list[int] = []
        finished: list[tuple[int, int]] = []
        """Chunks whose decoding is not listed yet, and the calls that end them."""

        def decode() -> None:
            decodes.extend(self._add(vae, self.decoding[chunk], [(call, 0.0)]) for chunk, call in finished)
            finished.clear()

        for call in self._calls():
            newest, oldest = (call.rows[place][0].index for place in (0, -1))
            needs = [(last, 0.0)] if last >= 0 else []
            if newest > begun:
                begun = newest
                needs += [(decodes[-1], 0.0)] if decodes else []
                if self.encoding[newest]:
                    needs = [(self._add(vae, self.encoding[newest], needs), 0.0)]
                decode()
            ranks = self.sharing.ranks if level_of(self.plan, call.step, call.number - 1) in shared else 1
            last = self._add(0, call_seconds(self.cost, call.rows, self.machine, ranks), needs)
            if call.number == call.count and oldest > ended:
                ended = oldest
                finished.append((oldest, last))
                if not decodes:
                    decode()
        decode()
        return self.jobs

    def ring(self) -> list[Job]:
        """Rows of a diagonal order through the ranks in turn, each with its layers; encode and decode on the ends.

        At most ROWS_EACH rows for each rank are under way.
        """
        ranks, split, num_layers = self.sharing.ranks, self._layers(), self.cost.config.num_layers
        rows = [row for row in ring_rows(self.plan) if row.chunk < self.num_chunks]
        tokens = self.plan.window.chunk_frames * max(map(self.plan.tokens_per_frame, self.plan.grids))
        state = tokens * self.cost.config.dim * self.cost.dtype.itemsize * self.cost.batch
        hop = hop_seconds(state, self.machine.link)
        ends: list[int] = []
        """The job that ends each row."""
        ended: dict[tuple[int, int], int] = {}
        before: list[int] = []
        for row in rows:
            chunk = self.plan.chunks[row.chunk]
            seconds = call_seconds(self.cost, [(chunk, chunk.steps[row.step])], self.machine)
            needs = [(ends[-ROWS_EACH * ranks], hop)] if len(ends) >= ROWS_EACH * ranks else []
            if row.step:
                needs.append((ended[row.chunk, row.step - 1], hop))
            elif self.encoding[row.chunk]:
                needs = [(self._add(0, self.encoding[row.chunk], needs), 0.0)]
            stages: list[int] = []
            for rank, layers in enumerate(split):
                needs += [(before[rank], 0.0)] if before else []
                stages.append(self._add(rank, seconds * len(layers) / num_layers, needs))
                needs = [(stages[-1], hop)]
            before = stages
            ends.append(stages[-1])
            ended[row] = stages[-1]
            if row.step == len(chunk.steps) - 1:
                self._add(ranks - 1, self.decoding[row.chunk], [(stages[-1], 0.0)])
        return self.jobs

    def _layers(self) -> Split:
        """The best split of the layers for a chunk of the middle of the video."""
        ranks, middle = self.sharing.ranks, self.num_chunks // 2
        chunk, num_layers = self.plan.chunks[middle], self.cost.config.num_layers
        seconds = sum(call_seconds(self.cost, [(chunk, step)], self.machine) for step in chunk.steps)
        extra = [0.0] * ranks
        extra[0] += self.encoding[middle]
        extra[-1] += self.decoding[middle]
        return best_split([seconds / num_layers] * num_layers, [1.0] * ranks, extra)

    def _calls(self) -> Iterator[PlannedCall]:
        """The calls for the chunks that are simulated."""
        for call in planned_calls(self.cost):
            if call.rows[-1][0].index >= self.num_chunks:
                return
            if all(chunk.index < self.num_chunks for chunk, _ in call.rows):
                yield call

    def _add(self, worker: int, seconds: float, needs: list[tuple[int, float]]) -> int:
        self.jobs.append(Job(worker, seconds, tuple(needs)))
        return len(self.jobs) - 1
