"""The draw of further cases: each commit runs a share of them, and none is left out for ever."""

import pytest
from slow import is_drawn

CASES = [f"tests/test_a.py::test_it[{number}]" for number in range(400)]


def drawn(seed, one_of=4):
    return {case for case in CASES if is_drawn(case, one_of, seed)}


def test_a_draw_is_a_share_that_its_seed_decides():
    assert drawn("a") == drawn("a") != drawn("b")
    assert len(drawn("a")) == pytest.approx(100, abs=30)
    assert drawn("a", one_of=1) == {*CASES}


def test_draws_of_many_commits_leave_nothing_out():
    """Seen to fail with a seed that is not looked at."""
    assert set().union(*(drawn(f"{commit}") for commit in range(50))) == {*CASES}
