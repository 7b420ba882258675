"""The words that the demo model's text encoders read, and how a prompt becomes such words."""

from __future__ import annotations

import re
from collections.abc import Sequence

COLOUR_WORDS = ("red", "green", "blue", "yellow", "purple", "white", "black")
SHAPE_WORDS = (
    *COLOUR_WORDS,
    "circle", "square", "triangle",
    "right", "left", "up", "down",
    "on", "background",
)  # fmt: skip
"""Words of flat shapes on plain backgrounds."""
PAINTED = ("meadow", "sea", "night", "desert", "snow")
"""Painted places."""
SCENE_WORDS = (
    "cat", "dog", "fox", "turtle", "fish", "penguin", "ghost", "rocket", "car", "apple", "balloon", "ball",
    "robot", "star", "duck", "butterfly", "bee", "whale", "octopus", "frog", "panda", "pumpkin", "ufo", "cupcake",
    *PAINTED,
    "bounces", "turns", "grows",
)  # fmt: skip
"""Words of things over painted places."""
SIZE_WORDS = ("small", "large")
STAGING_WORDS = (*SIZE_WORDS, "west", "east", "high", "low", "edge")
"""Words for the size of a thing, and where it begins."""
VOCABULARY = (*SHAPE_WORDS, *SCENE_WORDS, *STAGING_WORDS)
"""All words, in the order of their embeddings; new ones come last."""
SYNONYMS = {
    "violet": "purple", "magenta": "purple", "crimson": "red", "scarlet": "red", "golden": "yellow", "gold": "yellow",
    "disc": "circle", "disk": "circle", "ball": "circle", "dot": "circle", "round": "circle",
    "box": "square", "block": "square", "cube": "square", "pyramid": "triangle",
    "rightward": "right", "rightwards": "right", "leftward": "left", "leftwards": "left",
    "upward": "up", "upwards": "up", "rises": "up", "rising": "up",
    "downward": "down", "downwards": "down", "falls": "down", "falling": "down", "sinks": "down", "sinking": "down",
    "bouncing": "bounces", "turning": "turns", "spins": "turns", "spinning": "turns", "growing": "grows",
    "ocean": "sea", "field": "meadow", "tiny": "small", "little": "small", "big": "large", "huge": "large",
    "over": "on", "against": "on", "upon": "on", "backdrop": "background", "ground": "background",
}  # fmt: skip
FILLERS = frozenset(
    [
        "a",
        "an",
        "the",
        "and",
        "is",
        "are",
        "it",
        "its",
        "of",
        "in",
        "into",
        "to",
        "at",
        "with",
        "from",
        "for",
        "by",
        "across",
        "moves",
        "moving",
        "move",
        "moved",
        "goes",
        "going",
        "go",
        "drifts",
        "drifting",
        "drift",
        "slides",
        "sliding",
        "slide",
        "flies",
        "flying",
        "fly",
        "travels",
        "travelling",
        "traveling",
        "travel",
        "floats",
        "floating",
        "glides",
        "gliding",
        "towards",
        "toward",
        "steadily",
        "slowly",
        "big",
        "large",
        "plain",
        "flat",
        "coloured",
        "colored",
        "video",
        "clip",
        "picture",
        "side",
        "runs",
        "running",
        "swims",
        "swimming",
        "around",
        "shrinks",
        "shrinking",
        "sky",
    ]
)
TEXT_TOKENS = 16
"""Words of a prompt that are read."""


def words(prompt: str) -> list[str]:
    """The words of a prompt, lower-cased, without punctuation."""
    return re.findall(r"[^\W_]+", prompt.lower())


def plain_words(prompt: str, vocabulary: Sequence[str] = VOCABULARY) -> list[str]:
    """The words of a prompt, those that are not in the vocabulary replaced by synonyms.

    A red ball is a circle too, unless it is over a painted place.
    """
    plain, found, before = [SYNONYMS.get(word, word) for word in words(prompt)], [], ""
    flat = not any(word in PAINTED for word in plain)
    for word, synonym in zip(words(prompt), plain, strict=True):
        coloured = flat and word == "ball" and before in COLOUR_WORDS
        found.append(synonym if coloured or word not in vocabulary else word)
        before = before if synonym in SIZE_WORDS else synonym
    return found


def tokenize(prompt: str, vocabulary: Sequence[str] = VOCABULARY) -> list[int]:
    """Token numbers, from 1, of the words of a vocabulary; more than TEXT_TOKENS are dropped."""
    told = plain_words(prompt, vocabulary)
    return [vocabulary.index(word) + 1 for word in told if word in vocabulary][:TEXT_TOKENS]


def unknown_words(prompt: str, vocabulary: Sequence[str] = VOCABULARY) -> list[str]:
    """The words of a prompt that an encoder of this vocabulary does not know, in order."""
    known = {*vocabulary, *FILLERS}
    return [word for word in words(prompt) if word not in known and SYNONYMS.get(word) not in vocabulary]
