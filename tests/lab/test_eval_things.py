"""The judge of scenes, and how much clips differ from seed to seed: painted clips, and what becomes of them.

Coloured patterns stand for the pictures of the things.
"""

import json
import random

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors.torch import save_file
from slow import few

from histream_core import demo
from histream_core.cli import main
from histream_core.cli.verbs import evaluate_scenes, evaluate_seeds
from histream_core.demo import painter
from histream_core.demo.scene_painter import View, paint_scene, place
from histream_core.demo.scenes import MOTIONS, PAINTED, ROUND, THINGS, TRAINED_THINGS, Scene, Staging
from histream_core.demo.text import DemoTextEncoder
from histream_core.demo.words import VOCABULARY
from histream_core.lab.judge.prompts import draw_scene_prompts
from histream_core.lab.judge.things import SCENE_WORDS, SceneJudge
from histream_core.lab.judge.throughout import course, throughout
from histream_core.lab.judge.variety import VARIETY, start_of, variety
from histream_core.video.pixels import to_uint8

SIDE = 64
CAT = Scene("cat", "meadow", "right")


def pictures():
    """A picture for every thing: nine colours of its own in a disc."""
    draw, axis = torch.Generator().manual_seed(3), (torch.arange(64) + 0.5) / 32 - 1
    disc = ((1 - (axis[None] ** 2 + axis[:, None] ** 2).sqrt()) * 32).clamp(0, 1)
    found = {}
    for thing in THINGS:
        colours = F.interpolate(torch.rand(1, 3, 3, 3, generator=draw), (64, 64), mode="nearest")[0]
        found[thing] = torch.cat([colours * disc, disc[None]])
    return found


PICTURES = pictures()
JUDGE = SceneJudge(PICTURES)


def paint(scene, frames, **staging):
    return paint_scene(scene, frames, PICTURES, staging=Staging(**staging), view=View(SIDE), training=False)


def scores(frames, asked=CAT):
    return throughout(JUDGE.read_seconds(frames, asked), asked)


@pytest.mark.parametrize("motion", few(["bounces", *(m for m in MOTIONS if m != "bounces")], 2))
def test_a_painted_scene_holds_all_words_in_every_second(motion):
    """At any place, size and moment. Seen to fail with things that are not laid around their middle."""
    rng = random.Random(motion)
    scene = Scene(rng.choice(list(THINGS)), rng.choice(("meadow", "snow", "green")), motion)
    staging, start = Staging.draw(scene, rng), rng.randrange(ROUND)
    frames = paint(scene, range(start, start + 33), start=staging.start, width=staging.width)
    found = scores(frames, scene)
    assert found.pop("outline") > 0.8 and found.pop("worst_outline") > 0.8
    assert found == dict.fromkeys(found, 1)
    assert set(found) == {"presence", *SCENE_WORDS, "held", "first_second", "worst_second", "last_second"}


@pytest.mark.slow
def test_a_thing_that_vanishes_has_lost_its_words():
    """Seen to fail with the words of the first second."""
    frames = paint(CAT, range(49))
    frames[32:] = place("meadow", SIDE)
    found = scores(frames)
    assert [found[word] for word in SCENE_WORDS] == [0, 1, 0]
    assert found["held"] == found["presence"] == pytest.approx(2 / 3)
    assert found["last_second"] == 1 / 4 and found["worst_outline"] == 0
    [first, _, last] = course([(JUDGE.read_seconds(frames, CAT), CAT)])
    assert first == dict.fromkeys(first, 1) and last["held"] == 0


@pytest.mark.slow
def test_noise_still_pictures_and_other_things_lack_their_words():
    """Seen to fail when the nearest thing counts however far it is."""
    noise = np.random.default_rng(0).random((9, SIDE, SIDE, 3), np.float32)
    assert [scores(noise)[word] for word in ("presence", *SCENE_WORDS)] == [0, 0, 0, 0]
    still = np.repeat(paint(CAT, [0]), 17, axis=0)
    assert [scores(still)[word] for word in SCENE_WORDS] == [1, 1, 0]
    other = paint(Scene("dog", "sea", "left"), range(17))
    assert [scores(other)[word] for word in SCENE_WORDS] == [0, 0, 0]
    empty = np.repeat(place("meadow", SIDE)[None], 17, axis=0)
    assert [scores(empty)[word] for word in SCENE_WORDS] == [0, 1, 0]


