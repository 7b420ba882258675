"""A plan that is changed while its stream runs: how far the source is changed, and with how many steps.

Pure values, no tensors.
"""

from __future__ import annotations

from dataclasses import replace

from .chunks import Plan
from .entry import Restyle
from .histories import CLEAN
from .schedule import Scale, Steps


def fewer_steps(steps: Steps, count: int) -> Steps:
    """The first steps of each resolution, `count` in all: of 1000L 750L 500H 250H the steps 1000L 500H.

    So HiStream+ and StreamDiffusionV2 take fewer steps. `count` is the number of resolutions at least.
    """
    low = [step for step in steps if step.scale is Scale.LOW]
    high = [step for step in steps if step.scale is Scale.HIGH]
    while len(low) + len(high) > count:
        (high if len(high) >= len(low) else low).pop()
    return (*low, *high)


def strength_of(plan: Plan) -> float:
    """The share of noise that a still source begins with. Raises ValueError for a plan that restyles nothing."""
    if plan.restyle is None:
        raise ValueError("the plan restyles nothing, so it has no strength: give PlanOptions a `restyle`")
    return plan.restyle.share


def step_counts(plan: Plan) -> range:
    """The numbers of steps that later chunks of a restyling plan can take, up to its own."""
    steps = _entered(plan)[-1]
    own = len(steps)
    fewest = len({step.scale for step in steps}) if plan.histories == CLEAN else own
    return range(fewest, own + 1)


def adjusted(plan: Plan, *, strength: float | None = None, steps: int | None = None) -> Plan:
    """The plan with another strength, and fewer steps for its later chunks; None: as it is.

    A strength is the share of noise that a still source begins with. Raises ValueError with what would work.
    """
    found = plan
    if strength is not None and plan.restyle and strength != plan.restyle.share:
        found = replace(plan, restyle=_strength(plan.restyle, strength))
        check_change(plan, found)
    if steps is None:
        return found
    counts = step_counts(found)
    if steps not in counts:
        fewest, most = counts[0], counts[-1]
        which = f"{most}" if fewest == most else f"{fewest} to {most}"
        raise ValueError(f"the chunks of this stream cannot take {steps} steps: use {which}")
    if steps == counts[-1]:
        return found
    return replace(found, schedule=tuple(fewer_steps(entered, steps) for entered in _entered(found)))


def check_change(old: Plan, new: Plan) -> None:
    """Raise ValueError unless a stream of `old` can go on with `new`: another strength, or other steps, alone."""
    if replace(new, schedule=old.schedule, restyle=old.restyle) != old or old.restyle is None or new.restyle is None:
        raise ValueError(
            "while a stream runs only the strength and the steps of its plan can change: begin another stream"
        )
    if not old.restyle.share or not new.restyle.share:
        raise ValueError("a stream that shows its source as it is remembers nothing: begin another one with a strength")
    if old.levels != new.levels:
        raise ValueError(
            "with a history for each step the number of steps stays, and this strength needs another one: take clean "
            "histories, or a strength nearer to the present one"
        )


def _strength(restyle: Restyle, strength: float) -> Restyle:
    least = restyle.offset + (restyle.motion.span if restyle.motion else 0)
    if not least < strength <= 1:
        raise ValueError(f"the strength of this stream cannot become {strength:g}: use more than {least:g}, up to 1")
    return replace(restyle, share=strength)


def _entered(plan: Plan) -> list[Steps]:
    """The steps that the chunks of a restyling plan take, by its schedule."""
    assert plan.restyle is not None
    return [plan.restyle.enter(steps) for steps in plan.schedule]
