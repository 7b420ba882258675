"""Laws of the engine on tiny random models (docs/architecture.md lists them)."""

from functools import partial

import pytest
import tiny
import torch
import torch.nn.functional as F

from histream_core.network.forward import Denoiser
from histream_core.plan.chunks import RESIZE_MODES, replay
from histream_core.plan.positions import TemporalPolicy
from histream_core.plan.presets import MODES, PRESETS
from histream_core.plan.schedule import Scale, make_steps
from histream_core.plan.window import Window
from histream_core.stream.prompts import Prompt, blend_prompts, slerp
from histream_core.stream.resize import resize
from histream_core.stream.stream import Stream


class Census:
    """A denoiser that notes every call and passes it on."""

    def __init__(self, model):
        self.denoise, self.calls = Denoiser(model), []

    def __call__(self, latent, step, cache, text):
        self.calls.append((step.scale.value, step.sigma == 0, tuple(latent.shape[2:])))
        return self.denoise(latent, step, cache, text)


@pytest.mark.parametrize("mode", MODES)
def test_a_run_gives_the_frames_asked_for(mode):
    latents = tiny.video(tiny.plan(mode, num_frames=11))
    assert latents.shape == (1, 4, 11, 8, 8)
    assert torch.isfinite(latents).all()


def test_the_network_is_called_as_often_as_the_plan_says():
    """Law 8. Seen to fail with a pass more after the last chunk."""
    model = tiny.wan()
    census = Census(model)
    tiny.video(tiny.plan("histream-plus", num_frames=9), model=model, denoise=census)
    low, high = (3, 4, 4), (3, 8, 8)
    first = [("low", False, low)] * 2 + [("high", False, high)] * 2
    cache = [("high", True, high), ("low", True, low)]
    later = [("low", False, low), ("high", False, high)]
    assert census.calls == first + cache + later + cache + later


def test_a_chunk_is_handed_over_before_it_is_cached():
    model = tiny.wan()
    census = Census(model)
    chunks = tiny.stream(tiny.plan(num_frames=6), model=model, denoise=census).chunks()
    next(chunks)
    assert [cache_pass for _, cache_pass, _ in census.calls] == [False] * 4


def test_same_seed_same_video_and_another_seed_another():
    plan = tiny.plan()
    assert torch.equal(tiny.video(plan), tiny.video(plan))
    assert not torch.allclose(tiny.video(plan), tiny.video(plan, seed=2), atol=0.1)


def test_the_future_does_not_change_the_past():
    long, short = (tiny.video(tiny.plan(num_frames=n)) for n in (18, 9))
    assert torch.equal(long[:, :, :9], short)


def test_batch_items_are_runs_of_their_own():
    prompts = [Prompt(tiny.text(batch=2))]
    both = tiny.video(tiny.plan(num_frames=6), batch=2, prompts=prompts)
    alone = tiny.video(tiny.plan(num_frames=6), prompts=[Prompt(type(prompts[0].text)(prompts[0].text.context[:1]))])
    torch.testing.assert_close(both[:1], alone, atol=1e-5, rtol=0)


def test_low_at_full_size_is_no_dual_resolution_caching_at_all():
    """Law 7, bit for bit, where both scales have one time shift. Seen to fail with a LOW cache that is out of step."""
    plan = partial(tiny.plan, num_frames=21, preset="self-forcing")
    one = tiny.video(plan("histream", low_scale=1))
    assert torch.equal(one, tiny.video(plan("full")))
    assert not torch.allclose(one, tiny.video(plan("histream")), atol=0.1)


def test_both_caches_hold_the_same_frames():
    """Law 4. Seen to fail with a LOW cache that skips its cache pass."""
    stream = tiny.stream(tiny.plan(num_frames=30))
    sizes = [cache.nbytes for cache in stream.caches.values()]
    for index, _ in enumerate(stream.chunks()):
        held = [cache.frames for cache in stream.caches.values()]
        assert held[0] == held[1] == stream.plan.chunks[index].context
        assert [cache.nbytes for cache in stream.caches.values()] == sizes


