"""The world that the demo model was trained on, and what is said of prompts outside of it."""

import pytest

from histream_core.demo import PROMPT
from histream_core.demo.painter import HELD_OUT, SENTENCES, all_combinations, training_combinations
from histream_core.demo.scenes import SENTENCES as SCENE_SENTENCES
from histream_core.demo.scenes import trained_scenes
from histream_core.demo.trained import FLAT, SCENES, other_size, trained, untrained, world

OUTSIDE = [
    ("a yellow square moves left on a purple background", "not trained on a purple background; backgrounds are blue,"),
    ("a green circle moves up on red", "not trained on a red background"),
    ("the background is yellow", "not trained on a yellow background"),
    ("purple background, red circle, up", "not trained on a purple background"),
    ("A violet backdrop, a scarlet ball rises", "not trained on a purple background"),
    ("a black circle moves up on a white background", "not trained on a black shape; colours of the shape are red,"),
    ("a blue circle moves right on a blue background", "a blue shape with a blue background; backgrounds are green,"),
    ("white square, white background", "a white shape with a white background"),
    ("a red circle and a square move right", "trained on one shape in a video, not on circle and square"),
    ("a red and white circle moves right", "trained on one colour of the shape in a video, not on red and white"),
    ("a red circle moves up and right", "trained on one direction in a video, not on up and right"),
    ("a red dragon flies right", "does not know dragon; it knows things: cat, dog,"),
    ("a pink circle moves right", "does not know pink"),
]


@pytest.mark.parametrize(("prompt", "said"), OUTSIDE)
def test_what_was_not_trained_is_said_by_what_was(prompt, said):
    [sentence] = untrained([prompt])
    assert said in sentence
    assert "\n" not in sentence
    assert untrained([prompt, PROMPT, prompt]) == [sentence]


def test_nothing_is_said_of_the_captions_of_training_nor_of_clips_that_were_held_out():
    """Held out are whole clips, all of whose pairs of words were trained."""
    captions = [clip.caption(sentence) for clip in training_combinations() for sentence in SENTENCES]
    assert untrained([*captions, *(clip.caption() for clip in HELD_OUT), ""]) == []


def test_each_pair_of_colours_is_judged_by_the_clips_of_training():
    """Seven colours make 42 pairs of two; the clips have 21 of them."""
    colours = ("red", "green", "blue", "yellow", "purple", "white", "black")
    there = {(clip.colour, clip.background) for clip in training_combinations()}
    pairs = [(colour, ground) for colour in colours for ground in colours if colour != ground]
    silent = {(c, g) for c, g in pairs if not untrained([f"a {c} square moves left on a {g} background"])}
    assert (len(pairs), silent) == (42, there)
    assert len(there) == 21


SCENES_OUTSIDE = [
    ("a bee moves right over the sea", "not trained on a bee; things are cat, dog,"),
    ("a cat bounces on a blue background", "not trained on blue as a place; places are meadow, sea,"),
    ("a red circle moves right over the meadow", "not trained on a circle; things are cat,"),
    ("a cat turn around over the snow", "does not know turn; it knows things: cat,"),
    ("a fox and a duck moving right, sea", "trained on one thing in a video, not on fox and duck"),
    ("a robot bounces over the sea, night", "trained on one place in a video, not on sea and night"),
    ("a red circle bounces on a blue background", "not trained on the motion bounces; directions are right,"),
    ("a yellow duck moves left over the sea", "not trained on a yellow thing; colours of things are those of their"),
    ("a red ball moves left over the sea", "not trained on a red thing"),
    ("a black cat bounces, night", "not trained on a black thing"),
]


@pytest.mark.parametrize(("prompt", "said"), SCENES_OUTSIDE)
def test_what_no_scene_of_training_has_is_said(prompt, said):
    [sentence] = untrained([prompt])
    assert said in sentence


def test_nothing_is_said_of_scenes_nor_of_shapes():
    """Held out are whole scenes. Seen to fail with a colour before a place as a place."""
    scenes = [*trained_scenes(), *trained_scenes(held_out=True)]
    captions = [scene.caption(sentence) for scene in scenes for sentence in SCENE_SENTENCES]
    said = ["a cat runs right over a green meadow", "a red large ball moves right on a blue background", PROMPT]
    assert untrained([*captions, *said, *(clip.caption() for clip in all_combinations())]) == []


def test_the_worlds_are_those_of_the_clips():
    for kind in FLAT.kinds:
        assert set(trained(FLAT, kind)) == {getattr(clip, kind) for clip in all_combinations()}
        assert ", ".join(trained(FLAT, kind)) in world()
    for kind in {*SCENES.kinds} - {"colour"}:
        assert set(trained(SCENES, kind)) == {getattr(scene, kind) for scene in trained_scenes()}
        assert ", ".join(trained(SCENES, kind)) in world()


def test_another_size_is_said():
    assert other_size((256, 256)) == []
    assert "trained at 256x256 alone, and at 512x256" in other_size((512, 256))[0]
