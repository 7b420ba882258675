"""Histories of a plan: what is refused with one for each step, and what it costs."""

import pytest
import tiny

from histream_core.cost.cost import Cost
from histream_core.network.cache.tiers import TIERS, make_caches
from histream_core.network.cache.window import CacheOptions
from histream_core.plan.histories import EACH_STEP
from histream_core.plan.levers import CLEAN_ANCHOR, LAST_STEP, POOLED_LOW, SPARSE, SURVIVORS
from histream_core.plan.schedule import make_steps, parse_schedule


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
