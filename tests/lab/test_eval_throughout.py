"""Words that must hold in every second: painted clips, and clips that lose what was asked after a while."""

import random

import numpy as np
import pytest

from histream_core.demo import painter
from histream_core.lab.judge.arms import ScoredClip, held_course
from histream_core.lab.judge.outline import overlaps
from histream_core.lab.judge.prompts import DemoPrompt, chance, pool
from histream_core.lab.judge.scores import score
from histream_core.lab.judge.throughout import COLOUR_REACH, HELD, LEAST_OVERLAP, WORDS, read_seconds, throughout
from histream_core.plan.sizes import FPS

SIDE = 64
TRIANGLE = painter.Combination("triangle", "green", "black", "up")
BLACK = painter.COLOURS["black"]


def clip(combination=TRIANGLE, seconds=6, size=SIDE, **settings):
    return painter.paint(combination, range(seconds * FPS + 1), size=size, training=False, **settings)


def scores(frames, asked=TRIANGLE):
    return throughout(read_seconds(frames), asked)


@pytest.mark.parametrize("number", range(5, 252, 19))
def test_a_painted_clip_holds_all_words_in_every_second(number):
    """Seen to fail when an outline is laid at the centre of mass, or a second is read across a seam of the torus."""
    combination, rng = painter.all_combinations()[number], random.Random(number)
    found = scores(clip(combination, 3, size=128, start=(rng.random(), rng.random())), combination)
    assert found.pop("outline") > 0.98 and found.pop("worst_outline") > 0.98
    assert set(found) == {*HELD, "held", "first_second", "worst_second", "last_second"}
    assert found == dict.fromkeys(found, 1)


def test_an_object_that_vanishes_after_four_seconds_has_lost_its_words():
    """A clip that shows its object most of the time. Seen to fail with the words of the whole clip."""
    frames = clip()
    frames[4 * FPS :] = BLACK
    verdict, whole = score(frames, TRIANGLE)
    assert all(verdict.agrees(TRIANGLE).values()), "read once from the whole clip, all words are right"
    assert [whole[word] for word in WORDS] == [0, 0, 0, 1]
    assert whole["presence"] == whole["held"] == pytest.approx(4 / 6)
    assert whole["first_second"] == 1 and whole["worst_second"] == whole["last_second"] == pytest.approx(1 / 5)
    assert whole["worst_outline"] == 0


def test_an_object_that_is_gone_for_a_frame_is_not_there_throughout():
    """Seen to fail when the words of a second are those of its mean."""
    frames = clip()
    frames[3 * FPS + 6] = BLACK
    found = scores(frames)
    assert found["presence"] == found["held"] == pytest.approx(5 / 6)
    assert [found[word] for word in WORDS] == [0, 0, 0, 1]


def test_a_clip_that_fades_out_at_half_loses_every_word():
    share = np.clip(2 - np.arange(6 * FPS + 1) / (3 * FPS), 0, 1)[:, None, None, None]
    found = scores(clip(painter.Combination("circle", "red", "blue", "left")) * share,
                   painter.Combination("circle", "red", "blue", "left"))  # fmt: skip
    assert [found[word] for word in WORDS] == [0, 0, 0, 0]
    assert 0.4 < found["held"] < 0.7 and found["last_second"] == 0


def test_a_still_picture_lacks_its_motion_alone():
    found = scores(np.repeat(clip(seconds=1)[:1], 3 * FPS, axis=0))
    assert [found[word] for word in (*WORDS, "presence", "held")] == [1, 1, 0, 1, 1, 0]


@pytest.mark.parametrize("kind", ["noise", "still noise", "black"])
def test_frames_of_no_object_are_at_chance_or_below(kind):
    draw = np.random.default_rng(0).random((3 * FPS, SIDE, SIDE, 3), np.float32)
    frames = {"noise": draw, "still noise": np.repeat(draw[:1], 3 * FPS, axis=0), "black": draw * 0}[kind]
    each = [throughout(read_seconds(frames), asked) for asked in pool(held_out=True)]
    luck = chance(pool(held_out=True))
    for word in WORDS:
        assert np.mean([found[word] for found in each]) <= luck[word]
    for name in ("presence", "held", "worst_outline"):
        assert max(found[name] for found in each) == 0


