"""Banks of scenes: cycles of latents, their geometry and captions, compared with clips that are encoded whole."""

import json
import random
from dataclasses import asdict, astuple, replace

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from tiny import CONFIG

from histream_core import demo
from histream_core.demo import scenes
from histream_core.demo.painter import SHAPES, Combination, HeldOutError, training_combinations
from histream_core.demo.scenes import THINGS, Scene, all_scenes
from histream_core.demo.words import SHAPE_WORDS, VOCABULARY
from histream_core.vae.model import WanVAE
from training import make_bank, make_scene_bank, vae_forward
from training.captions import SCENE_PARTIAL, scene_template
from training.changes import draw_changed
from training.checkpoint import write
from training.data import Drawing
from training.network import Network, begin
from training.rng import Rng
from training.scene_bank import ABOUT, CYCLE, HEAD, STARTS, SceneBank, load_bank, read_statistics

SIDE, EVERY = 64, 247


@pytest.fixture(scope="module")
def pictures():
    picture = torch.zeros(4, 32, 32)
    picture[3, 8:] = picture[0, 8:, :16] = picture[1, 8:, 16:] = 1
    return dict.fromkeys(THINGS, picture)


@pytest.fixture(scope="module")
def vae():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        vae = WanVAE(dim=2).requires_grad_(False)
        vae_forward.initialise(vae)
    return vae


@pytest.fixture(scope="module")
def make(pictures, vae, tmp_path_factory):
    """A function that fills a bank of few clips; the pictures stand for those of a folder."""
    folder = tmp_path_factory.mktemp("bank")
    save_file(vae.state_dict(), folder / "vae.safetensors")

    def run(name="bank", *more):
        words = ["--vae", folder / "vae.safetensors", "--pictures", folder, "--out", folder / name]
        words += ["--size", SIDE, "--every", EVERY, "--stagings", 1, *more]
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(make_scene_bank, "read_pictures", lambda _: pictures)
            make_bank.main([*map(str, words)])
        return folder / name

    return run


@pytest.fixture(scope="module")
def folder(make):
    return make()


def test_a_clip_at_any_moment_is_what_the_encoder_makes_of_the_whole_clip(vae, pictures):
    """Its beginnings exactly, the rest nearly. Seen to fail with a cycle that is not turned back."""
    clip = Scene("cat", "meadow", "turns")
    painting = make_scene_bank.paint_round(clip, (), pictures, SIDE)
    held = make_scene_bank.encode_round(vae, painting.pixels)
    assert len(held) == CYCLE + STARTS * HEAD
    about = {"combinations": [["cat", "meadow", "turns"]], "stagings": [[]], "mean": [0.0] * 16, "std": [1.0] * 16}
    geometry = (make_scene_bank.describe_round(painting.opacity) * 255).round().to(torch.uint8)
    bank = SceneBank(about, held[None].numpy(), geometry[None].numpy())
    for ahead in (0, 8):
        times = (torch.arange(4 * (CYCLE + 6) + 1) + 4 * ahead) % scenes.ROUND
        pixels = torch.from_numpy(painting.pixels).permute(3, 0, 1, 2)[None, :, times] * 2 - 1
        whole = vae_forward.encode(vae, pixels, wrap=True)
        found, _ = bank.gather(torch.tensor([0]), range(CYCLE + 7), torch.tensor([[ahead]]))
        torch.testing.assert_close(found[:, :, :HEAD], whole[:, :, :HEAD], atol=1e-4, rtol=0)
        off = (found - whole).square().mean((0, 1, 3, 4)).sqrt() / whole.std()
        assert off[HEAD + 3 :].max() < 0.03 and off.max() < 0.2


