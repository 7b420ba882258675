"""Sinks that give way: the rule, and what a plan with it costs."""

import pytest
import tiny
import torch

from histream_core.cost.cost import Cost
from histream_core.network.cache.tiers import make_caches
from histream_core.network.cache.window import CacheOptions
from histream_core.plan.positions import TemporalPolicy
from histream_core.plan.sinks import SinkRule
from histream_core.plan.storage import EXACT
from histream_core.plan.window import Window


def test_one_sink_at_most_gives_way_and_only_below_the_threshold():
    """Seen to fail with a rule that takes the oldest sink."""
    rule = SinkRule(0.5)
    assert rule.next_sinks((0, 1, 7), 9, [0.6, 0.5, 0.9]) == (0, 1, 7)
    assert rule.next_sinks((0, 1, 7), 9, [0.4, -0.2, 0.3]) == (0, 7, 9)


@pytest.mark.parametrize("span", [6, 50])
@pytest.mark.parametrize("kv", [*EXACT, "fp8"])
def test_its_bytes_are_those_of_the_caches(kv, span):
    """Where the anchor moves, un-rotated keys of one frame more. Seen to fail without that one."""
    asked = [
        tiny.plan("histream", 20, window=Window(1, 3, 2), temporal=TemporalPolicy(span=span), sinks=rule)
        for rule in (None, SinkRule(0.5))
    ]
    found = []
    for plan in asked:
        caches = make_caches(plan, tiny.CONFIG, CacheOptions(kv=kv, device="meta"))
        cost = Cost(tiny.CONFIG, plan, dtype=torch.float32, kv=kv)
        assert cost.kv_bytes == sum(cache.nbytes for cache in caches.values())
        assert cost.kv_main_bytes == sum(map(tiny.main_bytes, caches.values()))
        found.append(cost.kv_bytes + cost.kv_main_bytes)
    assert (found[1] > found[0]) == (span == 6)
    assert Cost(tiny.CONFIG, asked[1]).summary()["sinks"] == {"threshold": 0.5}
    assert Cost(tiny.CONFIG, asked[0]).summary()["sinks"] is None
