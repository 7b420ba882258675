"""The order of the sheet, the seconds of each section, and the processes that the sections run in.

A kernel that faults takes the CUDA context of its process along, and one that hangs never returns. So sections run in
processes that are ended when their time is over, and the sheet goes on in another one.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import time
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.connection import Connection
from typing import NamedTuple, Protocol

from . import sheet_network, sheet_parts
from .sheet import FAILED, Row, Setup, guarded, real_setup, tiny_setup


class Section(NamedTuple):
    """Rows that are measured together."""

    rows: Callable[[Setup], Iterator[Row]]
    seconds: int
    """Time for them; what earlier sections left of theirs is added."""
    apart: bool = False
    """Whether a process is begun for it, and another one after it: its kernels may fault."""

    @property
    def name(self) -> str:
        return self.rows.__name__


SECTIONS = (
    Section(sheet_parts.machine, 15),
    Section(sheet_parts.ceilings, 10),
    Section(sheet_parts.attention, 25),
    Section(sheet_network.passes, 75),
    Section(sheet_network.with_taehv, 30),
    Section(sheet_network.with_vae, 35),
    Section(sheet_parts.decoding, 15),
    Section(sheet_network.last_step, 25),
    Section(sheet_network.full_history, 20),
    Section(sheet_network.fp8_passes, 35, apart=True),
    Section(sheet_parts.packaged_attention, 25, apart=True),
    Section(sheet_network.graphed_passes, 20, apart=True),
    Section(sheet_network.smaller, 20),
    Section(sheet_parts.small_parts, 10),
)
"""Most valuable first: whatever ends a session on a GPU, the rows before it are there. Six minutes together."""

TINY_PATIENCE = 10
"""How many times the seconds a section has on a CPU, which may be slow: at tiny sizes it is to run, not to be fast."""


class Worker(Protocol):
    """A process that measures sections, one at a time."""

    def begin(self, section: int) -> None:
        """Ask for the rows of a section, by its place among SECTIONS."""
        ...

    def next(self, seconds: float) -> Row | None:
        """The next row; None behind the last one. Raises TimeoutError, and EOFError where the process has ended."""
        ...

    def end(self) -> None:
        """End the process, whatever it does."""
        ...


def sheet_rows(*, tiny: bool) -> Iterator[Row]:
    """Every row, as soon as it is measured. Raises ValueError where there is no GPU for it."""
    if not tiny:
        real_setup()
    patience = TINY_PATIENCE if tiny else 1
    sections = [section._replace(seconds=patience * section.seconds) for section in SECTIONS]
    return run_sheet(sections, lambda: Process(tiny=tiny))


def run_sheet(
    sections: Sequence[Section], open_worker: Callable[[], Worker], clock: Callable[[], float] = time.monotonic
) -> Iterator[Row]:
    """The rows of all sections; one that is stopped or ends its process has a row that says so."""
    worker, start, seconds = None, clock(), 0
    try:
        for place, section in enumerate(sections):
            seconds += section.seconds
            if worker is None or section.apart:
                _end(worker)
                worker = open_worker()
            failure = yield from _section(worker, place, lambda seconds=seconds: start + seconds - clock())
            if failure:
                yield Row(section.name, None, note=f"{FAILED}: {failure}")
            if failure or section.apart:
                _end(worker)
                worker = None
    finally:
        _end(worker)


def _section(worker: Worker, place: int, left: Callable[[], float]) -> Iterator[Row]:
    """The rows of a section; returns why it ended early, or nothing."""
    try:
        worker.begin(place)
        while (row := worker.next(max(0.0, left()))) is not None:
            yield row
    except TimeoutError:
        return "stopped, as its time was over"
    except (EOFError, OSError):
        return "its process ended"
    return ""


def _end(worker: Worker | None) -> None:
    if worker is not None:
        worker.end()


class Process:
    """A `Worker` in a process of its own, with an interpreter of its own, as CUDA needs it."""

    def __init__(self, *, tiny: bool) -> None:
        context = multiprocessing.get_context("spawn")
        self._rows, theirs = context.Pipe()
        self._process = context.Process(target=serve, args=(theirs,), kwargs={"tiny": tiny}, daemon=True)
        self._process.start()
        theirs.close()  # the end of the process is then the end of the pipe

    def begin(self, section: int) -> None:
        self._rows.send(section)

    def next(self, seconds: float) -> Row | None:
        if not self._rows.poll(seconds):
            raise TimeoutError
        return self._rows.recv()

    def end(self) -> None:
        self._process.kill()
        self._process.join()
        self._rows.close()


def serve(asked: Connection, *, tiny: bool) -> None:
    """Send the rows of each section that is asked for, until nobody asks any more."""
    setup = tiny_setup() if tiny else real_setup()
    with contextlib.suppress(EOFError, BrokenPipeError, KeyboardInterrupt):
        while True:
            for row in guarded(SECTIONS[asked.recv()].rows, setup):
                asked.send(row)
            if not is_usable(setup):
                os._exit(1)  # ordinary ways to end would use the device
            asked.send(None)


def is_usable(setup: Setup) -> bool:
    """Whether the device still answers; after a fault of a kernel it never does in that process."""
    try:
        setup.wait()
        setup.forget()
    except RuntimeError:
        return False
    return True
