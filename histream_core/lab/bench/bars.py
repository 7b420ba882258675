"""Figures with limits, and the naive variants that must miss them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Bar:
    """A figure, the limit that it must keep, and what a naive variant gets instead."""

    name: str
    value: float
    limit: float
    naive: str | None = None
    """The variant that must fail; None where the limit is a target for a machine, which no variant controls."""
    naive_value: float | None = None
    at_least: bool = False

    @property
    def ok(self) -> bool:
        return self._keeps(self.value)

    @property
    def caught(self) -> bool:
        """Whether the naive variant fails, as it must."""
        return self.naive is None or not self._keeps(self.naive_value)

    @property
    def sense(self) -> str:
        return "at least" if self.at_least else "at most"

    def _keeps(self, value: float) -> bool:
        return value >= self.limit if self.at_least else value <= self.limit


def report(bars: Sequence[Bar]) -> dict:
    """Bars and controls as plain values; `ok` where every bar is kept and every control fails."""
    return {
        "ok": all(bar.ok and bar.caught for bar in bars),
        "bars": [_plain(f"{bar.name}, {bar.sense}", bar.value, bar.limit, bar.ok) for bar in bars],
        "controls": [
            _plain(f"{bar.name}, {bar.sense}: {bar.naive}", bar.naive_value, bar.limit, not bar.caught)
            for bar in bars
            if bar.naive is not None
        ],
    }


def _plain(name: str, value: float, limit: float, ok: bool) -> dict:
    return {"name": name, "value": float(f"{value:.6g}"), "limit": limit, "ok": ok}


def table(bars: Sequence[Bar]) -> str:
    """A line for each bar: whether it is kept, its value, its limit, its control's value."""
    return "\n".join(_line(bar) for bar in bars)


def _line(bar: Bar) -> str:
    verdict = "ok  " if bar.ok else "FAIL"
    line = f"{verdict}  {_short(bar.value):>9}  {'>=' if bar.at_least else '<='} {_short(bar.limit):<7}  {bar.name}"
    if bar.naive is None:
        return line
    caught = "fails, as it must" if bar.caught else "PASSES: this bar measures nothing"
    return f"{line}\n      {_short(bar.naive_value):>9}  control: {bar.naive} ({caught})"


def _short(value: float) -> str:
    return f"{value:.4g}"
