"""Self Gradient Forcing and SGF+ as their public configurations say, compared with the reference that has no caches.

Windows, steps, shift and positions are written out here from configs/*.yaml and scripts/infer_*.sh of both; each
docstring names the break of the engine with which the test was seen to fail.
"""

from dataclasses import replace

import pytest
import tiny
from laws.engine import GRIDS, SIZE, assert_same, noise, run_engine
from laws.reference import reference_histream
from laws.reference_second import flow_of_two
from tiny import lively, lively_pair

from histream_core.network.forward import Text
from histream_core.plan.levers import LEVERS
from histream_core.plan.positions import TemporalPolicy
from histream_core.plan.presets import find_preset
from histream_core.plan.schedule import Scale, SecondStep
from histream_core.stream.prompts import Prompt

FOUR = [(1.0, "high"), (0.9375, "high"), (5 / 6, "high"), (0.625, "high")]
HALVES = [(1.0, "low"), (0.9375, "low"), (5 / 6, "high"), (0.625, "high")]
NTK = {"low": 1.0, "high": 1.0}
CHUNKWISE, FRAMEWISE = {"window": (3, 6), "span": 18}, {"window": (4, 16), "span": 20}
SETTINGS = {"grids": GRIDS, "ntk": NTK}


@pytest.fixture(scope="module")
def pair():
    return lively_pair()


def two_steps(preset):
    """A preset with half of its steps, where a test is about frames: the reference takes a minute for all of them."""
    return replace(preset, timesteps=preset.timesteps[::2])


def test_sgf_equals_the_reference_beyond_its_trained_span(texts):
    """Broken by: a window of one frame of the anchor; a span of 21."""
    plan = tiny.plan_of(two_steps(find_preset("sgf")), "full", num_frames=24, **SIZE)
    reference = reference_histream(lively(), [(texts[0], 3, FOUR[::2])] * 8, noise, **SETTINGS, **CHUNKWISE)
    assert_same(run_engine(lively(), plan, [Prompt(Text(texts[0]))]), reference)


def test_sgf_framewise_equals_the_reference_beyond_its_trained_span(texts):
    """Broken by: the span of the chunkwise weights, 18."""
    plan = tiny.plan_of(two_steps(find_preset("sgf-framewise")), "full", num_frames=23, **SIZE)
    reference = reference_histream(lively(), [(texts[0], 1, FOUR[::2])] * 23, noise, **SETTINGS, **FRAMEWISE)
    assert_same(run_engine(lively(), plan, [Prompt(Text(texts[0]))]), reference)


def test_sgf_plus_equals_the_reference_in_both_modes(pair, texts):
    """Broken by: cache passes of the first set; text keys of the first set in passes of the second one."""
    for mode, steps in (("full", FOUR), ("histream", HALVES)):
        plan = tiny.plan_of(find_preset("sgf-plus"), mode, num_frames=12, **SIZE)
        reference = reference_histream(
            pair, [(texts[0], 3, steps)] * 4, noise, **SETTINGS, **CHUNKWISE, flow=flow_of_two
        )
        assert_same(run_engine(pair, plan, [Prompt(Text(texts[0]))]), reference)


def test_sgf_plus_framewise_equals_the_reference(pair, texts):
    """Broken by: the second set for denoising steps too."""
    plan = tiny.plan_of(two_steps(find_preset("sgf-plus-framewise")), "full", num_frames=7, **SIZE)
    chunks = [(texts[0], 1, FOUR[::2])] * 7
    reference = reference_histream(pair, chunks, noise, **SETTINGS, **FRAMEWISE, flow=flow_of_two)
    assert_same(run_engine(pair, plan, [Prompt(Text(texts[0]))]), reference)


def test_given_frames_and_a_recache_of_sgf_plus_are_passes_of_the_second_set(pair, texts):
    """Broken by: a recache with the first set."""
    given = noise(99, 0, (2, 4, 3, 8, 12))
    plan = tiny.plan_of(two_steps(find_preset("sgf-plus")), "full", num_frames=15, given_frames=3, **SIZE)
    chunks = [(texts[0], 3, []), *[(texts[c >= 3], 3, FOUR[::2]) for c in range(1, 5)]]
    settings = {**SETTINGS, **CHUNKWISE, "flow": flow_of_two}
    reference = reference_histream(pair, chunks, noise, **settings, given=given, recache=[3])
    changes = [Prompt(Text(texts[0])), Prompt(Text(texts[1]), 3, recache=True)]
    assert_same(run_engine(pair, plan, changes, given), reference)


def published_times(sinks, recent, frames, last):
    """Times of sinks, recent frames and the chunk, as the public code pins them ("top_aligned", 21 trained frames)."""
    top = min(last, 20)
    return [*range(sinks), *range(top - recent - frames + 1, top + 1)]


@pytest.mark.parametrize(("name", "sinks", "recent", "frames"), [("sgf", 3, 6, 3), ("sgf-framewise", 4, 16, 1)])
def test_positions_are_those_of_the_public_code_but_for_a_constant(name, sinks, recent, frames):
    """From the chunk whose window is full on. Seen to fail with a span of 18 for frames."""
    preset = find_preset(name)
    policy: TemporalPolicy = preset.temporal()
    for start in range(sinks + recent, 60, frames):
        anchor = policy.anchor_time(start, 0)
        ours = [*range(anchor, anchor + sinks), *range(start - recent, start + frames)]
        theirs = published_times(sinks, recent, frames, start + frames - 1)
        assert len({mine - other for mine, other in zip(ours, theirs, strict=True)}) == 1, start


def test_cache_passes_of_a_plan_name_the_second_set():
    plan = tiny.plan_of(find_preset("sgf-plus"), "histream", num_frames=9, given_frames=3, **SIZE)
    calls = [step for chunk in plan.chunks for step in (*chunk.steps, *chunk.cache_steps)]
    assert all(isinstance(step, SecondStep) == (step.sigma == 0) for step in calls)
    assert len([step for step in calls if isinstance(step, SecondStep)]) == 2 * len(plan.grids)
    other = tiny.plan_of(find_preset("sgf"), "histream", num_frames=9, **SIZE)
    assert not any(isinstance(step, SecondStep) for chunk in other.chunks for step in chunk.cache_steps)
    assert isinstance(plan.cache_step(Scale.LOW), SecondStep)


@pytest.mark.parametrize("lever", LEVERS)
def test_levers_that_would_leave_out_the_second_set_are_refused(lever):
    def plan():
        return tiny.plan_of(find_preset("sgf-plus"), "histream", num_frames=9, levers=(lever,), **SIZE)

    if lever not in ("last-step", "clean-anchor"):
        assert any(chunk.cache_steps for chunk in plan().chunks)
        return
    with pytest.raises(ValueError, match=f"{lever} keeps keys .* second set .* leave it out"):
        plan()


def test_a_history_for_each_step_has_no_place_for_the_second_set():
    with pytest.raises(ValueError, match=r"second set .* take clean histories"):
        tiny.plan_of(find_preset("sgf-plus"), "full", num_frames=9, histories="each-step", **SIZE)
