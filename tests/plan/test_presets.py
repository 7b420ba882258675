"""Presets: what the published weights were made for."""

import pytest

from histream_core.plan import PRESETS, Scale, find_preset, make_plan
from histream_core.plan.entry import MotionRule, Restyle
from histream_core.plan.make import PlanOptions
from histream_core.plan.presets import MODES

FAMILY = ["streamdiffusionv2", "streamdiffusionv2-14b"]


def plan_of(preset, mode="histream", restyle=None):
    options = PlanOptions(restyle=restyle or preset.restyle)
    return make_plan(preset, mode, size=(512, 512), num_latent_frames=9, options=options)


def told(plan, chunk=1):
    return [round(step.timestep, 9) for step in plan.chunks[chunk].steps]


def test_streamdiffusionv2_is_as_its_published_configurations_say():
    small, large = map(find_preset, FAMILY)
    assert (told(plan_of(small)), told(plan_of(large))) == ([700, 500], [700])
    assert all(small.restyle == preset.restyle == Restyle(0.8, 0.1, MotionRule()) for preset in (small, large))
    assert not small.normalised
    assert not large.normalised
    assert [plan_of(small).context(frame) for frame in (0, 3, 8)] == [(), (0, 1, 2), (0, 1, 2, 6, 7)]


@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_as_many_steps_as_asked_for_are_the_first_of_the_list(count):
    assert told(plan_of(find_preset(FAMILY[0]).with_steps(count))) == [700, 500, 400, 200][:count]


@pytest.mark.parametrize(("name", "count"), [(FAMILY[0], 0), (FAMILY[0], 5), ("demo", 2)])
def test_a_number_of_steps_that_nobody_published_is_refused(name, count):
    with pytest.raises(ValueError, match=r"takes 1 to 4 steps|leave the number out"):
        find_preset(name).with_steps(count)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", FAMILY)
def test_weights_of_one_grid_never_take_a_step_at_low(name, mode):
    """In every mode. Seen to fail where the half of the steps is at LOW, as for the other families."""
    assert plan_of(find_preset(name), mode).grids.keys() == {Scale.HIGH}


@pytest.mark.parametrize("name", FAMILY)
def test_text_to_video_begins_with_pure_noise(name):
    plan = make_plan(find_preset(name), "histream", size=(512, 512), num_latent_frames=9)
    assert told(plan)[0] == 1000


def test_what_is_not_said_is_as_the_weights_were_made():
    made, other = find_preset(FAMILY[0]), find_preset("demo")
    assert made.restyled() == made.restyle
    assert other.restyled() == Restyle(0.8, 0.0, None)
    assert made.restyled(0.6, 0.0, 0.2) == other.restyled(0.6, 0.0, 0.2) == Restyle(0.6, 0.0, MotionRule(span=0.2))
    assert made.restyled(span=0).motion is None
    assert made.restyled(0.0).share == 0
    assert {name for name, preset in PRESETS.items() if preset.restyle} == set(FAMILY)
