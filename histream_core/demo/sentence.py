"""Reading of a sentence about a clip of the painter, in the words of the demo model."""

from .painter import BACKGROUNDS, COLOURS, DIRECTIONS, SHAPES, Combination
from .scenes import MOTIONS, PLACES, THINGS, Scene
from .words import SHAPE_WORDS, VOCABULARY, plain_words, unknown_words, words

EXAMPLE = "a red circle moves right on a blue background"
SCENE_EXAMPLE = "a cat moves right over the meadow"


def clip_of(sentence: str) -> Combination | Scene:
    """The clip that a sentence describes; a thing with its colour before it is a shape. Raises ValueError."""
    told = words(sentence)
    things = [place for place, word in enumerate(told) if word in THINGS]
    coloured = any(place and plain_words(told[place - 1])[0] in COLOURS for place in things)
    return scene_of(sentence) if things and not coloured else combination_of(sentence)


def scene_of(sentence: str) -> Scene:
    """The scene that a sentence describes. Raises ValueError for one that does not tell thing, place and motion."""
    if unknown := unknown_words(sentence, VOCABULARY):
        known = ", ".join((*THINGS, *PLACES, *MOTIONS))
        raise ValueError(f"the painter does not know {', '.join(unknown)}: it knows {known}; write {SCENE_EXAMPLE!r}")
    told = plain_words(sentence, VOCABULARY)
    painted = [word for word in PLACES if word not in BACKGROUNDS and word in told]
    things, places, motions = (
        [word for word in told if word in known] for known in (THINGS, painted or BACKGROUNDS, MOTIONS)
    )
    if not len(things) == len(places) == len(motions) == 1 or any(word in SHAPES for word in told):
        raise ValueError(
            f"{sentence!r} does not tell one thing, one place and one motion: write {SCENE_EXAMPLE!r}; plain places "
            f"are {', '.join(BACKGROUNDS)}"
        )
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
