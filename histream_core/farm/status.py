"""States of the shots of a farm, read from its files alone, and the time that is left."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ..cost.pace import duration
from ..files.reading import printable
from ..plan.parts import ONE_SCENE
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
    workers: int = 0
    """How many are at it."""
    parts: int = 1
    """Number of parts that it is made in now."""
    why_one: str = ""
    """Why it cannot be made in several parts."""

    @property
    def _has_scenes(self) -> bool:
        """Whether it has scenes that depend on one another."""
        return self.why_one not in ("", ONE_SCENE)

    def line(self, width: int) -> str:
        """One line of the table, whose names are `width` wide."""
        parts = [f"{self.chunks} of {self.num_chunks} chunks"]
        parts += [f"in {self.parts} parts"] if self.parts > 1 else []
        parts += [f"by {self.by}"] if self.by else []
        parts += [f"by one worker, because {self.why_one}"] if self._has_scenes and self.state != FINISHED else []
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
    logs = {shot.name: _logs_of(farm, shot.name) for shot in farm.shots}
    shots = [
        _state_of(farm, shot.name, num_chunks, logs[shot.name])
        for shot, (num_chunks, _) in zip(farm.shots, farm.work, strict=True)
    ]
    return FarmState(tuple(shots), _seconds_left(farm, shots, logs), farm.is_cancelled())


Logs = dict[str, list[dict[str, Any]]]
"""The events of each task of a shot."""


def _logs_of(farm: Farm, name: str) -> Logs:
    """The events of a shot and of its parts."""
    return {task: farm.events(task) for task in (name, *farm.parts_of(name))}


def _state_of(farm: Farm, name: str, num_chunks: int, logs: Logs) -> ShotState:
    leases = [lease for task in logs if (lease := lease_of(farm.leases, task, farm.lease_seconds)).is_live]
    parts = farm.parts_of(name) if farm.is_split(name) else []
    runs = [run for task in parts or [name] if farm.has_run(task) for run in list_runs(farm.run_of(task))[:1]]
    chunks = sum(run.chunks for run in runs)
    in_use = [log for task, log in logs.items() if task == name or task in parts]
    problems = [*filter(None, map(_failure, in_use)), *(run.problem for run in runs if run.problem)]
    state = WAITING
    if leases:
        state = RUNNING
    elif runs and not parts and runs[0].state == FINISHED:
        state = FINISHED
    elif problems:
        state = FAILED
    elif chunks:
        state = BEGAN
    attempts, made = (sum(event["event"] == kind for log in logs.values() for event in log) for kind in (BEGUN, CHUNK))
    return ShotState(
        name,
        state,
        chunks,
        num_chunks,
        attempts,
        made,
        by=" and ".join(lease.by for lease in leases),
        why=problems[0] if state == FAILED else "",
        left=max((_seconds(lease.about.get("left")) for lease in leases), default=0.0) or None,
        workers=len(leases),
        parts=len(parts) or 1,
        why_one=farm.parts[name].why_one if name in farm.parts else "",
    )


def _failure(log: Sequence[dict[str, Any]]) -> str:
    """Why the last attempt at a task failed; empty if it did not."""
    ends = [event for event in log if event["event"] in (ENDED, BEGUN)]
    return str(ends[-1].get("why") or FAILED) if ends and ends[-1].get("state") == FAILED else ""


def _seconds_left(farm: Farm, shots: Sequence[ShotState], logs: dict[str, Logs]) -> float | None:
    """Predict the time from the seconds that a pixel took so far, shared among the workers that are at work now.

    It is no less than what a running shot still takes.
    """
    seconds = pixels = left = 0.0
    for state, (num_chunks, num_pixels) in zip(shots, farm.work, strict=True):
        events = (event for log in logs[state.name].values() for event in log)
        times = [_seconds(event.get("seconds")) for event in events if event["event"] == CHUNK]
        seconds, pixels = seconds + sum(times), pixels + num_pixels * len(times) / num_chunks
        if state.state not in (FINISHED, FAILED):
            left += num_pixels * (1 - min(state.chunks, num_chunks) / num_chunks)
    workers = sum(state.workers for state in shots)
    if not pixels or not workers:
        return None
    return max(left * seconds / pixels / workers, *(state.left or 0.0 for state in shots))


def _seconds(value: Any) -> float:
    """A number of seconds from a file; 0 for anything else."""
    return float(value) if isinstance(value, (int, float)) and 0 <= value <= MOST_SECONDS else 0.0
