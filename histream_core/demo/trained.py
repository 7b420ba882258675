"""The world that the demo model was trained on, and notes on prompts and sizes outside of it.

All lists are read from the clips that training draws, `painter.training_combinations`.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from itertools import combinations, product

from .. import demo
from .painter import COLOURS, DIRECTIONS, SHAPES, training_combinations
from .words import BUNDLED_WORDS, SCENE_WORDS, plain_words, unknown_words


@dataclass(frozen=True)
class Kind:
    """A kind of words that a prompt chooses from, as sentences name it."""

    one: str
    """The name of one of its words."""
    listed: str
    """The name of all its words together."""
    phrase: str
    """One of its words in a sentence."""


KINDS = {
    "shape": Kind("shape", "shapes", "a {}"),
    "colour": Kind("colour of the shape", "colours of the shape", "a {} shape"),
    "background": Kind("background", "backgrounds", "a {} background"),
    "direction": Kind("direction", "directions", "moving {}"),
}
"""By field of a `Combination`."""


CLIPS = tuple(asdict(clip) for clip in training_combinations())
"""The words of each clip of training, by kind."""


@cache
def trained(kind: str, **given: str) -> tuple[str, ...]:
    """The words of a kind in the clips of training, those alone that have the given words of other kinds."""
    return tuple(dict.fromkeys(clip[kind] for clip in CLIPS if given.items() <= clip.items()))


def world() -> str:
    """All that the model was trained on, in one line."""
    listed = (f"{kind.listed}: {', '.join(trained(name))}" for name, kind in KINDS.items())
    return f"{'; '.join(listed)}; shape and background differ in colour"


def untrained(prompts: Iterable[str], vocabulary: Sequence[str] = BUNDLED_WORDS) -> list[str]:
    """A sentence for all that prompts ask for and the model was not trained on; none for prompts of its world."""
    prompts = tuple(prompts)
    unknown = dict.fromkeys(word for prompt in prompts for word in unknown_words(prompt, vocabulary))
    said = [f"the demo model does not know {', '.join(unknown)}; it knows {world()}"] if unknown else []
    return [*said, *dict.fromkeys(fault for prompt in prompts for fault in _faults(told(prompt, vocabulary)))]


def other_size(size: tuple[int, int]) -> list[str]:
    """A sentence for a video of the demo model that is not as large as those of training; else none."""
    width, height = demo.WIDTH, demo.HEIGHT
    if tuple(size) == (width, height):
        return []
    return [
        f"the demo model was trained at {width}x{height} alone, and at {size[0]}x{size[1]} its shapes break or are not "
        f"there: make it {width}x{height}"
    ]


def told(prompt: str, vocabulary: Sequence[str] = BUNDLED_WORDS) -> dict[str, tuple[str, ...]]:
    """The words of each kind in a prompt; none for a scene, whose words have other kinds.

    A colour before a shape is the shape's, one beside "background" or behind "on" the background's.
    """
    known = [word for word in plain_words(prompt, vocabulary) if word in vocabulary]
    found: dict[str, dict[str, None]] = {kind: {} for kind in KINDS}
    if any(word in SCENE_WORDS for word in known):
        return dict.fromkeys(KINDS, ())
    for before, word, after in zip(["", *known], known, [*known[1:], ""], strict=False):
        if word in COLOURS:
            behind = after == "background" or (before in ("on", "background") and after not in SHAPES)
            found["background" if behind else "colour"][word] = None
        elif word in SHAPES or word in DIRECTIONS:
            found["shape" if word in SHAPES else "direction"][word] = None
    return {kind: tuple(words) for kind, words in found.items()}


def _faults(asked: dict[str, tuple[str, ...]]) -> Iterator[str]:
    """Yield a sentence for each word, and each pair of words, that no clip of training has."""
    one = {}
    for kind, words in asked.items():
        new = [word for word in words if word not in trained(kind)]
        one[kind] = [word for word in words if word in trained(kind)]
        for word in new:
            yield f"the demo model was not trained on {_phrase(kind, word)}; {_listed(kind)}"
        if len(words) > 1:
            yield f"the demo model was trained on one {KINDS[kind].one} in a video, not on {' and '.join(words)}"
    for first, second in combinations(KINDS, 2):
        for word, other in product(one[first], one[second]):
            fitting = trained(second, **{first: word})
            if other not in fitting:
                both = f"{_phrase(first, word)} with {_phrase(second, other)}"
                yield f"the demo model was not trained on {both}; {_listed(second, fitting)} there"


def _phrase(kind: str, word: str) -> str:
    return KINDS[kind].phrase.format(word)


def _listed(kind: str, words: Sequence[str] | None = None) -> str:
    return f"{KINDS[kind].listed} are {', '.join(words or trained(kind))}"
