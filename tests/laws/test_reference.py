"""The engine, caches and all, equals `reference.py`, which has none. Step tables are written out by hand.

Each docstring names the break of the engine with which the test was seen to fail.
"""

from dataclasses import replace
from math import inf, log, sqrt

import pytest
import tiny
import torch
from laws.engine import FOUR, FOUR_HIGH, FOUR_SD, GRIDS, HISTREAM, NTK, SIZE, TWO, assert_same, noise, run_engine
from laws.reference import Positions, Segment, flow, reference_histream

from histream_core.network.cache.tiers import make_caches
from histream_core.network.cache.window import CacheOptions
from histream_core.network.forward import Text, forward_chunk
from histream_core.plan.positions import TemporalPolicy
from histream_core.plan.schedule import Scale
from histream_core.plan.window import Window
from histream_core.stream.prompts import Prompt, blend_prompts


def test_histream_equals_the_reference(model, texts):
    """Broken by: a cache pass that only commits, and so keeps the keys of the last noisy step."""
    plan = tiny.plan_of(HISTREAM, "histream", num_frames=15, **SIZE)
    reference = reference_histream(model, [(texts[0], 3, FOUR)] * 5, noise, grids=GRIDS, ntk=NTK, span=18)
    assert_same(run_engine(model, plan, [Prompt(Text(texts[0]))]), reference)


def test_histream_plus_equals_the_reference(model, texts):
    """Broken by: the later chunks of histream-plus taking all four steps."""
    plan = tiny.plan_of(HISTREAM, "histream-plus", num_frames=15, **SIZE)
    chunks = [(texts[0], 3, FOUR), *[(texts[0], 3, TWO)] * 4]
    reference = reference_histream(model, chunks, noise, grids=GRIDS, ntk=NTK)
    assert_same(run_engine(model, plan, [Prompt(Text(texts[0]))]), reference)


@pytest.mark.parametrize(
    ("mode", "first", "later", "window", "ntk"),
    [
        ("full", FOUR_HIGH, FOUR_HIGH, (1, 2), NTK),
        ("history", FOUR, FOUR, (0, inf), NTK),
        ("naive", TWO, TWO, (1, 2), NTK),
        ("sd", FOUR_SD, FOUR_SD, (1, 2), {"low": 1.0, "high": 1.0}),
    ],
)
def test_ablations_equal_the_reference(model, texts, mode, first, later, window, ntk):
    """Broken by: each mode falling through to what histream does, one at a time."""
    plan = tiny.plan_of(HISTREAM, mode, num_frames=12, **SIZE)
    chunks = [(texts[0], 3, first), *[(texts[0], 3, later)] * 3]
    reference = reference_histream(model, chunks, noise, grids=GRIDS, ntk=ntk, window=window)
    assert_same(run_engine(model, plan, [Prompt(Text(texts[0]))]), reference)


def test_a_length_that_is_not_whole_chunks_is_the_longer_video_cropped(model, texts):
    """Broken by: a last chunk planned only as long as it is asked for."""
    plan = tiny.plan_of(HISTREAM, "histream", num_frames=8, **SIZE)
    reference = reference_histream(model, [(texts[0], 3, FOUR)] * 3, noise, grids=GRIDS, ntk=NTK)
    assert_same(run_engine(model, plan, [Prompt(Text(texts[0]))]), reference[:, :, :8])


def test_a_given_first_frame_equals_the_reference(model, texts):
    """Broken by: the first denoised chunk taking the steps of a later one."""
    given = noise(99, 0, (2, 4, 1, 8, 12))
    plan = tiny.plan_of(HISTREAM, "histream-plus", num_frames=10, given_frames=1, first_frame=True, **SIZE)
    chunks = [(texts[0], 1, []), (texts[0], 3, FOUR), *[(texts[0], 3, TWO)] * 2]
    reference = reference_histream(model, chunks, noise, grids=GRIDS, ntk=NTK, given=given)
    assert_same(run_engine(model, plan, [Prompt(Text(texts[0]))], given), reference)


def test_a_continuation_equals_the_reference(model, texts):
    """Broken by: every given chunk replaying the first given frames."""
    given = noise(99, 0, (2, 4, 6, 8, 12))
    plan = tiny.plan_of(HISTREAM, "histream-plus", num_frames=15, given_frames=6, **SIZE)
    chunks = [(texts[0], 3, [])] * 2 + [(texts[0], 3, TWO)] * 3
    reference = reference_histream(model, chunks, noise, grids=GRIDS, ntk=NTK, given=given)
    assert_same(run_engine(model, plan, [Prompt(Text(texts[0]))], given), reference)


def test_a_cut_to_another_prompt_equals_the_reference(model, texts):
    """Broken by: cross-attention keys kept on the model instead of with their text."""
    plan = tiny.plan_of(HISTREAM, "histream", num_frames=12, **SIZE)
    chunks = [(text, 3, FOUR) for text in (texts[0], texts[0], texts[1], texts[1])]
    reference = reference_histream(model, chunks, noise, grids=GRIDS, ntk=NTK)
    assert_same(run_engine(model, plan, [Prompt(Text(texts[0])), Prompt(Text(texts[1]), 2)]), reference)


def test_a_blend_of_two_prompts_equals_the_reference(model, texts):
    """Broken by: a blend that starts at the old prompt and stops short of the new one."""
    old, new, _ = texts
    plan = tiny.plan_of(HISTREAM, "histream-plus", num_frames=12, **SIZE)
    prompts = [Prompt(Text(old)), *blend_prompts(old, new, first_chunk=1, num_chunks=2)]
    chunks = [(old, 3, FOUR), ((old + new) / 2, 3, TWO), (new, 3, TWO), (new, 3, TWO)]
    reference = reference_histream(model, chunks, noise, grids=GRIDS, ntk=NTK)
    assert_same(run_engine(model, plan, prompts), reference)


