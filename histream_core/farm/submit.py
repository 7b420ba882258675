"""Submits a list of shots: checks every one of them, then makes those that are not finished."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

from ..files.disk import nearest_existing
from ..parallel.workers import NO_RAY, ray_is_there
from ..plan.parts import Parts
from ..runs import RunInUseError
from ..video.space import check_bytes
from .drive import Drive, InProcess, Tell, Turn, Workers
from .lease import LEASE_SECONDS
from .ray_workers import LOCAL, open_workers
from .shots import Shot
from .status import FarmState, look
from .store import Farm, check_place, lock_farm, open_place, read_farm, unchanged, write_farm
from .work import Make, Stopped

MOST_NOTES = 5
"""Most notes on shots that are told before the first one begins."""


@dataclass(frozen=True)
class Needs:
    """Chunks, pixels and bytes of a video that was checked."""

    chunks: int
    pixels: int
    num_bytes: int
    parts: Parts
    """The parts of the video that can be made apart."""
    notes: tuple[str, ...] = ()
    """Sentences about what the weights were not made for."""


class ShotVerbs(Protocol):
    """The verbs that shots are written for: read the options of a shot, check them, and make it."""

    @property
    def make(self) -> Make: ...

    def resolved(self, shot: Shot) -> Shot:
        """The shot with names as in the code, and with files by absolute paths. Raises ValueError."""
        ...

    def check(self, shot: Shot, folder: Path, *, begun: bool) -> Needs:
        """Check a shot before its weights are loaded, with a run in `folder` that has `begun` already or not."""
        ...


@dataclass(frozen=True)
class Submission:
    """A list of shots, the folder of its farm, and who makes it."""

    shots: Sequence[Shot]
    """Read by `completed`."""
    folder: Path
    workers: int | None = None
    """Shots at a time; None: one for each GPU."""
    address: str | None = None
    """local, auto or HOST:PORT of a Ray; None: local for several workers."""
    lease_seconds: float = LEASE_SECONDS


@dataclass(frozen=True)
class Front:
    """Functions of the program that submits a list."""

    note: Callable[[str], None]
    """Function that is told what to know before the first shot begins."""
    tell: Tell
    begin: Callable[[int], None]
    """Function that is called once all is checked and written, with the number of shots that are made now."""
    turn: Turn = lambda: None
    """Function that is called before each shot is checked, and again before it is looked at for what is finished.

    Then again and again while shots are made, in this process at each call of the network. It raises `Stopped` to stop
    them all.
    """


def completed(verbs: ShotVerbs, shots: Iterable[Shot], defaults: Mapping[str, Any] | None = None) -> list[Shot]:
    """Shots with the defaults, and with files by absolute paths. Raises ValueError and OSError that name the shot."""
    found = []
    for shot in shots:
        with placed(shot.place):
            resolved = verbs.resolved(shot)
            found.append(replace(resolved, options=dict(defaults or {}) | dict(resolved.options)))
    return found


def submit(verbs: ShotVerbs, order: Submission, front: Front) -> tuple[Farm, FarmState]:
    """Check every shot of a list, then make those that are not finished; the farm and its state at the end.

    Raises ValueError and OSError before anything is made, and `Stopped` after a stop.
    """
    workers, address = _checked_workers(order)
    folder, shots = order.folder.absolute(), order.shots
    check_place(folder)
    needs = [_check(verbs, shot, folder) for shot in _in_turns(shots, front.turn)]
    check_bytes(nearest_existing(folder), sum(need.num_bytes for need in needs), f"the {len(shots)} shots")
    work = tuple((need.chunks, need.pixels) for need in needs)
    parts = {shot.name: need.parts for shot, need in zip(shots, needs, strict=True)}
    farm = Farm(folder, tuple(shots), work, order.lease_seconds, parts)
    open_place(folder)
    held = lock_farm(folder)
    try:
        left = _merge(farm)
        write_farm(farm)
        todo = [shot.name for shot in _in_turns(shots, front.turn) if not _is_finished(farm, shot.name)]
        for note in (*left, *_plans(farm, todo), *_notes(shots, needs, {*todo})):
            front.note(note)
        if todo:
            front.begin(len(todo))
            with _workers(farm, verbs.make, workers, address, front) as places:
                Drive(farm, places, front.tell, front.turn).run(todo)
    except KeyboardInterrupt as stop:
        raise Stopped(look(farm).summary()) from stop
    finally:
        held.release()
    return farm, look(farm)


@contextmanager
def placed(place: str) -> Iterator[None]:
    """Put the place of a shot in front of an error."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"{place}: {error}") from error
    except OSError as error:
        raise OSError(f"{place}: {error}") from error


