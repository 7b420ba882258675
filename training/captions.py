"""Caption templates of training clips: full sentences, partial ones, and now and then an empty one."""

import random

from histream_core.demo.painter import SENTENCES

TEMPLATES = (SENTENCES[0], *SENTENCES)  # the first has twice the weight
PARTIAL = ("{c} {s}", "{c} {s} moves {d}", "{c} {s} on {b}", "{s} moves {d} on {b}", "{s}", "{b} background")
DROPOUT = PARTIAL_SHARE = 0.08


def template(rng: random.Random, dropout: float = DROPOUT, partial: float = PARTIAL_SHARE) -> str:
    """Draw a template: empty with probability `dropout`, for classifier-free guidance, partial with `partial`."""
    chance = rng.random()
    if chance < dropout:
        return ""
    return rng.choice(PARTIAL if chance < dropout + partial else TEMPLATES)
