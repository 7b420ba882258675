"""Scores of a demo clip against its prompt, all in [0, 1].

Of prompt adherence 1 is best, which is what the painter draws; of drift and flicker 0 is best.
"""

from __future__ import annotations

import numpy as np

from ...demo.painter import Combination
from .detail import likeness
from .judge import Verdict, judge, painted_area
from .steadiness import drift, flicker

WORDS = ("colour", "shape", "direction", "background")
"""Kinds of words in a prompt; each scores 1 where the clip shows the right word, else 0."""

SCORES = {
    "colour": "the object has the colour of the prompt",
    "shape": "the outline is nearest to the shape of the prompt",
    "direction": "the object moves where the prompt says",
    "background": "the background has the colour of the prompt",
    "size": "area of the object against the painter's: the smaller as a share of the larger",
    "speed": "speed of the object against the painter's, the smaller as a share of the larger",
    "drift": "the largest of the three below, 0 is none",
    "drift_colour": "change of a colour from the first third of the clip to the last",
    "drift_sharpness": "change of sharpness, relative",
    "drift_outline": "part of the outline that the first and the last third do not share",
    "flicker": "change from frame to frame besides motion, as a share of full scale, 0 is none",
}
"""Names and meanings, in the order in which they are shown."""


def adherence(verdict: Verdict, asked: Combination) -> dict[str, float]:
    """Scores that follow from a verdict alone: the words, size and speed."""
    agrees = verdict.agrees(asked)
    return {word: float(agrees[word]) for word in WORDS} | {
        "size": likeness(verdict.area, painted_area(asked.shape)),
        "speed": likeness(verdict.speed, 1),
    }


def score(frames: np.ndarray, asked: Combination) -> tuple[Verdict, dict[str, float]]:
    """Verdict and scores of a clip [F, H, W, 3] in [0, 1]; raises ValueError as `judge` does."""
    verdict, drifts = judge(frames), drift(frames)
    scores = adherence(verdict, asked) | {
        "drift": max(drifts.values()),
        **{f"drift_{part}": value for part, value in drifts.items()},
        "flicker": flicker(frames),
    }
    return verdict, {name: min(1.0, scores[name]) for name in SCORES}
