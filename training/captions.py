"""Caption templates of training clips: full sentences, partial ones, and now and then an empty one."""

import random
from collections.abc import Sequence

from histream_core.demo.painter import SENTENCES
from histream_core.demo.scenes import SENTENCES as SCENE_SENTENCES

TEMPLATES = (SENTENCES[0], *SENTENCES)  # the first has twice the weight
PARTIAL = ("{c} {s}", "{c} {s} moves {d}", "{c} {s} on {b}", "{s} moves {d} on {b}", "{s}", "{b} background")
SCENE_TEMPLATES = (SCENE_SENTENCES[0], *SCENE_SENTENCES)
SCENE_PARTIAL = ("a {t} {m}", "a {t} {p}", "a {t}", "{p}")
STILL, SCENE_STILL = "a {c} {s} on a {b} background", "a {t} {p}"
"""Captions that do not say the motion, which a source shows."""
DROPOUT = PARTIAL_SHARE = 0.08


def template(rng: random.Random, dropout: float = DROPOUT, partial: float = PARTIAL_SHARE) -> str:
    """Draw a template: empty with probability `dropout`, for classifier-free guidance, partial with `partial`."""
    return _draw(rng, (dropout, partial), PARTIAL, TEMPLATES)


def scene_template(rng: random.Random, dropout: float = DROPOUT, partial: float = PARTIAL_SHARE) -> str:
    """Draw a template of a scene, as `template` does."""
    return _draw(rng, (dropout, partial), SCENE_PARTIAL, SCENE_TEMPLATES)


def _draw(rng: random.Random, shares: tuple[float, float], some: Sequence[str], whole: Sequence[str]) -> str:
    chance = rng.random()
    if chance < shares[0]:
        return ""
    return rng.choice(some if chance < sum(shares) else whole)