def _checked_workers(order: Submission) -> tuple[int | None, str | None]:
    """How many workers, and the address of their Ray; none for this process. Raises ValueError."""
    import torch

    workers, address, ray = order.workers, order.address, ray_is_there()
    if workers is not None and workers < 1:
        raise ValueError(f"{workers} workers make nothing: use 1 or more")
    if order.lease_seconds < 1:
        raise ValueError(f"a lease of {order.lease_seconds:g} seconds is too short to be renewed: use 5 or more")
    if workers is None and address is None:
        workers = max(1, torch.cuda.device_count()) if ray else 1
    if address is None and (workers or 1) > 1:
        address = LOCAL
    host, _, port = (address or "").rpartition(":")
    if address not in (None, LOCAL, "auto") and not (host and port.isdecimal()):
        raise ValueError(f"{address!r} is no address of a Ray: write auto, local or HOST:PORT, such as 10.0.0.1:6379")
    if address and not ray:
        raise ValueError(
            f"Ray is not installed, and without it there is one worker: {NO_RAY}, or ask for one worker and no address"
        )
    return workers, address


def _in_turns(shots: Sequence[Shot], turn: Turn) -> Iterator[Shot]:
    """The shots, with a turn before each: what is done with one reads all of its files."""
    for shot in shots:
        turn()
        yield shot


def _check(verbs: ShotVerbs, shot: Shot, folder: Path) -> Needs:
    farm = Farm(folder, (), ())
    with placed(shot.place):
        return verbs.check(shot, farm.run_of(shot.name), begun=farm.has_run(shot.name))


def _merge(farm: Farm) -> list[str]:
    """Check that the list goes on with what the folder holds, and return notes. Raises ValueError."""
    try:
        old = read_farm(farm.folder)
    except FileNotFoundError:
        return []
    unchanged(old.shots, farm.shots, [shot.name for shot in old.shots if old.is_begun(shot.name)])
    gone = {shot.name for shot in old.shots if old.is_begun(shot.name)} - {shot.name for shot in farm.shots}
    return [f"{', '.join(sorted(gone))}: no more in the list, and left as they are"] if gone else []


def _is_finished(farm: Farm, name: str) -> bool:
    """Whether nothing is left to do for a shot; one that is damaged says so when it is tried."""
    try:
        return farm.is_finished(name)
    except (RunInUseError, ValueError):
        return False


def _plans(farm: Farm, todo: Sequence[str]) -> Iterator[str]:
    done = len(farm.shots) - len(todo)
    if done:
        yield f"{done} of {len(farm.shots)} shots are finished already"


def _notes(shots: Sequence[Shot], needs: Sequence[Needs], todo: Collection[str]) -> Iterator[str]:
    """The notes on shots that are made now, each once, with the first place of it; few where there are many."""
    places: dict[str, list[str]] = {}
    for shot, need in zip(shots, needs, strict=True):
        for note in need.notes if shot.name in todo else ():
            places.setdefault(note, []).append(shot.place)
    for note, found in islice(places.items(), MOST_NOTES):
        yield f"{found[0]}{f' and {len(found) - 1} more' if len(found) > 1 else ''}: {note}"
    if len(places) > MOST_NOTES:
        yield f"there are {len(places) - MOST_NOTES} more notes on other shots"


@contextmanager
def _workers(farm: Farm, make: Make, workers: int | None, address: str | None, front: Front) -> Iterator[Workers]:
    """The workers that were asked for, which are told."""
    if address is None:
        why = "" if ray_is_there() else f"; Ray is not installed, several need it: {NO_RAY}"
        front.note(f"one shot after the other, in this process{why}")
        yield InProcess(farm.folder, make, front.turn)
        return
    with open_workers(farm.folder, make, address=address, workers=workers) as places:
        front.note(f"{places.size} shots at a time, by Ray ({address})")
        yield places
