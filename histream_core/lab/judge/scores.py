"""Scores of a demo clip against its prompt, all in [0, 1].

Of prompt adherence 1 is best, which is what the painter draws; of drift and flicker 0 is best.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ...demo.painter import Combination
from .detail import likeness
from .judge import Verdict, judge, painted_area
from .steadiness import drift, flicker
from .throughout import Second, read_seconds, throughout

JUDGE = 2
"""Number of what the scores mean. Of 1 a word was read once from the whole clip, whatever became of the object."""

SCORES = {
    "colour": "the object has the colour of the prompt in every frame",
    "shape": "in every second the outline is that of the prompt's shape, and nearer to it than to another's",
    "direction": "in every second the object moves where the prompt says, without a jump",
    "background": "the background has the colour of the prompt in every frame",
    "presence": "share of seconds in which every frame shows an object, half to twice the painter's",
    "held": "share of seconds in which all of the above hold",
    "first_second": "share of the five that holds in the first second",
    "worst_second": "the same of the second in which fewest hold",
    "last_second": "the same of the last second",
    "outline": "part of the object and the ideal outline at its place that they share",
    "worst_outline": "the same of the worst second",
    "size": "area of the object against the painter's: the smaller as a share of the larger",
    "speed": "speed of the object against the painter's, the smaller as a share of the larger",
    "drift": "the largest of the three below, 0 is none",
    "drift_colour": "change of a colour from the first third of the clip to the last",
    "drift_sharpness": "change of sharpness, relative",
    "drift_outline": "part of the outline that the first and the last third do not share",
    "flicker": "change from frame to frame besides motion, as a share of full scale, 0 is none",
}
"""Names and meanings, in the order in which they are shown."""


def adherence(verdict: Verdict, seconds: Sequence[Second], asked: Combination) -> dict[str, float]:
    """Scores of a clip against its prompt: what holds throughout, size and speed."""
    return throughout(seconds, asked) | {
        "size": likeness(verdict.area, painted_area(asked.shape)),
        "speed": likeness(verdict.speed, 1),
    }


def score(
    frames: np.ndarray, asked: Combination, seconds: Sequence[Second] | None = None
) -> tuple[Verdict, dict[str, float]]:
    """Verdict and scores of a clip [F, H, W, 3] in [0, 1], whose `seconds` may have been read before.

    Raises ValueError as `judge` does.
    """
    verdict, drifts = judge(frames), drift(frames)
    scores = adherence(verdict, seconds or read_seconds(frames), asked) | {
        "drift": max(drifts.values()),
        **{f"drift_{part}": value for part, value in drifts.items()},
        "flicker": flicker(frames),
    }
    return verdict, {name: min(1.0, scores[name]) for name in SCORES}
