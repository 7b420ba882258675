"""A stream that begins again over the same caches sees nothing of before; one that remembers at once is the same."""

from itertools import islice

import pytest
import tiny
import torch
from slow import crossed

from histream_core.plan.chunks import ENDLESS
from histream_core.plan.order import CHUNKS
from histream_core.plan.presets import find_preset
from histream_core.plan.sinks import SinkRule
from histream_core.plan.storage import EXACT
from histream_core.plan.window import Window
from histream_core.stream.prompts import Prompt

FRAMES, SINKS = {"window": Window(1, 3, 2)}, {"sinks": SinkRule(1.0)}


def begun_again(a_plan, after, kv="full", count=4):
    stream = tiny.stream(a_plan, kv=kv, prompts=[Prompt(tiny.text(0))])
    for _ in islice(stream.chunks(), after):
        pass
    stream.begin_again([Prompt(tiny.text(5))])
    return [*islice(stream.chunks(), count)]


def fresh(a_plan, kv="full", count=4):
    return [*islice(tiny.stream(a_plan, kv=kv, prompts=[Prompt(tiny.text(5))]).chunks(), count)]


@pytest.mark.parametrize(("after", "kv"), crossed([1, 4, 30], EXACT))
def test_it_is_a_fresh_stream(kv, after):
    """After 30 chunks the anchor has moved in time."""
    a_plan = tiny.plan(num_frames=ENDLESS, width=32, height=32)
    assert all(torch.equal(*pair) for pair in zip(begun_again(a_plan, after, kv), fresh(a_plan, kv), strict=True))


@pytest.mark.parametrize("settings", [{**FRAMES, **SINKS}, FRAMES, {"anchor_match": 0.5}, {"levers": ("last-step",)}])
def test_so_it_is_with_sinks_that_give_way_an_anchor_match_and_kept_steps(settings):
    a_plan = tiny.plan(num_frames=ENDLESS, width=32, height=32, **settings)
    found = zip(begun_again(a_plan, 7, count=8), fresh(a_plan, count=8), strict=True)
    assert all(torch.equal(*pair) for pair in found)


def test_so_it_is_with_a_history_for_each_step():
    preset = find_preset("streamdiffusionv2")
    a_plan = tiny.plan_of(preset, "histream", num_frames=ENDLESS, width=32, height=32, histories="each-step")
    assert a_plan.order == CHUNKS
    assert all(torch.equal(*pair) for pair in zip(begun_again(a_plan, 5), fresh(a_plan), strict=True))


def test_prompts_that_leave_the_first_chunk_out_are_refused():
    stream = tiny.stream(tiny.plan())
    with pytest.raises(ValueError, match="no prompt covers the first chunk"):
        stream.begin_again([Prompt(tiny.text(5), first_chunk=1)])


@pytest.mark.parametrize("settings", [{}, {**FRAMES, **SINKS}, {"anchor_match": 0.5}, {"levers": ("last-step",)}])
def test_a_chunk_that_is_remembered_at_once_changes_nothing(settings):
    """Seen to fail where it is written into the caches a second time."""
    a_plan = tiny.plan(num_frames=18, width=32, height=32, **settings)
    prompts = [Prompt(tiny.text(5)), Prompt(tiny.text(0), first_chunk=3)]
    stream, at_once = tiny.stream(a_plan, prompts=prompts), []
    for chunk in stream.chunks():
        stream.remember()
        stream.remember()
        at_once.append(chunk)
    assert all(torch.equal(*pair) for pair in zip(at_once, tiny.stream(a_plan, prompts=prompts).chunks(), strict=True))
