"""Randomly drawn prompts for the demo model; half of their combinations were never trained on."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

from ...demo.painter import HELD_OUT, SENTENCES, Combination, training_combinations
from ...demo.scenes import SENTENCES as SCENE_SENTENCES
from ...demo.scenes import Scene, trained_scenes
from ...demo.sentence import completed
from .throughout import WORDS

T = TypeVar("T")

SEEDS = 2**32
MAX_PROMPTS = 100_000


@dataclass(frozen=True, slots=True)
class DemoPrompt:
    """A prompt, the combination that its clip should show, and the seed of the noise."""

    prompt: str
    combination: Combination
    held_out: bool
    seed: int

    @property
    def told(self) -> str:
        """The prompt with what it leaves open, as a user's is told to the model."""
        return completed(self.prompt, self.seed)


def draw_prompts(count: int, seed: int) -> list[DemoPrompt]:
    """Draw `count` prompts, the second half of them held out; combinations repeat only after all have been drawn.

    Raises ValueError for fewer than two, for more than MAX_PROMPTS, or a seed below 0.
    """
    rng, asked = _start(count, seed), []
    for held_out, share in ((False, count - count // 2), (True, count // 2)):
        picks = _shuffled(pool(held_out=held_out), rng)
        for combination in (next(picks) for _ in range(share)):
            sentence, noise = rng.choice(SENTENCES), rng.randrange(SEEDS)
            asked.append(DemoPrompt(combination.caption(sentence), combination, held_out, noise))
    return asked


@dataclass(frozen=True, slots=True)
class ScenePrompt:
    """A prompt, the scene that its clip should show, and the seed of the noise."""

    prompt: str
    scene: Scene
    held_out: bool
    seed: int

    @property
    def told(self) -> str:
        """The prompt with what it leaves open, as a user's is told to the model."""
        return completed(self.prompt, self.seed)


def draw_scene_prompts(count: int, seed: int) -> list[ScenePrompt]:
    """Draw `count` prompts of trained scenes as `draw_prompts` draws those of flat shapes, raising as it does."""
    rng, asked = _start(count, seed), []
    for held_out, share in ((False, count - count // 2), (True, count // 2)):
        picks = _shuffled(trained_scenes(held_out=held_out), rng)
        for scene in (next(picks) for _ in range(share)):
            asked.append(ScenePrompt(scene.caption(rng.choice(SCENE_SENTENCES)), scene, held_out, rng.randrange(SEEDS)))
    return asked


def _start(count: int, seed: int) -> random.Random:
    if not 2 <= count <= MAX_PROMPTS:
        raise ValueError(f"{count} prompts cannot be halved into seen and held-out ones: use 2 to {MAX_PROMPTS}")
    if seed < 0:
        raise ValueError(f"seed {seed} is out of range: use 0 or more")
    return random.Random(seed)


def pool(*, held_out: bool) -> list[Combination]:
    """Combinations that prompts are drawn from, in a fixed order."""
    return sorted(HELD_OUT if held_out else training_combinations())


def chance(combinations: Sequence[Combination]) -> dict[str, float]:
    """Score of the best constant answer to all prompts: the share of the most frequent word."""
    return chance_of(combinations, WORDS)


def chance_of(clips: Sequence[Combination | Scene], words: Sequence[str]) -> dict[str, float]:
    """Score of the best constant answer to clips of any world, for its `words`: the share of the most frequent one."""
    counts = {word: Counter(getattr(clip, word) for clip in clips) for word in words}
    return {word: max(count.values()) / len(clips) for word, count in counts.items()}


def _shuffled(combinations: list[T], rng: random.Random) -> Iterator[T]:
    while True:
        yield from rng.sample(combinations, len(combinations))
