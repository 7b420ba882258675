"""Means with 95% bootstrap intervals over prompts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

RESAMPLES = 4000
SEED = 0
TAILS = 2.5, 97.5
RULE_OF_THREE = 3
"""An event that never occurred in n trials has a rate of at most 3/n, with 95% confidence."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """A mean and its 95% interval."""

    mean: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.mean:.3f} [{self.low:.3f}, {self.high:.3f}]"


def estimate(values: Sequence[float], *, least: float = 0.0, most: float = 1.0) -> Estimate:
    """Mean of values in [least, most], with the interval found by resampling them.

    Where all values are `least`, `most` or 0, resampling cannot see any spread, and the interval is widened by the rule
    of three. Raises ValueError for no values.
    """
    drawn = np.asarray(values, np.float64)
    if not drawn.size:
        raise ValueError("no values to take the mean of: give at least 1")
    mean = float(drawn.mean())
    if np.ptp(drawn) == 0 and mean in (least, 0, most):
        share = min(1.0, RULE_OF_THREE / len(drawn))
        return Estimate(mean, mean + (least - mean) * share, mean + (most - mean) * share)
    picks = np.random.default_rng(SEED).integers(0, len(drawn), (RESAMPLES, len(drawn)))
    low, high = np.percentile(drawn[picks].mean(1), TAILS)
    return Estimate(mean, float(low), float(high))


def difference(ours: Sequence[float], theirs: Sequence[float]) -> Estimate:
    """Mean of `ours` minus `theirs`, pair by pair, for values in [0, 1]. Raises ValueError for unequal counts."""
    if len(ours) != len(theirs):
        raise ValueError(f"{len(ours)} values cannot be paired with {len(theirs)}: give as many of both")
    return estimate([mine - other for mine, other in zip(ours, theirs, strict=True)], least=-1.0)
