"""Reading of a sentence about a clip of the painter, in the words of the demo model."""

from .painter import COLOURS, DIRECTIONS, SHAPES, Combination
from .text import SYNONYMS, DemoTextEncoder, words

EXAMPLE = "a red circle moves right on a blue background"


def combination_of(sentence: str) -> Combination:
    """The clip that a sentence describes: the colour before the shape is the object's, the other the background's.

    Raises ValueError for a word that the painter does not know, and for a sentence that says too little or too much.
    """
    if unknown := DemoTextEncoder.unknown(sentence):
        known = ", ".join((*SHAPES, *COLOURS, *DIRECTIONS))
        raise ValueError(f"the painter does not know {', '.join(unknown)}: it knows {known}; write {EXAMPLE!r}")
    told = [SYNONYMS.get(word, word) for word in words(sentence)]
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
