"""A history for each denoising step: caches that hold noisy frames, and no passes without noise."""

from dataclasses import replace

import pytest
import tiny
import torch

from histream_core.network.forward import Denoiser
from histream_core.plan.chunks import replay
from histream_core.plan.entry import Entry, Restyle
from histream_core.plan.histories import EACH_STEP
from histream_core.plan.levers import LAST_STEP
from histream_core.plan.positions import TemporalPolicy
from histream_core.plan.schedule import make_steps
from histream_core.plan.window import Window
from histream_core.stream.prompts import Prompt
from histream_core.stream.timeline import parse_timeline, place

ONE, THREE = ((make_steps(times, 0),) for times in ((1000,), (1000, 700, 400)))
ROWS = Window(1, 3, 2)
"""The window of StreamDiffusionV2: 3 anchors and a ring of 3."""


def plan(num_frames=12, schedule=THREE, **settings):
    return tiny.plan("full", num_frames=num_frames, **{"schedule": schedule, "histories": EACH_STEP} | settings)


@pytest.mark.parametrize("window", [Window(), ROWS], ids=str)
def test_one_step_with_a_history_of_its_own_is_the_lever_last_step(window):
    """Law L13, bit for bit. Seen to fail where the step's pass is not kept."""
    settings = {"window": window, "temporal": TemporalPolicy(span=4)}
    kept = tiny.video(tiny.plan("full", num_frames=12, schedule=ONE, levers=[LAST_STEP], **settings))
    assert torch.equal(tiny.video(plan(schedule=ONE, **settings)), kept)


def test_every_step_sees_the_frames_of_its_own_noise_level():
    """The passes are repeated with a cache for each step that one pass alone has filled, chunk by chunk."""
    model, calls = tiny.wan(), []
    denoise = Denoiser(model)

    def noted(latent, step, cache, text):
        calls.append((step.sigma, cache, cache._visible))
        return denoise(latent, step, cache, text)

    a_plan = plan()
    video = tiny.video(a_plan, model=model, denoise=noted)
    assert len(calls) == 3 * 4 == a_plan.num_steps(), "no pass is without noise"
    caches = {sigma: {id(cache) for other, cache, _ in calls if other == sigma} for sigma, *_ in calls}
    assert [len(found) for found in caches.values()] == [1, 1, 1]
    assert len(set.union(*caches.values())) == 3
    assert not torch.allclose(video, tiny.video(replace(a_plan, histories="clean")), atol=1e-2)


@pytest.mark.parametrize("window", [Window(), ROWS], ids=str)
def test_every_level_holds_what_a_chunk_sees_and_nothing_else(window):
    """Law L7: anchors and the last frames, one copy each, in bytes that do not grow.

    Seen to fail with passes that are committed before the chunk is handed over.
    """
    a_plan = plan(30, window=window)
    stream = tiny.stream(a_plan)
    sizes = [cache.nbytes for cache in stream.caches.values()]
    for index, _ in enumerate(stream.chunks()):
        assert [cache.frames for cache in stream.caches.values()] == [a_plan.chunks[index].context] * 3
        assert [cache.nbytes for cache in stream.caches.values()] == sizes
    assert len(set(sizes)) == 1


@pytest.mark.parametrize("kv", ["lean", "cpu"])
def test_memory_tiers_give_the_same_frames(kv):
    a_plan = plan(temporal=TemporalPolicy(span=4))
    assert torch.equal(tiny.video(a_plan, kv=kv), tiny.video(a_plan))


def test_two_resolutions_have_a_cache_for_each_step_too():
    schedule = (make_steps((1000, 800, 500), 1),)
    a_plan = tiny.plan("histream", schedule=schedule, histories=EACH_STEP)
    stream = tiny.stream(a_plan)
    video = torch.cat(list(stream.chunks()), dim=2)
    assert [cache.rope.grid for cache in stream.caches.values()] == [(2, 2), (4, 4), (4, 4)]
    assert video.shape[2] == 11 and torch.isfinite(video).all()


@pytest.mark.parametrize("cut", [1, 2, 3])
def test_a_run_goes_on_bit_for_bit(cut):
    """Finished chunks are denoised again, or a snapshot has their histories. Seen to fail with a level left out."""
    a_plan = plan(12)
    whole = tiny.video(a_plan)
    assert torch.equal(tiny.video(replay(a_plan, cut)), whole)
    first = tiny.stream(a_plan)
    for _ in zip(range(cut), first.chunks(), strict=False):
        pass
    second = tiny.stream(replay(a_plan, cut))
    second.restore({name: tensor.clone() for name, tensor in first.snapshot().items()})
    rest = torch.cat(list(second.chunks(cut - 1)), dim=2)
    assert torch.equal(rest, whole[:, :, 3 * (cut - 1) :])


def test_a_source_is_restyled_with_a_history_for_each_step():
    source = torch.randn(1, 4, 12, 8, 8, generator=torch.Generator().manual_seed(3))

    def begin(chunk):
        return Entry(0.8, 0.8), source[:, :, chunk.frames.start : chunk.frames.stop]

    a_plan = plan(restyle=Restyle(0.8))
    assert len(a_plan.levels) == 3, "the entry takes the place of the first step"
    seen = tiny.video(a_plan, source=begin)
    assert torch.isfinite(seen).all() and not torch.allclose(seen, tiny.video(plan()), atol=1e-2)
    unchanged = tiny.video(plan(restyle=Restyle(0.0)), source=begin)
    assert torch.equal(unchanged, source)


def test_a_timeline_cannot_recache_noisy_histories():
    cues = parse_timeline("[0:00] one\n[0:01] two")
    with pytest.raises(ValueError, match=r"the section at 0:01 recaches, .* write cut, or blend 3"):
        place(cues, plan(), 16)
    assert place(parse_timeline("[0:00] one\n[0:01, cut] two"), plan(), 16).chunks == (0, 2)


def test_a_prompt_cannot_recache_noisy_histories():
    prompts = [Prompt(tiny.text()), Prompt(tiny.text(5), 2, recache=True)]
    with pytest.raises(ValueError, match="cannot be computed anew under another prompt"):
        tiny.stream(plan(), prompts=prompts)
    cut = tiny.video(plan(), prompts=[prompts[0], replace(prompts[1], recache=False)])
    assert torch.equal(cut[:, :, :6], tiny.video(plan())[:, :, :6])
