"""The table of `histream bench --live --sim --table`: the delay to expect of a live stream, by model, card and steps.

Computed: the product's intake, budget and pacer on a virtual clock, and costs fitted to published frame rates.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace

from ...live.budget import CHUNKS, Choice, Target
from .live import numbers_of
from .live_sim import Scene, SimulatedStream
from .published import PUBLISHED, Published

CAMERAS = 16, 30
"""Frames per second of the source."""

STEPS = 1, 2, 4

SECONDS = 120.0
"""Length of each stream."""


@dataclass(frozen=True, slots=True)
class Expected:
    """A stream as its viewer sees it; delays are seconds from the capture of a frame until it is shown."""

    name: str
    """Model, size and card."""
    camera: int
    most_steps: int
    fps: float
    p50: float
    p95: float
    steps: int
    """Those of most chunks."""

    @classmethod
    def of(cls, published: Published, camera: int, steps: int) -> Expected:
        """Simulate a stream on one GPU: chunks of one latent frame, the policy `even`.

        As in a live session, steps are given up before frames, and one call more is made for the keys of each chunk.
        """
        cost = numbers_of(published).cost
        cost = replace(cost, encode=cost.encode + cost.fixed + cost.row)
        target = Target(camera, steps=steps)
        every = range(1, target.most_every + 1)
        rungs = tuple(Choice(CHUNKS, count, one) for one in every for count in range(steps, 0, -1))
        stream = SimulatedStream(Scene(cost, target, SECONDS, rungs=rungs)).run()
        taken, report = Counter(work.choice.steps for work in stream.work), stream.pacer.report()
        return cls(published.name, camera, steps, report.fps, report.p50, report.p95, taken.most_common(1)[0][0])


def expected() -> Iterator[Expected]:
    """Simulate all streams of the table."""
    for published in PUBLISHED:
        for camera in CAMERAS:
            for steps in STEPS:
                yield Expected.of(published, camera, steps)


def markdown(found: Sequence[Expected]) -> str:
    """The table: a row for each model, card and camera, a column for each number of steps."""
    rows = {}
    for one in found:
        rows.setdefault((one.name, one.camera), []).append(
            f"{one.p50:.2f} / {one.p95:.2f} s, {one.fps:.1f} fps, {_counted(one.steps)}"
        )
    steps = [f"at most {_counted(count)}" for count in STEPS]
    lines = [["model, size, card", "source", *steps], ["---"] * (2 + len(steps))]
    lines += [[name, f"{camera} fps", *cells] for (name, camera), cells in rows.items()]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _counted(steps: int) -> str:
    return f"{steps} step{'s' * (steps > 1)}"


def plain(found: Sequence[Expected]) -> dict:
    """The streams as plain values."""
    return {"source": "costs fitted to arXiv 2511.07399, figures 9, 11, 15", "streams": [asdict(one) for one in found]}
