"""Reading of a sentence about a clip of the painter, in the words of the demo model."""

import random
import re
from collections.abc import Collection, Sequence
from typing import TypeVar

from .painter import BACKGROUNDS, COLOURS, DIRECTIONS, SHAPES, Combination
from .scenes import MOTIONS, PAINTED, PLACES, THINGS, Scene, scene_words
from .staging import SIZES, along, stagings
from .words import SHAPE_WORDS, STAGING_WORDS, plain_words, unknown_words, words

EXAMPLE = "a red circle moves right on a blue background"
SCENE_EXAMPLE = "a cat moves right over the meadow"

T = TypeVar("T")


def clip_of(sentence: str) -> Combination | Scene:
    """The clip that a sentence describes; a ball with its colour before it is a circle. Raises ValueError."""
    things = any(word in THINGS for word in plain_words(sentence))
    return scene_of(sentence) if things else combination_of(sentence)


def scene_of(sentence: str) -> Scene:
    """The scene that a sentence describes.

    Raises ValueError for one that does not tell thing, place and motion, and for a thing in another colour.
    """
    if unknown := unknown_words(sentence):
        known = ", ".join((*THINGS, *PLACES, *MOTIONS))
        raise ValueError(f"the painter does not know {', '.join(unknown)}: it knows {known}; write {SCENE_EXAMPLE!r}")
    told = plain_words(sentence)
    painted = [word for word in PAINTED if word in told]
    things, places, motions = (
        [word for word in told if word in known] for known in (THINGS, painted or BACKGROUNDS, MOTIONS)
    )
    if not len(things) == len(places) == len(motions) == 1 or any(word in SHAPES for word in told):
        raise ValueError(
            f"{sentence!r} does not tell one thing, one place and one motion: write {SCENE_EXAMPLE!r}; plain places "
            f"are {', '.join(BACKGROUNDS)}"
        )
    if coloured := [word for word in scene_words(told) if word in COLOURS and word not in places]:
        raise ValueError(f"a {things[0]} has the colours of its picture: leave {' and '.join(coloured)} out")
    return Scene(things[0], places[0], motions[0])


def combination_of(sentence: str) -> Combination:
    """The clip that a sentence describes: the colour before the shape is the object's, the other the background's.

    Raises ValueError for a word that the painter does not know, and for a sentence that says too little or too much.
    """
    if unknown := unknown_words(sentence, SHAPE_WORDS):
        known = ", ".join((*SHAPES, *COLOURS, *DIRECTIONS))
        raise ValueError(f"the painter does not know {', '.join(unknown)}: it knows {known}; write {EXAMPLE!r}")
    told = plain_words(sentence, SHAPE_WORDS)
    shapes, directions = ([word for word in told if word in known] for known in (SHAPES, DIRECTIONS))
    parts = [word for word in told if word in COLOURS or word in SHAPES]
    if len(shapes) != 1 or len(directions) != 1 or len(parts) != 3 or parts[0] in SHAPES:
        raise ValueError(
            f"{sentence!r} does not tell one shape with its colour before it, one direction and the colour of the "
            f"background: write {EXAMPLE!r}"
        )
    place = parts.index(shapes[0])
    colour, background = parts[place - 1], parts[2 if place == 1 else 0]
    if colour == background:
        raise ValueError(f"a {colour} {shapes[0]} on {background} cannot be seen: give the background another colour")
    return Combination(shapes[0], colour, background, directions[0])


def completed(sentence: str, seed: int) -> str:
    """The sentence with a size and a place where it leaves them open: the seed draws one of its `completions`."""
    clip, choices = _open(sentence)
    return _with(sentence, clip, drawn(choices, seed)) if clip else sentence


def completions(sentence: str) -> list[str]:
    """The sentence with all sizes and places that it may mean, by size; it alone where that is not open.

    Nothing is open in a sentence that tells no clip.
    """
    clip, choices = _open(sentence)
    return [_with(sentence, clip, one) for one in choices] if clip else [sentence]


def drawn(found: Sequence[T], seed: int) -> T:
    """The completion, in any form, that a seed draws from all those of a sentence."""
    return found[int(random.Random(seed).random() * len(found))]  # lists are by size: a seed's holds for all motions


def _open(sentence: str) -> tuple[Combination | Scene | None, list[list[str]]]:
    """The clip that a sentence tells, and the words for size and place that it may have besides; None without those."""
    plain = plain_words(sentence)
    said = {word for word in plain if word in STAGING_WORDS}
    bare = " ".join(word for word, read in zip(words(sentence), plain, strict=True) if read not in said)
    try:
        clip = clip_of(bare)
    except ValueError:
        return None, []
    chosen = [(*words, *([place] if place else [])) for words in stagings(clip) for place in along(clip)]
    found = [[word for word in one if word not in said] for one in chosen if said <= {*one}]
    return (clip, found) if found else (None, [])


def _with(sentence: str, clip: Combination | Scene, more: Collection[str]) -> str:
    """A sentence with the size of its thing before that, and places at its end; `more` has no size for a shape."""
    size = [word for word in more if word in SIZES]
    if size and isinstance(clip, Scene):
        thing = next(word for word in words(sentence) if clip.thing in plain_words(word))
        sentence = re.sub(rf"\b(?={thing}\b)", f"{size[0]} ", sentence, count=1, flags=re.IGNORECASE)
    return ", ".join([sentence.rstrip(" .!?,;"), *(word for word in more if word not in size)])
