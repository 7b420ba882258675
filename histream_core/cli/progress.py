"""Progress and notes on standard error: one line that tqdm redraws on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TextIO, TypeVar

from ..files.reading import printable
from ..runs.progress import Progress, Report

BAR = "{desc}[{bar:24}] {percentage:3.0f}%{postfix}, {elapsed}"

Item = TypeVar("Item")


@contextmanager
def progress_bar(label: str = "", stream: TextIO | None = None) -> Iterator[Report]:
    """Yield a report that shows the progress of a run: a bar on a terminal, elsewhere a line per finished chunk."""
    from tqdm import tqdm

    out = stream or sys.stderr
    if not out.isatty():
        yield _line_per_chunk(label, out)
        return
    bar: tqdm | None = None
    last = ""

    def draw(progress: Progress) -> None:
        nonlocal bar, last
        last = _describe(progress)
        where = ", ".join(filter(None, (last, progress.describe_left())))
        if bar is None:  # at the first report, so that an error before it stands alone
            look = {"bar_format": BAR, "dynamic_ncols": True, "smoothing": 0, "miniters": 0}
            bar = tqdm(desc=label, total=progress.num_calls, postfix=where, file=out, **look)
        bar.set_postfix_str(where, refresh=False)
        bar.update(min(sum(progress.calls.values()), progress.num_calls) - bar.n)

    try:
        yield draw
    finally:
        if bar is not None:
            bar.set_postfix_str(last, refresh=False)  # nothing is left, or it was stopped
            bar.close()


def _line_per_chunk(label: str, out: TextIO) -> Report:
    written = 0

    def write(progress: Progress) -> None:
        nonlocal written
        if progress.chunks > written:
            written = progress.chunks
            share = min(1.0, sum(progress.calls.values()) / progress.num_calls) if progress.num_calls else 1.0
            parts = f"{share:4.0%}", _describe(progress), f"{progress.seconds:.0f} s", progress.describe_left()
            out.write(f"{label}{', '.join(filter(None, parts))}\n")
            out.flush()

    return write


def _describe(progress: Progress) -> str:
    chunk = min(progress.chunks + 1, progress.num_chunks)
    return f"chunk {chunk}/{progress.num_chunks}, {progress.frames}/{progress.num_frames} frames"


def print_notes(notes: Iterable[str]) -> None:
    """Print notes for the user, one per line. Call it after all checks, so that an error is printed alone."""
    for text in notes:
        sys.stderr.write(f"note: {' '.join(printable(text).split())}\n")


def follow(items: Iterable[Item], label: str, stream: TextIO | None = None) -> Iterable[Item]:
    """Pass items through; on a terminal show the number of items so far."""
    from tqdm import tqdm

    out = stream or sys.stderr
    return tqdm(items, desc=printable(label), file=out, disable=not out.isatty(), bar_format="{desc}{n_fmt} frames")
