"""Histories and orders of a plan: what is refused with a history for each step, and what it costs."""

import pytest
import tiny
import torch

from histream_core.cost.cost import Cost
from histream_core.network.cache.tiers import make_caches
from histream_core.network.cache.window import CacheOptions
from histream_core.network.forward import Denoiser, Text
from histream_core.plan.histories import EACH_STEP
from histream_core.plan.levers import CLEAN_ANCHOR, LAST_STEP, POOLED_LOW, SPARSE, SURVIVORS
from histream_core.plan.order import ORDERS
from histream_core.plan.schedule import make_steps, parse_schedule
from histream_core.plan.storage import TIERS
from histream_core.runs.progress import counted, new_progress
from histream_core.stream.prompts import Prompt


@pytest.mark.parametrize("lever", [LAST_STEP, CLEAN_ANCHOR, SURVIVORS, POOLED_LOW])
def test_levers_about_clean_passes_are_refused_where_there_are_none(lever):
    with pytest.raises(ValueError, match=f"{lever} replaces clean passes"):
        tiny.plan("histream", histories=EACH_STEP, levers=[lever])
    assert tiny.plan("histream", histories=EACH_STEP, levers=[SPARSE]).levers == (SPARSE,)


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"histories": "noisy"}, 'histories "noisy" do not exist: use clean or each-step'),
        ({"schedule": parse_schedule("1000H 500H | 1000H")}, "the same number of steps in every chunk"),
        ({"schedule": parse_schedule("1000L 500H | 1000H 500H")}, "the same number of steps in every chunk"),
        ({"given_frames": 3}, "a frame that is given has no noisy steps"),
    ],
)
def test_what_cannot_be_is_refused(settings, sentence):
    with pytest.raises(ValueError, match=sentence):
        tiny.plan("histream", **{"histories": EACH_STEP} | settings)


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"order": "rows"}, 'order "rows" does not exist: use one of chunks, diagonal, batched'),
        ({"order": "diagonal"}, "the order diagonal needs a history for each step"),
        ({"order": "batched", "histories": EACH_STEP}, "the order batched needs one resolution"),
    ],
)
def test_an_order_that_cannot_be_is_refused(settings, sentence):
    with pytest.raises(ValueError, match=sentence):
        tiny.plan("histream", **settings)


def test_rows_of_one_call_cost_one_call_and_the_room_of_all():
    """Seen to fail with rows counted as calls."""
    schedule = (make_steps((1000, 700, 400), 0),)
    plans = {
        order: tiny.plan("full", num_frames=30, schedule=schedule, histories=EACH_STEP, order=order) for order in ORDERS
    }
    costs = {order: Cost(tiny.CONFIG, plan, dtype=torch.float32) for order, plan in plans.items()}
    assert [plan.num_calls() for plan in plans.values()] == [30, 30, 14]
    assert [cost.summary()["calls"] for cost in costs.values()] == [30, 30, 14]
    assert len({cost.kv_bytes for cost in costs.values()}) == len({cost.flops for cost in costs.values()}) == 1
    assert costs["batched"].working_bytes == 3 * costs["diagonal"].working_bytes
    caches = make_caches(plans["batched"], tiny.CONFIG)
    assert costs["batched"].kv_bytes == sum(cache.nbytes for cache in caches.values())


@pytest.mark.parametrize("order", ORDERS)
def test_the_pace_of_every_order_ends_with_the_run(order):
    """Seen to fail with steps that are expected chunk by chunk."""
    schedule = (make_steps((1000, 700, 400), 0),)
    plan = tiny.plan("full", num_frames=18, schedule=schedule, histories=EACH_STEP, order=order)
    progress = new_progress(Cost(tiny.CONFIG, plan))
    stream = tiny.stream(plan, denoise=counted(Denoiser(tiny.wan()), progress))
    for chunk, _ in zip(plan.chunks, stream.chunks(), strict=True):
        before = progress.pace.position
        progress.count_chunk(len(chunk.frames))
        assert progress.pace.position == before
    assert progress.pace.position == len(progress.pace.calls) == progress.num_calls == sum(progress.calls.values())


def test_rows_whose_texts_are_not_of_one_length_count_as_the_calls_that_they_are():
    """They are computed one by one until the other prompt has left. Seen to fail where a joint call is expected."""
    schedule = (make_steps((1000, 700, 400), 0),)
    plan = tiny.plan("full", num_frames=24, schedule=schedule, histories=EACH_STEP, order="batched")
    progress = new_progress(Cost(tiny.CONFIG, plan))
    planned, work = progress.num_calls, sum(call.work for call in progress.pace.calls)
    longer = Text(torch.randn(1, 9, tiny.CONFIG.text_dim, generator=torch.Generator().manual_seed(5)))
    prompts = [Prompt(tiny.text()), Prompt(longer, 5)]
    stream = tiny.stream(plan, denoise=counted(Denoiser(tiny.wan()), progress), prompts=prompts)
    for chunk, _ in zip(plan.chunks, stream.chunks(), strict=True):
        before = progress.pace.position
        progress.count_chunk(len(chunk.frames))
        assert progress.pace.position == before
    assert progress.num_calls == planned + 2 * 2, "two calls of three rows"
    assert progress.pace.position == len(progress.pace.calls) == progress.num_calls == sum(progress.calls.values())
    assert sum(call.work for call in progress.pace.calls) == work


def test_no_chunk_has_a_pass_without_noise_and_the_last_keeps_nothing():
    chunks = tiny.plan("histream", histories=EACH_STEP).chunks
    assert not any(chunk.cache_steps for chunk in chunks)
    assert [chunk.keeps_all for chunk in chunks] == [True] * 3 + [False]


@pytest.mark.parametrize("kv", TIERS)
@pytest.mark.parametrize("num_steps", [1, 3])
def test_bytes_are_those_of_one_history_for_every_step(kv, num_steps):
    """Law L7. Seen to fail with the caches of the scales counted."""
    schedule = (make_steps((1000, 700, 400)[:num_steps], 0),)
    plan = tiny.plan("full", histories=EACH_STEP, schedule=schedule)
    caches = make_caches(plan, tiny.CONFIG, CacheOptions(kv=kv))
    cost = Cost(tiny.CONFIG, plan, dtype=CacheOptions().dtype, kv=kv)
    assert cost.kv_bytes == sum(cache.nbytes for cache in caches.values())
    assert cost.kv_main_bytes == sum(map(tiny.main_bytes, caches.values()))
    clean = Cost(tiny.CONFIG, tiny.plan("full", schedule=schedule), dtype=CacheOptions().dtype, kv=kv)
    assert cost.kv_bytes == num_steps * clean.kv_bytes
    assert sum(sum(calls.values()) for calls in cost.passes) == num_steps * plan.num_chunks
