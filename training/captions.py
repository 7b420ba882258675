"""What a clip is called in training: full sentences, short forms, parts left out, now and then nothing at all."""

import random

from histream_core.demo.painter import SENTENCES, Combination

TEMPLATES = (SENTENCES[0], *SENTENCES)  # the first twice as often
PARTIAL = ("{c} {s}", "{c} {s} moves {d}", "{c} {s} on {b}", "{s} moves {d} on {b}", "{s}", "{b} background")


def caption(combination: Combination, rng: random.Random) -> str:
    chance = rng.random()
    if chance < 0.08:
        return ""
    template = rng.choice(PARTIAL if chance < 0.16 else TEMPLATES)
    return combination.caption(template)
