"""One video on several GPUs: the ways to split its work, which are possible for a plan, and what they share.

Pure values, no tensors.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from .chunks import Plan
from .histories import Level
from .order import CHUNKS, DIAGONAL, Row
from .schedule import Scale, Step

ONE, DECODE, SEQUENCE, PIPELINE = "one", "decode", "sequence", "pipeline"

SPLITS = {
    ONE: "all of it on one GPU",
    DECODE: "the VAE on a second GPU",
    SEQUENCE: "every pass by several GPUs, each with its part of the tokens and heads",
    PIPELINE: "the layers in turn on several GPUs, with the steps of several chunks under way",
}
"""The ways to split the work of one video."""

AUTO = "auto"
"""Not a way: the fastest one is taken, by prediction."""

MAX_GPUS = 64
"""Most GPUs that one video is predicted for."""

LEAST_TOKENS = 512
"""Tokens of a pass that each rank has at least, where ranks share it; of fewer, exchanges would take what they save."""


TILE = 16
"""Tokens are dealt in tiles of so many: a matrix product of very few rows rounds otherwise."""

ROWS_EACH = 2
"""Rows under way for each rank of a pipeline: one that it computes, and one that comes."""


@dataclass(frozen=True, slots=True)
class Sharing:
    """How so many GPUs make one video."""

    split: str
    """One of SPLITS."""
    ranks: int = 1
    """GPUs that compute passes."""
    vae_apart: bool = False
    """Whether the VAE has a GPU of its own, besides these."""

    @property
    def gpus(self) -> int:
        return self.ranks + self.vae_apart

    def __str__(self) -> str:
        apart = " and the VAE on one more" if self.vae_apart else ""
        return f"{self.split}, {self.ranks} rank{'s' * (self.ranks > 1)}{apart}"


def sharings(split: str, gpus: int) -> tuple[Sharing, ...]:
    """The ways in which a split can use so many GPUs; none where it needs more of them."""
    found = {
        ONE: [Sharing(ONE)],
        DECODE: [Sharing(DECODE, 1, vae_apart=True)],
        SEQUENCE: [Sharing(SEQUENCE, gpus), Sharing(SEQUENCE, gpus - 1, vae_apart=True)],
        PIPELINE: [Sharing(PIPELINE, gpus)],
    }[split]
    return tuple(way for way in found if way.gpus <= gpus and (way.ranks > 1 or split in (ONE, DECODE)))


def deal(count: int, ranks: int, tile: int = 1) -> list[int]:
    """How many of `count` things each rank has: as many tiles as the others or one more, and the last of them the rest.

    >>> deal(12, 5), deal(100, 3, 16), deal(20, 3, 16)
    ([3, 3, 2, 2, 2], [32, 32, 36], [20, 0, 0])
    """
    tiles = max(1, count // tile)
    each, more = divmod(tiles, ranks)
    dealt = [(each + (rank < more)) * tile for rank in range(ranks)]
    dealt[min(tiles, ranks) - 1] += count - tiles * tile
    return dealt


def shared_levels(plan: Plan, ranks: int) -> tuple[Level, ...]:
    """The levels of a plan whose passes sequence ranks share: those with LEAST_TOKENS for each rank.

    With pooled LOW keys, which a rank has of its own heads alone, both are shared or neither, as HIGH decides.
    """
    if ranks < 2:
        return ()

    def enough(level: Level) -> bool:
        scale = level if isinstance(level, Scale) else level[0]
        asked = Scale.HIGH if plan.pooled_low else scale
        return plan.window.chunk_frames * plan.tokens_per_frame(asked) >= LEAST_TOKENS * ranks

    return tuple(level for level in plan.levels if enough(level))


def level_of(plan: Plan, step: Step, index: int) -> Level:
    """The level whose cache a call reads; `index` is the step's among those of its chunk."""
    return step.scale if step.scale in plan.levels else (step.scale, index)


def ring_rows(plan: Plan) -> Iterator[Row]:
    """Yield the rows of a diagonal order as a pipeline starts them: those that begin a chunk before those that end one.

    A step then waits for one that was started `len(plan.levels) + 1` rows before, two more than in the order of
    `calls`, so that more rows are under way; every cache sees its chunks in the same order as there.
    """
    count = len(plan.levels)
    for newest in range(plan.num_chunks + count - 1):
        yield from (Row(newest - step, step) for step in range(count) if 0 <= newest - step < plan.num_chunks)


def why_not(plan: Plan, split: str, gpus: int, num_heads: int, num_layers: int) -> str:
    """One sentence that says why so many GPUs cannot split a plan that way, and what works; empty where they can."""
    if split not in SPLITS:
        return f'split "{split}" does not exist: use one of {", ".join(SPLITS)}'
    if gpus < 1:
        return f"{gpus} GPUs make no video: use 1 or more"
    if not sharings(split, gpus):
        return f"{split} needs 2 GPUs or more, not {gpus}: use more, or one"
    if plan.guidance.is_on and split in (SEQUENCE, PIPELINE):
        return f"{split} shares passes of one prompt, and {plan.guidance} needs the negative prompt too: use {DECODE}"
    if plan.second_weights and split in (SEQUENCE, PIPELINE):
        return f"{split} shares one set of weights, and this model has a second one for cache passes: use decode"
    if split == SEQUENCE:
        return _why_no_sequence(plan, gpus, num_heads)
    if split == PIPELINE:
        return _why_no_pipeline(plan, gpus, num_layers)
    return ""


def check_split(plan: Plan, split: str, gpus: int, num_heads: int, num_layers: int) -> None:
    """Raise ValueError where so many GPUs cannot split a plan that way, with what works."""
    if reason := why_not(plan, split, gpus, num_heads, num_layers):
        raise ValueError(reason)


def _why_no_sequence(plan: Plan, gpus: int, num_heads: int) -> str:
    if plan.order != CHUNKS:
        return f"sequence needs order chunks, not {plan.order}: take it, or pipeline with order diagonal"
    if num_heads < 2:
        return f"sequence divides attention heads, and the model has {num_heads}: use decode"
    if gpus > num_heads:
        return (
            f"sequence over {gpus} GPUs is impossible, as each needs an attention head and the model has {num_heads}: "
            f"use {num_heads} GPUs or fewer"
        )
    if not shared_levels(plan, gpus):
        tokens = plan.window.chunk_frames * plan.tokens_per_frame(Scale.HIGH)
        most = tokens // LEAST_TOKENS
        works = f"{most} GPUs or fewer" if most > 1 else "decode"
        return (
            f"sequence over {gpus} GPUs gains nothing, as a pass has {tokens} tokens and each GPU needs "
            f"{LEAST_TOKENS}: use {works}"
        )
    return ""


def _why_no_pipeline(plan: Plan, gpus: int, num_layers: int) -> str:
    if plan.order != DIAGONAL:
        return (
            "pipeline needs the steps of several chunks under way at once: take histories each-step and order "
            "diagonal, or another split"
        )
    if gpus > num_layers:
        return (
            f"pipeline over {gpus} GPUs is impossible, as each needs a layer and the model has {num_layers}: "
            f"use {num_layers} GPUs or fewer"
        )
    return ""
