"""The history that a chunk sees: one of clean frames, or one for each denoising step, of frames at its noise level.

StreamDiffusionV2 (arXiv 2511.07399) keeps one cache for each step and makes no pass without noise. Pure values.
"""

from collections.abc import Collection, Iterable

from .levers import CLEAN_ANCHOR, LAST_STEP, POOLED_LOW, SURVIVORS
from .schedule import Scale, Steps

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
