"""The cost of an anchor that walks, or is an average: the bytes of a plan are those of its caches."""

from dataclasses import replace
from itertools import pairwise

import pytest
import tiny
import torch

from histream_core.cost.cost import Cost
from histream_core.network.cache.tiers import make_caches
from histream_core.network.cache.window import CacheOptions
from histream_core.plan.anchoring import AnchorSource, describe_idle, is_idle
from histream_core.plan.chunks import ENDLESS, with_anchors
from histream_core.plan.entry import Restyle
from histream_core.plan.storage import EXACT
from histream_core.plan.window import Window


@pytest.mark.parametrize("source", [AnchorSource(walk=5), AnchorSource(share=0.5)])
@pytest.mark.parametrize("kv", [*EXACT, "fp8"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_its_bytes_are_those_of_the_caches(source, kv, dtype):
    """Seen to fail without the values of an average, and with these in the caches' type."""
    for anchors in ((), (9,)):
        plan = with_anchors(tiny.plan("histream", 20, anchor_source=source), anchors)
        caches = make_caches(plan, tiny.CONFIG, CacheOptions(kv=kv, device="meta", dtype=dtype))
        cost = Cost(tiny.CONFIG, plan, dtype=dtype, kv=kv)
        assert cost.kv_bytes == sum(cache.nbytes for cache in caches.values())
        assert cost.kv_main_bytes == sum(map(tiny.main_bytes, caches.values()))


def test_a_summary_names_it():
    assert Cost(tiny.CONFIG, tiny.plan("histream", 20)).summary()["anchor"] is None
    plan = tiny.plan("histream", 20, anchor_source=AnchorSource(walk=9))
    assert Cost(tiny.CONFIG, plan).summary()["anchor"] == {"walk": 9, "share": 1.0}


@pytest.mark.parametrize("source", [AnchorSource(walk=5), AnchorSource(share=0.5)], ids=["walk", "average"])
def test_an_anchor_that_changes_nothing_is_said_with_a_length_in_which_it_would(source):
    """Seen to fail with a chunk more or less, and where a scene does not begin anew."""

    def still(plan):
        apart = tiny.video(plan) - tiny.video(replace(plan, anchor_source=AnchorSource()))
        return bool(apart.abs().max() < 1e-5)  # keys of a walk lie in another order

    idle, moving = (tiny.plan("full", frames, anchor_source=source) for frames in (6, 7))
    assert is_idle(idle) and still(idle) and not is_idle(moving) and not still(moving)
    [line] = describe_idle(idle)
    assert line.endswith(f"use {moving.num_pixel_frames} frames or more") and describe_idle(moving) == []
    scenes, anchors = (with_anchors(tiny.plan("full", 12, anchor_source=source), *how) for how in ([[], [6]], [[6]]))
    assert is_idle(scenes) and still(scenes) and not is_idle(anchors)
    assert describe_idle(scenes)[0].endswith("let 28 frames or more follow the last new anchor or scene")
    given = [tiny.plan("full", frames, anchor_source=source, first_frame=True) for frames in (7, 8)]
    assert [is_idle(plan) for plan in given] == [still(plan) for plan in given] == [True, False]
    assert describe_idle(given[0])[0].endswith(f"use {given[1].num_pixel_frames} frames or more")
    assert not is_idle(tiny.plan("full", ENDLESS, anchor_source=source))
    shown = tiny.plan("full", 20, anchor_source=source, restyle=Restyle(0.0))
    assert "as the source stays as it is: use a strength above 0" in describe_idle(shown)[0]
    assert describe_idle(replace(idle, anchor_source=AnchorSource())) == []


@pytest.mark.parametrize("window", [Window(3, 2, 4), Window(1, 1, 3), Window(3, 3, 1)], ids=str)
def test_an_average_is_idle_until_a_frame_leaves_the_window(window):
    for frames in range(5, 14):
        plan = tiny.plan("full", frames, anchor_source=AnchorSource(share=0.5), window=window)
        seen = [{*chunk.context} - {*range(window.anchor_frames)} for chunk in plan.chunks if chunk.context]
        assert is_idle(plan) == all(before <= after for before, after in pairwise(seen))
