"""Where the chunks of a restyled video begin, and how the share of noise follows motion."""

from dataclasses import replace

import pytest
import tiny

from histream_core.plan.chunks import lengthen
from histream_core.plan.entry import Entry, MotionRule, Restyle
from histream_core.plan.schedule import Scale, make_steps

LOW, HIGH = Scale.LOW, Scale.HIGH
STEPS = make_steps([1000, 750, 500, 250], 2)


def told(restyle, steps=STEPS):
    return [(round(step.timestep, 9), step.scale) for step in restyle.enter(steps)]


def test_all_noise_keeps_every_step():
    assert Restyle(1.0).enter(STEPS) == STEPS


def test_no_noise_takes_no_step():
    assert Restyle(0.0).enter(STEPS) == ()


@pytest.mark.parametrize(
    ("share", "wanted"),
    [
        (0.9, [(900, LOW), (750, LOW), (500, HIGH), (250, HIGH)]),
        (0.75, [(750, LOW), (500, HIGH), (250, HIGH)]),
        (0.6, [(600, LOW), (500, HIGH), (250, HIGH)]),
        (0.4, [(400, HIGH), (250, HIGH)]),
        (0.1, [(100, HIGH)]),
    ],
)
def test_steps_above_the_entry_are_left_out(share, wanted):
    """The entry takes the resolution of the last step that it replaces."""
    assert told(Restyle(share)) == wanted


def test_motion_changes_no_number_of_steps():
    """Seen to fail where the steps are those of a still source: 750 would be above an entry at 700."""
    rule = MotionRule(span=0.1)
    assert told(Restyle(0.8, motion=rule)) == [(800, LOW), (500, HIGH), (250, HIGH)]
    assert len(told(Restyle(0.8))) == 4


def test_the_controller_of_the_paper():
    """Share and timestep of StreamDiffusionV2's code for seven chunks of given motion."""
    restyle, share = Restyle(0.8, offset=0.1, motion=MotionRule()), 0.8
    shares, timesteps = [], []
    for motion in (0, 1, 1, 1, 0, 0, 0.5):
        share = restyle.motion.next_share(restyle.share, share, motion)
        shares.append(round(share, 9))
        timesteps.append(round(restyle.entry(share).told * 1000, 9))
    assert shares == [0.8, 0.71, 0.701, 0.7001, 0.79001, 0.799001, 0.7549001]
    assert timesteps == [700, 610, 601, 600, 690, 699, 654]


def test_without_an_offset_the_network_is_told_the_truth():
    assert Restyle(0.7654321).entry() == Entry(0.7654321, 0.7654321)


def test_impossible_strengths_are_refused():
    for share in (-0.1, 1.1, float("nan")):
        with pytest.raises(ValueError, match=r"use 0\.8, or 0 to 1"):
            Restyle(share)
    with pytest.raises(ValueError, match="a span of 0, or one below the strength"):
        Restyle(0.1, motion=MotionRule())
    with pytest.raises(ValueError, match=r"use an offset of 0"):
        Restyle(0.1, offset=0.1)
    with pytest.raises(ValueError, match="pixels or latents"):
        MotionRule(metric="eyes")


def test_a_plan_lists_the_steps_of_its_entry():
    plan = tiny.plan("histream", num_frames=9, restyle=Restyle(0.5))
    assert all(chunk.steps == Restyle(0.5).enter(plan.schedule[0]) for chunk in plan.chunks)
    assert all(not chunk.steps and not chunk.cache_steps for chunk in tiny.plan(restyle=Restyle(0.0)).chunks)


def test_frames_at_the_end_are_cropped():
    plan = tiny.plan(num_frames=3)
    assert replace(plan, cropped_frames=2).num_pixel_frames == plan.num_pixel_frames - 2 == 7
    for cropped in (-1, 4):
        with pytest.raises(ValueError, match="use 0 to 3"):
            replace(plan, cropped_frames=cropped)
    with pytest.raises(ValueError, match="cannot be cropped from the end of 1"):
        replace(tiny.plan(num_frames=1), cropped_frames=1)
    assert lengthen(replace(plan, cropped_frames=2), 6).cropped_frames == 0
