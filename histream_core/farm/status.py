"""States of the shots of a farm, read from its files alone, and the time that is left."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ..cost.pace import duration
from ..files.reading import printable
from ..runs.store.listing import list_runs
from .lease import lease_of
from .store import BEGUN, CHUNK, ENDED, Farm
from .work import FAILED, FINISHED

RUNNING, BEGAN, WAITING = "running", "stopped", "waiting"

MOST_SECONDS = 1e9

ORDER = (FINISHED, RUNNING, BEGAN, WAITING, FAILED)
"""The states in the order in which they are told."""


@dataclass(frozen=True)
class ShotState:
    """The state of one shot."""

    name: str
    state: str
    """One of ORDER."""
    chunks: int
    """Finished chunks."""
    num_chunks: int
    attempts: int
    """How often a worker has begun or resumed it."""
    made: int
    """Chunks that all attempts have denoised together."""
    by: str = ""
    """Its worker, while it is running."""
    why: str = ""
    """The error of a shot that has failed."""
    left: float | None = None
    """Predicted seconds that a running shot still takes; None where that is not known."""

    def line(self, width: int) -> str:
        """One line of the table, whose names are `width` wide."""
        parts = [f"{self.chunks} of {self.num_chunks} chunks"]
        parts += [f"by {self.by}"] if self.by else []
        parts += [f"about {duration(self.left)} left"] if self.left else []
        told = f"{', '.join(parts)}{': ' if self.why else ''}{self.why}"
        return printable(" ".join(f"{self.name:{width}}  {self.state:8}  {told}".splitlines()))


@dataclass(frozen=True)
class FarmState:
    """The state of a farm."""

    shots: tuple[ShotState, ...]
    left: float | None
    """Predicted seconds until all are finished; None where that is not known."""
    cancelled: bool

    def count(self) -> Counter[str]:
        return Counter(shot.state for shot in self.shots)

    def summary(self) -> str:
        """One sentence about all shots."""
        found = self.count()
        parts = [f"{found[state]} {state}" for state in ORDER if found[state]]
        told = f"{len(self.shots)} shots: {', '.join(parts)}"
        told += f"; about {duration(self.left)} left" if self.left else ""
        over = len(self.shots) == found[FINISHED] + found[FAILED]
        return f"{told}; cancelled, submit the list again to go on" if self.cancelled and not over else told

    def table(self) -> str:
        """A line for each shot, and one for all."""
        width = max(len(shot.name) for shot in self.shots)
        return "\n".join([*(shot.line(width) for shot in self.shots), self.summary()])


def look(farm: Farm) -> FarmState:
    """The state of a farm. Raises OSError and ValueError for a log that cannot be read."""
    logs = {shot.name: farm.events(shot.name) for shot in farm.shots}
    shots = [
        _state_of(farm, shot.name, num_chunks, logs[shot.name])
        for shot, (num_chunks, _) in zip(farm.shots, farm.work, strict=True)
    ]
    return FarmState(tuple(shots), _seconds_left(farm, shots, logs), farm.is_cancelled())


def _state_of(farm: Farm, name: str, num_chunks: int, log: Sequence[dict[str, Any]]) -> ShotState:
    lease = lease_of(farm.leases, name, farm.lease_seconds)
    runs = list_runs(farm.run_of(name)) if farm.is_begun(name) else []
    chunks = runs[0].chunks if runs else 0
    ends = [event for event in log if event["event"] in (ENDED, BEGUN)]
    failed = bool(ends) and ends[-1].get("state") == FAILED
    state, by, why, left = WAITING, "", "", None
    if lease.is_live:
        state, by, left = RUNNING, lease.by, _seconds(lease.about.get("left")) or None
    elif runs and runs[0].state == FINISHED:
        state = FINISHED
    elif failed or (runs and runs[0].problem):
        state, why = FAILED, str(ends[-1].get("why", "")) if failed else runs[0].problem
    elif chunks:
        state = BEGAN
    attempts, made = (sum(event["event"] == kind for event in log) for kind in (BEGUN, CHUNK))
    return ShotState(name, state, chunks, num_chunks, attempts, made, by, why, left)


def _seconds_left(farm: Farm, shots: Sequence[ShotState], logs: dict[str, list[dict[str, Any]]]) -> float | None:
    """Predict the time from the seconds that a pixel took so far, shared among the workers that are at work now.

    It is no less than what a running shot still takes.
    """
    seconds = pixels = left = 0.0
    for state, (num_chunks, num_pixels) in zip(shots, farm.work, strict=True):
        times = [_seconds(event.get("seconds")) for event in logs[state.name] if event["event"] == CHUNK]
        seconds, pixels = seconds + sum(times), pixels + num_pixels * len(times) / num_chunks
        if state.state not in (FINISHED, FAILED):
            left += num_pixels * (1 - min(state.chunks, num_chunks) / num_chunks)
    workers = sum(state.state == RUNNING for state in shots)
    if not pixels or not workers:
        return None
    return max(left * seconds / pixels / workers, *(state.left or 0.0 for state in shots))


def _seconds(value: Any) -> float:
    """A number of seconds from a file; 0 for anything else."""
    return float(value) if isinstance(value, (int, float)) and 0 <= value <= MOST_SECONDS else 0.0