def test_a_bank_of_some_things_and_places_has_no_others():
    """Seen to fail with held-out scenes, and with flat clips of the first shapes alone."""
    found = make_scene_bank.clips(1, ["cat", "rocket"], ["sea"], 9)
    scenes = [clip for clip in found if isinstance(clip, Scene)]
    assert {(clip.thing, clip.place) for clip in scenes} == {("cat", "sea"), ("rocket", "sea")}
    assert len(scenes) == sum(
        not one.held_out for one in all_scenes() if one.thing in ("cat", "rocket") and one.place == "sea"
    )
    assert {clip.shape for clip in found if not isinstance(clip, Scene)} == set(SHAPES)
    assert len(found) - len(scenes) == -(-len(training_combinations()) // 9)


def test_geometry_is_the_opacity_of_the_thing(pictures):
    """Seen to fail with the frames of the next latent frame."""
    clip = Scene("cat", "black", "right")
    painting = make_scene_bank.paint_round(clip, ("large", "low"), pictures, SIDE)
    shown = make_scene_bank.describe_round(painting.opacity)
    there = (painting.pixels != painting.pixels[0, 0, 0]).any(-1)
    assert shown.min() >= 0 and shown.max() <= 1
    for latent in (1, 5):
        frames = painting.opacity[4 * latent - 3 : 4 * latent + 1]
        assert torch.allclose(shown[latent, 0].mean(), frames.mean(), atol=1e-5)
        inside = torch.from_numpy(there[4 * latent - 3 : 4 * latent + 1]).float().mean(0)
        assert float(torch.nn.functional.avg_pool2d(inside[None], 8)[0][shown[latent, 0] == 0].max()) < 0.05
    assert 0 < shown[:, 1].mean() < 1.2 * shown[:, 0].mean()


def test_a_bank_is_drawn_from_and_gives_clips_as_the_other_one_does(folder):
    bank = load_bank(folder, largest=8)
    kinds = {type(clip) for clip in bank.combinations}
    assert len(kinds) == 2 and not any(clip.held_out for clip in bank.combinations if isinstance(clip, Scene))
    for frames in (range(3), range(6, 12)):
        clips = bank.draw(Rng(0), 5, frames, Drawing(dropout=0, partial=0), 4)
        assert clips.latents.shape == (5, 16, len(frames), 8, 8)
        assert clips.geometry.shape == (5, 2, len(frames), 8, 8)
        assert clips.tokens.shape[0] == 5 and (clips.tokens > 0).any(1).all()
        assert torch.equal(bank.at(clips, frames).latents, clips.latents)
        assert clips.at((4, 4)).latents.shape[-1] == 4
    every = bank.gather(torch.arange(len(bank.combinations)), range(20, 36), torch.zeros(3, 1, dtype=torch.long))[0]
    assert every.std((0, 2, 3, 4)).mean() == pytest.approx(1, abs=0.25)
    assert [x.shape for x in read_statistics(folder)] == [(16,), (16,)]
    with pytest.raises(ValueError, match="leave the option out"):
        bank.draw(Rng(0), 1, range(3), Drawing(shape_groups=True), 8)
    with pytest.raises(ValueError, match="has 8 cells a side but 32 are asked for"):
        load_bank(folder, largest=32)


def test_captions_say_where_a_clip_begins(vae, pictures):
    """Moments of the STARTS by their words, any moment of later windows. Seen to fail with words of another start."""
    stored = np.zeros((2, CYCLE + STARTS * HEAD, 16, 2, 2), np.float16), np.zeros((2, CYCLE, 2, 2, 2), np.uint8)
    words = [["cat", "meadow", "left"], ["dog", "sea", "turns"]]
    about = {"combinations": words, "stagings": [["small", "high"], ["low"]], "mean": [0.0] * 16, "std": [1.0] * 16}
    bank, whole = SceneBank(about, *stored), Drawing(dropout=0, partial=0)
    clips = bank.draw(Rng(0), 80, [0, *range(7, 12)], whole, 2)
    found = {
        (int(i), int(roll)): clips.tokens[n] for n, (i, roll) in enumerate(zip(clips.index, clips.roll, strict=True))
    }
    assert {moment for index, moment in found if index == 0} == {0, 4, 8, 12}
    assert {moment for index, moment in found if index == 1} == {0}
    for (index, moment), tokens in found.items():
        told = [VOCABULARY[token - 1] for token in tokens if token]
        if index == 0:
            place = {0: [], 4: ["west"], 8: ["edge"], 12: ["east"]}[moment]
            assert told[told.index("cat") - 1] == "small" and told[-1 - len(place) :] == ["high", *place]
        else:
            assert told[-1] == "low" and not {"small", "west", "east", "edge"} & {*told}
    assert len(set(bank.draw(Rng(0), 30, range(6, 9), whole, 2).roll[:, 0].tolist())) > 4
    with pytest.raises(ValueError, match="not the noise: leave the option out"):
        bank.draw(Rng(0), 1, range(3), Drawing(noise_coupled=True), 2)


def test_a_clip_is_banked_in_stagings_of_its_own():
    """So many as are asked for, or all that there are; none twice. Seen to fail with the first ones of each clip."""
    clips = [Scene("cat", "sea", "bounces"), Scene("cat", "sea", "turns")]
    chosen = make_scene_bank.staged(clips, 12)
    assert len(set(chosen)) == len(chosen) == 9 + 12
    first = [dict(reversed(make_scene_bank.staged([clip], 1))) for clip in make_scene_bank.clips(40)]
    assert len({words for one in first for words in one.values()}) > 8


def test_the_true_clip_goes_on_where_a_video_is(folder):
    """All motions are tried; a video that shows nothing keeps its moment. Seen to fail with the moments in reverse."""
    bank = load_bank(folder)
    index = torch.arange(len(bank.combinations))
    ahead = torch.full((len(index), 1), 5)
    clips = bank.draw(Rng(0), len(index), range(9, 12), Drawing(), 8)
    clips = replace(clips, index=index, roll=torch.zeros_like(ahead))
    shown = bank.gather(index, range(9, 12), ahead)[0]
    found = bank.catch_up(clips, range(9, 12), shown + 0.1 * Rng(1).normal(*shown.shape))
    assert torch.equal(found, ahead)
    smeared = torch.stack([bank.gather(index, range(9, 12), ahead + i)[0] for i in range(CYCLE)]).mean(0)
    lost = bank.catch_up(clips, range(9, 12), smeared + 0.1 * Rng(2).normal(*shown.shape))
    assert torch.equal(lost, clips.roll)


def test_a_bank_that_was_killed_goes_on_to_the_same(make, folder, monkeypatch):
    """Seen to fail when it starts again, and when its stagings depend on what was painted before."""
    paint, painted = make_scene_bank.paint_round, []

    def counted(*words):
        painted.append(words[0])
        if len(painted) == 3:
            raise KeyboardInterrupt
        return paint(*words)

    monkeypatch.setattr(make_scene_bank, "SAVE_EVERY", 1)
    monkeypatch.setattr(make_scene_bank, "paint_round", counted)
    with pytest.raises(KeyboardInterrupt):
        make("killed")
    with pytest.raises(ValueError, match="has 2 of its clips"):
        load_bank(folder.parent / "killed")
    whole, again = load_bank(folder), load_bank(make("killed"))
    assert len(painted) == 4, "the third alone once more"
    assert np.array_equal(whole.latents, again.latents) and np.array_equal(whole.stored, again.stored)
    assert json.loads((folder / ABOUT).read_text()) == json.loads((folder.parent / "killed" / ABOUT).read_text())
    with pytest.raises(ValueError, match="of other clips or another VAE"):
        make("killed", "--every", "900")


def test_held_out_scenes_are_refused():
    held_out = next(scene for scene in all_scenes() if scene.held_out)
    about = {"combinations": [[held_out.thing, held_out.place, held_out.motion]], "mean": [0.0], "std": [1.0]}
    with pytest.raises(HeldOutError):
        SceneBank(about, np.zeros((1, 28, 16, 16, 16)), np.zeros((1, 16, 2, 16, 16)))


def test_captions_of_scenes_can_leave_out_words():
    clip, rng = Scene("cat", "sea", "grows"), random.Random(0)
    assert {scene_template(rng, 0, 0) for _ in range(99)} == set(scenes.SENTENCES)
    assert {scene_template(rng) for _ in range(500)} == {"", *scenes.SENTENCES, *SCENE_PARTIAL}
    assert clip.caption(SCENE_PARTIAL[0]) == "a cat grows and shrinks"


def test_a_network_keeps_its_words_and_learns_new_ones(tmp_path):
    """Seen to fail with new embeddings for all."""
    torch.manual_seed(0)
    config = replace(CONFIG, text_dim=64)
    network = Network(config)
    path = tmp_path / "checkpoint.pt"
    write(path, {"network": {"config": asdict(config), "average": network.state_dict()}})
    same, wider = begin(path), begin(path, 0, VOCABULARY)
    assert same.encoder.vocabulary == SHAPE_WORDS and wider.encoder.vocabulary == VOCABULARY
    old = network.encoder.words.weight
    assert torch.equal(wider.encoder.words.weight[: len(old)], old)
    assert wider.encoder.words.weight[len(old) :].std() > 0.5
    assert torch.equal(wider.encoder.encode("a red circle"), network.encoder.encode("a red circle"))


def test_a_wider_network_computes_the_same_until_it_is_trained(tmp_path):
    """Its new units learn from the first step on. Seen to fail with new units that write at random."""
    made = Network(CONFIG)
    with torch.no_grad():
        for weights in made.parameters():
            weights.add_(torch.randn_like(weights), alpha=0.1)
    found = {"now": made.state_dict(), "average": made.state_dict(), "config": asdict(CONFIG)}
    write(tmp_path / "checkpoint.pt", {"network": found})
    wide = begin(tmp_path, ffn_dim=CONFIG.ffn_dim + 8)
    one, other = made.model.blocks[0].ffn, wide.model.blocks[0].ffn
    shown = torch.randn(3, CONFIG.dim)
    assert other[0].out_features == wide.config.ffn_dim == CONFIG.ffn_dim + 8
    torch.testing.assert_close(other(shown), one(shown), atol=1e-5, rtol=1e-5)
    other(shown).square().sum().backward()
    assert other[2].weight.grad[:, CONFIG.ffn_dim :].abs().min() > 0
    with pytest.raises(ValueError, match="ask for more than that, not 8"):
        begin(tmp_path, ffn_dim=8)


def test_a_run_can_begin_with_exported_files():
    """The bundled ones, in half precision as they are. Seen to fail with the weights of a new network."""
    network, model = begin(demo.FOLDER, 0, VOCABULARY), demo.load_transformer()
    assert network.config == model.config
    assert all(torch.equal(w, network.model.state_dict()[key]) for key, w in model.state_dict().items())
    sentence = "a red circle moves right on a blue background"
    assert torch.equal(network.encoder.encode(sentence), demo.load_text_encoder().encode(sentence))
    assert all(p.requires_grad for p in network.parameters())


def test_pairs_share_their_motion_and_place_and_no_other_word():
    """Seen to fail with a source that is not rolled, and with any source of the same motion."""
    clips = [clip for clip in all_scenes() if not clip.held_out and clip.motion in ("right", "turns")]
    clips = clips[::5] + [clip for clip in training_combinations() if clip.direction in ("right", "up")][::3]
    latents = np.zeros((len(clips), CYCLE + STARTS * HEAD, 16, 8, 8), np.float16)
    geometry = np.zeros((len(clips), CYCLE, 2, 8, 8), np.uint8)
    latents[..., 3, 5], geometry[..., 3, 5] = np.arange(1, len(clips) + 1)[:, None, None], 255
    words = [list(astuple(clip)) for clip in clips]
    about = {"combinations": words, "stagings": [[]] * len(clips), "mean": [0.0] * 16, "std": [1.0] * 16}
    bank, told, places = SceneBank(about, latents, geometry), set(), {Scene: set(), Combination: set()}
    for seed in range(12):
        found = bank.draw_pairs(Rng(seed), 8, range(3))
        for number, index in enumerate(found.index.tolist()):
            target, source, shown = (x[number, 0, 0] for x in (found.latents, found.source, found.geometry))
            assert torch.equal(target > 0, source > 0) and torch.equal(target > 0, shown > 0)
            one, other = clips[index], clips[int(source.max()) - 1]
            assert int(target.max()) == index + 1 and type(one) is type(other)
            same = [a == b for a, b in zip(astuple(one), astuple(other), strict=True)]
            assert same[-1] and not any(same[:-1])
            places[type(one)].add(tuple((target > 0).nonzero()[0].tolist()))
            said = {VOCABULARY[token - 1] for token in found.tokens[number].tolist() if token}
            told.add((type(one), bool(said & {"right", "turns", "up"})))
    assert told == {(kind, says) for kind in places for says in (True, False)}
    assert places[Scene] == {(3, 5)} and len(places[Combination]) > 8
    with pytest.raises(ValueError, match="no two clips that share their motion alone"):
        SceneBank(about | {"combinations": words[:1], "stagings": [[]]}, latents, geometry).draw_pairs(Rng(0), 1, [0])


@pytest.mark.parametrize("start", [3, 6, 15])
def test_behind_a_change_of_prompts_the_new_clip_begins_as_its_caption_says(start):
    """Windows are of the clip before, then of it alone in the anchor. Seen to fail with the new clip in all of them."""
    clips = [Scene("cat", "meadow", "left"), Scene("dog", "sea", "left")]
    latents, geometry = (
        np.zeros((2, CYCLE + STARTS * HEAD, 16, 2, 2), np.float16),
        np.zeros((2, CYCLE, 2, 2, 2), np.uint8),
    )
    latents[:, :CYCLE] = 1 + np.arange(CYCLE)[:, None, None, None] + 100 * np.arange(2)[:, None, None, None, None]
    about = {
        "combinations": [list(astuple(clip)) for clip in clips],
        "stagings": [[], []],
        "mean": [0.0] * 16,
        "std": [1.0] * 16,
    }
    bank, whole, kinds = SceneBank(about, latents, geometry), Drawing(dropout=0, partial=0), set()
    for seed in range(30):
        found = draw_changed(bank, Rng(seed), 1, start, whole, 2)
        *_, latent = shown = found.latents[0, 0, :, 0, 0].tolist()
        index, begins = int(found.index), int(found.roll)
        assert len(shown) == 9 and latent // 100 == index
        since = (int(shown[6]) % 100 - 1 - begins) % CYCLE
        assert since % 3 == 0 and since <= start - 3
        window = found.seen[0, 0, 3:6, 0, 0].tolist()
        assert window == shown[3:6] if since else int(window[0]) // 100 in (0, 1)
        kinds.add((since > 0, int(window[0]) // 100 == index))
    assert kinds == ({(False, True), (False, False)} | ({(True, True)} if start > 3 else set()))
