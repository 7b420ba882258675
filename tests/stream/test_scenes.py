"""Scenes: from a cut on nothing that came before is seen, and the rest is a video of its own, with its own anchor."""

from dataclasses import replace

import pytest
import tiny
import tiny_runs
import torch
from slow import few, slow

from histream_core import runs as session
from histream_core.plan.anchoring import Starts
from histream_core.plan.chunks import lengthen, with_anchors
from histream_core.plan.positions import TemporalPolicy
from histream_core.plan.presets import find_preset
from histream_core.plan.schedule import Scale
from histream_core.plan.speed import Speed
from histream_core.plan.storage import EXACT
from histream_core.plan.window import Window
from histream_core.runs.render import decode_frames
from histream_core.runs.weights import Weights
from histream_core.stream.noise import SeededNoise
from histream_core.stream.prompts import Prompt
from histream_core.stream.timeline import parse_timeline, place
from histream_core.vae.decode import StreamingDecoder, to_frames

CUT = 6
"""The latent frame that the second scene begins at, with chunk 2."""
HD = {"width": 1920, "height": 1088}


def plan(*scenes, num_frames=15, anchors=(), **settings):
    return with_anchors(tiny.plan(num_frames=num_frames, **settings), anchors, scenes)


class Later:
    """The noise of a video whose first two chunks were left out."""

    def __init__(self, seed=1):
        self.noise = SeededNoise(seed)

    def __call__(self, chunk, step, shape):
        return self.noise(chunk + 2, step, shape)


def test_a_scene_sees_nothing_of_what_came_before_and_keeps_its_first_frame():
    """Seen to fail with local frames from before the cut."""
    found = plan(CUT)
    assert [chunk.context for chunk in found.chunks] == [(), (0, 1, 2), (), (6, 7, 8), (6, 10, 11)]
    assert [found.context(start) for start in (0, 3, 6, 9, 12, 15)] == [
        (),
        (0, 1, 2),
        (),
        (6, 7, 8),
        (6, 10, 11),
        (6, 13, 14),
    ]
    assert (found.anchors, found.scenes) == ((0, 6), (0, 6))
    assert [bool(chunk.cache_steps) for chunk in found.chunks] == [True, False, True, True, False]


def test_a_plan_without_scenes_is_the_plan_itself_and_so_is_one_that_lost_them():
    """Seen to fail where the first chunk of a scene that is no more keeps the steps of one."""
    asked = tiny.plan(num_frames=15, mode="histream-plus")
    assert with_anchors(asked, (0,), (0,)) == asked
    assert with_anchors(with_anchors(asked, (), (CUT,)), (0,)) == asked
    kept = with_anchors(with_anchors(asked, (), (CUT,)), (0, CUT, 9))
    assert (kept.anchors, kept.scenes) == ((0, 6, 9), (0, 6))


def test_the_first_chunk_of_a_scene_takes_the_steps_of_a_first_chunk():
    """With its attention scale, and also behind a first frame. Seen to fail with those of a later one."""
    preset = find_preset("histream")
    for first in (False, True):
        asked = tiny.plan_of(preset, "histream-plus", num_frames=16, given_frames=int(first), first_frame=first, **HD)
        found = with_anchors(asked, (), (7,) if first else (6,))
        begin = find_preset("histream").schedule("histream-plus")[0]
        scene = next(chunk for chunk in found.chunks if chunk.frames.start == found.scenes[1])
        assert [step.sigma for step in scene.steps] == [step.sigma for step in begin]
        scales = {step.attention_scale for step in (*scene.steps, *scene.cache_steps) if step.scale is Scale.HIGH}
        assert scales == {preset.first_chunk_attention_scale(1920 * 1088 // 256)}
        others = [chunk for chunk in found.chunks if chunk.index not in (0, scene.index)]
        assert [(c.steps, c.context) for c in others if c.index < scene.index] == [
            (c.steps, c.context) for c in asked.chunks[1 : scene.index]
        ]
        assert {len(chunk.steps) for chunk in others[first:]} == {2}


@pytest.mark.parametrize("mode", ["histream", "histream-plus"])
@pytest.mark.parametrize("temporal", [TemporalPolicy("absolute"), TemporalPolicy("clamped", span=4)])
def test_a_scene_is_a_video_of_its_own(mode, temporal):
    """Noise and prompt are equal. Seen to fail where the caches keep what came before."""
    whole = plan(CUT, mode=mode, temporal=temporal)
    made = tiny.video(whole, prompts=[Prompt(tiny.text(0)), Prompt(tiny.text(1), 2)])
    own = tiny.stream(tiny.plan(num_frames=9, mode=mode, temporal=temporal), prompts=[Prompt(tiny.text(1))])
    own.noise = Later()
    torch.testing.assert_close(made[:, :, CUT:], torch.cat(list(own.chunks()), dim=2), atol=1e-4, rtol=0)


WAYS = {
    "histream": {},
    "moving": {"temporal": TemporalPolicy("clamped", span=4)},
    "frame by frame": {"window": Window(1, 1, 5)},
    "survivors": {"levers": ("survivors",)},
    "clean anchors": {"levers": ("clean-anchor", "survivors")},
    "last steps": {"levers": ("last-step", "pooled-low")},
}


@pytest.mark.parametrize("settings", few(WAYS, 2))
def test_every_exact_memory_tier_gives_the_same_frames(settings):
    """Seen to fail where a chunk that no other sees is to be cached."""
    asked = plan(CUT, 12, **WAYS[settings])
    full, *others = (tiny.video(asked, kv=kv) for kv in EXACT)
    assert all(torch.equal(full, other) for other in others)


def test_a_recache_has_nothing_to_compute_in_a_new_scene():
    made = [
        tiny.video(plan(CUT), prompts=[Prompt(tiny.text(0)), Prompt(tiny.text(1), 2, recache=again)])
        for again in (False, True)
    ]
    assert torch.equal(*made)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"mode": "history"}, "every chunk sees the whole video"),
        ({"window": Window(3, 0, 2)}, "there are no anchor frames"),
    ],
)
def test_a_scene_without_a_place_for_its_anchor_is_refused(settings, said):
    with pytest.raises(ValueError, match=said):
        plan(CUT, **settings)