def test_clamped_is_absolute_within_the_trained_span():
    """Law 5, bit for bit. Seen to fail with a span counted from the chunk's last frame."""
    clamped = tiny.video(tiny.plan(num_frames=21, temporal=TemporalPolicy("clamped", span=18)))
    assert torch.equal(clamped, tiny.video(tiny.plan(num_frames=21, temporal=TemporalPolicy("absolute"))))


@pytest.mark.parametrize("kind", ["clamped", "absolute", "reset"])
def test_the_policies_part_ways_beyond_the_span(kind):
    videos = {k: tiny.video(tiny.plan(num_frames=30, temporal=TemporalPolicy(k, span=9))) for k in (kind, "absolute")}
    same = torch.equal(videos[kind], videos["absolute"])
    assert same == (kind == "absolute")


def test_latent_frame_ten_thousand_is_as_good_as_frame_thirty():
    """Law 5: far from the start only distances count. Seen to fail with bfloat16 positions."""
    model, window = tiny.wan(), Window()
    given = torch.randn(1, 4, 3, 8, 8)
    text = tiny.text()

    def chunk_at(start):
        stream = tiny.stream(tiny.plan(num_frames=start + 3), model=model)
        cache = stream.caches[Scale.HIGH]
        cache.begin(range(3), ())
        stream.denoise(given, stream.plan.chunks[0].cache_steps[0], cache, text)
        cache.commit()
        neighbours = range(start - 2, start)
        cache.begin(neighbours, (0,), start=start - 2)
        stream.denoise(given[:, :, 1:], stream.plan.chunks[0].cache_steps[0], cache, text)
        cache.commit()
        cache.begin(range(start, start + 3), window.context(start))
        return stream.denoise(given, stream.plan.chunks[0].steps[-1], cache, text)

    torch.testing.assert_close(chunk_at(10_002), chunk_at(30), atol=1e-5, rtol=0)


@pytest.mark.parametrize("cut", [3, 6, 9])
@pytest.mark.parametrize("mode", ["histream", "histream-plus", "history"])
def test_a_run_cut_anywhere_goes_on_as_if_it_had_not_been(cut, mode):
    """Law 9, bit for bit. Seen to fail with noise drawn from one running generator."""
    whole = tiny.video(tiny.plan(mode, num_frames=12))
    rest = tiny.video(tiny.plan(mode, num_frames=12, given_frames=cut), given=whole[:, :, :cut])
    assert torch.equal(rest, whole)


def test_a_given_first_frame_is_kept_and_seen():
    given = torch.randn(2, 1, 4, 1, 8, 8)
    plan = tiny.plan(num_frames=21, given_frames=1, first_frame=True)
    videos = [tiny.video(plan, given=frame) for frame in given]
    assert torch.equal(videos[0][:, :, :1], given[0])
    assert videos[0].shape[2] == 21
    assert not torch.allclose(videos[0][:, :, -1:], videos[1][:, :, -1:], atol=1e-3)


def test_a_prompt_change_changes_what_follows_and_nothing_before():
    """Law 10. Seen to fail with cross-attention keys kept from the first prompt."""
    plan = tiny.plan(num_frames=12)
    plain = tiny.video(plan)
    for recache in (False, True):
        changed = tiny.video(plan, prompts=[Prompt(tiny.text()), Prompt(tiny.text(5), 2, recache=recache)])
        assert torch.equal(changed[:, :, :6], plain[:, :, :6])
        assert not torch.allclose(changed[:, :, 6:9], plain[:, :, 6:9], atol=1e-2)


def test_recache_is_a_fresh_prefill_of_the_window_under_the_new_prompt():
    """Law 10: after a recache the new text alone decides what the window says, whatever the old one was.

    Seen to fail with a recache that leaves the anchor as it was.
    """
    plan = tiny.plan(num_frames=9)
    given = torch.randn(1, 4, 6, 8, 8)
    continued = tiny.plan(num_frames=9, given_frames=6)

    def last_chunk(old, recache):
        prompts = [Prompt(tiny.text(old)), Prompt(tiny.text(5), 2, recache=recache)]
        return tiny.video(continued, given=given, prompts=prompts)[:, :, 6:]

    assert len(plan.chunks) == 3
    assert torch.equal(last_chunk(0, True), last_chunk(1, True))
    assert not torch.equal(last_chunk(0, False), last_chunk(1, False))
    assert not torch.allclose(last_chunk(0, True), last_chunk(0, False), atol=1e-3)


