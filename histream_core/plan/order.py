"""The order of a run's denoising steps: which step of which chunk is computed when, and which of them together.

StreamDiffusionV2 (arXiv 2511.07399) calls the last of them a stream batch. Pure values, no tensors.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from .chunks import Chunk, Plan

CHUNKS, DIAGONAL, BATCHED = "chunks", "diagonal", "batched"

ORDERS = {
    CHUNKS: "all steps of a chunk, then those of the next",
    DIAGONAL: "the last step of a chunk, the last but one of the next and so on, one by one; the same frames",
    BATCHED: "as diagonal, in one network call where all see as much; nearly the same frames",
}
"""The orders in which steps are computed."""


class Row(NamedTuple):
    """One step of one chunk: the row of a network call."""

    chunk: int
    step: int
    """Its index among the steps of the chunk, and the index of the cache that it reads."""


Call = tuple[Row, ...]
"""The rows of one network call, by their steps."""


def calls(plan: Plan) -> Iterator[Call]:
    """Yield the denoising calls of a run one after the other, those that finish a chunk before those that begin one."""
    if plan.order == CHUNKS or not plan.chunks[0].steps:
        for index in range(plan.num_chunks):
            yield from ((Row(index, step),) for step in range(len(plan.chunks[index].steps)))
        return
    count = len(plan.levels)
    for newest in range(plan.num_chunks + count - 1):
        rows = [Row(newest - step, step) for step in range(count) if 0 <= newest - step < plan.num_chunks]
        if plan.order == DIAGONAL:
            yield from ((row,) for row in reversed(rows))
        else:
            found = [tuple(group) for _, group in groupby(rows, lambda row: _together(plan, row))]
            yield from reversed(found)


def check_order(plan: Plan) -> None:
    """Raise ValueError for an order that does not exist, or that a plan cannot have."""
    if plan.order not in ORDERS:
        raise ValueError(f'order "{plan.order}" does not exist: use one of {", ".join(ORDERS)}')
    if plan.histories != "each-step":
        raise ValueError(
            f"the order {plan.order} needs a history for each step, as a chunk begins before the one before it is "
            "clean: take histories each-step"
        )
    if len(plan.grids) > 1:
        raise ValueError(
            f"the order {plan.order} needs one resolution, and the steps are at two: take mode full, or a schedule "
            "without LOW steps"
        )
    if plan.order == BATCHED and plan.guidance.passes > 1:
        raise ValueError(
            f"the order {BATCHED} computes rows of one prompt together, and CFG {plan.guidance.cfg:g} needs a pass for "
            f"each of two: take the order {DIAGONAL}, or set CFG to 1"
        )


def _together(plan: Plan, row: Row) -> tuple:
    """A key that rows computed in one call share; a row that is not full yet has one of its own.

    A row is full where its window is, and none of its frames becomes an anchor. The pages that it reads and writes are
    then those of all other full rows, as the rings of their caches are turned.
    """
    chunk = plan.chunks[row.chunk]
    if not _full(plan, chunk):
        return (row,)
    return plan.anchor(chunk.frames.start), chunk.steps[row.step].attention_scale


def _full(plan: Plan, chunk: Chunk) -> bool:
    window = plan.window
    if window.local_frames is None:
        return False
    return len(chunk.context) == window.anchor_frames + window.local_frames and not plan.holds_anchor(chunk)
