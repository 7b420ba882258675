"""What a clip is called in training: full sentences, short forms, parts left out, now and then nothing at all."""

import random

from histream_core.demo.painter import SENTENCES, Combination

TEMPLATES = (SENTENCES[0], *SENTENCES)  # the first twice as often
PARTIAL = ("{c} {s}", "{c} {s} moves {d}", "{c} {s} on {b}", "{s} moves {d} on {b}", "{s}", "{b} background")
DROPOUT = 0.08


def template(rng: random.Random, dropout: float = DROPOUT) -> str:
    """How a clip is called; nothing in `dropout` of all cases, which is what classifier-free guidance needs."""
    chance = rng.random()
    if chance < dropout:
        return ""
    return rng.choice(PARTIAL if chance < dropout + 0.08 else TEMPLATES)


def caption(combination: Combination, rng: random.Random, dropout: float = DROPOUT) -> str:
    return combination.caption(template(rng, dropout))
