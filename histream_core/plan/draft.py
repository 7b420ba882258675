"""Drafts: what the steps at LOW alone show of a video, before any step at HIGH is spent. Pure values."""

from dataclasses import replace

from .chunks import Plan
from .histories import EACH_STEP
from .schedule import Scale, Steps


def draft_of(plan: Plan) -> Plan:
    """The plan of a draft: the steps of `plan` at LOW and no others, at the size of LOW.

    Chunk 0 is then, in every bit, the estimate that `plan` comes to after its steps at LOW, as long as nothing is given
    to begin with. Later chunks are not: a draft sees its own chunks, `plan` sees finished ones, shrunk. Approximations
    are left out. Raises ValueError for a plan without steps at LOW.
    """
    check_draft(plan)
    return replace(
        plan,
        grids={Scale.HIGH: plan.grids[Scale.LOW]},
        ntk={Scale.HIGH: plan.ntk[Scale.LOW]},
        schedule=tuple(map(_at_low, plan.schedule)),
        first_chunk_attention=1.0,
        levers=(),
    )


def check_draft(plan: Plan) -> None:
    """Raise ValueError for a plan whose chunks do not all have a LOW estimate to look at."""
    check_low(plan)
    if plan.histories == EACH_STEP:
        raise ValueError("a history for each step belongs to noise that is drawn once: take clean histories for drafts")
    if plan.restyle:
        raise ValueError("a restyled video begins with its source, not with a seed to choose: leave the draft out")


def check_low(plan: Plan) -> None:
    """Raise ValueError for a plan that has chunks without a step at LOW."""
    if not all(map(_at_low, plan.schedule)):
        raise ValueError(
            "not every chunk has an estimate at half resolution: take mode histream or histream-plus, and weights that "
            "know two resolutions"
        )


def _at_low(steps: Steps) -> Steps:
    """The steps at LOW, for a plan whose only grid is that of LOW."""
    return tuple(replace(step, scale=Scale.HIGH) for step in steps if step.scale is Scale.LOW)
