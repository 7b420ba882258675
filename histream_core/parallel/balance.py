"""The split of a transformer's layers over the ranks of a pipeline, from measured seconds: pure values.

The slowest rank decides the rate of a pipeline, so the best split makes the slowest one as fast as it can be.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import accumulate
from typing import NamedTuple

Split = tuple[range, ...]
"""The layers of each rank: ranges behind one another that together are all layers."""

LEAST_GAIN = 0.03
"""A new split makes the slowest rank faster by more than this share."""

PAYS_WITHIN = 8
"""Chunks within which a new split saves more seconds than moving the caches takes."""

SMOOTHING = 0.5
"""Weight of the newest measurement in the mean that follows a rank."""


class Move(NamedTuple):
    """A layer that another rank takes over, with its keys and values."""

    layer: int
    source: int
    target: int


def even_split(num_blocks: int, num_ranks: int) -> Split:
    """The split in which all ranks have as many layers, the first ones one more where it does not come out even."""
    each, more = divmod(num_blocks, num_ranks)
    return split_of([each + (rank < more) for rank in range(num_ranks)])


def split_of(counts: Sequence[int]) -> Split:
    """The split in which the ranks have so many layers each."""
    stops = list(accumulate(counts))
    return tuple(range(stop - count, stop) for stop, count in zip(stops, counts, strict=True))


def bounds_of(split: Split) -> tuple[int, ...]:
    """The first layer of each rank, and the number of layers."""
    return (*(layers.start for layers in split), split[-1].stop)


def slowest(split: Split, blocks: Sequence[float], speeds: Sequence[float], extra: Sequence[float]) -> float:
    """The seconds of the slowest rank; its layers take `blocks` / its speed, and all else that it does `extra`."""
    return max(extra[rank] + sum(blocks[layer] for layer in layers) / speeds[rank] for rank, layers in enumerate(split))


def best_split(blocks: Sequence[float], speeds: Sequence[float], extra: Sequence[float]) -> Split:
    """The split whose slowest rank is the fastest, by dynamic programming: exact; every rank has a layer at least.

    `blocks` are the seconds of each layer on a rank of speed 1, `extra` the seconds that each rank works besides, such
    as the VAE's on the first and the last one. Raises ValueError for more ranks than layers.
    """
    num_blocks, num_ranks = len(blocks), len(speeds)
    if not 1 <= num_ranks <= num_blocks:
        raise ValueError(f"{num_blocks} layers do not split over {num_ranks} ranks: use 1 to {num_blocks} ranks")
    done = [0.0, *accumulate(blocks)]
    best: list[float] = [0.0, *[float("inf")] * num_blocks]
    chosen: list[list[int]] = []
    for rank in range(num_ranks):
        least, most = rank + 1, num_blocks - (num_ranks - 1 - rank)
        found, begins = [float("inf")] * (num_blocks + 1), [0] * (num_blocks + 1)
        for stop in range(least, most + 1):
            for start in range(rank, stop):
                seconds = max(best[start], extra[rank] + (done[stop] - done[start]) / speeds[rank])
                if seconds < found[stop]:
                    found[stop], begins[stop] = seconds, start
        best = found
        chosen.append(begins)
    stop, split = num_blocks, []
    for begins in reversed(chosen):
        split.append(range(begins[stop], stop))
        stop = begins[stop]
    return tuple(reversed(split))


def moves(before: Split, after: Split) -> Iterator[Move]:
    """The layers that another rank has after than before."""
    sources, targets = (
        {layer: rank for rank, layers in enumerate(split) for layer in layers} for split in (before, after)
    )
    yield from (Move(layer, sources[layer], targets[layer]) for layer in sources if sources[layer] != targets[layer])


class Balancer:
    """Keeps the ranks of a pipeline equally busy from what they measure: `measure` after each chunk, then `split`.

    It begins with the even split. Another one is taken where the slowest rank becomes faster by more than LEAST_GAIN,
    and where that saves more within PAYS_WITHIN chunks than moving the caches of the layers takes.
    """

    def __init__(self, num_blocks: int, num_ranks: int, *, move_seconds: float = 0.0):
        """`move_seconds`: those that moving one layer's keys and values takes."""
        self._split = even_split(num_blocks, num_ranks)
        self._num_blocks, self.move_seconds = num_blocks, move_seconds
        self._per_block: list[float | None] = [None] * num_ranks
        self._extra = [0.0] * num_ranks
        self._has_extra = [False] * num_ranks

    def measure(self, rank: int, seconds: float, blocks: int) -> None:
        """Note that a rank took so many seconds for all steps of a chunk in its `blocks` layers."""
        if blocks > 0 and seconds > 0:
            self._per_block[rank] = _mean(self._per_block[rank], seconds / blocks)

    def measure_extra(self, rank: int, seconds: float) -> None:
        """Note that a rank took so many seconds for a chunk besides its layers: to encode, to decode."""
        self._extra[rank] = _mean(self._extra[rank] if self._has_extra[rank] else None, max(0.0, seconds))
        self._has_extra[rank] = True

    def split(self) -> Split:
        """The layers of each rank from now on; all stay where they are until every rank has measured something."""
        per_block = [seconds for seconds in self._per_block if seconds is not None]
        if len(per_block) < len(self._per_block):
            return self._split
        costs = [1.0] * self._num_blocks, [1 / seconds for seconds in per_block], self._extra
        found = best_split(*costs)
        now, then = slowest(self._split, *costs), slowest(found, *costs)
        moving = self.move_seconds * sum(1 for _ in moves(self._split, found))
        if now - then > LEAST_GAIN * now and PAYS_WITHIN * (now - then) > moving:
            self._split = found
        return self._split


def _mean(before: float | None, newest: float) -> float:
    """The mean that follows what is measured."""
    return newest if before is None else before + SMOOTHING * (newest - before)
