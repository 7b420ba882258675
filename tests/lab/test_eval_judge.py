"""Verdicts of the judge on painted clips, wrong prompts, noise and empty pictures."""

import random

import numpy as np
import pytest

from histream_core.demo import painter
from histream_core.lab.judge.judge import judge, painted_area

RED_CIRCLE = painter.Combination("circle", "red", "blue", "right")


@pytest.mark.parametrize("number", range(0, 252, 21))
def test_the_judge_reads_what_was_painted(number):
    """Seen to fail when directions are read with the axes swapped, or areas of the wrong shape are compared."""
    combination, rng = painter.all_combinations()[number], random.Random(number)
    start = (rng.random(), rng.random())
    verdict = judge(painter.paint(combination, range(17), size=128, start=start, training=False))
    assert verdict.agrees(combination) == dict.fromkeys(("background", "colour", "shape", "direction"), True)
    assert verdict.speed == pytest.approx(1)
    assert verdict.presence == 1
    assert verdict.area == pytest.approx(painted_area(combination.shape), rel=0.01)


def test_the_judge_sees_no_object_on_a_plain_frame_and_no_direction_in_a_still_one():
    still = np.repeat(painter.paint(RED_CIRCLE, [0], size=64, training=True), 9, axis=0)
    assert judge(still).direction is None
    plain = np.full((9, 64, 64, 3), painter.COLOURS["green"], np.float32)
    verdict = judge(plain)
    assert (verdict.background, verdict.colour, verdict.shape, verdict.direction) == ("green", None, None, None)


def test_what_the_judge_cannot_read_is_refused():
    plain = np.zeros((9, 64, 64, 3), np.float32)
    with pytest.raises(ValueError, match=r"8 frames are too few .* at least 9"):
        judge(plain[:8])
    with pytest.raises(ValueError, match="multiples of 64"):
        judge(plain[:, :60])


def test_the_areas_of_the_painter_are_those_of_geometry():
    assert painted_area("circle") == pytest.approx(np.pi * painter.CIRCLE_RADIUS**2, rel=0.01)
    assert painted_area("square") == pytest.approx(4 * painter.SQUARE_HALF_SIDE**2, rel=0.01)
    triangle = 2 * painter.TRIANGLE_HALF_BASE * painter.TRIANGLE_HALF_HEIGHT
    assert painted_area("triangle") == pytest.approx(triangle, rel=0.01)
