"""A simulator of workers that do one job at a time, each job after those that it needs: when each is finished."""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from typing import NamedTuple


class Job(NamedTuple):
    """A piece of work."""

    worker: int
    seconds: float
    after: tuple[tuple[int, float], ...] = ()
    """The jobs whose results it needs, by their index, and the seconds that each result travels."""


def finish_times(jobs: Sequence[Job]) -> list[float]:
    """The seconds at which each job is finished; of those that it can begin, a worker does the first listed first.

    Raises ValueError for jobs that wait for each other.
    """
    return _Simulation(jobs).run()


class _Simulation:
    def __init__(self, jobs: Sequence[Job]):
        self.jobs = jobs
        self.missing = [len(job.after) for job in jobs]
        self.arrived = [0.0] * len(jobs)
        """When the last result that a job needs was there."""
        self.followers: list[list[tuple[int, float]]] = [[] for _ in jobs]
        for index, job in enumerate(jobs):
            for before, travels in job.after:
                self.followers[before].append((index, travels))
        self.finished: dict[int, float] = {}
        self.ready: dict[int, list[int]] = {job.worker: [] for job in jobs}
        self.busy: set[int] = set()
        self.events = [(0.0, index, False) for index, count in enumerate(self.missing) if not count]
        """The time, the job, and whether it ends then; else it can begin."""

    def run(self) -> list[float]:
        heapq.heapify(self.events)
        while self.events:
            now, touched = self.events[0][0], set()
            while self.events and self.events[0][0] == now:
                _, index, ends = heapq.heappop(self.events)
                touched.add(self.jobs[index].worker)
                if ends:
                    self._end(index, now)
                else:
                    heapq.heappush(self.ready[self.jobs[index].worker], index)
            for worker in sorted(touched - self.busy):
                self._begin_next(worker, now)
        if len(self.finished) < len(self.jobs):
            raise ValueError("these jobs wait for each other: none of them can begin")
        return [self.finished[index] for index in range(len(self.jobs))]

    def _end(self, index: int, now: float) -> None:
        self.finished[index] = now
        self.busy.discard(self.jobs[index].worker)
        for follower, travels in self.followers[index]:
            self.missing[follower] -= 1
            self.arrived[follower] = max(self.arrived[follower], now + travels)
            if not self.missing[follower]:
                heapq.heappush(self.events, (self.arrived[follower], follower, False))

    def _begin_next(self, worker: int, now: float) -> None:
        if self.ready[worker]:
            index = heapq.heappop(self.ready[worker])
            self.busy.add(worker)
            heapq.heappush(self.events, (now + self.jobs[index].seconds, index, True))
