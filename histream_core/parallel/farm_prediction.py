"""Predicted seconds of a farm: many videos on many workers, each on one of them, with starts, slow workers and losses.

A worker takes the next video as soon as it is done with one. A video whose worker is lost goes on at its last finished
chunk, at the end of the list.
"""

from __future__ import annotations

import heapq
import random
from collections import deque
from dataclasses import dataclass


@dataclass(frozen=True)
class Farm:
    """Workers and videos; the shares are assumptions, none was measured."""

    workers: int
    videos: int
    video_seconds: float
    """Seconds of one video on a usual worker."""
    chunks: int
    """Chunks of one video: what is lost with a worker is at most one of them."""
    start_seconds: float = 60.0
    """Until a worker has the weights; at most half as much again."""
    spread: float = 0.05
    """Standard deviation of the workers' speeds, as a share."""
    slow: float = 0.02
    """Share of the workers that take twice as long."""
    lost_per_hour: float = 0.01
    """Losses of each worker; another one takes its place, and starts anew."""


@dataclass(frozen=True)
class FarmTimes:
    """The seconds of a farm."""

    seconds: float
    """Until all videos are there."""
    half: float
    """Until half of them are."""
    busy: float
    """Share of the workers' time in which they made videos that were kept."""


def simulate_farm(farm: Farm, seed: int = 0) -> FarmTimes:
    """One night of a farm, drawn by a seed."""
    draw = random.Random(seed)
    waiting = deque([farm.chunks] * farm.videos)
    """Chunks that each waiting video still lacks."""
    free = [(_start(farm, draw), worker) for worker in range(farm.workers)]
    heapq.heapify(free)
    slowness = [_slowness(farm, draw) for _ in range(farm.workers)]
    returned: list[tuple[float, int]] = []
    """When the videos of lost workers wait again, and what they lack."""
    done: list[float] = []
    while len(done) < farm.videos:
        now, worker = heapq.heappop(free)
        while returned and returned[0][0] <= now:
            waiting.append(heapq.heappop(returned)[1])
        if not waiting:
            if returned:  # it waits for the video of a worker that will be lost
                heapq.heappush(free, (returned[0][0], worker))
            continue
        lacking = waiting.popleft()
        chunk = slowness[worker] * farm.video_seconds / farm.chunks
        ends, lost = now + lacking * chunk, now + _life(farm, draw)
        if lost < ends:
            heapq.heappush(returned, (lost, lacking - int((lost - now) / chunk)))
            slowness[worker] = _slowness(farm, draw)
            heapq.heappush(free, (lost + _start(farm, draw), worker))
        else:
            done.append(ends)
            heapq.heappush(free, (ends, worker))
    done.sort()
    made = farm.videos * farm.video_seconds
    return FarmTimes(done[-1], done[(len(done) - 1) // 2], made / (farm.workers * done[-1]))


def _start(farm: Farm, draw: random.Random) -> float:
    return farm.start_seconds * draw.uniform(1, 1.5)


def _slowness(farm: Farm, draw: random.Random) -> float:
    """How many times as long as the usual one a worker takes."""
    usual = max(0.5, draw.gauss(1, farm.spread))
    return 2 * usual if draw.random() < farm.slow else usual


def _life(farm: Farm, draw: random.Random) -> float:
    """Seconds until a worker is lost."""
    return draw.expovariate(farm.lost_per_hour / 3600) if farm.lost_per_hour else float("inf")
