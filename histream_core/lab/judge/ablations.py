"""The rows of the papers' tables: ablations of HiStream, each as a plan and the weights that it is made with."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ...cost.cost import Cost
from ...demo.words import TEXT_TOKENS
from ...network.model import WanConfig
from ...plan.anchoring import AnchorSource, is_idle
from ...plan.chunks import Plan
from ...plan.levers import LEVERS
from ...plan.make import PlanOptions, make_plan
from ...plan.positions import TemporalPolicy
from ...plan.presets import Preset
from ...plan.sizes import latent_frames
from ...plan.window import Window
from .teacher import Solver

BASE = "histream"
"""The row that the others are compared with, and the mode that they change, where no other is named."""

STUDENT, UNTUNED, TEACHER = "student", "untuned", "teacher"
"""Kinds of weights."""

MODES = {
    "histream": "HiStream",
    "histream-plus": "HiStream+: later chunks take half of the steps",
    "full": "without Dual-Resolution Caching",
    "history": "without the Anchor-Guided Sliding Window",
    "naive": "half of the steps in the first chunk too",
    "sd": "without the settings for high definition",
}

SPANS = {"span-3": 3, "span-18": 18}
"""Positions pinned within so many frames, where the model has others; 3 leaves no gap between the anchor and the frames
before a chunk."""

SOURCES = {
    "anchor-walk": ("the anchor walks over the first 9 latent frames and back", AnchorSource(walk=9)),
    "anchor-average": ("frames that leave are mixed into the anchor, which keeps 0.9", AnchorSource(share=0.9)),
}
"""Other contents of the anchor."""

NTK = {"ntk-1": 1.0, "ntk-2": 2.0, "ntk-5": 5.0}

PAPER_SECONDS = {
    "teacher": 36.56,
    "histream": 0.48,
    "histream-plus": 0.34,
    "full": 0.70,
    "history": 0.78,
    "naive": 0.32,
}
"""Seconds of denoising per frame of 1920x1088 on an A100, as published (arXiv 2512.21338); teacher: Wan2.1 1.3B."""

PAPER_TOTAL = {"histream": 84.20}
"""VBench total, as published; that of the other rows is not known here."""


@dataclass(frozen=True)
class Ablation:
    """One row: a kind of weights, and the network calls."""

    name: str
    what: str
    plan: Plan
    weights: str = STUDENT
    guidance: float = 1.0
    """Classifier-free guidance of the teacher; 1 is none."""

    def flops_per_frame(self, config: WanConfig) -> float:
        """Floating-point operations of the transformer per pixel frame, cache passes and guidance included."""
        cost = Cost(config, self.plan, text_tokens=TEXT_TOKENS)
        passes = 1 if self.guidance == 1 else 2
        return passes * cost.flops / self.plan.num_pixel_frames

    @property
    def calls(self) -> tuple:
        """Everything that the clips depend on besides prompt and noise; rows with equal calls make equal clips."""
        times = [
            (self.plan.temporal.chunk_time(chunk.frames.start), self.plan.temporal.anchor_time(chunk.frames.start))
            for chunk in self.plan.chunks
            if chunk.context
        ]
        plan = self.plan
        sparse = [plan.blocks(scale) for scale in plan.grids] if times else []  # a first chunk sees all
        network = (self.weights, self.guidance, plan.grids, plan.ntk, plan.resize)
        mixed = 1.0 if is_idle(plan) else plan.anchor_source.share
        return (*network, (*plan.chunks,), plan.num_latent_frames, times, sparse, mixed)


def ablations(
    preset: Preset,
    *,
    size: tuple[int, int],
    num_pixel_frames: int,
    base: str = BASE,
    solver: Solver | None = None,
    untuned: bool = False,
) -> Iterator[Ablation]:
    """Yield all rows for clips of `num_pixel_frames` pixel frames; that of the teacher only with a `solver`.

    `base` is the mode of the rows that change something else than the mode; their names begin with it unless it is
    BASE. Raises ValueError for sizes and lengths that are impossible.
    """
    length = latent_frames(num_pixel_frames)

    def plan(mode: str, **options: Any) -> Plan:
        return make_plan(preset, mode, size=size, num_latent_frames=length, options=PlanOptions(**options))

    def own(name: str) -> str:
        return name if base == BASE else f"{base}-{name}"

    if solver:
        what = f"teacher: full attention both ways, {solver.steps} steps, guidance {solver.guidance:g}"
        yield Ablation(
            "teacher", what, solver.plan(preset, size=size, num_latent_frames=length), TEACHER, solver.guidance
        )
    for mode, what in MODES.items():
        yield Ablation(mode, what, plan(mode))
    if untuned:
        yield Ablation(own("untuned"), "training-free: the student before distillation", plan(base), UNTUNED)
    trained = preset.temporal()
    for kind in ("absolute", "reset"):
        temporal = replace(trained, kind=kind) if kind == "absolute" else _reset(trained.span)
        yield Ablation(
            own(f"time-{kind}"), f"temporal policy {kind} instead of {trained.kind}", plan(base, temporal=temporal)
        )
    for name, what, options in _anchored(plan(base).window, trained.span):
        yield Ablation(own(name), what, plan(base, **options))
    for name, factor in NTK.items():
        yield Ablation(own(name), f"NTK factor {factor:g}", plan(base, ntk_low=factor, ntk_high=factor))
    derived = replace(preset, ntk_low=None, ntk_high=None, ntk_rule="sqrt")
    what = "NTK factor sqrt(tokens / trained tokens), at least 1"
    yield Ablation(own("ntk-sqrt"), what, make_plan(derived, base, size=size, num_latent_frames=length))
    for lever, what in LEVERS.items():
        yield Ablation(own(lever), what, plan(base, levers=(lever,)))


def _reset(span: int) -> TemporalPolicy:
    """Times that jump back at that span, or as StreamDiffusionV2 has it where that leaves no room."""
    published = TemporalPolicy("reset")
    return replace(published, span=span) if span > published.restart else published


def _anchored(window: Window, span: int) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Yield name, meaning and options of the rows in which a chunk sees another anchor, or sees it elsewhere."""
    for name, other in SPANS.items():
        if other != span:
            what = f"positions clamped within {other} latent frames instead of {span}"
            yield name, what, {"temporal": TemporalPolicy("clamped", span=other)}
    yield "anchor-off", "no anchor frame", {"window": replace(window, anchor_frames=0)}
    for name, (what, source) in SOURCES.items():
        yield name, what, {"anchor_source": source}


def twins(rows: Sequence[Ablation]) -> dict[str, str]:
    """Map each row that makes the same clips as an earlier one to the name of that row."""
    first: list[Ablation] = []
    found = {}
    for row in rows:
        same = next((one.name for one in first if one.calls == row.calls), None)
        if same:
            found[row.name] = same
        else:
            first.append(row)
    return found
