"""The driver: hands out the shots of a list in their order, and again those whose worker died.

Where there are more workers than shots left, the scenes of a shot are handed out as parts.
"""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from ..runs import Journal
from ..runs.make import Watch
from ..runs.progress import Progress, Report
from .lease import RENEWALS, State, lease_of
from .shots import Shot
from .store import CHUNK, DIED, Farm, is_part, shot_of
from .work import FAILED, GONE, HELD, LOST, MADE, STOPPED, Make, Outcome, work

POLL = 0.5
"""Seconds between two looks at the workers."""

MOST_DEATHS = 3
"""A shot is given up when so many workers have died in it without a new chunk."""

LAST_WAIT = 20.0
"""Seconds that running shots get to stop by themselves after Ctrl-C."""

Tell = Callable[[str, Outcome], None]
"""Function that is told of each shot that ends, or whose worker died."""

Turn = Callable[[], None]
"""Function that is called again and again while shots are made; it may raise KeyboardInterrupt to stop them."""


class Workers(Protocol):
    """Places where shots are made."""

    size: int
    """Number of shots at a time."""

    def start(self, name: str) -> None:
        """Begin with a shot."""
        ...

    def ended(self, seconds: float) -> list[tuple[str, Outcome]]:
        """The shots that have ended; waits for `seconds` at most."""
        ...

    def kill(self, name: str) -> None:
        """End the worker of a shot, whatever it does; the shot ends soon."""
        ...


class InProcess:
    """This process, one shot at a time."""

    size = 1

    def __init__(self, folder: Path, make: Make, turn: Turn = lambda: None) -> None:
        """`turn` is called at each call of the network."""
        self._folder, self._make, self._turn = folder, make, turn
        self._ended: list[tuple[str, Outcome]] = []

    def start(self, name: str) -> None:
        try:
            self._ended.append((name, work(self._folder, name, self._make_in_turns)))
        except KeyboardInterrupt:
            self._ended.append((name, Outcome(STOPPED)))
            raise

    def ended(self, seconds: float) -> list[tuple[str, Outcome]]:
        if not self._ended:
            time.sleep(seconds)
        ended, self._ended = self._ended, []
        return ended

    def kill(self, name: str) -> None:
        """Do nothing: a shot has ended before anybody can ask for it."""

    def _make_in_turns(self, shot: Shot, folder: Path, watch: Watch, part: range | None) -> None:
        @contextmanager
        def watch_in_turns(journal: Journal) -> Iterator[Report]:
            with watch(journal) as note:

                def report(progress: Progress) -> None:
                    note(progress)
                    self._turn()

                yield report

        self._make(shot, folder, watch_in_turns, part)