@pytest.mark.slow
def test_what_turns_is_told_from_what_stands_still_or_turns_back():
    """Seen to fail when standing still is enough."""
    asked = Scene("dog", "white", "turns")
    turning = paint(asked, range(17))
    assert scores(turning, asked)["motion"] == 1
    for other in (turning[::-1].copy(), np.repeat(turning[:1], 17, axis=0)):
        found = scores(other, asked)
        assert (found["thing"], found["motion"]) == (1, 0)


def test_a_thing_of_half_the_width_is_not_there_as_asked():
    found = scores(paint(CAT, range(17), width=0.22))
    assert found["presence"] == 0 and found["place"] == 1


def test_a_thing_that_jumps_has_no_motion():
    frames = paint(CAT, range(17))
    frames[8:] = np.roll(frames[8:] - place("meadow", SIDE), 20, axis=1) + place("meadow", SIDE)
    [second] = JUDGE.read_seconds(frames.clip(0, 1), CAT)
    assert second.motion is None


def test_a_thing_that_is_another_for_a_frame_is_none_throughout():
    """Seen to fail with the thing of the first frame."""
    frames = paint(CAT, range(9))
    frames[5] = paint(Scene("dog", "meadow", "right"), [5])[0]
    assert scores(frames)["thing"] == 0


def test_what_is_like_no_thing_has_no_name():
    """Seen to fail when the nearest thing counts however far it is."""
    frame = place("meadow", SIDE).copy()
    frame[20:44, 20:44] = np.random.default_rng(0).random((24, 24, 3), np.float32)
    [glance] = JUDGE.look(frame[None], CAT)
    assert (glance.place, glance.thing) == ("meadow", None) and glance.width > 0


def test_likeness_falls_when_the_picture_melts():
    clean = paint(CAT, range(17))
    melted = clean.reshape(17, 8, 8, 8, 8, 3).mean((2, 4)).repeat(8, 1).repeat(8, 2)
    assert scores(melted)["outline"] < 0.7 < 0.9 < scores(clean)["outline"]


def test_frames_that_cannot_be_read_are_refused():
    with pytest.raises(ValueError, match="at least 9 frames"):
        JUDGE.read_seconds(np.zeros((8, SIDE, SIDE, 3), np.float32), CAT)
    with pytest.raises(ValueError, match="multiples of 64 pixels"):
        JUDGE.read_seconds(np.zeros((9, 60, SIDE, 3), np.float32), CAT)


def test_prompts_of_scenes_are_half_held_out_and_the_same_for_a_seed():
    asked = draw_scene_prompts(7, 1)
    assert asked == draw_scene_prompts(7, 1) != draw_scene_prompts(7, 2)
    assert [one.held_out for one in asked] == [False] * 4 + [True] * 3
    assert all(one.scene.held_out == one.held_out for one in asked)
    every = [one.scene for one in draw_scene_prompts(1000, 1)]
    assert {scene.thing for scene in every} == {*TRAINED_THINGS} and {scene.place for scene in every} == {*PAINTED}
    with pytest.raises(ValueError, match="cannot be halved"):
        draw_scene_prompts(1, 0)


RED_CIRCLE = painter.Combination("circle", "red", "blue", "right")


def flat(start=(0.5, 0.5)):
    clip = painter.paint(RED_CIRCLE, range(9), size=SIDE, start=start, training=False)
    return to_uint8(torch.from_numpy(clip))