def test_a_blend_ends_at_the_new_prompt():
    old, new = tiny.text(0).context, tiny.text(1).context
    prompts = blend_prompts(old, new, first_chunk=2, num_chunks=4)
    assert [prompt.first_chunk for prompt in prompts] == [2, 3, 4, 5]
    torch.testing.assert_close(prompts[-1].text.context, new)
    torch.testing.assert_close(prompts[1].text.context, (old + new) / 2)


def test_a_spherical_blend_keeps_the_length_and_the_padding():
    old, new = torch.nn.functional.normalize(torch.randn(2, 1, 6, 16), dim=-1)
    old[:, -1] = new[:, -1] = 0
    middle = blend_prompts(old, new, first_chunk=1, num_chunks=2, spherical=True)[0].text.context
    torch.testing.assert_close(middle[:, :-1].norm(dim=-1), torch.ones(1, 5))
    assert not middle[:, -1].any()
    torch.testing.assert_close(slerp(old, new, 1.0), new)
    torch.testing.assert_close(slerp(old, new, 0.0), old)


def test_a_learned_upsampler_takes_the_way_up_and_only_that():
    asked = []

    def nearest(latent, chunk):
        asked.append((tuple(latent.shape[-2:]), chunk.index))
        return latent.repeat_interleave(2, dim=-1).repeat_interleave(2, dim=-2)

    plan = tiny.plan(num_frames=6)
    learned = torch.cat(list(tiny.stream(plan, upsample=nearest).chunks()), dim=2)
    assert asked == [((4, 4), 0), ((4, 4), 1)]
    assert not torch.allclose(learned, tiny.video(plan), atol=1e-2)


def test_upsampling_is_followed_by_fresh_noise_at_the_new_size():
    """x0 is upsampled, then re-noised: the latent that enters HIGH has the noise level of its sigma."""
    seen = []

    def denoise(latent, step, cache, text):
        seen.append((step, latent))
        return torch.zeros_like(latent)

    steps = make_steps((1000, 500), 1, shift_low=1, shift_high=1)
    tiny.video(tiny.plan(num_frames=3, schedule=(steps,), width=256, height=256), denoise=denoise)
    (_, low), (step, high) = seen
    assert (low.shape[-1], high.shape[-1], step.sigma) == (16, 32, 0.5)
    assert float(low.std()) == pytest.approx(1, abs=0.05)
    assert float(high.std()) == pytest.approx(0.5, abs=0.02)


@pytest.mark.parametrize("mode", RESIZE_MODES)
def test_resizing_keeps_frames_apart_and_flat_areas_flat(mode):
    latent = torch.arange(2 * 3.0).reshape(1, 2, 3, 1, 1).expand(1, 2, 3, 8, 8)
    half = resize(latent, (4, 4), mode)
    torch.testing.assert_close(half, latent[..., :4, :4])
    torch.testing.assert_close(resize(half, (8, 8), mode), latent)
    assert resize(latent, (8, 8), mode) is latent


@pytest.mark.parametrize(("mode", "left"), [("area-down", 0.50), ("bilinear", 0.31), ("bicubic", 0.41), ("area", 0.50)])
def test_halving_noise_damps_it_as_documented(mode, left):
    noise = torch.randn(1, 1, 8, 256, 256, generator=torch.Generator().manual_seed(0))
    assert float(resize(noise, (128, 128), mode).std()) == pytest.approx(left, abs=0.01)


