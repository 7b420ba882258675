"""Seconds for each operation of a run, by kind of work, from what was measured."""

from __future__ import annotations

from collections import deque
from statistics import median_low

from ..plan.schedule import Scale, Step

Kind = str
"""A kind of network call, named by `kind_of`, or FRAMES."""

FRAMES = "frames"
"""All that is done for the frames of a chunk between network calls: encoding a source, decoding, keeping, showing."""

REMEMBERED = 16
"""Measurements of a kind that are kept; half of them count."""

LOADING = 4
"""A call that takes so many times as long as others of its kind also loads or compiles, and does not count."""


def kind_of(step: Step) -> Kind:
    """The kind of a network call: a step or a pass without noise, at a scale."""
    return f"{step.scale.value} {'step' if step.sigma else 'pass'}"


ALIKE: dict[Kind, tuple[Kind, ...]] = {
    f"{scale.value} {work}": (f"{scale.value} {twin}", f"{other.value} {work}", f"{other.value} {twin}")
    for scale, other in ((Scale.HIGH, Scale.LOW), (Scale.LOW, Scale.HIGH))
    for work, twin in (("step", "pass"), ("pass", "step"))
} | {FRAMES: ("high step", "high pass", "low step", "low pass")}
"""For each kind the others, the most alike first: the same layers over as many tokens, then over fewer or more."""


class Rates:
    """Seconds for each operation, by kind.

    A rate is the mean over the later half of what was measured of its kind, so that it follows a computer that has
    become busier. A kind of which nothing was measured takes the rate of the one that is most alike.
    """

    def __init__(self) -> None:
        self._measured: dict[Kind, deque[tuple[float, float]]] = {}
        self._rates: dict[Kind, float] = {}

    def measure(self, kind: Kind, work: float, seconds: float) -> None:
        """Note that so many operations took so many seconds."""
        if work <= 0:
            return
        found = self._measured.setdefault(kind, deque(maxlen=REMEMBERED))
        found.append((work, max(0.0, seconds)))
        later = list(found)[len(found) // 2 :]
        usual = LOADING * median_low(seconds / work for work, seconds in later)
        counted = [(work, seconds) for work, seconds in later if seconds <= usual * work]
        self._rates[kind] = sum(seconds for _, seconds in counted) / sum(work for work, _ in counted)

    def of(self, kind: Kind) -> float | None:
        """Seconds for each operation of a kind; None where nothing was measured that tells it."""
        known = [self._rates[other] for other in (kind, *ALIKE[kind]) if other in self._rates]
        if self._only_loading(kind):
            del known[0]
        return known[0] if known else None

    def _only_loading(self, kind: Kind) -> bool:
        """Whether the one call of a kind took far longer than the calls that do the same work otherwise do."""
        twin = self._rates.get(ALIKE[kind][0])
        once = kind != FRAMES and len(self._measured.get(kind, ())) == 1
        return once and twin is not None and self._rates[kind] > LOADING * twin
