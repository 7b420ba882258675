"""What a clip is called in training: full sentences, short forms, parts left out, now and then nothing at all."""

import random

from training.painter import Combination

TEMPLATES = (
    "a {c} {s} moves {d} on a {b} background",
    "a {c} {s} moves {d} on a {b} background",
    "a {c} {s} moving {d} on {b}",
    "{c} {s} {d}, {b} background",
    "on a {b} background, a {c} {s} moves {d}",
    "{b} background, {c} {s}, {d}",
)
PARTIAL = ("{c} {s}", "{c} {s} moves {d}", "{c} {s} on {b}", "{s} moves {d} on {b}", "{s}", "{b} background")


def caption(combination: Combination, rng: random.Random) -> str:
    chance = rng.random()
    if chance < 0.08:
        return ""
    template = rng.choice(PARTIAL if chance < 0.16 else TEMPLATES)
    c = combination
    return template.format(c=c.colour, s=c.shape, d=c.direction, b=c.background)