def test_places_that_are_drawn_evenly_have_a_spread_of_one_and_equal_clips_none():
    """Seen to fail without the way across the edge."""
    rng = np.random.default_rng(0)
    places = [(rng.random(2), 0.4) for _ in range(300)]
    clips = [np.zeros((1, 8, 8, 3), np.uint8)] * 2
    assert variety(places, clips)["spread"] == pytest.approx(1, abs=0.03)
    found = [start_of(flat((x, 0.5))[0] / np.float32(255)) for x in (0.05, 0.95)]
    near = variety(found, [flat((x, 0.5)) for x in (0.05, 0.95)])
    assert near["spread"] == pytest.approx(0.1 / 0.3826, rel=0.05)
    assert near["widths"] < 0.02 and near["least_difference"] > 0.01 and near["shown"] == 1
    same = variety([places[0]] * 3, [flat()] * 3)
    assert [same[name] for name in ("spread", "widths", "least_difference")] == pytest.approx([0, 0, 0], abs=1e-9)
    assert variety([None, places[0]], clips)["shown"] == 0.5
    with pytest.raises(ValueError, match="use 2 or more seeds"):
        variety(places[:1], clips[:1])


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The pictures in a folder, and an untrained model of this size in the place of the bundled one."""
    for thing, (name, _) in THINGS.items():
        picture = PICTURES[thing].permute(1, 2, 0)
        plain = torch.cat([picture[..., :3] / picture[..., 3:].clamp(min=1e-3), picture[..., 3:]], dim=-1)
        Image.fromarray((plain.clamp(0, 1) * 255).round().byte().numpy()).save(
            tmp_path / f"{name}.webp", lossless=True, exact=True
        )
    save_file(DemoTextEncoder(VOCABULARY).state_dict(), tmp_path / "text.safetensors")
    monkeypatch.setattr(demo, "TEXT_PATH", tmp_path / "text.safetensors")
    monkeypatch.setattr(demo, "WIDTH", SIDE)
    monkeypatch.setattr(demo, "HEIGHT", SIDE)
    return tmp_path


def run(capsys, *words):
    assert main(["eval", "--demo", *map(str, words), "--json"]) == 0
    return json.loads(capsys.readouterr().out)


@pytest.mark.slow
def test_the_painter_of_scenes_scores_one_by_the_command(folder, monkeypatch, capsys):
    asked = {one.seed: one.scene for one in draw_scene_prompts(2, 4)}

    def collect(weights, order, report):
        clip = paint(asked[order.noise.seed], range(17))
        return list(to_uint8(torch.from_numpy(clip)))

    monkeypatch.setattr(evaluate_scenes, "collect", collect)
    words = ("--pictures", folder, "--prompts", 2, "--seed", 4, "--frames", 17)
    found = run(capsys, *words)
    assert [found[name] for name in ("held", "presence", *SCENE_WORDS)] == [1] * 5
    assert found["held_out"]["held"] == found["seen"]["held"] == 1 and len(found["clips"]) == 2
    assert found["chance"]["thing"] == 0.5
    assert main(["eval", "--demo", *map(str, words)]) == 0
    assert "held            1.000 [" in capsys.readouterr().out


def test_seeds_of_a_prompt_are_compared_by_the_command(folder, monkeypatch, capsys, refusal):
    """Seen to fail with one seed for all."""
    starts = [(0.2, 0.5), (0.5, 0.5), (0.9, 0.5)]
    monkeypatch.setattr(evaluate_seeds, "collect", lambda _, order, report: list(flat(starts[order.noise.seed - 5])))
    found = run(capsys, "--seeds", 3, "--seed", 5, "--frames", 9)
    assert set(VARIETY) <= set(found) and found["shown"] == 1
    assert found["spread"] == pytest.approx((0.3 + 0.4 + 0.3) / 3 / 0.3826, rel=0.05)
    scene = "a cat moves right over the meadow"
    cats = [list(to_uint8(torch.from_numpy(paint(CAT, range(9), start=one)))) for one in starts]
    monkeypatch.setattr(evaluate_seeds, "collect", lambda _, order, report: cats[order.noise.seed])
    found = run(capsys, "--seeds", 3, "--prompt", scene, "--pictures", folder, "--frames", 9)
    assert found["spread"] == pytest.approx((0.3 + 0.4 + 0.3) / 3 / 0.3826, rel=0.1)
    assert "give the folder of the pictures" in refusal("--demo", "--seeds", 2, "--prompt", scene)
    assert "use 2 to 256" in refusal("--demo", "--seeds", 1)
    assert "1f431.webp is not there" in refusal("--demo", "--pictures", folder / "no")