@pytest.mark.parametrize("span", [4, 18])
def test_two_recaches_equal_the_reference(model, texts, span):
    """Broken by: recaching with the first text; past the span, by an anchor put back to time 0."""
    plan = tiny.plan_of(HISTREAM, "histream-plus", num_frames=18, temporal=TemporalPolicy(span=span), **SIZE)
    changes = [Prompt(Text(texts[i]), first_chunk, recache=True) for i, first_chunk in enumerate((0, 2, 4))]
    chunks = [(texts[c // 2], 3, TWO if c else FOUR) for c in range(6)]
    reference = reference_histream(model, chunks, noise, grids=GRIDS, ntk=NTK, span=span, recache=[2, 4])
    assert_same(run_engine(model, plan, changes), reference)


def test_recached_local_frames_stay_while_they_are_in_the_window(model, texts):
    """Frame by frame, where five local frames outlive the chunk at the change.

    Broken by: the recache running over the anchor alone.
    """
    preset = replace(HISTREAM, chunk_frames=1, local_frames=5)
    plan = tiny.plan_of(preset, "histream-plus", num_frames=11, temporal=TemporalPolicy(span=4), **SIZE)
    changes = [Prompt(Text(texts[0])), Prompt(Text(texts[1]), 7, recache=True)]
    chunks = [(texts[c >= 7], 1, TWO if c else FOUR) for c in range(11)]
    settings = {"grids": GRIDS, "ntk": NTK, "window": (1, 5), "span": 4}
    reference = reference_histream(model, chunks, noise, **settings, recache=[7])
    assert_same(run_engine(model, plan, changes), reference)


@pytest.mark.parametrize(("policy", "span"), [("clamped", 4), ("absolute", None)])
def test_positions_beyond_the_span_equal_the_reference(model, texts, policy, span):
    """Broken by: the anchor never moved (clamped); the anchor moved under every policy (absolute)."""
    temporal = TemporalPolicy(policy, span=4)
    plan = tiny.plan_of(HISTREAM, "histream-plus", num_frames=24, temporal=temporal, **SIZE)
    chunks = [(texts[0], 3, FOUR), *[(texts[0], 3, TWO)] * 7]
    reference = reference_histream(model, chunks, noise, grids=GRIDS, ntk=NTK, span=span)
    assert_same(run_engine(model, plan, [Prompt(Text(texts[0]))]), reference)


def test_three_anchor_frames_beyond_the_span_equal_the_reference(model, texts):
    """Broken by: all anchor frames moved to the time of the first."""
    window = Window(chunk_frames=3, anchor_frames=3, local_frames=6)
    temporal = TemporalPolicy(span=8)
    plan = tiny.plan_of(HISTREAM, "histream-plus", num_frames=18, window=window, temporal=temporal, **SIZE)
    chunks = [(texts[0], 3, FOUR), *[(texts[0], 3, TWO)] * 5]
    reference = reference_histream(model, chunks, noise, grids=GRIDS, ntk=NTK, window=(3, 6), span=8)
    assert_same(run_engine(model, plan, [Prompt(Text(texts[0]))]), reference)


@pytest.mark.parametrize(("low", "high"), [(1.0, 1.0), (1.0, 5.0), (3.0, 1.0)])
def test_ntk_factors_per_resolution_equal_the_reference(model, texts, low, high):
    """Broken by: the factors of the preset beating the ones asked for; by theta growing with f alone."""
    plan = tiny.plan_of(
        replace(HISTREAM, ntk_of_base=False), "histream", num_frames=6, ntk_low=low, ntk_high=high, **SIZE
    )
    ntk = {"low": low, "high": high}
    reference = reference_histream(model, [(texts[0], 3, FOUR)] * 2, noise, grids=GRIDS, ntk=ntk)
    assert_same(run_engine(model, plan, [Prompt(Text(texts[0]))]), reference)


@pytest.mark.parametrize(("mode", "later"), [("histream", FOUR), ("histream-plus", TWO)])
def test_a_heightened_first_chunk_equals_the_reference(model, texts, mode, later):
    """Broken by: its cache pass not heightened; by its LOW steps heightened too."""
    preset = replace(HISTREAM, scale_first_chunk=True, trained_tokens=4)
    plan = tiny.plan_of(preset, mode, num_frames=9, **SIZE)
    scale = sqrt(log(3 * 24) / log(3 * 4))  # 24 tokens per frame here, 4 as if trained
    chunks = [(texts[0], 3, FOUR), *[(texts[0], 3, later)] * 2]
    reference = reference_histream(model, chunks, noise, grids=GRIDS, ntk=NTK, first_scale=scale)
    assert_same(run_engine(model, plan, [Prompt(Text(texts[0]))]), reference)


def test_the_first_chunk_is_a_plain_wan_forward(model, texts):
    """Broken by: sines before cosines in the time embedding; by rotations turning the other way."""
    latent = noise(0, 0, (2, 4, 3, 8, 12))
    plan = tiny.plan_of(HISTREAM, "full", num_frames=6, ntk_high=1.0, **SIZE)
    cache = make_caches(plan, model, CacheOptions(batch=2))[Scale.HIGH]
    cache.begin(plan.chunks[0].frames, plan.chunks[0].context)
    seen = forward_chunk(model, latent, torch.full((2,), 937.5), Text(texts[0]), cache)
    whole = Segment(latent, [0, 1, 2], seen=[], start=0, timestep=937.5, text=texts[0], scale=1.0)
    plain = flow(model, [whole], Positions(GRIDS["high"], ntk=1.0, anchor=1, span=None))
    torch.testing.assert_close(seen, plain, atol=1e-5, rtol=0)
