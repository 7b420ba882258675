"""Temporal policies: the time at which a chunk and its anchor stand."""

import pytest
import tiny

from histream_core.plan.positions import TemporalPolicy
from histream_core.plan.window import Window


def test_the_anchor_follows_the_chunk_beyond_the_trained_span():
    policy = TemporalPolicy("clamped", span=18)
    assert [policy.anchor_time(start) for start in (0, 3, 18, 21, 10_000)] == [0, 0, 0, 3, 9_982]
    assert [policy.chunk_time(start) for start in (0, 21, 10_000)] == [0, 21, 10_000]


def test_reset_counts_up_to_the_span_again_and_again():
    policy = TemporalPolicy("reset", span=50, restart=5)
    assert [policy.chunk_time(start) for start in (0, 49, 50, 51, 94, 95)] == [0, 49, 5, 6, 49, 5]
    assert policy.anchor_time(500) == 0


@pytest.mark.parametrize(
    "settings",
    [
        {"kind": "relative"},
        {"span": 0},
        {"kind": "reset", "span": 4, "restart": 4},
        {"kind": "rerotate", "span": 4, "restart": 4},
    ],
)
def test_a_policy_that_cannot_be_is_refused(settings):
    with pytest.raises(ValueError, match=r"policy|span"):
        TemporalPolicy(**settings)


@pytest.mark.parametrize(("restart", "local"), [(1, 2), (5, None)])
def test_a_window_without_room_before_the_restart_is_refused(restart, local):
    with pytest.raises(ValueError, match=r"restart at 2 or later|use clamped"):
        tiny.plan(window=Window(1, 3, local), temporal=TemporalPolicy("rerotate", 9, restart))
