"""Noise levels: the timesteps of a chunk, each with its resolution. Pure values, no tensors."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import Enum
from itertools import pairwise

NUM_TIMESTEPS = 1000
"""A timestep is sigma times a thousand, the scale on which Wan's time embedding was trained."""


MAX_STEPS = 1000
"""Most steps of a chunk, and most chunks with steps of their own."""


class Scale(Enum):
    """The two grids of Dual-Resolution Caching (arXiv 2512.21338)."""

    LOW = "low"
    HIGH = "high"


@dataclass(frozen=True, slots=True)
class Step:
    """One network call at noise level `sigma` in [0, 1], on the grid of `scale`.

    `attention_scale` multiplies the softmax scale of self-attention. A step at sigma 0 is a cache pass:
    it computes the keys and values of a clean latent and nothing else.
    """

    sigma: float
    scale: Scale
    attention_scale: float = 1.0

    @property
    def timestep(self) -> float:
        return self.sigma * NUM_TIMESTEPS


Steps = tuple[Step, ...]


@dataclass(frozen=True, slots=True)
class SecondStep(Step):
    """A cache pass that the model's second set of weights computes, in families that have one (SGF+)."""


@dataclass(frozen=True, slots=True)
class JoinedStep(Step):
    """The steps of several rows in one network call; they differ in sigma alone, and `sigma` is that of the first."""

    rows: tuple[Step, ...] = ()


def join_steps(steps: Steps) -> Step:
    """The steps of the rows of one network call, at one scale, as one step."""
    first = steps[0]
    return JoinedStep(first.sigma, first.scale, first.attention_scale, steps) if len(steps) > 1 else first


Schedule = tuple[Steps, ...]
"""The steps of chunk 0, 1, 2, ...; the last entry serves every later chunk."""


def warp(sigma: float, shift: float) -> float:
    """The time shift of flow matching: k s / (1 + (k - 1) s). Keeps 0 and 1, and `shift` 1 changes nothing."""
    return shift * sigma / (1 + (shift - 1) * sigma)


def make_steps(timesteps: Sequence[float], num_low: int, *, shift_low: float = 1.0, shift_high: float = 1.0) -> Steps:
    """Turn listed timesteps into steps: the first `num_low` at LOW, the others at HIGH.

    A shift belongs to a resolution, so the same listed timestep is another sigma at LOW than at HIGH.
    Raises ValueError unless the sigmas fall from step to step and the last step is at HIGH.
    """
    for timestep in timesteps:
        check_timestep(timestep)
    steps = tuple(
        Step(warp(t / NUM_TIMESTEPS, shift_low), Scale.LOW)
        if i < num_low
        else Step(warp(t / NUM_TIMESTEPS, shift_high), Scale.HIGH)
        for i, t in enumerate(timesteps)
    )
    return check_steps(steps)


def check_timestep(timestep: float) -> None:
    if not 0 < timestep <= NUM_TIMESTEPS:
        raise ValueError(f"timestep {timestep:g} is not in (0, 1000]: use 1000 750 500 250")


def check_steps(steps: Steps) -> Steps:
    """Return `steps`, or raise ValueError with the number that is impossible."""
    if not steps:
        raise ValueError("a chunk needs at least 1 step, got none: give timesteps such as 1000 750 500 250")
    for step in steps:
        check_timestep(step.timestep)
    for step, following in pairwise(steps):
        if following.sigma >= step.sigma:
            raise ValueError(
                f"timesteps must fall from step to step, but {following.timestep:g} follows {step.timestep:g} "
                "(after the time shift): list them from 1000 downwards"
            )
        if step.scale is Scale.HIGH and following.scale is Scale.LOW:
            raise ValueError("a LOW step cannot follow a HIGH step: list the LOW timesteps first")
    if steps[-1].scale is Scale.LOW:
        raise ValueError("the last step of a chunk must be at HIGH: add a HIGH timestep, such as 250H")
    return steps


def parse_schedule(text: str, *, shift_low: float = 1.0, shift_high: float = 1.0) -> Schedule:
    """Read a table of steps, one chunk per `|`, the last one for all later chunks.

    >>> [[(s.timestep, s.scale.value) for s in steps] for steps in parse_schedule("1000L 500H | 1000H")]
    [[(1000.0, 'low'), (500.0, 'high')], [(1000.0, 'high')]]

    Each entry is a listed timestep followed by L (LOW) or H (HIGH). Raises ValueError on anything else.
    """
    return tuple(_parse_steps(part, shift_low=shift_low, shift_high=shift_high) for part in text.strip().split("|"))


def _parse_steps(text: str, *, shift_low: float, shift_high: float) -> Steps:
    words = re.split(r"[\s,]+", text.strip())
    entries = [entry for word in words if (entry := re.fullmatch(r"(\d+(?:\.\d+)?)([LH])", word, re.IGNORECASE))]
    if len(entries) < len(words):
        raise ValueError(
            f'"{text.strip()}" is not a list of steps: write timesteps with L or H, such as '
            '"1000L 750L 500H 250H | 1000L 500H" (first chunk | all later chunks)'
        )
    scales = [entry[2].upper() for entry in entries]
    num_low = scales.count("L")
    if "L" in scales[num_low:]:
        raise ValueError("a LOW step cannot follow a HIGH step: list the L timesteps first")
    timesteps = [float(entry[1]) for entry in entries]
    return make_steps(timesteps, num_low, shift_low=shift_low, shift_high=shift_high)


def heightened(steps: Steps, factor: float) -> Steps:
    """`steps` with attention at HIGH scaled by `factor`; a step that has its own scale keeps it."""
    return tuple(
        replace(step, attention_scale=factor) if step.scale is Scale.HIGH and step.attention_scale == 1 else step
        for step in steps
    )
