"""The world of scenes: things that move over painted places, told in captions.

Positions are fractions of the frame, x to the right, y down, on a torus: what leaves at one edge returns at the other.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from .painter import BACKGROUNDS, COLOURS, DIRECTIONS, SHAPES, SPEED
from .words import PAINTED

FRONT, LEFT, TIP = "front", "left", "tip"
"""How a picture shows a thing: from the front, from its left side, or with its tip up and to the right."""

THINGS = {
    "cat": ("1f431", FRONT),
    "dog": ("1f436", FRONT),
    "fox": ("1f98a", FRONT),
    "turtle": ("1f422", LEFT),
    "fish": ("1f420", LEFT),
    "penguin": ("1f427", FRONT),
    "ghost": ("1f47b", FRONT),
    "rocket": ("1f680", TIP),
    "car": ("1f697", LEFT),
    "apple": ("1f34e", FRONT),
    "balloon": ("1f388", FRONT),
    "ball": ("26bd", FRONT),
    "robot": ("1f916", FRONT),
    "star": ("2b50", FRONT),
    "duck": ("1f986", LEFT),
    "butterfly": ("1f98b", FRONT),
    "bee": ("1f41d", LEFT),
    "whale": ("1f433", LEFT),
    "octopus": ("1f419", FRONT),
    "frog": ("1f438", FRONT),
    "panda": ("1f43c", FRONT),
    "pumpkin": ("1f383", FRONT),
    "ufo": ("1f6f8", FRONT),
    "cupcake": ("1f9c1", FRONT),
}
"""Things: the name of the picture's file without its ending, and what it shows."""

PLACES = (*PAINTED, *BACKGROUNDS)
"""Painted places, then plain ones."""

TRAINED_THINGS = (
    "cat", "dog", "fox", "turtle", "fish", "penguin", "ghost", "rocket", "car", "apple", "balloon", "ball", "robot",
    "star", "duck", "frog",
)  # fmt: skip
"""Things that a demo model is trained on, all over painted places; the painter knows more."""

MOTIONS = {
    **{way: f"moves {way}" for way in DIRECTIONS},
    "bounces": "bounces",
    "turns": "turns around",
    "grows": "grows and shrinks",
}
"""Motions, as captions say them."""

ROUND = round(1 / SPEED)
"""Frames after which every motion begins again."""

HOP, SWELL = 0.22, 0.3
"""Height of a hop as a share of the frame; share by which a thing grows and shrinks."""

LEAST_WIDTH, MOST_WIDTH = 0.36, 0.52
"""Width of a whole picture, as a share of the frame."""

SENTENCES = ("a {t} {m} {p}", "{t} {m}, {p}", "{p}, a {t} {m}")
"""Full captions: thing, motion, place."""

HELD_OUT_EVERY = 12
"""One scene in so many is never trained on; every pair of its words is."""


@dataclass(frozen=True, slots=True, order=True)
class Scene:
    """Thing, place and motion of one clip."""

    thing: str
    place: str
    motion: str

    @property
    def held_out(self) -> bool:
        """Whether training must never see it."""
        numbers = list(THINGS).index(self.thing), PLACES.index(self.place), list(MOTIONS).index(self.motion)
        return sum(weight * number for weight, number in zip((1, 2, 3), numbers, strict=True)) % HELD_OUT_EVERY == 0

    def caption(self, sentence: str = SENTENCES[0]) -> str:
        where = f"on a {self.place} background" if self.place in BACKGROUNDS else f"over the {self.place}"
        return sentence.format(t=self.thing, m=MOTIONS[self.motion], p=where)


@dataclass(frozen=True, slots=True)
class Staging:
    """The choices that a prompt leaves open: where the thing is in frame 0, and how wide its picture is."""

    start: tuple[float, float] = (0.5, 0.5)
    width: float = 0.44

    @classmethod
    def draw(cls, scene: Scene, rng: random.Random) -> Staging:
        """Draw a staging in which the thing leaves the frame only at the edges that it moves to."""
        width, (dx, dy) = rng.uniform(LEAST_WIDTH, MOST_WIDTH), DIRECTIONS.get(scene.motion, (0, 0))
        room = width / 2 * (1 + SWELL) if scene.motion == "grows" else width / 2
        x, y = (rng.random() if moves else rng.uniform(room, 1 - room) for moves in (dx, dy))
        return cls((x, max(y, room + HOP) if scene.motion == "bounces" else y), width)


def all_scenes(things: Collection[str] = THINGS, places: Collection[str] = PLACES) -> list[Scene]:
    """The scenes of these things and places, held-out ones too, in one order."""
    scenes = (Scene(*words) for words in itertools.product(THINGS, PLACES, MOTIONS))
    return [scene for scene in scenes if scene.thing in things and scene.place in places]


def scene_words(told: Sequence[str]) -> list[str]:
    """The words that choose a scene: a green meadow is a meadow, and a red circle a circle."""
    pairs = zip(told, [*told[1:], ""], strict=True)
    return [word for word, after in pairs if word not in COLOURS or after not in (*PAINTED, *SHAPES)]


def trained_scenes(*, held_out: bool = False) -> list[Scene]:
    """The scenes that a demo model is trained on, or those among its things and places that are held out."""
    return [scene for scene in all_scenes(TRAINED_THINGS, PAINTED) if scene.held_out == held_out]
