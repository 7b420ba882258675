"""Scenes that the painter draws: motion, places, sizes, held-out words. Plain pictures stand for the things."""

import random
from collections import defaultdict
from itertools import combinations

import numpy as np
import pytest
import torch

from histream_core.demo import scenes
from histream_core.demo.painter import HeldOutError
from histream_core.demo.scene_painter import View, paint_scene, place
from histream_core.demo.scenes import MOTIONS, PLACES, ROUND, THINGS, Scene, Staging, all_scenes

SIDE = 64


def sign():
    """A picture whose left half is red and whose right half is green; its upper quarter is empty."""
    picture = torch.zeros(4, 64, 64)
    picture[3, 16:] = 1
    picture[0, 16:, :32] = picture[1, 16:, 32:] = 1
    return picture


PICTURES = dict.fromkeys(THINGS, sign())


def paint(scene, times, **staging):
    return paint_scene(scene, times, PICTURES, staging=Staging(**staging), view=View(SIDE), training=False)


@pytest.mark.parametrize(("motion", "shift"), [("right", (0, 8)), ("left", (0, -8)), ("down", (8, 0)), ("up", (-8, 0))])
def test_a_thing_moves_as_its_scene_says_and_comes_back_at_the_other_edge(motion, shift):
    frames = paint(Scene("cat", "black", motion), [0, 8, ROUND])
    assert np.abs(np.roll(frames[0], shift, (0, 1)) - frames[1]).max() < 1e-4
    assert np.abs(frames[0] - frames[2]).max() < 1e-4


def test_a_thing_that_is_shown_from_the_left_looks_where_it_moves():
    """Seen to fail when no picture is turned."""
    left, right = (paint(Scene("car", "black", way), [0])[0] for way in ("left", "right"))
    assert np.abs(left - right[:, ::-1]).max() < 1e-4
    assert np.abs(left - right).max() > 0.5
    assert np.abs(paint(Scene("cat", "black", "right"), [0])[0] - left).max() < 1e-4


def test_the_tip_of_a_rocket_shows_where_it_flies():
    up, right = (paint(Scene("rocket", "black", way), [0])[0] for way in ("up", "right"))
    assert np.abs(np.rot90(up, -1) - right).max() < 1e-3


def test_what_turns_grows_and_bounces_is_back_after_a_round():
    for motion in ("turns", "grows", "bounces"):
        frames = paint(Scene("cat", "black", motion), [0, ROUND // 4, ROUND])
        assert np.abs(frames[0] - frames[2]).max() < 0.01
        assert np.abs(frames[0] - frames[1]).max() > 0.3
    start, quarter = paint(Scene("cat", "black", "turns"), [0, ROUND // 4])
    assert np.abs(np.rot90(start, -1) - quarter).max() < 0.01, "clockwise"
    small, large = ((frame > 0.3).any(-1).sum() for frame in paint(Scene("cat", "black", "grows"), [0, ROUND // 4]))
    assert large / small == pytest.approx((1 + scenes.SWELL) ** 2, rel=0.08)


@pytest.mark.parametrize("name", PLACES)
def test_a_place_goes_on_at_its_other_side_and_has_no_negative_colours(name):
    picture = place(name, SIDE)
    assert picture.shape == (SIDE, SIDE, 3) and picture.min() >= 0 and picture.max() <= 1
    step = np.abs(np.diff(picture, axis=1)).mean((0, 2)).max() if name not in ("night", "snow") else 0.1
    assert np.abs(picture[:, 0] - picture[:, -1]).mean() <= step + 0.02


def test_a_window_is_a_part_of_the_world():
    scene = Scene("cat", "meadow", "right")
    whole = paint_scene(scene, [3], PICTURES, view=View(SIDE), training=False)
    part = paint_scene(scene, [3], PICTURES, view=View(SIDE, (8, 16, 24, 32)), training=False)
    assert np.abs(whole[:, 8:32, 16:48] - part).max() < 1e-6


def test_every_pair_of_words_is_trained_on_and_held_out_scenes_are_refused():
    """Seen to fail when a pair of words is held out altogether."""
    seen, kept = defaultdict(set), [scene for scene in all_scenes() if not scene.held_out]
    for scene in kept:
        words = scene.thing, scene.place, scene.motion
        for first, second in combinations(range(3), 2):
            seen[first, second].add((words[first], words[second]))
    sizes = len(THINGS), len(PLACES), len(MOTIONS)
    assert {pair: len(found) for pair, found in seen.items()} == {
        pair: sizes[pair[0]] * sizes[pair[1]] for pair in combinations(range(3), 2)
    }
    held_out = next(scene for scene in all_scenes() if scene.held_out)
    assert len(all_scenes()) - len(kept) == len(all_scenes()) // 12
    with pytest.raises(HeldOutError, match=f"{held_out.thing} {held_out.place} {held_out.motion} is held out"):
        paint_scene(held_out, [0], PICTURES, view=View(SIDE), training=True)


def test_captions_are_sentences():
    assert Scene("cat", "meadow", "right").caption() == "a cat moves right over the meadow"
    assert Scene("ball", "blue", "bounces").caption(scenes.SENTENCES[2]) == "on a blue background, a ball bounces"


def test_the_seed_decides_place_and_size_and_nothing_is_cut_where_it_need_not_be():
    rng = random.Random(0)
    for motion in MOTIONS:
        drawn = [Staging.draw(Scene("cat", "sea", motion), rng) for _ in range(200)]
        assert {scenes.LEAST_WIDTH <= one.width <= scenes.MOST_WIDTH for one in drawn} == {True}
        across, down = (max(one.start[axis] for one in drawn) > 0.95 for axis in (0, 1))
        assert (across, down) == (motion in ("left", "right"), motion in ("up", "down"))
        if motion == "bounces":
            assert min(one.start[1] - scenes.HOP - one.width / 2 for one in drawn) > -1e-9
