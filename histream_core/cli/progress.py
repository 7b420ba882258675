"""The progress bar, on standard error."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TextIO, TypeVar

from ..runs.render import Progress, Report

WIDTH = 24

Item = TypeVar("Item")


def describe(progress: Progress) -> str:
    """One line that says how far a run is."""
    done = min(1.0, sum(progress.calls.values()) / max(1, progress.num_calls))
    bar = "#" * round(done * WIDTH)
    return (
        f"[{bar:-<{WIDTH}}] {done:4.0%}  chunk {min(progress.chunks + 1, progress.num_chunks)}/{progress.num_chunks}  "
        f"{progress.frames}/{progress.num_frames} frames  {progress.seconds:.0f} s"
    )


@contextmanager
def progress_bar(label: str = "", stream: TextIO | None = None) -> Iterator[Report]:
    """A report that draws over its own line; where that is no terminal, it writes a line for each chunk instead."""
    out = stream or sys.stderr
    live = out.isatty()
    drawn: list[int] = []

    def draw(progress: Progress) -> None:
        if live:
            out.write(f"\r{label}{describe(progress)}\x1b[K")
        elif progress.chunks and progress.chunks not in drawn[-1:]:
            out.write(f"{label}{describe(progress)}\n")
        drawn.append(progress.chunks)
        out.flush()

    try:
        yield draw
    finally:
        if live and drawn:
            out.write("\n")


def tell(notes: Iterable[str]) -> None:
    """Say what the user should know, a line each. Errors stand alone: call this when nothing is refused any more."""
    for text in notes:
        sys.stderr.write(f"note: {text}\n")


def follow(items: Iterable[Item], label: str, stream: TextIO | None = None) -> Iterator[Item]:
    """The same items; how many have come is drawn over one line of a terminal, and nowhere else."""
    out = stream or sys.stderr
    count = 0
    try:
        for count, item in enumerate(items, 1):
            if out.isatty():
                out.write(f"\r{label}{count} frames\x1b[K")
                out.flush()
            yield item
    finally:
        if count and out.isatty():
            out.write("\n")
