"""Work of one worker at a shot or a part of one: takes its lease, lets its run be made, and writes down each chunk."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from ..runs import Journal, RunInUseError, resume
from ..runs.make import Watch
from ..runs.progress import Progress, Report
from .lease import HeldError, Lease, this_worker
from .shots import Shot
from .store import BEGUN, CHUNK, ENDED, Farm, hash_video, read_farm, shot_of

FINISHED, MADE, STOPPED, FAILED, HELD, LOST, GONE = "finished", "made", "stopped", "failed", "held", "lost", "died"
"""How the work at a task ends: a shot is made; a part is made; cancelled; in an error; not begun, as another worker has
it; taken over by another worker; with the worker's death.
"""

Make = Callable[[Shot, Path, Watch, range | None], None]
"""Function that makes the run of a shot in a folder, or resumes it, to its end, under the eyes of a `Watch`; with a
range only those chunks of it, and no video."""

PERIOD = 1.0
"""Seconds between two looks at the time left."""


@dataclass(frozen=True)
class Outcome:
    """The end of the work at a shot."""

    state: str
    why: str = ""
    made: int = 0
    """Chunks that were denoised now."""
    video: str = ""
    """The hash of a finished video."""


class Stopped(KeyboardInterrupt):
    """Raised at a network call to stop a run, which keeps what is finished."""


class Watcher:
    """Watches the run of a shot: counts and logs new chunks, and stops it when it is cancelled or its lease is lost."""

    def __init__(self, farm: Farm, name: str, lease: Lease) -> None:
        self._farm, self._name, self._lease = farm, name, lease
        self.made, self.stop = 0, ""
        self._looked = self._since = 0.0

    @contextmanager
    def watch(self, journal: Journal) -> Iterator[Report]:
        """Watch a run from now on."""
        seen, chunks = journal.finished, journal.manifest.num_chunks
        self._farm.note(self._name, BEGUN, term=self._lease.term, by=this_worker(), kept=seen)
        self._since = time.monotonic()

        def report(progress: Progress) -> None:
            nonlocal seen
            while seen < journal.finished:
                self._count(seen)
                seen += 1
            self._show(progress, seen, chunks)
            if self._farm.is_cancelled():
                self.stop = STOPPED
            elif self._lease.is_lost:
                self.stop = LOST
            if self.stop:
                raise Stopped

        yield report

    def _count(self, chunk: int) -> None:
        now = time.monotonic()
        seconds = round(now - self._since, 3)
        self._farm.note(self._name, CHUNK, term=self._lease.term, chunk=chunk, seconds=seconds)
        self._since = now
        self.made += 1

    def _show(self, progress: Progress, done: int, chunks: int) -> None:
        """Let the lease say where the run stands."""
        now = time.monotonic()
        if now - self._looked >= PERIOD:
            self._looked = now
            self._lease.about = {"chunk": done, "chunks": chunks, "left": progress.pace.seconds_left}


def work(folder: Path, name: str, make: Make) -> Outcome:
    """Make a shot or part of the farm in `folder`, unless another worker holds it; the outcome says what goes wrong."""
    try:
        farm = read_farm(folder)
        lease = Lease(farm.leases, name, farm.lease_seconds)
    except HeldError as error:
        return Outcome(HELD, str(error))
    except (OSError, ValueError) as error:
        return Outcome(FAILED, f"{error} (on {this_worker()}; all computers must see the farm under the same name)")
    with lease:
        watcher = Watcher(farm, name, lease)
        outcome = Outcome(STOPPED)
        try:
            outcome = _made(farm, name, make, watcher)
        finally:  # Ctrl-C too
            about = {"video": outcome.video} if outcome.video else {}
            farm.note(name, ENDED, term=lease.term, state=outcome.state, why=outcome.why, made=watcher.made, **about)
    return outcome


def _made(farm: Farm, name: str, make: Make, watcher: Watcher) -> Outcome:
    """Make a shot that this worker holds."""
    if farm.is_cancelled():
        return Outcome(STOPPED)
    try:
        chunks = farm.chunks_of(name)
        if chunks is None:
            farm.join(name)
        make(farm.shot(shot_of(name)), farm.run_of(name), watcher.watch, chunks)
        if chunks:
            return Outcome(MADE, made=watcher.made)
        with resume(farm.run_of(name)) as journal:
            video = hash_video(journal)
    except KeyboardInterrupt:
        if not watcher.stop:
            raise
        return Outcome(watcher.stop, made=watcher.made)
    except RunInUseError as error:
        return Outcome(HELD, str(error), watcher.made)
    except (ValueError, OSError, MemoryError) as error:
        return Outcome(FAILED, str(error), watcher.made)
    except Exception as error:  # one shot that goes wrong, however it does, is no reason to lose a night of others
        return Outcome(FAILED, f"{type(error).__name__}: {error}", watcher.made)
    return Outcome(FINISHED, made=watcher.made, video=video)
