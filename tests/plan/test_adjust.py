"""Plans that are changed while their stream runs: strength and steps, and nothing else."""

from dataclasses import replace

import pytest
import tiny

from histream_core.plan.adjust import adjusted, check_change, fewer_steps, step_counts, strength_of
from histream_core.plan.entry import MotionRule, Restyle
from histream_core.plan.presets import find_preset
from histream_core.plan.schedule import Scale, make_steps


def plan(share=0.9, mode="histream", preset="demo", **settings):
    return tiny.plan(mode, preset=preset, restyle=Restyle(share, **settings))


def timesteps(steps):
    return [round(step.timestep) for step in steps]


def test_steps_are_thinned_as_histream_plus_does():
    """The first step of each resolution stays. Seen to fail with the last ones kept."""
    for name in ("histream", "self-forcing", "demo", "streamdiffusionv2"):
        preset = find_preset(name)
        most, fewest = preset.schedule("histream")[-1], preset.schedule("histream-plus")[-1]
        assert fewer_steps(most, len(fewest)) == fewest
    assert timesteps(fewer_steps(make_steps([1000, 750, 500, 250], 2), 3)) == [1000, 750, 500]


def test_a_restyled_stream_takes_the_steps_of_histream_plus():
    found = adjusted(plan(), steps=2)
    assert found.chunk_at(1).steps == plan(mode="histream-plus").chunk_at(1).steps
    assert [len(found.chunk_at(index).steps) for index in (0, 1, 7)] == [2, 2, 2]


@pytest.mark.parametrize("share", [0.95, 0.9, 0.8, 0.4])
def test_as_many_steps_are_taken_as_were_asked_for_and_the_first_is_the_entry(share):
    """Seen to fail where steps are thinned before the source enters."""
    for steps in step_counts(plan(share)):
        found = adjusted(plan(share), steps=steps).chunk_at(1).steps
        assert len(found) == steps and found[0] == plan(share).chunk_at(1).steps[0]


def test_fewer_steps_of_streamdiffusionv2_are_those_of_its_list():
    preset = find_preset("streamdiffusionv2").with_steps(4)
    four = tiny.plan_of(preset, "histream", num_frames=11, restyle=preset.restyle)
    for count in (1, 2, 3):
        wanted = tiny.plan_of(preset.with_steps(count), "histream", num_frames=11, restyle=preset.restyle)
        assert adjusted(four, steps=count).chunk_at(1).steps == wanted.chunk_at(1).steps


def test_the_numbers_of_steps_go_from_one_for_each_resolution_to_the_own():
    assert [*step_counts(plan(0.9))] == [2, 3, 4]
    assert [*step_counts(plan(0.4))] == [1, 2]
    assert [*step_counts(plan(0.9, "histream-plus"))] == [2]


@pytest.mark.parametrize("share", [0.9, 0.8, 0.4])
def test_the_values_that_there_are_change_nothing(share):
    found = plan(share)
    assert adjusted(found) == found
    assert adjusted(found, strength=share, steps=step_counts(found)[-1]) == found


def test_a_strength_is_that_of_a_plan_made_with_it():
    assert adjusted(plan(0.8), strength=0.4) == plan(0.4)
    rule = MotionRule()
    found = adjusted(plan(0.8, motion=rule, offset=0.1), strength=0.6)
    assert found == plan(0.6, motion=rule, offset=0.1)
    assert strength_of(found) == 0.6


@pytest.mark.parametrize("steps", [1, 5, 0, -1])
def test_steps_that_cannot_be_taken_are_refused_with_those_that_can(steps):
    with pytest.raises(ValueError, match=f"cannot take {steps} steps: use 2 to 4"):
        adjusted(plan(), steps=steps)


@pytest.mark.parametrize("strength", [0.0, 0.2, 1.1, float("nan")])
def test_a_strength_that_cannot_be_is_refused_with_those_that_can(strength):
    with pytest.raises(ValueError, match=r"use more than 0.2, up to 1"):
        adjusted(plan(0.8, motion=MotionRule(), offset=0.1), strength=strength)


def test_a_source_that_stays_as_it_is_gets_no_strength_later():
    with pytest.raises(ValueError, match="begin another one with a strength"):
        adjusted(plan(0.0), strength=0.5)


def test_nothing_else_changes_in_a_running_stream():
    found = plan()
    for field, value in {
        "anchor_match": 0.5,
        "resize": "area",
        "levers": ("last-step",),
        "num_latent_frames": 20,
    }.items():
        with pytest.raises(ValueError, match="only the strength and the steps"):
            check_change(found, replace(found, **{field: value}))
    with pytest.raises(ValueError, match="only the strength and the steps"):
        check_change(found, replace(found, restyle=None))


def test_a_history_for_each_step_keeps_their_number():
    found = plan(0.4)
    found = replace(found, schedule=(make_steps([500, 250], 0),), histories="each-step")
    assert [*step_counts(found)] == [2]
    assert len(adjusted(found, strength=0.35).levels) == 2
    with pytest.raises(ValueError, match="a strength nearer to the present one"):
        adjusted(found, strength=0.2)


def test_low_steps_stay_before_high_ones():
    assert [step.scale for step in fewer_steps(make_steps([1000, 750, 500], 2), 2)] == [Scale.LOW, Scale.HIGH]
