"""Arms of an evaluation: settings that the clips of a list of prompts are made with, and the scores of those clips.

The arms of one evaluation share prompts and seeds, so that their scores can be compared pair by pair.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from ...network.forward import Text
from ...plan.chunks import Plan
from ...runs.progress import Report, silent
from ...runs.render import Order, collect
from ...runs.weights import Weights
from ...stream.noise import SeededNoise
from ...stream.prompts import Prompt
from .bootstrap import Estimate, difference, estimate
from .judge import Verdict, painted_area
from .prompts import DemoPrompt, chance
from .scores import SCORES, score
from .throughout import WORDS, Second, course, read_seconds

RANDOM_STD = 0.02  # of the random weights of an untrained network


@dataclass(frozen=True)
class Arm:
    """Weights, plan and texts that clips are made with."""

    name: str
    weights: Weights
    plan: Plan
    texts: Sequence[Tensor]
    """Text embeddings [1, tokens, channels] of the prompts, in their order."""


@dataclass(frozen=True)
class ScoredClip:
    """A clip's prompt, verdict and scores, and what each of its seconds shows."""

    asked: DemoPrompt
    verdict: Verdict
    scores: dict[str, float]
    seconds: list[Second]


def make_clip(
    arm: Arm, text: Tensor, asked: DemoPrompt, report: Report = silent
) -> tuple[ScoredClip, list[np.ndarray]]:
    """Make and score one clip; also return its frames [H, W, 3], uint8."""
    pictures = collect(arm.weights, Order(arm.plan, (Prompt(Text(text)),), SeededNoise(asked.seed)), report)
    frames = np.stack(pictures).astype(np.float32) / 255
    seconds = read_seconds(frames)
    return ScoredClip(asked, *score(frames, asked.combination, seconds), seconds), pictures


def untrained(weights: Weights, seed: int = 0) -> Weights:
    """Copy `weights` with random numbers in the network; the VAE is unchanged."""
    model, draw = deepcopy(weights.model), torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=draw) * RANDOM_STD)
    return replace(weights, model=model)


def groups(clips: Sequence[ScoredClip]) -> dict[str, list[ScoredClip]]:
    """Group clips by the kind of their prompt: all, seen and held out; the order is kept."""
    return {
        "all": list(clips),
        "seen": [clip for clip in clips if not clip.asked.held_out],
        "held_out": [clip for clip in clips if clip.asked.held_out],
    }


def estimates(clips: Sequence[ScoredClip]) -> dict[str, Estimate]:
    """Mean and interval of every score."""
    return {name: estimate([clip.scores[name] for clip in clips]) for name in SCORES}


def ratios(clips: Sequence[ScoredClip]) -> dict[str, float]:
    """Mean size and speed relative to the painter's; below 1 is too small or too slow."""
    sizes = [clip.verdict.area / painted_area(clip.asked.combination.shape) for clip in clips]
    return {"size": float(np.mean(sizes)), "speed": float(np.mean([clip.verdict.speed for clip in clips]))}


def held_course(clips: Sequence[ScoredClip]) -> list[dict[str, float]]:
    """Share of clips in which presence and each word hold, and all of them, second by second."""
    return course([(clip.seconds, clip.asked.combination) for clip in clips])


def differences(ours: Sequence[ScoredClip], theirs: Sequence[ScoredClip]) -> dict[str, Estimate]:
    """Mean and interval of our score minus theirs, prompt by prompt. Raises ValueError where the prompts differ."""
    if [clip.asked for clip in ours] != [clip.asked for clip in theirs]:
        raise ValueError("the clips are of different prompts or seeds: only the same ones can be compared in pairs")
    return {name: difference(*([clip.scores[name] for clip in side] for side in (ours, theirs))) for name in SCORES}


def better_than_chance(clips: Sequence[ScoredClip]) -> list[str]:
    """Words of the prompts that the clips show more often than a constant answer would (95% interval above chance)."""
    luck = chance([clip.asked.combination for clip in clips])
    found = estimates(clips)
    return [word for word in WORDS if found[word].low > luck[word]]
