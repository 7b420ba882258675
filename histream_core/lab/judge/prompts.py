"""Randomly drawn prompts for the demo model; half of their combinations were never trained on."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from ...demo.painter import HELD_OUT, SENTENCES, Combination, training_combinations
from .throughout import WORDS

SEEDS = 2**32
MAX_PROMPTS = 100_000


@dataclass(frozen=True, slots=True)
class DemoPrompt:
    """A prompt, the combination that its clip should show, and the seed of the noise."""

    prompt: str
    combination: Combination
    held_out: bool
    seed: int


def draw_prompts(count: int, seed: int) -> list[DemoPrompt]:
    """Draw `count` prompts, the second half of them held out; combinations repeat only after all have been drawn.

    Raises ValueError for fewer than two, for more than MAX_PROMPTS, or a seed below 0.
    """
    if not 2 <= count <= MAX_PROMPTS:
        raise ValueError(f"{count} prompts cannot be halved into seen and held-out ones: use 2 to {MAX_PROMPTS}")
    if seed < 0:
        raise ValueError(f"seed {seed} is out of range: use 0 or more")
    rng = random.Random(seed)
    asked = []
    for held_out, share in ((False, count - count // 2), (True, count // 2)):
        picks = _shuffled(pool(held_out=held_out), rng)
        for combination in (next(picks) for _ in range(share)):
            sentence, noise = rng.choice(SENTENCES), rng.randrange(SEEDS)
            asked.append(DemoPrompt(combination.caption(sentence), combination, held_out, noise))
    return asked


def pool(*, held_out: bool) -> list[Combination]:
    """Combinations that prompts are drawn from, in a fixed order."""
    return sorted(HELD_OUT if held_out else training_combinations())


def chance(combinations: Sequence[Combination]) -> dict[str, float]:
    """Score of the best constant answer to all prompts: the share of the most frequent word."""
    counts = {word: Counter(getattr(c, word) for c in combinations) for word in WORDS}
    return {word: max(count.values()) / len(combinations) for word, count in counts.items()}


def _shuffled(combinations: list[Combination], rng: random.Random) -> Iterator[Combination]:
    while True:
        yield from rng.sample(combinations, len(combinations))
