"""The cost of an anchor that walks, or is an average: the bytes of a plan are those of its caches."""

import pytest
import tiny
import torch

from histream_core.cost.cost import Cost
from histream_core.network.cache.tiers import make_caches
from histream_core.network.cache.window import CacheOptions
from histream_core.plan.anchoring import AnchorSource
from histream_core.plan.chunks import with_anchors
from histream_core.plan.storage import EXACT


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