def test_a_timeline_begins_a_scene_where_it_says_so():
    """Seen to fail with a scene that is a cut."""
    cues = parse_timeline("[0] a cat\n[0:01.3, scene] a dog\n[0:02.8, cut] a cow")
    asked = tiny.plan(num_frames=18)
    found = place(cues, asked, 16)
    assert found.starts == Starts([], [6], [])
    prompts = found.prompts([tiny.text(seed).context for seed in range(3)])
    wanted = [Prompt(tiny.text(0)), Prompt(tiny.text(1), 2), Prompt(tiny.text(2), 4)]
    assert torch.equal(tiny.video(found.plan, prompts=prompts), tiny.video(plan(CUT, num_frames=18), prompts=wanted))


@pytest.mark.parametrize(("cut", "every"), [
    (1, 0), (4, 1), slow(1, 1), slow(2, 0), slow(2, 1), slow(3, 0), slow(3, 1), slow(4, 0),
])  # fmt: skip
def test_a_kept_run_goes_on_through_a_scene(tmp_path, cut, every):
    """To the same pictures. Seen to fail with a decoder that is brought back to what the scene before left in it."""
    a_run = tiny_runs.manifest(
        with_anchors(tiny_runs.plan(15), (), (CUT,)), sections=[tiny_runs.section(), tiny_runs.section("a dog", 2)]
    )
    latents, frames = tiny_runs.finish(session.create_run(tmp_path / "whole", a_run))
    tiny_runs.begin(tmp_path / "cut", cut, a_run, snapshots=session.Snapshots(every=every))
    found, shown = tiny_runs.finish(session.resume(tmp_path / "cut", a_run), cut)
    assert tiny_runs.same(found, latents[cut:])
    assert tiny_runs.same(shown, frames[cut:])


def test_a_run_is_extended_and_branched_with_a_scene(tmp_path):
    """Seen to fail with a scene that is forgotten, and where a branch keeps one of the part that it leaves out."""
    short, dog = tiny_runs.plan(6), tiny_runs.section("a dog")
    long = with_anchors(lengthen(short, 15), (), (CUT,))
    a_run = tiny_runs.manifest(long, sections=[tiny_runs.section(), replace(dog, first_chunk=2)])
    wanted = tiny_runs.finish(session.create_run(tmp_path / "long", a_run))
    tiny_runs.finish(session.create_run(tmp_path / "short", tiny_runs.manifest(short)))
    with session.resume(tmp_path / "short") as journal:
        session.lengthen_run(journal, long, [dog])
        assert journal.manifest.plan == long
    assert tiny_runs.same(tiny_runs.finish(session.resume(tmp_path / "short"))[0], wanted[0])
    assert session.branched(a_run, 2, sections=[dog], starts=Starts(scenes=(CUT,))) == a_run
    assert session.branched(a_run, 1, sections=[dog]).plan.scenes == (0,)
    assert lengthen(long, 21).scenes == (0, CUT)


def pictures(latents):
    """Pictures of a scene, by a decoder that has seen only its first frame, without those of that frame alone."""
    decoder = StreamingDecoder(tiny_runs.VAE, normalised=False)
    return to_frames(decoder.decode(torch.cat([latents[:, :, :1], latents], dim=2)))[:, 1:]


def test_no_picture_of_a_scene_knows_the_one_before(tmp_path):
    """Kept or not, decoded in turn or ahead. Seen to fail with a decoder that goes on."""
    a_plan = with_anchors(tiny_runs.plan(14), (), (CUT,))
    latents, frames = tiny_runs.finish(session.create_run(tmp_path / "run", tiny_runs.manifest(a_plan)))
    wanted = pictures(torch.cat(latents[2:], dim=2)[:, :, : 14 - CUT])
    assert wanted.shape[1] == 4 * (14 - CUT)
    torch.testing.assert_close(torch.cat(frames[2:], dim=1), wanted, atol=1e-5, rtol=0)
    for way in ("in-turn", "ahead"):
        preset, cpu = replace(find_preset("demo"), normalised=False), torch.device("cpu")
        weights = Weights(tiny_runs.MODEL, tiny_runs.VAE, preset, cpu, torch.float32, speed=Speed(decode=way))
        chunks = iter([*latents[:4], latents[4][:, :, :2]])
        made = torch.cat(list(decode_frames(weights, chunks, a_plan.scenes)))[None]
        torch.testing.assert_close(made[:, -wanted.shape[1] :], wanted, atol=1e-5, rtol=0)
