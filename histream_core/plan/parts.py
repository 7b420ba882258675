"""Parts of a video that do not depend on one another: scenes, each of which can be made by a worker of its own."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

from .chunks import Plan
from .order import CHUNKS

ONE_SCENE = "it has one scene"


@dataclass(frozen=True)
class Parts:
    """The chunks of a video in parts, each of which follows from plan, prompts and noise alone."""

    chunks: tuple[range, ...]
    """The chunks of each part, in order; all in one where they depend on one another."""
    why_one: str = ""
    """Why there is one part only; empty where there are several."""


def parts_of(plan: Plan) -> Parts:
    """The parts of a plan whose scenes begin with prompts of their own, as those of a timeline do.

    The chunks of a scene see nothing before it: caches, anchor and the statistics to match begin anew, and noise, time
    and steps follow from the number of the chunk in the whole video.
    """
    whole = range(plan.num_chunks)
    begins = [0, *(_chunk_at(plan, scene) for scene in plan.scenes if scene > plan.given_frames)]
    if len(begins) == 1:
        return Parts((whole,), ONE_SCENE)
    if plan.order != CHUNKS:
        return Parts((whole,), f"in the order {plan.order} a scene begins before the one before it is finished")
    if plan.restyle:
        return Parts((whole,), "the video that it restyles is encoded from its beginning on")
    return Parts(tuple(range(*pair) for pair in pairwise([*begins, plan.num_chunks])))


def _chunk_at(plan: Plan, frame: int) -> int:
    """The chunk that begins at a latent frame."""
    return 1 + (frame - plan.first_chunk_frames) // plan.window.chunk_frames if frame else 0
