"""`histream bench --gpu`: a sheet of measurements in six minutes, with random weights of the real size.

A row is a figure, its unit and, if there is one, its target. A row without a figure has a note that says what is absent
or has failed. `tiny` runs the same code at tiny sizes on the CPU, where no target applies.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, replace

import torch

from ...network.model import WAN_1_3B, WanConfig
from ...plan.chunks import Plan
from ...plan.make import PlanOptions, make_plan
from ...plan.presets import find_preset
from .bars import Bar, report

ABSENT, FAILED = "absent", "failed"
"""First words of the note of a row without a figure."""


@dataclass(frozen=True, slots=True)
class Row:
    """One figure of the sheet."""

    name: str
    value: float | None
    unit: str = ""
    target: float | None = None
    at_least: bool = False
    note: str = ""
    is_main: bool = False
    """Whether the row is in the short table at the end."""

    @property
    def failed(self) -> bool:
        """Whether the row should have a figure."""
        return self.value is None and self.note.startswith(FAILED)

    @property
    def ok(self) -> bool | None:
        """Whether the target is met; None where there is none, or nothing was measured."""
        if self.target is None or self.value is None:
            return None
        return self.value >= self.target if self.at_least else self.value <= self.target

    def plain(self) -> dict:
        """The row as plain values, which are printed when it is made."""
        found = {"row": self.name, "value": self.value, "unit": self.unit}
        if self.target is not None:
            found |= {"target": self.target, "at_least": self.at_least, "ok": self.ok}
        return found | ({"note": self.note} if self.note else {})


@dataclass(frozen=True)
class Setup:
    """The sizes, the device and the compiler of a sheet."""

    device: torch.device
    dtype: torch.dtype
    config: WanConfig
    width: int
    height: int
    num_frames: int
    """Latent frames of the whole videos."""
    vae_width: int
    backend: str
    """The compiler of the layers."""
    repeats: int
    has_targets: bool

    def plan(self, mode: str, num_frames: int | None = None, *, levers: Collection[str] = ()) -> Plan:
        size, options = (self.width, self.height), PlanOptions(levers=tuple(levers))
        frames = num_frames or self.num_frames
        return make_plan(find_preset("histream"), mode, size=size, num_latent_frames=frames, options=options)

    def row(
        self,
        name: str,
        value: float | None,
        unit: str = "",
        target: float | None = None,
        *,
        is_main: bool = False,
        **more,
    ) -> Row:
        """A row, without its target where targets do not apply; those that would have one are among the main ones."""
        shown, found = target if self.has_targets else None, _plain(value)
        if value is not None and found is None:
            more["note"] = f"{FAILED}: the figure is {value}"
        return Row(name, found, unit, shown, is_main=is_main or target is not None, **more)

    def wait(self) -> None:
        """Return when the device has done all queued work."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def seconds(self, work: Callable[[], object]) -> float:
        """Seconds that `work` takes until the device is done with it."""
        self.wait()
        start = time.perf_counter()
        work()
        self.wait()
        return time.perf_counter() - start

    def ms(self, work: Callable[[], object]) -> float:
        """Median milliseconds of `work` over some repeats, after a warm-up."""
        for _ in range(2):
            work()
        return 1000 * statistics.median(self.seconds(work) for _ in range(self.repeats))

    def peak_gib(self) -> float | None:
        """The peak of memory in use since `forget`; None where the device does not report it."""
        return torch.cuda.max_memory_allocated(self.device) / 2**30 if self.device.type == "cuda" else None

    def forget(self) -> None:
        """Free unused memory and reset the peak."""
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats(self.device)


def real_setup() -> Setup:
    """A sheet of 1.3B at 1920x1088 in bfloat16 on the first CUDA device. Raises ValueError without such a device."""
    if not torch.cuda.is_available():
        raise ValueError("no CUDA device can be used here: run --gpu --tiny, --meta or --cpu")
    return Setup(
        torch.device("cuda"), torch.bfloat16, WAN_1_3B, 1920, 1088,
        num_frames=21, vae_width=96, backend="inductor", repeats=4, has_targets=True,
    )  # fmt: skip


def tiny_setup() -> Setup:
    """A sheet that takes seconds on the CPU; its figures say nothing about a GPU."""
    config = replace(WAN_1_3B, dim=96, ffn_dim=128, num_heads=2, num_layers=2, text_dim=32, freq_dim=32)
    return Setup(
        torch.device("cpu"), torch.float32, config, 64, 64,
        num_frames=12, vae_width=8, backend="eager", repeats=2, has_targets=False,
    )  # fmt: skip


def guarded(section: Callable[[Setup], Iterator[Row]], setup: Setup) -> Iterator[Row]:
    """The rows of a section; where it fails, the last row has the error as its note, and the sheet goes on."""
    try:
        yield from section(setup)
    except Exception as error:  # a row of its own, and a missed bar at the end
        yield Row(section.__name__, None, note=f"{FAILED}: {_words(error)}")


def try_row(
    setup: Setup,
    name: str,
    unit: str,
    work: Callable[[], float],
    target: float | None = None,
    *,
    otherwise: str = FAILED,
    **more,
) -> Row:
    """A row, or the row without a figure where `work` fails; `otherwise` begins its note."""
    try:
        return setup.row(name, work(), unit, target, **more)
    except Exception as error:  # of any kernel or compiler
        known = isinstance(error, (RuntimeError, ValueError, ImportError))  # what those raise that are not there
        return setup.row(name, None, unit, target, note=f"{otherwise if known else FAILED}: {_words(error)}", **more)


def _words(error: Exception) -> str:
    """The kind of an error and the first line of its message."""
    message = (str(error).strip() or "no message").splitlines()[0][:200]
    return f"{type(error).__name__}: {message}"


def _plain(value: float | None) -> float | None:
    if value is None or not math.isfinite(value):
        return None
    return float(f"{value:.5g}")


def sheet_report(rows: Sequence[Row]) -> dict:
    """Every row, and as bars the number of failures and every target that could be measured."""
    bars = [Bar("rows that failed", sum(row.failed for row in rows), 0)]
    bars += [
        Bar(f"{row.name} ({row.unit})" if row.unit else row.name, row.value, row.target, at_least=row.at_least)
        for row in rows
        if row.value is not None and row.target is not None
    ]
    return {**report(bars), "rows": [row.plain() for row in rows]}


def sheet_table(rows: Sequence[Row]) -> str:
    """The main rows and those that failed, one line each with its target, and the number of the others."""
    short = [row for row in rows if row.is_main or row.failed]
    width = max((len(row.name) for row in short), default=0)
    return "\n".join([*(_line(row, width) for row in short), f"and {len(rows) - len(short)} more rows"])


def _line(row: Row, width: int) -> str:
    value = "-" if row.value is None else f"{row.value:.4g}"
    target = "" if row.target is None else f"{'>=' if row.at_least else '<='} {row.target:g}"
    verdict = {None: "", True: "ok", False: "MISSED"}[row.ok]
    return f"{row.name:{width}}  {value:>9} {row.unit:9} {target:9} {verdict:6} {row.note}".rstrip()
