"""One case of the attack: what it runs, and the verbs that are run over folders of runs."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from tiny_cli import BLUE

from histream_core import cli
from histream_core.files.reading import printable

from .child import Outcome, Place, Work
from .seeds import Words, stopping

Judge = Callable[[Outcome, Place], Iterator[str]]


def nothing_more(outcome: Outcome, place: Place) -> Iterator[str]:
    """Find no fault besides those that every case can have."""
    yield from ()


@dataclass(frozen=True)
class Case:
    """One hostile input, ready in the scratch folder."""

    what: str
    """The thing that was spoilt and how, and the words or the function that it is given to."""
    work: Work
    judge: Judge = nothing_more
    reads: bool = False
    """Whether a dear file is named by the user, and may be read."""


def says(*lines: Words, stop: int | None = None) -> Work:
    """Work of the command line, one line of words after another; the status of the last one counts."""

    def work() -> int:
        status = 0
        with stopping(stop):
            for words in lines:
                status = cli.main([str(word) for word in words])
        return status

    return work


def calls(function: Callable[[], object]) -> Work:
    """Work of a function that a node calls: its errors are a line, as under a node."""

    def work() -> int:
        try:
            function()
        except (ValueError, OSError, MemoryError) as error:
            sys.stderr.write(f"histream: {printable(' '.join(str(error).split()))}\n")
            return 2
        return 0

    return work


def line_of(words: Words) -> str:
    return " ".join(
        f"{str(word)[:80]!a}" if " " in str(word) or not str(word).isprintable() else str(word)[:80] for word in words
    )


RESUME: Words = ("resume", "run", "--json")
VERBS: tuple[tuple[Words, ...], ...] = (
    (RESUME,),
    (RESUME,),
    (RESUME, RESUME),
    (("extend", "run", "--seconds", "0.5", "--json"),),
    (("branch", "run", "new", "--from", "1", "--json"),),
    (("branch", "run", "new", "--from", "1", "--seed", "9", "--json"),),
    (("branch", "run", "new", "--format", "prores-422hq", "--no-sound", "--no-section-files", "--json"),),
    (("runs",),),
    (("runs", "run"),),
    (("clean", "run"),),
    (("clean", "run", "--video"),),
    (("clean", "run"), ("demo", BLUE, "--seconds", "1", "--seed", "5", "--run-dir", "run", "--json")),
    (("demo", BLUE, "--seconds", "1", "--seed", "5", "--run-dir", "run", "--json"),),
    (
        ("clean", "run"),
        ("demo", BLUE, "--seconds", "2", "--seed", "5", "--format", "png8", "--run-dir", "run", "--json"),
    ),
)
