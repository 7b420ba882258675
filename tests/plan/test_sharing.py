"""The ways to split a video over GPUs: which are possible, which levels are shared, what is refused."""

import pytest
from real_sizes import hd
from tiny import plan

from histream_core.plan.levers import POOLED_LOW
from histream_core.plan.order import calls
from histream_core.plan.presets import find_preset
from histream_core.plan.schedule import Scale
from histream_core.plan.sharing import (
    DECODE,
    LEAST_TOKENS,
    PIPELINE,
    SEQUENCE,
    Sharing,
    check_split,
    level_of,
    ring_rows,
    shared_levels,
    sharings,
    why_not,
)

V2V = {"mode": "full", "preset": "streamdiffusionv2", "histories": "each-step"}


def diagonal(steps=3, **settings):
    preset = find_preset("streamdiffusionv2").with_steps(steps)
    settings = V2V | {"order": "diagonal", "schedule": preset.schedule("full")} | settings
    return hd(settings.pop("mode"), width=832, height=480, **settings)


@pytest.mark.parametrize(
    "ranks, size, levels",
    [
        (1, (1920, 1088), ()),
        (2, (1920, 1088), (Scale.HIGH, Scale.LOW)),
        (11, (1920, 1088), (Scale.HIGH, Scale.LOW)),
        (12, (1920, 1088), (Scale.HIGH,)),
        (2, (832, 480), (Scale.HIGH, Scale.LOW)),
        (3, (832, 480), (Scale.HIGH,)),
        (10, (832, 480), ()),
    ],
)
def test_ranks_share_the_levels_that_have_enough_tokens_for_each(ranks, size, levels):
    """A chunk has 24480 and 6120 tokens at 1920x1088, 4680 and 1170 at 832x480."""
    assert shared_levels(hd("histream", width=size[0], height=size[1]), ranks) == levels


def test_pooled_low_keys_are_shared_with_those_of_high_or_not_at_all():
    pooled = hd("histream", width=832, height=480, levers=(POOLED_LOW,))
    assert shared_levels(pooled, 9) == pooled.levels == (Scale.HIGH, Scale.LOW)
    assert shared_levels(pooled, 10) == ()


def test_levels_of_steps_are_shared_as_their_resolution_says():
    a_plan = diagonal()
    assert shared_levels(a_plan, 3) == a_plan.levels
    assert shared_levels(a_plan, 4) == ()
    assert [level_of(a_plan, step, i) for i, step in enumerate(a_plan.chunks[0].steps)] == [*a_plan.levels]
    clean = plan("histream")
    assert {level_of(clean, step, 0) for step in clean.chunks[0].cache_steps} == set(clean.levels)


def test_a_split_uses_as_many_gpus_as_it_can_with_the_vae_among_the_ranks_or_apart():
    assert sharings(SEQUENCE, 4) == (Sharing(SEQUENCE, 4), Sharing(SEQUENCE, 3, vae_apart=True))
    assert sharings(SEQUENCE, 2) == (Sharing(SEQUENCE, 2),)
    assert sharings(DECODE, 4) == (Sharing(DECODE, 1, vae_apart=True),)
    assert not sharings(DECODE, 1) and not sharings(PIPELINE, 1)
    assert all(way.gpus <= 4 for split in (SEQUENCE, DECODE, PIPELINE) for way in sharings(split, 4))


@pytest.mark.parametrize(
    "split, gpus, words",
    [
        ("farm", 2, 'split "farm" does not exist: use one of one, decode, sequence, pipeline'),
        (SEQUENCE, 0, "0 GPUs make no video: use 1 or more"),
        (SEQUENCE, 1, "sequence needs 2 GPUs or more, not 1"),
        (SEQUENCE, 13, "sequence over 13 GPUs is impossible, .* 12: use 12 GPUs or fewer"),
        (PIPELINE, 2, "pipeline needs .*: take histories each-step and order diagonal"),
    ],
)
def test_what_is_impossible_is_refused_with_what_works(split, gpus, words):
    with pytest.raises(ValueError, match=words):
        check_split(hd("histream"), split, gpus, num_heads=12, num_layers=30)


def test_more_ranks_than_layers_and_passes_too_small_are_refused_with_what_works():
    assert "use 30 GPUs or fewer" in why_not(diagonal(), PIPELINE, 31, 12, 30)
    assert "order diagonal" in why_not(diagonal(order="batched"), PIPELINE, 2, 12, 30)
    assert "sequence needs order chunks, not diagonal" in why_not(diagonal(), SEQUENCE, 2, 12, 30)
    small = hd("full", width=832, height=480, preset="streamdiffusionv2")
    assert f"1560 tokens and each GPU needs {LEAST_TOKENS}: use 3 GPUs" in why_not(small, SEQUENCE, 4, 12, 30)
    assert "192 tokens" in (said := why_not(plan("full", width=128, height=128), SEQUENCE, 2, 12, 30))
    assert said.endswith("use decode")
    assert "attention heads" in why_not(hd("full"), SEQUENCE, 2, 1, 30)
    assert not why_not(diagonal(), PIPELINE, 30, 12, 30) and not why_not(hd("full"), SEQUENCE, 12, 12, 30)


@pytest.mark.parametrize("steps", [1, 2, 3])
def test_a_ring_starts_the_rows_of_the_diagonal_order_each_after_what_it_needs(steps):
    a_plan = diagonal(steps, num_frames=7, restyle=find_preset("streamdiffusionv2").restyle)
    rows, count = list(ring_rows(a_plan)), len(a_plan.levels)
    assert count == steps
    assert sorted(rows) == sorted(row for call in calls(a_plan) for row in call)
    place = {row: number for number, row in enumerate(rows)}
    for chunk, step in rows:
        assert not chunk or place[chunk - 1, step] < place[chunk, step]
        if step:
            assert place[chunk, step] > place[chunk, step - 1]
    middle = [place[3, step] - place[3, step - 1] for step in range(1, count)]
    assert middle == [count + 1] * (count - 1)
