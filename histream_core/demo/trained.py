"""The worlds that a demo model was trained on, and notes on prompts and sizes outside of them.

All lists are read from the clips that training may draw: flat shapes and scenes.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from itertools import combinations, product

from .. import demo
from .painter import COLOURS, SHAPES, training_combinations
from .scenes import MOTIONS, PAINTED, THINGS, scene_words, trained_scenes
from .words import VOCABULARY, plain_words, unknown_words

Told = dict[str, tuple[str, ...]]
"""By kind: the words of a prompt."""


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of words that a prompt chooses from, as sentences name it."""

    one: str
    """The name of one of its words."""
    listed: str
    """The name of all its words together."""
    phrase: str
    """One of its words in a sentence."""


@dataclass(frozen=True, eq=False)
class World:
    """Clips of one kind that a model was trained on."""

    kinds: Mapping[str, Kind]
    clips: tuple[dict[str, str], ...]
    """The words of each clip, by kind."""

    def __str__(self) -> str:
        return "; ".join(f"{kind.listed}: {', '.join(trained(self, name))}" for name, kind in self.kinds.items())


@cache
def trained(of: World, kind: str, **given: str) -> tuple[str, ...]:
    """The words of a kind in a world's clips, those alone that have the given words of other kinds."""
    return tuple(dict.fromkeys(clip[kind] for clip in of.clips if given.items() <= clip.items()))


FLAT = World(
    {
        "shape": Kind("shape", "shapes", "a {}"),
        "colour": Kind("colour of the shape", "colours of the shape", "a {} shape"),
        "background": Kind("background", "backgrounds", "a {} background"),
        "direction": Kind("direction", "directions", "the motion {}"),
    },
    tuple(asdict(clip) for clip in training_combinations()),
)
"""Flat shapes on plain backgrounds; kinds are the fields of a `Combination`."""

SCENES = World(
    {
        "thing": Kind("thing", "things", "a {}"),
        "place": Kind("place", "places", "{} as a place"),
        "motion": Kind("motion", "motions", "the motion {}"),
        "colour": Kind("colour of a thing", "colours of things", "a {} thing"),
    },
    tuple(asdict(scene) | {"colour": "those of their pictures"} for scene in trained_scenes()),
)
"""Things over painted places; kinds are the fields of a `Scene`, and a colour that a prompt cannot choose."""


def world() -> str:
    """All that the model was trained on, in one line."""
    return f"{SCENES}; and {FLAT}; shape and background differ in colour"


def untrained(prompts: Iterable[str]) -> list[str]:
    """A sentence for all that prompts ask for and the model was not trained on; none for prompts of its worlds."""
    prompts = tuple(prompts)
    unknown = dict.fromkeys(word for prompt in prompts for word in unknown_words(prompt))
    known = f"the demo model does not know {', '.join(unknown)}; it knows {world()}"
    faults = dict.fromkeys(fault for prompt in prompts for fault in _faults(*told(prompt)))
    return [*([known] if unknown else []), *faults]


def other_size(size: tuple[int, int]) -> list[str]:
    """A sentence for a video of the demo model that is not as large as those of training; else none."""
    width, height = demo.WIDTH, demo.HEIGHT
    if tuple(size) == (width, height):
        return []
    return [
        f"the demo model was trained at {width}x{height} alone, and at {size[0]}x{size[1]} its shapes break or are not "
        f"there: make it {width}x{height}"
    ]


def told(prompt: str) -> tuple[World, Told]:
    """The world that a prompt is about, and its words of each kind: scenes if it has a thing or a painted place."""
    words = [word for word in plain_words(prompt) if word in VOCABULARY]
    is_scene = any(word in THINGS or word in PAINTED for word in words)
    return (SCENES, _scene(words)) if is_scene else (FLAT, _flat(words))


def _faults(of: World, asked: Told) -> Iterator[str]:
    """Yield a sentence for each word, and each pair of words, that no clip of training has."""
    one = {}
    for kind, said in asked.items():
        new = [word for word in said if word not in trained(of, kind)]
        one[kind] = [word for word in said if word in trained(of, kind)]
        for word in new:
            yield f"the demo model was not trained on {_phrase(of, kind, word)}; {_listed(of, kind)}"
        if len(said) > 1:
            yield f"the demo model was trained on one {of.kinds[kind].one} in a video, not on {' and '.join(said)}"
    for first, second in combinations(of.kinds, 2):
        for word, other in product(one[first], one[second]):
            fitting = trained(of, second, **{first: word})
            if other not in fitting:
                both = f"{_phrase(of, first, word)} with {_phrase(of, second, other)}"
                yield f"the demo model was not trained on {both}; {_listed(of, second, fitting)} there"


def _flat(words: Sequence[str]) -> Told:
    """The words of a flat shape."""
    own, behind = _colours(words)
    kinds = {"shape": [word for word in words if word in SHAPES], "colour": own, "background": behind}
    return _once(kinds | {"direction": [word for word in words if word in MOTIONS]})


def _scene(words: Sequence[str]) -> Told:
    """The words of a scene; a shape is a thing that no scene has, and a plain background such a place."""
    bare = scene_words(words)
    own, behind = _colours(bare)
    kinds = {"thing": [*THINGS, *SHAPES], "place": [*PAINTED], "motion": [*MOTIONS]}
    found = {kind: [word for word in bare if word in known] for kind, known in kinds.items()}
    return _once(found | {"place": [*found["place"], *behind], "colour": own})


def _colours(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """The colours of what moves; and of the background, beside that word or behind "on", but not before a shape."""
    own, behind = [], []
    for before, word, after in zip(["", *words], words, [*words[1:], ""], strict=False):
        if word in COLOURS:
            is_behind = after == "background" or (before in ("on", "background") and after not in SHAPES)
            (behind if is_behind else own).append(word)
    return own, behind


def _once(kinds: Mapping[str, Sequence[str]]) -> Told:
    return {kind: tuple(dict.fromkeys(words)) for kind, words in kinds.items()}


def _phrase(of: World, kind: str, word: str) -> str:
    return of.kinds[kind].phrase.format(word)


def _listed(of: World, kind: str, words: Sequence[str] | None = None) -> str:
    return f"{of.kinds[kind].listed} are {', '.join(words or trained(of, kind))}"
