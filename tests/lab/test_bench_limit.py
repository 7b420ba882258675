"""The demo against its arithmetic limit: operations are counted as the cost room has them; nothing here is timed."""

from collections import Counter
from dataclasses import replace

import pytest
import torch

from histream_core.cost.cost import DECODE_FLOPS
from histream_core.lab.bench.limit import (
    ATTENTION,
    CONVOLUTIONS,
    DECODE,
    NETWORK,
    PARTS,
    PRODUCTS,
    REST,
    Limit,
    count,
    demo_plan,
    demo_weights,
    limit_table,
)
from histream_core.vae.model import WanVAE


@pytest.fixture(scope="module")
def counted():
    """The operations of nine frames, with a VAE none of whose kernels forgets the past."""
    plan, (weights, text) = demo_plan(9), demo_weights()
    torch.manual_seed(0)
    weights = replace(weights, vae=WanVAE(dim=8).requires_grad_(False).eval())
    cost = replace(weights.cost(plan), text_tokens=text.shape[1])
    return cost, count(plan, weights, text)


def test_the_networks_operations_are_those_of_the_plan(counted):
    """Seen to fail without the CPU's attention, and without passes of the cache."""
    cost, flops = counted
    assert flops[NETWORK].total() == cost.flops
    assert set(flops[NETWORK]) == {PRODUCTS, ATTENTION} | ({CONVOLUTIONS} & set(flops[NETWORK]))
    assert flops[REST].total() == 0


def test_the_decoders_operations_are_those_of_the_cost_room(counted):
    """Eight of nine frames are counted: the first latent one is one picture, and no full kernel sees a past."""
    cost, flops = counted
    width, height = cost.plan.size
    each = DECODE_FLOPS * 8**2 * width * height
    assert cost.decode_flops == each
    assert 8 * each < flops[DECODE][CONVOLUTIONS] < 9 * each


def test_a_ratio_is_time_by_operations_at_the_rate_of_a_product():
    limit = Limit(product_rates=[4.0, 100.0, 2.0], convolution_rates=[2.0])
    limit.flops[NETWORK], limit.flops[DECODE] = Counter({PRODUCTS: 6, ATTENTION: 2}), Counter({CONVOLUTIONS: 8})
    limit.seconds.update({NETWORK: 3.0, DECODE: 6.0, REST: 1.0})
    assert [limit.ratio((part,)) for part in PARTS] == [1.5, 3.0, None]
    assert limit.ratio() == 2.5
    assert limit.plain()["rate of a convolution per product"] == 0.5
    rows = [line.split() for line in limit_table(limit).splitlines()]
    assert rows[1] == ["network", "0.0", "30%", "1.50"] and rows[4] == ["in", "all", "0.0", "100%", "2.50"]
