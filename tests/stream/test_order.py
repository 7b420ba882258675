"""The diagonal order: the steps of successive chunks take turns, one by one or in one network call."""

from dataclasses import replace

import pytest
import tiny
import torch
from slow import crossed

from histream_core.network.forward import Denoiser
from histream_core.plan.chunks import ENDLESS, with_anchors
from histream_core.plan.entry import Entry, Restyle
from histream_core.plan.histories import EACH_STEP
from histream_core.plan.order import BATCHED, CHUNKS, DIAGONAL, calls
from histream_core.plan.positions import TemporalPolicy
from histream_core.plan.schedule import JoinedStep, make_steps
from histream_core.plan.window import Window
from histream_core.stream.prompts import Prompt, blend_prompts

TIMES = 1000, 750, 500, 250
ROWS = Window(1, 3, 2)
"""The window of StreamDiffusionV2: 3 anchors and a ring of 3."""


def plan(order, num_steps=3, num_frames=18, **settings):
    schedule = (make_steps(TIMES[:num_steps], 0),)
    return tiny.plan("full", num_frames=num_frames, schedule=schedule, histories=EACH_STEP, order=order, **settings)


def videos(*orders, video=tiny.video, **settings):
    return [video(plan(order, **settings)) for order in orders]


WINDOWS = {
    "usual": {},
    "paper": {"window": ROWS},
    "moved": {"window": ROWS, "temporal": TemporalPolicy(span=4)},
    "reset": {"window": ROWS, "temporal": TemporalPolicy("reset", 8, 5)},
    "all": {"window": Window(local_frames=None)},
}


@pytest.mark.parametrize(("window", "num_steps"), crossed([*WINDOWS], [3, 1, 4]))
def test_rows_run_one_by_one_are_chunk_by_chunk(window, num_steps):
    """Law L5, bit for bit. Seen to fail with noise drawn by the order of calls."""
    one, other = videos(CHUNKS, DIAGONAL, num_steps=num_steps, **WINDOWS[window])
    assert torch.equal(one, other)


@pytest.mark.parametrize(("window", "num_steps"), crossed([*WINDOWS], [3, 2, 4]))
def test_rows_in_one_call_are_nearly_rows_alone(window, num_steps):
    """Law L6. Seen to fail with one timestep, and with one table of rotations, for all rows."""
    one, other = videos(DIAGONAL, BATCHED, num_steps=num_steps, **WINDOWS[window])
    torch.testing.assert_close(other, one, atol=2e-5, rtol=0)


def test_full_rows_are_one_call_and_others_come_alone():
    model, seen = tiny.wan(), []
    denoise = Denoiser(model)

    def noted(latent, step, cache, text):
        seen.append((len(latent), isinstance(step, JoinedStep)))
        return denoise(latent, step, cache, text)

    a_plan = plan(BATCHED, num_frames=18, window=Window(3, 1, 2))
    tiny.video(a_plan, model=model, denoise=noted)
    assert seen == [(1, False)] * 4 + [(2, True)] + [(3, True)] * 3 + [(2, True), (1, False)]
    assert [len(call) for call in calls(a_plan)] == [rows for rows, _ in seen]
    filling = [len(call) for call in calls(plan(BATCHED, num_frames=9, window=ROWS))]
    assert filling == [1] * 16 + [2, 3, 3, 2, 1], "the first five chunks see less than the others"
    done = [row for call in calls(a_plan) for row in call]
    assert sorted(done) == [(chunk, step) for chunk in range(6) for step in range(3)]


@pytest.mark.parametrize(("order", "ahead"), [(DIAGONAL, (1, 0, 0)), (BATCHED, (2, 1, 0))])
def test_every_row_holds_anchors_and_last_frames_of_its_own_level(order, ahead):
    """Law L7: after the fill one copy of each, in bytes that stay the same.

    `ahead`: how many chunks each row is ahead of the one handed over. Seen to fail with passes that no row keeps.
    """
    a_plan = plan(order, num_frames=20, window=ROWS)
    stream = tiny.stream(a_plan)
    sizes = [cache.nbytes for cache in stream.caches.values()]
    for index, _ in enumerate(stream.chunks()):
        assert [cache.nbytes for cache in stream.caches.values()] == sizes
        if 6 <= index < a_plan.num_chunks - 3:
            newest = [index + chunks for chunks in ahead]
            frames = [cache.frames for cache in stream.caches.values()]
            assert frames == [(0, 1, 2, frame - 2, frame - 1, frame) for frame in newest]
    assert len({*sizes}) == 1


@pytest.mark.parametrize("order", [DIAGONAL, BATCHED])
def test_prompts_scenes_and_anchors_change_as_chunk_by_chunk(order):
    old, new = tiny.text(0), tiny.text(5)
    prompts = [Prompt(old), *blend_prompts(old.context, new.context, first_chunk=3, num_chunks=2)]

    def video(a_plan):
        return tiny.video(with_anchors(a_plan, [9], scenes=[15]), prompts=prompts)

    one, other = videos(CHUNKS, order, num_frames=24, video=video)
    torch.testing.assert_close(other, one, atol=0 if order == DIAGONAL else 2e-5, rtol=0)


@pytest.mark.parametrize("order", [DIAGONAL, BATCHED])
def test_a_source_begins_each_chunk_where_it_is_due(order):
    source = torch.randn(1, 4, 18, 8, 8, generator=torch.Generator().manual_seed(3))

    def begin(chunk):
        entry = Entry(0.8 - 0.01 * chunk.index, 0.7 - 0.01 * chunk.index)
        return entry, source[:, :, chunk.frames.start : chunk.frames.stop]

    def video(a_plan):
        return tiny.video(a_plan, source=begin)

    one, other = videos(CHUNKS, order, restyle=Restyle(0.8), video=video)
    torch.testing.assert_close(other, one, atol=0 if order == DIAGONAL else 2e-5, rtol=0)
    unchanged = videos(order, restyle=Restyle(0.0), video=video)
    assert torch.equal(unchanged[0], source)


@pytest.mark.parametrize("order", [DIAGONAL, BATCHED])
def test_batch_items_and_statistics_go_with_their_rows(order):
    prompts = [Prompt(tiny.text(batch=2))]

    def video(a_plan):
        return tiny.video(a_plan, batch=2, prompts=prompts)

    one, other = videos(CHUNKS, order, anchor_match=0.5, video=video)
    torch.testing.assert_close(other, one, atol=0 if order == DIAGONAL else 2e-5, rtol=0)


@pytest.mark.parametrize("kv", ["lean", "cpu"])
def test_memory_tiers_keep_rows_that_run_one_by_one(kv):
    a_plan = plan(DIAGONAL, window=ROWS)
    assert torch.equal(tiny.video(a_plan, kv=kv), tiny.video(a_plan))
    with pytest.raises(ValueError, match=f"cannot be kept in the memory {kv}: use full"):
        tiny.stream(replace(a_plan, order=BATCHED), kv=kv)


def test_a_stream_without_an_end_goes_on():
    endless = tiny.stream(plan(BATCHED, num_frames=ENDLESS)).chunks()
    closed = tiny.stream(plan(BATCHED, num_frames=18)).chunks()
    assert all(torch.equal(*pair) for _, *pair in zip(range(3), closed, endless, strict=False))


def test_chunks_under_way_are_in_no_snapshot():
    stream = tiny.stream(plan(DIAGONAL))
    next(stream.chunks())
    with pytest.raises(ValueError, match="order diagonal has no snapshot"):
        stream.snapshot()
    with pytest.raises(ValueError, match="begins at chunk 0, not at 1"):
        next(stream.chunks(1))
