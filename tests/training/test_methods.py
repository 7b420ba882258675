"""Computations of the training stages, compared with the engine and with known answers."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from tiny_training import CONFIG, RED_CIRCLES, bank, network

from histream_core.demo.text import token_table
from histream_core.network.cache.tiers import make_caches
from histream_core.network.cache.window import CacheOptions, CacheWindow, KVCache
from histream_core.network.forward import Denoiser, PassOptions, forward_chunk
from histream_core.network.model import ModelSizes
from histream_core.network.ops.rope import Rope
from histream_core.plan.make import make_plan
from histream_core.plan.positions import TemporalPolicy
from histream_core.plan.presets import PRESETS, Preset, find_preset
from histream_core.plan.schedule import Scale
from histream_core.stream.noise import SeededNoise
from histream_core.stream.prompts import Prompt
from histream_core.stream.resize import resize
from histream_core.stream.stream import Stream
from training import muon, repa
from training.crops import Crop, around_objects
from training.data import RESIZE, Clips, Drawing, Pairs
from training.distill import Setting, matching_direction, matching_loss, regression_loss, stream_noise
from training.dit_forward import flow
from training.forcing import ENTRY, TeacherForcing
from training.forward import Bidirectional, guided, hidden_state, run_block, solve, spread
from training.loop import Moment
from training.network import Network, Trainee
from training.protocol import Protocol
from training.rng import Rng
from training.rollout import choose_steps, rollout, until
from training.train_teacher import flow_matching_loss, pick_grid

DEMO = find_preset("demo")
HD = replace(find_preset("histream"), trained_tokens=4)
"""A preset with NTK factors and attention scaling of the first chunk at 64x64."""
TOKENS = token_table(["a red circle moves right on a blue background", "white square"])


def plan(mode: str, chunks: int, preset: Preset = DEMO):
    return make_plan(preset, mode, size=(64, 64), num_latent_frames=3 * chunks)


@pytest.mark.parametrize(
    ("preset", "mode", "chunks"),
    [(DEMO, "histream", 3), (DEMO, "histream-plus", 3), (HD, "histream", 2), (DEMO, "histream-plus", 9)],
    ids=["histream", "plus", "hd", "long"],
)
@pytest.mark.parametrize("scale", list(Scale))
def test_a_rollout_is_the_engines_stream(preset, mode, chunks, scale):
    """Seen to fail with the own keys left out of the window, and with the attention scale of chunk 0 left at 1."""
    made, a_plan, noise = network(), plan(mode, chunks, preset), SeededNoise(1)
    chosen = choose_steps(a_plan, scale, range(chunks), Rng(0))
    rolled = rollout(made, a_plan, TOKENS, noise, chosen)

    with torch.no_grad():
        prompts = [Prompt(made.text(TOKENS))]
    caches = make_caches(a_plan, CONFIG, CacheOptions(batch=2))
    stream = Stream(a_plan, Denoiser(made.model), caches, noise, prompts)
    video = torch.cat(list(stream.chunks()), dim=2)
    torch.testing.assert_close(torch.cat(rolled.chunks, dim=2), video, atol=1e-5, rtol=1e-5)
    assert rolled.estimates.shape == (2, 16, 3 * chunks, *a_plan.grids[scale])
    assert rolled.estimates.requires_grad and not any(chunk.requires_grad for chunk in rolled.chunks)
    short = rollout(made, until(a_plan, chosen), TOKENS, noise, chosen)
    torch.testing.assert_close(short.estimates, rolled.estimates)


def test_the_estimates_of_last_steps_are_the_video_and_teach_every_part_of_the_network():
    made, a_plan = network(), plan("histream", 3)
    chosen = [None, *(chunk.steps[-1] for chunk in a_plan.chunks[1:])]
    rolled = rollout(made, a_plan, TOKENS, SeededNoise(1), chosen)
    torch.testing.assert_close(rolled.estimates, torch.cat(rolled.chunks[1:], dim=2))
    rolled.estimates.square().mean().backward()
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in made.parameters())


def test_the_gradient_of_a_chunk_is_that_of_one_call_with_the_window_it_found(monkeypatch):
    """By differences: with the window frozen they agree, with the whole video made again they do not.

    Seen to fail with every other call, cache passes too, left in the graph.
    """
    made, a_plan, calls = network(), plan("histream-plus", 2), []

    def recorded(model, latent, timestep, text, cache, options):
        calls.append((latent, timestep, cache))
        return forward_chunk(model, latent, timestep, text, cache, options)

    monkeypatch.setattr("training.rollout.forward_chunk", recorded)
    bias = made.model.blocks[0].ffn[2].bias

    def whole():
        return rollout(made, a_plan, TOKENS, SeededNoise(1), [None, a_plan.chunks[1].steps[-1]]).estimates.mean()

    def frozen():  # the last call of the last chunk: nothing has been written into its cache since
        options = PassOptions(block_forward=run_block)
        flow = forward_chunk(made.model, latent, timestep, made.text(TOKENS), cache, options)
        return (latent - 0.5 * flow).mean()

    (gradient,) = torch.autograd.grad(whole(), bias)
    latent, timestep, cache = calls[-1]
    assert timestep.tolist() == [500, 500]

    def slope(function) -> float:
        values = []
        for step in (0.02, -0.04):
            bias.data += step
            values.append(float(function().detach()))
        bias.data += 0.02
        return (values[0] - values[1]) / 0.04

    assert slope(frozen) == pytest.approx(float(gradient.sum()), rel=0.02)
    assert slope(whole) != pytest.approx(float(gradient.sum()), rel=0.05)


def test_the_teachers_forward_is_the_engines_first_chunk():
    made, draw = network(), torch.Generator().manual_seed(1)
    latent, sigma = torch.randn(2, 16, 5, 8, 8, generator=draw), torch.tensor([0.3, 0.8])
    rope = Rope(CONFIG.head_dim, (4, 4), ntk=2.0)
    window = CacheWindow(TemporalPolicy(), anchor_frames=0, ring_frames=5, local_frames=0)
    cache = KVCache(rope, ModelSizes.of(CONFIG), window, CacheOptions(batch=2))
    cache.begin(range(5), ())
    with torch.no_grad():
        expected = forward_chunk(made.model, latent, 1000 * sigma, made.text(TOKENS), cache)
    found = Bidirectional(made, [rope])(latent, sigma, TOKENS)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


def gaussian(mean: float, std: float = 0.7):
    """Exact flow, at every noise level, of clips of independent normal numbers with this mean."""

    def flow(noisy, sigma, tokens):
        s = spread(sigma, noisy)
        gain = (1 - s) * std**2 / ((1 - s).square() * std**2 + s.square())
        return (noisy - mean - gain * (noisy - (1 - s) * mean)) / s

    return flow


def test_teacher_forcing_stands_where_the_engine_does_also_with_settings_for_high_definition(monkeypatch):
    """The first chunk, whose attention is heightened. Seen to fail with the scale, or the NTK factor, left at 1."""
    monkeypatch.setitem(PRESETS, "histream", HD)
    made, protocol = network(), Protocol("histream", size=64)
    forcing = TeacherForcing(made, protocol, ("histream",), "cpu")
    clean, noise = Rng(0).normal(2, 16, 3, 8, 8), Rng(1).normal(2, 2, 16, 3, 8, 8)
    shown, _, sigma = forcing.rows(clean, Scale.HIGH, forcing.steps[Scale.HIGH, 0], noise)
    turns, scale = forcing.rotations[4, 4], forcing.attention_scale[Scale.HIGH]
    nothing, none = noise[:, :0], sigma[:, :0]
    text = made.encoder(TOKENS)
    found, _ = flow(
        made.model, text, nothing, shown, nothing, sigma, none, start=3, rotations=turns, first_attention_scale=scale
    )
    a_plan = plan("histream", 1, HD)
    step = a_plan.chunks[0].steps[-1]
    assert step.attention_scale > 1 and a_plan.ntk[Scale.HIGH] > 1
    cache = make_caches(a_plan, CONFIG, CacheOptions(batch=2))[Scale.HIGH]
    cache.begin(range(3), ())
    expected = Denoiser(made.model)(shown[:, -1], step, cache, made.text(TOKENS))
    torch.testing.assert_close(shown[:, -1] - step.sigma * found[:, -1], expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("real_mean", [-1.5, 2.0])
def test_distribution_matching_carries_a_generator_to_the_real_mean(real_mean):
    """Seen to fail with real and fake the other way round."""
    rng, mean = Rng(0), torch.zeros((), requires_grad=True)
    tokens = TOKENS[:1].expand(64, -1)
    optimiser = torch.optim.SGD([mean], lr=0.1)
    first = None
    for _ in range(150):
        clean = mean + 0.7 * rng.normal(64, 1, 1, 2, 2)
        sigma, noise = 0.02 + 0.96 * rng.uniform(64), rng.normal(64, 1, 1, 2, 2)
        fake = gaussian(float(mean.detach()))
        towards = matching_direction(clean.detach(), tokens, sigma, noise, gaussian(real_mean), fake, 1.0)
        first = towards if first is None else first
        optimiser.zero_grad()
        (clean.numel() * matching_loss(clean, towards) / 64).backward()
        optimiser.step()
    assert (first.sign() == np.sign(real_mean)).all()
    assert float(mean.detach()) == pytest.approx(real_mean, abs=0.1)


def test_where_real_and_fake_agree_nothing_moves():
    clean, noise = Rng(0).normal(2, 1, 1, 2, 2), Rng(1).normal(2, 1, 1, 2, 2)
    towards = matching_direction(clean, TOKENS, torch.tensor([0.2, 0.9]), noise, gaussian(1), gaussian(1), 3.0)
    torch.testing.assert_close(towards, torch.zeros_like(towards))


def test_guidance_goes_beyond_the_caption_away_from_the_empty_one():
    def flow(latent, sigma, tokens):
        return latent + tokens.sum(1).view(-1, 1, 1, 1, 1)

    latent, sigma = torch.zeros(2, 1, 1, 1, 1), torch.ones(2)
    asked = TOKENS.sum(1).view(-1, 1, 1, 1, 1).float()
    torch.testing.assert_close(guided(flow, latent, sigma, TOKENS, 1.0), asked)
    torch.testing.assert_close(guided(flow, latent, sigma, TOKENS, 3.0), 3 * asked)


def test_matrices_are_orthogonal_whichever_type_their_products_have():
    """Seen to fail where the type is not handed on, and where matrices come back in it."""
    stack = Rng(0).normal(3, 64, 32)
    exact, rough = muon.orthogonalise(stack), muon.orthogonalise(stack, dtype=torch.bfloat16)
    assert rough.dtype == torch.float32 and not torch.equal(exact, rough)
    assert float((rough - exact).norm() / exact.norm()) < 0.05
    assert Trainee(Network(CONFIG), 1e-3, "muon", bf16=True).optimiser.orthogonalise.keywords == {
        "dtype": torch.bfloat16
    }


def test_the_ode_ends_where_the_flow_leads():
    target = Rng(0).normal(1, 2, 1, 2, 2)
    sigmas = [1, 0.7, 0.4, 0.1, 0]
    found = solve(lambda x, s, _: (x - target) / spread(s, x), Rng(1).normal(1, 2, 1, 2, 2), sigmas, TOKENS[:1], 1.0)
    torch.testing.assert_close(found, target)


def last_losses(loss, made: Network, steps: int = 120) -> tuple[float, float]:
    """Mean losses of the first and of the last five of `steps` steps."""
    trainee = Trainee(made, 1e-2, "muon")
    found = []
    for step in range(steps):
        value = loss()
        trainee.descend(value, Moment(step + 50, 0.0))
        found.append(float(value.detach()))
    return float(np.mean(found[:5])), float(np.mean(found[-5:]))


@pytest.mark.slow
def test_the_teachers_loss_falls():
    made, data, rng = Network(CONFIG), bank(RED_CIRCLES[:2]), Rng(0)
    flow = Bidirectional(made, [Rope(CONFIG.head_dim, (2, 2))])

    def loss():
        clips = data.draw(rng, 4, range(2), Drawing(places=1), 8).at((4, 4))
        return flow_matching_loss(flow, clips, rng, shift=2.0, object_weight=3, outline_weight=3)

    first, last = last_losses(loss, made)
    assert last < 0.75 * first  # 24 channels cannot carry the noise of 64


@pytest.mark.slow
def test_the_students_loss_falls():
    made, data, rng = Network(CONFIG), bank(RED_CIRCLES[:2]), Rng(0)
    forcing = TeacherForcing(made, Protocol(size=64), ("histream",), "cpu")

    def loss():
        clips = data.draw(rng, 4, forcing.frames(6), Drawing(places=1), 4)
        return sum(forcing.loss(clips, 6, Scale.LOW, rng).values())

    first, last = last_losses(loss, made)
    assert last < 0.75 * first  # 24 channels cannot carry the noise of 64


@pytest.mark.parametrize("scale", Scale)
def test_the_first_chunk_alone_has_the_loss_that_it_has_beside_a_later_one(scale):
    """Clips and noise are the same: the window and the later rows are not there, and no row of the first saw them.

    Seen to fail with every row of the first chunk attending to the first of them.
    """
    forcing = TeacherForcing(network(), Protocol(size=128), ("histream",), "cpu")
    losses = {}
    for start in (0, 6):
        clips = bank().draw(Rng(0), 2, forcing.frames(start), Drawing(places=1), 8)
        losses[start] = forcing.loss(clips, start, scale, Rng(1))
    name = f"first {scale.value}"
    assert list(losses[0]) == [name]
    torch.testing.assert_close(losses[0][name], losses[6][name], atol=1e-5, rtol=1e-5)


@pytest.mark.slow
def test_the_loss_of_rolled_out_videos_falls_and_noise_decides_the_place():
    made, data, rng = Network(CONFIG), bank(RED_CIRCLES[:1]), Rng(0)
    setting = Setting(Protocol(size=64), ("histream-plus",), chunks=1, lead=1, low_share=1.0)

    def loss():
        a_plan, scale, trained = setting.draw(rng)
        clips = data.draw(rng, 4, range(3 * trained.start, 3 * trained.stop), Drawing(2, noise_coupled=True), 4)
        chosen = choose_steps(a_plan, scale, trained, rng)
        rolled = rollout(made, a_plan, clips.tokens, stream_noise(clips, rng), chosen)
        return regression_loss(rolled, clips, 2, 2)

    first, last = last_losses(loss, made, steps=60)
    assert last < 0.8 * first


def test_high_begins_with_the_students_own_low_estimate_where_that_is_asked_for():
    """Seen to fail with the truth as LOW would show it, and with the estimate of the second LOW step."""
    made, data, steps = network(), bank(), plan("histream", 2).chunks[1].steps
    forcing = TeacherForcing(made, Protocol(size=64), ("histream",), "cpu", context_noise=0.0)
    clips = data.draw(Rng(0), 2, forcing.frames(6), Drawing(), 4)
    own = forcing.own_low(clips, 6, Rng(1))
    first = [steps[:1] for steps in forcing.all_steps(Scale.LOW)]
    for chunk, found in zip((0, 1), forcing.predict(clips, 6, Scale.LOW, Rng(1), steps=first), strict=True):
        assert torch.equal(found.sigma[:, 0], torch.ones(2)), "out of pure noise"
        assert torch.equal(own[chunk], found.noisy[:, 0] - found.flow[:, 0])
    high = next(step.sigma for step in steps if step.scale is Scale.HIGH)
    begun, shown = (forcing.predict(clips, 6, Scale.HIGH, Rng(2), low) for low in (own, (None, None)))
    for chunk in (0, 1):
        true = clips.at((8, 8)).latents[:, :, begun[chunk].frames]
        apart = (1 - high) * (resize(own[chunk], (8, 8), RESIZE) - resize(resize(true, (4, 4), RESIZE), (8, 8), RESIZE))
        torch.testing.assert_close(begun[chunk].noisy[:, 0] - shown[chunk].noisy[:, 0], apart, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(
            begun[chunk].noisy[:, 0] - high * begun[chunk].asked[:, 0], true, atol=1e-5, rtol=1e-5
        )
        assert torch.equal(begun[chunk].noisy[:, 1], shown[chunk].noisy[:, 1])
    losses = [forcing.loss(clips, 6, Scale.HIGH, Rng(3), own_low=own_low) for own_low in (True, False)]
    assert all(abs(losses[0][name] - losses[1][name]) > 1e-4 for name in losses[0])


@pytest.mark.slow
def test_hidden_states_learn_what_is_where():
    data, rng = bank(RED_CIRCLES[:2]), Rng(0)
    made = Network(CONFIG, data.geometry.shape[-1])
    flow = Bidirectional(made, [Rope(CONFIG.head_dim, (2, 2))])

    def loss():
        clips = data.draw(rng, 4, range(2), Drawing(places=4), 8).at((4, 4))
        with hidden_state(made.model, repa.layer(CONFIG.num_layers)) as hidden:
            flow(clips.latents, rng.uniform(4), clips.tokens)
        return repa.alignment_loss(made.projection, hidden[0], repa.targets(clips.geometry))

    first, last = last_losses(loss, made)
    assert first > 0.7 and last < 0.5 * first


def test_the_student_is_trained_at_the_engines_own_steps():
    protocol = Protocol(size=128)
    steps = {(s, c): protocol.steps(("histream", "histream-plus"), s, c) for s in Scale for c in (0, 1)}
    low, high = [1.0, 6 / 7], [(0.5, True), (0.25, False)]
    for chunk in (0, 1):
        assert [(step.sigma, up) for step, up in steps[Scale.LOW, chunk]] == [(pytest.approx(s), False) for s in low]
        assert [(step.sigma, up) for step, up in steps[Scale.HIGH, chunk]] == high


def test_what_the_student_should_answer_leads_to_the_clean_clip_also_from_an_upsampled_one():
    forcing = TeacherForcing(network(), Protocol(size=128), ("histream",), "cpu")
    clean, noise = Rng(0).normal(2, 16, 3, 16, 16), Rng(1).normal(2, 2, 16, 3, 16, 16)
    shown, flow, sigma = forcing.rows(clean, Scale.HIGH, forcing.steps[Scale.HIGH, 0], noise)
    torch.testing.assert_close(shown - spread(sigma, shown) * flow, clean[:, None].expand_as(shown))
    torch.testing.assert_close(shown[:, 1], 0.75 * clean + 0.25 * noise[:, 1])
    assert (shown[:, 0] - 0.5 * clean - 0.5 * noise[:, 0]).abs().max() > 0.1


def test_the_noise_a_clip_grows_out_of_is_shown_at_the_first_low_step_alone():
    forcing, rng = TeacherForcing(network(), Protocol(size=128), ("histream",), "cpu"), Rng(0)
    clips = bank().draw(rng, 2, forcing.frames(3), Drawing(4, noise_coupled=True), 8)
    where = slice(0, 3), slice(6, 9)
    first, later = (
        forcing.noise(clips, Scale.LOW, forcing.steps[Scale.LOW, chunk], part, rng) for chunk, part in enumerate(where)
    )
    assert torch.equal(first[:, 0], clips.noise)
    assert not torch.equal(first[:, 1], clips.noise) and not torch.equal(later[:, 0], clips.noise)
    whole = Rng(2).normal(2, 16, 9, 8, 8)
    pairs = Pairs({"combinations": [], "tokens": TOKENS, "noise": whole, "latents": Rng(3).normal(2, 16, 9, 16, 16)})
    clips = pairs.draw(rng, 2, forcing.frames(6))
    later = forcing.noise(clips, Scale.LOW, forcing.steps[Scale.LOW, 1], where[1], rng)
    assert torch.equal(later[:, 0], clips.noise[:, :, 6:])
    second = forcing.noise(clips, Scale.LOW, forcing.steps[Scale.LOW, 1][1:], where[1], rng)
    assert not torch.equal(second[:, 0], clips.noise[:, :, 6:])


def test_a_crop_of_the_whole_frame_is_the_frame_and_a_smaller_one_its_window():
    """Seen to fail with windows of the clean chunks that are not cut."""
    forcing = TeacherForcing(network(), Protocol(size=128), ("histream",), "cpu", context_noise=0, crop=16)
    clips = bank().draw(Rng(0), 2, forcing.frames(6), Drawing(), 8)
    whole = Crop(torch.zeros(2, 2, dtype=torch.long), 16)
    for start in (0, 6):
        *_, expected = forcing.predict(clips, start, Scale.HIGH, Rng(1))
        *_, found = forcing.predict(clips, start, Scale.HIGH, Rng(1), crop=whole)
        torch.testing.assert_close(found.flow, expected.flow)
        assert expected.flow.abs().max() > 0
    forcing = TeacherForcing(network(), Protocol(size=128), ("histream",), "cpu", context_noise=0, crop=8)
    window = Crop(torch.tensor([[0, 4], [8, 2]]), 8)
    (cut,) = forcing.predict(clips, 6, Scale.HIGH, Rng(1), crop=window, later_alone=True)
    (full,) = forcing.predict(clips, 6, Scale.HIGH, Rng(1), later_alone=True)
    assert cut.frames == full.frames == slice(6, 9)
    assert torch.equal(cut.noisy[0], full.noisy[0, ..., 0:8, 4:12])
    assert torch.equal(cut.noisy[1], full.noisy[1, ..., 8:16, 2:10])


def test_windows_lie_on_whole_tokens_around_the_objects():
    """Seen to fail with odd corners, and with windows anywhere."""
    geometry = torch.zeros(64, 2, 3, 16, 16)
    for index in range(64):
        geometry[index, 0, index % 3, index % 16, (5 * index) % 16] = 1
    crop = around_objects(geometry, 8, Rng(0))
    assert not (crop.corner % 2).any() and crop.corner.min() >= 0 and crop.corner.max() <= 8
    assert crop(geometry)[:, 0].flatten(1).sum(1).eq(1).all()
    empty = around_objects(torch.zeros(64, 2, 3, 16, 16), 8, Rng(0)).corner
    assert len(empty.unique(dim=0)) > 5


def test_one_step_of_each_chunk_is_drawn_and_the_noisier_more_often():
    """Seen to fail with all steps, and with equal shares."""
    forcing, rng = TeacherForcing(network(), Protocol(size=128), ("histream",), "cpu", one_step=True), Rng(0)
    drawn = [forcing.drawn_steps(Scale.HIGH, rng) for _ in range(300)]
    assert {len(steps) for pair in drawn for steps in pair} == {1}
    for chunk in (0, 1):
        noisy = sum(pair[chunk][0][0].sigma == 0.5 for pair in drawn)
        assert 170 < noisy < 230  # two in three of 300
    clips = bank().draw(rng, 2, forcing.frames(3), Drawing(), 8)
    losses = forcing.loss(clips, 3, Scale.HIGH, rng, own_low=True)
    assert set(losses) == {"first high", "later high"} and all(torch.isfinite(loss) for loss in losses.values())


def test_a_curriculum_goes_from_small_to_large_grids_and_does_not_forget():
    rng = Rng(0)
    assert {pick_grid(rng, [8, 16, 32], 0.1) for _ in range(20)} == {8}
    assert {pick_grid(rng, [8, 16, 32], 0.5) for _ in range(50)} == {8, 16}
    assert {pick_grid(rng, [8, 16, 32], 0.999) for _ in range(50)} == {16, 32}


def test_the_learning_rate_rises_holds_and_falls():
    assert Moment(0, 0.0).rate == pytest.approx(0.02)
    assert Moment(500, 0.5).rate == 1
    assert Moment(900, 0.9).rate == pytest.approx(0.255)
    assert 0 < Moment(999, 1.0).rate < 0.01


def test_noise_of_a_rollout_is_what_the_clips_grow_out_of_at_its_first_step_alone():
    clips = Clips(TOKENS, torch.zeros(2, 16, 3, 16, 16), noise=Rng(0).normal(2, 16, 3, 8, 8))
    noise = stream_noise(clips, Rng(1))
    assert noise(0, 0, clips.noise.shape) is clips.noise
    assert not torch.equal(noise(0, 1, clips.noise.shape), clips.noise)
    assert not torch.equal(noise(1, 0, clips.noise.shape), clips.noise)


def restyled(count: int, frames) -> Clips:
    """Clips that restyle one another."""
    clips = bank().draw(Rng(0), count, frames, Drawing(dropout=0, partial=0), 4)
    return replace(clips, source=clips.latents.flip(0))


def test_a_restyled_chunk_begins_as_the_engines_does_with_noise_and_its_source():
    """At LOW, and the estimate that HIGH begins with. Seen to fail with the clip itself as its source."""
    forcing = TeacherForcing(network(), Protocol(size=64), ("histream",), "cpu", context_noise=0.0)
    clips = restyled(2, forcing.frames(6))
    steps, sources = forcing.entries(clips, 6, Rng(1))
    first, later = forcing.predict(clips, 6, Scale.LOW, Rng(2), sources, steps=steps)
    for found, [(entry, _)] in zip((first, later), steps, strict=True):
        share, frames = entry.sigma, found.frames
        assert ENTRY[0] <= share <= ENTRY[1] and torch.equal(found.sigma, torch.full((2, 1), share))
        source, true = (resize(x[:, :, frames], (4, 4), RESIZE) for x in (clips.source, clips.latents))
        noise = (found.noisy[:, 0] - (1 - share) * source) / share
        assert abs(noise.std() - 1) < 0.1 and abs((noise * source).mean()) < 0.05
        torch.testing.assert_close(found.noisy[:, 0] - share * found.asked[:, 0], true, atol=1e-5, rtol=1e-5)
    own = forcing.own_low(clips, 6, Rng(1))
    assert not torch.equal(own[1], forcing.own_low(replace(clips, source=clips.latents), 6, Rng(1))[1])
    shown, true = (
        forcing.loss(one, 6, Scale.HIGH, Rng(3), own_low=True) for one in (clips, replace(clips, source=None))
    )
    assert shown["later high"] != true["later high"]


def test_losses_of_restyled_chunks_are_of_entries_and_the_steps_after():
    """Seen to fail where a first chunk begins with noise alone: its caption does not say where things are."""
    forcing = TeacherForcing(network(), Protocol(size=64), ("histream",), "cpu", one_step=True)
    clips, seen = restyled(2, forcing.frames(6)), [set(), set()]
    predict = forcing.predict
    forcing.predict = lambda *args, steps, **more: (
        [levels.add((chunk[0][0].sigma, chunk[0][1])) for levels, chunk in zip(seen, steps, strict=True)]
        and predict(*args, steps=steps, **more)
    )
    for seed in range(40):
        assert set(forcing.loss(clips, 6, Scale.LOW, Rng(seed))) == {"first low", "later low"}
    entries, others = (
        [{sigma for sigma, enters in levels if enters is which} for levels in seen] for which in (True, False)
    )
    assert all(len(found) > 10 for found in entries) and max(entries[0]) < ENTRY[1]
    later = {step.sigma for step, _ in forcing.steps[Scale.LOW, 1]}
    assert others[1] == later and others[0] == {step.sigma for step, _ in forcing.steps[Scale.LOW, 0]} - {1.0}
