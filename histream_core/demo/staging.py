"""Words for the size of a thing and the place where it begins: "a small cat moves right over the meadow, high, west".

A network that learns by regression answers pure noise with the mean of all clips that fit the prompt, so a prompt has
to say which one is meant; what it leaves open is the middle. Of a clip that moves in one direction four places along
its way are named, a quarter of the frame apart, and three across it; of others three across and three down, those that
leave room for the thing.
"""

from __future__ import annotations

import itertools
from typing import TypeAlias

from .painter import DIRECTIONS, Combination
from .scenes import SWELL, Scene, Staging

Words: TypeAlias = tuple[str, ...]

SIZES = {"": 0.44, "small": 0.36, "large": 0.5}
"""Width of the picture of a thing by its word, as a share of the frame."""

ALONG = {
    "right": ("", "east", "edge", "west"),
    "left": ("", "west", "edge", "east"),
    "down": ("", "low", "edge", "high"),
    "up": ("", "high", "edge", "low"),
}
"""By direction: the places where a clip may begin, in the order in which it passes them."""

SIDES = {"west": (-1, 0), "east": (1, 0), "high": (0, -1), "low": (0, 1)}
"""Which way each word is from the middle, x and y."""

COLUMNS, ROWS = ("", "west", "east"), ("", "high", "low")
ASIDE = 0.25
"""How far aside of the middle a clip begins across its way, where there is room; a share of the frame: whole tokens."""

BOUNCE_HEIGHT = 0.625
"""Height at which a thing bounces: it stays within the frame."""


def motion_of(clip: Combination | Scene) -> str:
    return clip.motion if isinstance(clip, Scene) else clip.direction


def along(clip: Combination | Scene) -> Words:
    """Words for the places along its way where a clip may begin; only the middle, "", for one that goes nowhere."""
    return ALONG.get(motion_of(clip), ("",))


def stagings(clip: Combination | Scene) -> list[Words]:
    """All words for size and place across its way that a clip may be told with."""
    motion = motion_of(clip)
    across = {"right": (ROWS,), "left": (ROWS,), "up": (COLUMNS,), "down": (COLUMNS,), "bounces": (COLUMNS,)}
    sizes = SIZES if isinstance(clip, Scene) else ("",)
    chosen = itertools.product(sizes, *across.get(motion, (ROWS, COLUMNS)))
    return [tuple(word for word in words if word) for words in chosen]


def staging_of(clip: Combination | Scene, words: Words) -> Staging:
    """Where the clip is in frame 0, and how wide its thing, by its words; a flat shape has one size."""
    motion, width = motion_of(clip), SIZES[next((word for word in words if word in SIZES), "")]
    room = width / 2 * (1 + SWELL) if motion == "grows" else width / 2
    x, y = 0.5, BOUNCE_HEIGHT if motion == "bounces" else 0.5
    way, aside = ALONG.get(motion, ()), min(ASIDE, 0.5 - room)
    for word in words:
        if word in way:
            quarters = way.index(word) / 4
            dx, dy = (quarters * step for step in DIRECTIONS[motion])
        else:
            dx, dy = (aside * side for side in SIDES.get(word, (0, 0)))
        x, y = (x + dx) % 1, (y + dy) % 1
    return Staging((x, y), width)


def tell(sentence: str, words: Words) -> str:
    """A caption template with these words: size before the thing, places at the end."""
    size = [word for word in words if word in SIZES]
    places = [word for word in words if word not in SIZES]
    thing = " ".join([*size, "{t}"]) if "{t}" in sentence else "{t}"
    return ", ".join([sentence.replace("{t}", thing), *places]) if sentence else sentence