def test_by_default_cells_become_their_mean_and_grow_smoothly():
    """Equal to bilinear without antialias, as in public code. Seen to fail with area both ways, and with bilinear."""
    latent = torch.randn(1, 2, 3, 8, 12, generator=torch.Generator().manual_seed(0))
    for grid in ((4, 6), (16, 24)):
        plain = [F.interpolate(frame, grid, mode="bilinear", align_corners=False) for frame in latent.unbind(2)]
        torch.testing.assert_close(resize(latent, grid, "area-down"), torch.stack(plain, dim=2))
    quarter = resize(latent, (2, 3), "area-down")
    torch.testing.assert_close(quarter, latent.unflatten(4, (3, 4)).unflatten(3, (2, 4)).mean((4, 6)))
    assert {preset.resize for preset in PRESETS.values()} == {"area-down"}


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        (None, "expects given latents of shape .1, 4, 3, 8, 8., got none"),
        (torch.zeros(1, 4, 2, 8, 8), "got a latent of shape .1, 4, 2, 8, 8."),
        (torch.full((1, 4, 3, 8, 8), float("nan")), "NaN or infinity"),
    ],
)
def test_given_latents_that_do_not_fit_are_refused_before_anything_runs(given, sentence):
    """Law 11. Seen to fail with the check left out."""
    model = tiny.wan()
    census = Census(model)
    with pytest.raises(ValueError, match=sentence):
        tiny.stream(tiny.plan(given_frames=3), model=model, denoise=census, given=given)
    assert not census.calls


def test_a_run_without_a_first_prompt_is_refused():
    with pytest.raises(ValueError, match="no prompt covers the first chunk"):
        tiny.stream(tiny.plan(), prompts=[Prompt(tiny.text(), first_chunk=1)])


def test_a_failed_run_leaves_the_model_as_it_was():
    """Law 11: nothing of a run is kept on the model. Seen to fail with keys left on it."""
    model = tiny.wan()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    attributes = {name: set(vars(module)) for name, module in model.named_modules()}

    def broken(latent, step, cache, text):
        Denoiser(model)(latent, step, cache, text)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        tiny.video(tiny.plan(), model=model, denoise=broken)
    assert {name: set(vars(module)) for name, module in model.named_modules()} == attributes
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert torch.equal(tiny.video(tiny.plan(), model=model), tiny.video(tiny.plan()))


def test_a_stream_owns_its_state():
    plan, model = tiny.plan(), tiny.wan()
    one, two = (tiny.stream(plan, model=model) for _ in range(2))
    assert isinstance(one, Stream)
    interleaved = [torch.cat(pair, dim=2) for pair in zip(*(s.chunks() for s in (one, two)), strict=True)]
    assert torch.equal(torch.cat([pair[:, :, : pair.shape[2] // 2] for pair in interleaved], dim=2), tiny.video(plan))


@pytest.mark.parametrize("cut", [1, 2, 3])
@pytest.mark.parametrize("settings", [{}, {"temporal": TemporalPolicy("clamped", span=4)}], ids=["plain", "moved"])
def test_a_snapshot_brings_a_run_back_without_the_chunks_before_it(cut, settings):
    """Law 9. Seen to fail with a snapshot that leaves out the times of the pages."""
    plan, prompts = tiny.plan(num_frames=15, **settings), [Prompt(tiny.text()), Prompt(tiny.text(5), 3, recache=True)]
    whole = tiny.video(plan, prompts=prompts)
    first = tiny.stream(plan, prompts=prompts)
    for _, _clean in zip(range(cut), first.chunks(), strict=False):
        pass
    snapshot = {name: tensor.clone() for name, tensor in first.snapshot().items()}

    def given(chunk):
        assert chunk.index == cut - 1
        return whole[:, :, chunk.frames.start : chunk.frames.stop]

    second = tiny.stream(replay(plan, cut), prompts=prompts, given=given)
    second.restore(snapshot)
    rest = torch.cat(list(second.chunks(cut - 1)), dim=2)
    assert torch.equal(rest, whole[:, :, 3 * (cut - 1) :])


def test_a_snapshot_of_another_window_is_refused():
    snapshot = tiny.stream(tiny.plan()).snapshot()
    other = tiny.stream(tiny.plan(window=Window(3, 1, 5)))
    with pytest.raises(ValueError, match=r"window is .1, 5., this run needs .1, 8.: .* another model, size or window"):
        other.restore(snapshot)


def test_a_snapshot_of_another_size_is_refused():
    small, large = (tiny.stream(tiny.plan(width=side)) for side in (64, 128))
    for _ in zip(range(2), small.chunks(), strict=False):
        pass
    with pytest.raises(ValueError, match=r"snapshot's k.0 is .* another model, size or window"):
        large.restore(small.snapshot())
