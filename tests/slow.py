"""Cases of a test that the default run leaves out; `pytest -m slow` runs them, and so does `.ci/run`."""

from collections.abc import Collection
from itertools import product

import pytest


def slow(*values):
    """A case for `pytest.mark.parametrize` that is slow."""
    return pytest.param(*values, marks=pytest.mark.slow)


def crossed(*axes: Collection) -> list:
    """Every combination of the axes' values; slow but for as many as the longest axis has, which cover each value."""
    values = [list(axis) for axis in axes]
    quick = [_combination(values, index) for index in range(max(map(len, values)))]
    return [case if case in quick else slow(*case) for case in product(*values)]


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
