"""What a clip is called in training: full sentences, short forms, parts left out, now and then nothing at all."""

import random

from histream_core.demo.painter import SENTENCES

TEMPLATES = (SENTENCES[0], *SENTENCES)  # the first twice as often
PARTIAL = ("{c} {s}", "{c} {s} moves {d}", "{c} {s} on {b}", "{s} moves {d} on {b}", "{s}", "{b} background")
DROPOUT = PARTIAL_SHARE = 0.08


def template(rng: random.Random, dropout: float = DROPOUT, partial: float = PARTIAL_SHARE) -> str:
    """How a clip is called: in `dropout` of all cases not at all, which classifier-free guidance needs, or in part."""
    chance = rng.random()
    if chance < dropout:
        return ""
    return rng.choice(PARTIAL if chance < dropout + partial else TEMPLATES)
