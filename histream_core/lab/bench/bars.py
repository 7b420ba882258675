"""Bars: figures with limits, and controls that must miss them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Bar:
    """A figure, its limit, and the figure of its control, a naive variant."""

    name: str
    value: float
    limit: float
    naive: str | None = None
    """The control, which must miss the limit; None where the limit is a target for a machine."""
    naive_value: float | None = None
    """The control's figure; given if and only if there is a control."""
    at_least: bool = False

    def __post_init__(self):
        if (self.naive is None) != (self.naive_value is None):
            raise ValueError(f'the bar "{self.name}" needs a control and its figure, or neither')

    @property
    def ok(self) -> bool:
        return self._keeps(self.value)

    @property
    def caught(self) -> bool:
        """Whether the control misses the limit, as it must."""
        return self.naive_value is None or not self._keeps(self.naive_value)

    @property
    def sense(self) -> str:
        return "at least" if self.at_least else "at most"

    def _keeps(self, value: float) -> bool:
        return value >= self.limit if self.at_least else value <= self.limit


def report(bars: Sequence[Bar]) -> dict:
    """Bars and controls as plain values; `ok` says that every bar is kept and every control misses its limit."""
    return {
        "ok": all(bar.ok and bar.caught for bar in bars),
        "bars": [_plain(f"{bar.name}, {bar.sense}", bar.value, bar.limit, bar.ok) for bar in bars],
        "controls": [
            _plain(f"{bar.name}, {bar.sense}: {bar.naive}", bar.naive_value, bar.limit, not bar.caught)
            for bar in bars
            if bar.naive_value is not None
        ],
    }


def _plain(name: str, value: float, limit: float, ok: bool) -> dict:
    return {"name": name, "value": float(f"{value:.6g}"), "limit": limit, "ok": ok}


def table(bars: Sequence[Bar]) -> str:
    """A line for each bar with its verdict, value and limit, and one for its control."""
    return "\n".join(_line(bar) for bar in bars)


def _line(bar: Bar) -> str:
    verdict = "ok  " if bar.ok else "FAIL"
    line = f"{verdict}  {_short(bar.value):>9}  {'>=' if bar.at_least else '<='} {_short(bar.limit):<7}  {bar.name}"
    if bar.naive_value is None:
        return line
    caught = "fails, as it must" if bar.caught else "PASSES: this bar measures nothing"
    return f"{line}\n      {_short(bar.naive_value):>9}  control: {bar.naive} ({caught})"


def _short(value: float) -> str:
    return f"{value:.4g}"
