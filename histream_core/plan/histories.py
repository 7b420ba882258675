"""The history that a chunk sees: one of clean frames, or one for each denoising step, of frames at its noise level.

StreamDiffusionV2 (arXiv 2511.07399) keeps one cache for each step and makes no pass without noise. Pure values.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import TYPE_CHECKING

from .levers import CLEAN_ANCHOR, LAST_STEP, POOLED_LOW, SURVIVORS
from .schedule import Scale, Steps

if TYPE_CHECKING:
    from .chunks import Plan

CLEAN, EACH_STEP = "clean", "each-step"

HISTORIES = {
    CLEAN: "one cache for each resolution, filled by passes over finished chunks",
    EACH_STEP: "one cache for each denoising step, filled by the step itself",
}
"""The histories by name: how a chunk sees the frames before it."""

Level = Scale | tuple[Scale, int]
"""The owner of a cache: a resolution, or the step of this index at a resolution."""


def level_name(level: Level) -> str:
    """The name of a level in a snapshot."""
    return level.value if isinstance(level, Scale) else f"{level[0].value}.step{level[1]}"


def no_recache(plan: Plan) -> str:
    """Why a plan's window cannot be computed anew under another prompt; empty where it can."""
    if plan.histories == EACH_STEP:
        return "a history for each step cannot be computed anew under another prompt, as its noisy latents are gone"
    if plan.anchor_source.walk:
        walk = plan.anchor_source.walk
        return f"an anchor that walks over {walk} frames would have to be computed anew in all of them"
    return "an anchor that is an average cannot be computed anew" if plan.anchor_source.share < 1 else ""


def check_recache(plan: Plan) -> None:
    """Raise ValueError for a plan whose window cannot be computed anew under another prompt."""
    if why := no_recache(plan):
        raise ValueError(f"{why}: let prompts change by a cut or a blend")


def check_histories(histories: str, levers: Collection[str], schedule: Iterable[Steps], given_frames: int) -> None:
    """Raise ValueError for histories that do not exist, and for what a history for each step cannot be had with."""
    if histories != EACH_STEP:
        raise ValueError(f'histories "{histories}" do not exist: use {" or ".join(HISTORIES)}')
    needless = [name for name in (LAST_STEP, CLEAN_ANCHOR, SURVIVORS, POOLED_LOW) if name in levers]
    if needless:
        raise ValueError(
            f"{needless[0]} replaces clean passes, and with a history for each step there are none: leave it out"
        )
    if len({tuple(step.scale for step in steps) for steps in schedule}) > 1:
        raise ValueError(
            "a history for each step needs the same number of steps in every chunk, each at one resolution: take a "
            "schedule that is the same for all chunks"
        )
    if given_frames:
        raise ValueError(
            "a frame that is given has no noisy steps, so a history for each step cannot hold it: leave it out, or "
            "take clean histories"
        )
