"""Leases: which worker holds a shot, and until when; files alone, so that they outlive whoever wrote them.

A lease is a file NAME/TERM.json, and the one with the highest term is in force. Its holder writes it anew before it
ends; one that has ended is taken over by making the file of the next term, which only one process can. So a holder that
comes back late sees a newer term, and stops. No file of the term in force is ever removed: terms only grow. The clocks
of the computers must agree to a few seconds.
"""

from __future__ import annotations

import json
import os
import platform
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from ..files.disk import File, make_folder, write_whole
from ..files.reading import parse_json, read_text

LEASE_SECONDS = 30.0
"""Seconds for which a worker that is not heard of keeps its shot."""

RENEWALS = 4
"""How often a lease is written anew before it would end."""

MAX_LEASE = 65_536
"""Largest size in bytes of a lease."""


class HeldError(OSError):
    """Raised for a shot that another worker holds."""


@dataclass(frozen=True)
class State:
    """The lease in force of a shot."""

    term: int
    until: float
    """When it ends, in seconds since 1970."""
    by: str
    """The computer and process that holds it."""
    about: Mapping[str, Any]
    """Where the holder stands."""

    @property
    def is_live(self) -> bool:
        return time.time() < self.until


NONE = State(0, 0.0, "nobody", {})


def this_worker() -> str:
    """This computer and process in words."""
    return f"{platform.node() or 'this computer'}, process {os.getpid()}"


def lease_of(folder: Path, name: str, seconds: float) -> State:
    """The lease in force of a shot, `NONE` if there never was one; `seconds` is how long an unwritten one counts."""
    terms = _terms(folder, name)
    if not terms:
        return NONE
    path = _path(folder, name, terms[-1])
    try:
        value = parse_json(read_text(path, MAX_LEASE))
        return State(terms[-1], float(value["until"]), str(value["by"]), dict(value["about"]))
    except (OSError, ValueError, KeyError, TypeError):  # made a moment ago, or its maker was killed in that moment
        made = path.lstat().st_mtime if os.path.lexists(path) else time.time()
        return State(terms[-1], made + seconds, "a worker that has just begun", {})


class Lease:
    """A shot that this process holds, renewed by a thread until the `with` block ends.

    `is_lost` tells whether another worker has taken it over, or may have: then nothing more may be made.
    """

    def __init__(self, folder: Path, name: str, seconds: float) -> None:
        """Raises HeldError that says who holds it."""
        state = lease_of(folder, name, seconds)
        if state.is_live:
            raise HeldError(f'"{name}" is held by {state.by}')
        self.term = state.term + 1
        self.about: dict[str, Any] = {}
        """Where this worker stands, written with the next renewal."""
        self._path, self._seconds, self._folder, self._name = _path(folder, name, self.term), seconds, folder, name
        make_folder(folder / name)
        self._until, self._over = time.time() + seconds, threading.Event()
        try:
            file = File(self._path, exclusive=True)
        except FileExistsError:
            raise HeldError(f'"{name}" is held by another worker, which was faster') from None
        try:
            file.write(self._text(self._until))
        finally:
            file.close()
        for term in _terms(folder, name):
            if term < self.term:
                _path(folder, name, term).unlink(missing_ok=True)
        self._thread = threading.Thread(target=self._keep, name=f"lease of {name}", daemon=True)

    @property
    def is_lost(self) -> bool:
        return time.time() > self._until or _terms(self._folder, self._name)[-1:] != [self.term]

    def renew(self) -> None:
        """Hold the shot for longer; a lease that is lost stays so."""
        if not self.is_lost:
            until = time.time() + self._seconds
            write_whole(self._path, self._text(until))
            self._until = until

    def __enter__(self) -> Lease:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self._over.set()
        self._thread.join()
        if not self.is_lost:
            with suppress(OSError):  # it ends by itself
                write_whole(self._path, self._text(0.0))

    def _keep(self) -> None:
        while not self._over.wait(self._seconds / RENEWALS):
            with suppress(OSError):  # a disk that is full for a while; until the lease ends it is tried again
                self.renew()

    def _text(self, until: float) -> bytes:
        return json.dumps({"until": until, "by": this_worker(), "about": self.about}).encode()


def _path(folder: Path, name: str, term: int) -> Path:
    return folder / name / f"{term:06d}.json"


def _terms(folder: Path, name: str) -> list[int]:
    """The terms that have a file, lowest first."""
    if not os.path.lexists(folder / name):
        return []
    stems = (Path(entry).stem for entry in os.listdir(folder / name) if entry.endswith(".json"))
    return sorted(int(stem) for stem in stems if stem.isdecimal())