@dataclass
class Drive:
    """The shots of a list that are not finished, and the workers that they are handed to."""

    farm: Farm
    workers: Workers
    tell: Tell
    turn: Turn = lambda: None
    poll: float = POLL
    _waiting: deque[str] = field(default_factory=deque)
    _running: dict[str, int] = field(default_factory=dict)
    """The shots that are handed out, and the term of the last lease before."""
    _hung: set[str] = field(default_factory=set)
    """Shots whose workers are being killed."""
    _over: dict[str, float] = field(default_factory=dict)
    """Since when the lease of a running shot is over."""
    _later: dict[str, float] = field(default_factory=dict)
    """When a shot that was held is tried again."""
    _deaths: Counter[str] = field(default_factory=Counter)
    _made: dict[str, int] = field(default_factory=dict)
    """Chunks that a shot had when its last worker died."""

    def run(self, names: Sequence[str]) -> dict[str, Outcome]:
        """Make shots in their order until all have ended, or the farm is cancelled; how each of them ended.

        After Ctrl-C the running ones get some seconds to stop.
        """
        self._waiting.extend(names)
        outcomes: dict[str, Outcome] = {}
        try:
            while self._waiting or self._running:
                self.turn()
                cancelled = self.farm.is_cancelled()
                if cancelled and not self._running:
                    break
                if not cancelled:
                    self._start()
                for name, outcome in self.workers.ended(self.poll):
                    self._end(name, outcome, outcomes)
                self._kill_hung()
        except KeyboardInterrupt:
            self.farm.cancel()
            deadline = time.monotonic() + LAST_WAIT
            while self._running and time.monotonic() < deadline:
                for name, _ in self.workers.ended(self.poll):
                    del self._running[name]
            raise
        return {shot_of(name): Outcome(STOPPED) for name in self._waiting} | outcomes

    def _start(self) -> None:
        """Hand out as many shots as there are free workers."""
        while len(self._running) < self.workers.size and (name := self._next()) is not None:
            self._waiting.remove(name)
            if parts := self._parts(name):
                self._waiting.extendleft(reversed(parts))
                continue
            self._running[name] = self._lease(name).term
            self.workers.start(name)

    def _parts(self, name: str) -> list[str]:
        """The parts that a shot is handed out in: those that are left, or all where workers would have nothing to do.

        A part loads the weights anew, which is lost where there are shots enough.
        """
        if is_part(name):
            return []
        if not self.farm.is_split(name):
            left = 1 + sum(not is_part(other) for other in self._waiting)
            free = self.workers.size - len(self._running)
            if self.farm.has_run(name) or free <= left or not self.farm.parts_of(name):
                return []
            self.farm.split(name)
        return self.farm.parts_left(name)

    def _next(self) -> str | None:
        """The first shot that waits and that nobody holds; None if there is none."""
        now = time.monotonic()
        free = (name for name in self._waiting if self._later.get(name, now) <= now)
        return next((name for name in free if not self._lease(name).is_live), None)

    def _lease(self, name: str) -> State:
        return lease_of(self.farm.leases, name, self.farm.lease_seconds)

    def _kill_hung(self) -> None:
        """Kill the workers that run on without a lease: nobody else tells of a process that is stopped."""
        now, seconds = time.monotonic(), self.farm.lease_seconds
        for name, before in self._running.items():
            lease = self._lease(name)
            if lease.term == before or lease.is_live:  # it has not begun, or it gives signs
                self._over.pop(name, None)
                continue
            since = self._over.setdefault(name, now)
            # A sign may come late from a slow disk; one that has let go is about to end.
            patience = seconds / RENEWALS if lease.until else seconds
            if name not in self._hung and now - since >= patience:
                self._hung.add(name)
                self.workers.kill(name)

    def _end(self, name: str, outcome: Outcome, outcomes: dict[str, Outcome]) -> None:
        del self._running[name]
        self._over.pop(name, None)
        if name in self._hung and outcome.state == GONE:
            outcome = Outcome(GONE, f"its worker gave no sign for {self.farm.lease_seconds:g} s, and was killed")
        self._hung.discard(name)
        if outcome.state == GONE:
            self.farm.note(name, DIED, why=outcome.why)
            outcome = self._count_death(name, outcome)
        again = outcome.state in (HELD, LOST, GONE)
        if again and shot_of(name) in outcomes:
            return  # another part of its shot has failed
        if outcome.state in (HELD, LOST):
            self._later[name] = time.monotonic() + self.farm.lease_seconds / 2
        if again:
            self._waiting.appendleft(name)  # it began before all that wait
        elif is_part(name):
            self._end_part(name, outcome, outcomes)
            return
        else:
            outcomes[name] = outcome
        self.tell(name, outcome)

    def _end_part(self, name: str, outcome: Outcome, outcomes: dict[str, Outcome]) -> None:
        """Hand out a shot to be put together when the last of its parts is made; the first that fails ends the shot."""
        shot = shot_of(name)
        others = [other for other in (*self._waiting, *self._running) if shot_of(other) == shot]
        if outcome.state == MADE:
            self.tell(name, outcome)
            if not others and shot not in outcomes:
                self._waiting.appendleft(shot)
        elif shot not in outcomes:
            self._waiting = deque(other for other in self._waiting if other not in others)
            outcomes[shot] = outcome
            self.tell(shot, outcome)

    def _count_death(self, name: str, outcome: Outcome) -> Outcome:
        """Give a shot up in which workers die again and again without a new chunk."""
        made = sum(event["event"] == CHUNK for event in self.farm.events(name))
        self._deaths[name] = 1 + (self._deaths[name] if made == self._made.get(name) else 0)
        self._made[name] = made
        if self._deaths[name] < MOST_DEATHS:
            return outcome
        why = f"{MOST_DEATHS} workers died in it, one after the other, without a new chunk ({outcome.why})"
        return Outcome(FAILED, why)
