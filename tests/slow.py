"""Cases of a test that the default run leaves out; `pytest -m slow` runs them, and `.ci/run` a share of them."""

from collections.abc import Collection
from hashlib import sha256
from itertools import combinations, product

import pytest


def slow(*values):
    """A further case for `pytest.mark.parametrize` of a law that the default run tests."""
    return pytest.param(*values, marks=[pytest.mark.slow, pytest.mark.further])


def is_drawn(case: str, one_of: int, seed: str) -> bool:
    """Whether a draw, of which each seed is another one, keeps a case: it keeps one of so many."""
    return int(sha256(f"{seed} {case}".encode()).hexdigest(), 16) % one_of == 0


def crossed(*axes: Collection) -> list:
    """Combinations of the axes' values that cover each pair of values, which for two axes are all combinations.

    Slow but for as many as the longest axis has, which cover each value.
    """
    values = [list(axis) for axis in axes]
    quick = [_combination(values, index) for index in range(max(map(len, values)))]
    every = list(product(*values))
    chosen, pairs = [every.index(case) for case in quick], [_pairs(values, case) for case in every]
    missing = set().union(*pairs).difference(*(pairs[index] for index in chosen))
    while missing:
        chosen.append(max(range(len(every)), key=lambda index: len(pairs[index] & missing)))
        missing -= pairs[chosen[-1]]
    return [case if case in quick else slow(*case) for index, case in enumerate(every) if index in chosen]


def every(*axes: Collection) -> list:
    """All combinations of the axes' values, slow but for as many as the longest axis has, which cover each value."""
    values = [list(axis) for axis in axes]
    quick = [_combination(values, index) for index in range(max(map(len, values)))]
    return [case if case in quick else slow(*case) for case in product(*values)]


def _pairs(axes: list[list], case: tuple) -> set[tuple]:
    """The pairs of values in a combination: two axes, and the place of the value in each."""
    places = [(n, axis.index(value)) for n, (axis, value) in enumerate(zip(axes, case, strict=True))]
    return set(combinations(places, 2))


def _combination(axes: list[list], index: int) -> tuple:
    """The longest axis in order, the others as the digits of `index`."""
    longest, found = max(range(len(axes)), key=lambda n: len(axes[n])), []
    digits = index
    for n, axis in enumerate(axes):
        found.append(axis[index if n == longest else digits % len(axis)])
        digits = digits if n == longest else digits // len(axis)
    return tuple(found)


def few(values: Collection, quick: int) -> list:
    """The values, slow but for the first ones; for one argument."""
    return [value if n < quick else slow(value) for n, value in enumerate(values)]
