"""Plans without an end: the same chunks as of any plan that is long enough, by their index."""

import sys

import pytest
import tiny

from histream_core.network.cache.window import CacheWindow
from histream_core.plan.chunks import ENDLESS
from histream_core.plan.entry import Restyle
from histream_core.plan.positions import TemporalPolicy
from histream_core.plan.window import Window

KINDS = [
    {},
    {"levers": ("last-step",)},
    {"temporal": TemporalPolicy("reset", 50, 5), "window": Window(1, 3, 2)},
    {"restyle": Restyle(0.7)},
]


@pytest.mark.parametrize("settings", KINDS)
@pytest.mark.parametrize("mode", ["histream", "histream-plus", "sd"])
def test_its_chunks_are_those_of_every_longer_plan(mode, settings):
    """The last chunk of a closed plan alone differs: nothing sees it, so it is not cached."""
    endless = tiny.plan(mode, num_frames=ENDLESS, **settings)
    assert endless.endless
    for length in (4, 30, 300):
        closed = tiny.plan(mode, num_frames=length, **settings)
        assert not closed.endless
        assert list(closed.chunks)[:-1] == list(endless.chunks[: closed.num_chunks - 1])


def test_a_chunk_far_away_costs_what_the_first_one_costs():
    """Counted in calls of functions: a plan that walked to chunk 1,000,000 would make millions."""

    def calls(index):
        plan, count = tiny.plan(num_frames=ENDLESS), 0

        def watch(_frame, event, _argument):
            nonlocal count
            count += event == "call"

        sys.setprofile(watch)
        try:
            chunk = plan.chunks[index]
        finally:
            sys.setprofile(None)
        return chunk, count

    (near, few), (far, many) = calls(3), calls(1_000_000)
    assert many == few
    assert far.frames.start == 3_000_000
    assert [frame - far.frames.start for frame in far.context[1:]] == [f - near.frames.start for f in near.context[1:]]
    assert far.steps == near.steps


def test_its_caches_are_those_of_a_long_video():
    assert CacheWindow.of(tiny.plan(num_frames=ENDLESS)) == CacheWindow.of(tiny.plan(num_frames=3000))


def test_a_full_history_without_an_end_is_refused():
    with pytest.raises(ValueError, match="is too long: ask for 5001 or fewer"):
        tiny.plan("history", num_frames=ENDLESS)