def test_a_word_that_becomes_another_does_not_hold():
    """Seen to fail when a second has one of the words that its frames show."""
    purple, red = (painter.Combination("circle", ink, "white", "right") for ink in ("purple", "red"))
    frames = clip(purple, 4)
    frames[2 * FPS + 8 :] = clip(red, 4)[2 * FPS + 8 :]
    found = scores(frames, purple)
    assert [found[word] for word in WORDS] == [0, 1, 1, 1]
    assert found["held"] == 0.5 and found["last_second"] == pytest.approx(4 / 5)


def test_an_object_that_jumps_does_not_move_as_asked():
    """Seen to fail when direction is that of most of the frames."""
    frames = clip(seconds=3)
    frames[FPS + 4 :] = np.roll(frames[FPS + 4 :], SIDE // 2, axis=2)
    found = scores(frames)
    assert [found[word] for word in WORDS] == [1, 1, 0, 1]


def test_a_shape_that_melts_is_none():
    """Seen to fail when the nearest shape is taken however far it is."""
    frames = clip(painter.Combination("square", "red", "black", "right"), 1, size=128)
    melted = sum(np.roll(frames, (i, -i), (1, 2)) for i in range(-24, 25, 4)) / 13
    found = read_seconds(melted.astype(np.float32))
    assert max(found[0].overlaps.values()) < LEAST_OVERLAP and found[0].shape is None


def test_an_object_of_half_the_width_is_not_the_one_that_was_asked():
    assert scores(clip(seconds=1, size=128, scale=0.75))["presence"] == 1
    small = scores(clip(seconds=1, size=128, scale=0.5))
    assert small["presence"] == small["held"] == 0


def test_the_overlap_of_two_known_shapes_is_that_of_geometry():
    """A circle in a square as large: each side of the square cuts a segment off the circle."""
    half = np.sqrt(np.pi) / 2 * painter.CIRCLE_RADIUS
    axis = (np.arange(2000) + 0.5) / 2000 - 0.5
    inside = np.hypot(axis[:, None], axis) < painter.CIRCLE_RADIUS
    square = np.maximum(np.abs(axis[:, None]), np.abs(axis)) < half
    expected = (inside & square).sum() / (inside | square).sum()
    masks = inside.reshape(1, *inside.shape)[:, :1984, :1984].reshape(1, 64, 31, 64, 31).mean((2, 4))
    assert overlaps(masks, "square")[0] == pytest.approx(expected, abs=0.02)
    assert overlaps(np.zeros((1, 64, 64)), "square")[0] == 0


def test_a_colour_has_one_name_at_most():
    named = np.array(list(painter.COLOURS.values()))
    apart = np.linalg.norm(named[:, None] - named, axis=-1)
    assert apart[np.triu_indices(len(named), 1)].min() >= 2 * COLOUR_REACH


def test_a_rest_of_a_second_belongs_to_the_last_one():
    for frames, seconds in ((9, 1), (16, 1), (21, 1), (25, 2), (33, 2), (321, 20)):
        assert len(read_seconds(np.zeros((frames, SIDE, SIDE, 3), np.float32))) == seconds
    with pytest.raises(ValueError, match="at least 9"):
        read_seconds(np.zeros((8, SIDE, SIDE, 3), np.float32))


def test_the_course_of_several_clips_says_when_words_are_lost():
    gone = clip()
    gone[4 * FPS :] = BLACK
    clips = [
        ScoredClip(DemoPrompt("", TRIANGLE, False, 0), *score(frames, TRIANGLE), read_seconds(frames))
        for frames in (clip(), gone)
    ]
    assert [second["held"] for second in held_course(clips)] == [1, 1, 1, 1, 0.5, 0.5]
    assert [second["background"] for second in held_course(clips)] == [1] * 6
