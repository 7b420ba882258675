"""A jump in time: for one chunk all that came before stands far away (Infinity-RoPE's RoPE cut)."""

from dataclasses import replace

import pytest
import tiny
import torch
from laws.engine import (
    FOUR,
    GRIDS,
    HISTREAM,
    NTK,
    RESTYLE,
    RESTYLED,
    SIZE,
    TWO,
    assert_same,
    noise,
    restyled_noise,
    run_engine,
)
from laws.reference import reference_histream
from slow import crossed

from histream_core.network.forward import Text
from histream_core.plan.anchoring import AnchorSource
from histream_core.plan.chunks import with_anchors
from histream_core.plan.positions import JUMP, TemporalPolicy
from histream_core.plan.schedule import make_steps
from histream_core.plan.storage import EXACT
from histream_core.plan.window import Window
from histream_core.stream.prompts import Prompt
from histream_core.stream.timeline import parse_timeline, place

MOVING = TemporalPolicy("clamped", span=6)


def plan(*jumps, num_frames=18, anchors=(), scenes=(), mode="histream", **settings):
    return with_anchors(tiny.plan(mode, num_frames, **{"temporal": MOVING} | settings), anchors, scenes, jumps)


def test_a_jump_equals_the_reference():
    """Queries and keys of the chunk stand 42 frames later, in its cache passes too, and behind it all is in order.

    Seen to fail with keys that stay there, and with a clean pass without the jump.
    """
    model, generator = tiny.lively(), torch.Generator().manual_seed(1)
    one, other = (torch.randn(2, 5, 12, generator=generator) for _ in range(2))
    asked = replace(tiny.plan_of(HISTREAM, "histream-plus", num_frames=18, temporal=MOVING, **SIZE), jumps=(9,))
    reference = reference_histream(
        model,
        [(one, 3, FOUR), *[(one, 3, TWO)] * 2, *[(other, 3, TWO)] * 3],
        noise,
        grids=GRIDS,
        ntk=NTK,
        stand=lambda start: {0: max(0, start - 6)} | ({9: 51, 10: 52, 11: 53} if start == 9 else {}),
    )
    assert_same(run_engine(model, asked, [Prompt(Text(one)), Prompt(Text(other), 3)]), reference)


def test_a_jump_of_a_restyled_video_equals_the_reference():
    """Its chunks begin with a source. Seen to fail without the jump."""
    text = torch.randn(2, 5, 12, generator=torch.Generator().manual_seed(1))
    asked = tiny.plan_of(HISTREAM, "naive", num_frames=12, temporal=MOVING, restyle=RESTYLE, **SIZE)
    reference = reference_histream(
        tiny.lively(),
        [(text, 3, RESTYLED)] * 4,
        restyled_noise,
        grids=GRIDS,
        ntk=NTK,
        stand=lambda start: {0: max(0, start - 6)} | ({6: 48, 7: 49, 8: 50} if start == 6 else {}),
    )
    assert_same(run_engine(tiny.lively(), replace(asked, jumps=(6,)), [Prompt(Text(text))]), reference)


def test_an_infinite_window_stands_as_infinity_rope_has_it():
    """0 | 1 2 | 45 46 47 for the chunk that jumps, with a span of 3. Seen to fail with a jump of 45."""
    stream = tiny.stream(plan(9, temporal=TemporalPolicy(span=3)))
    cache = next(iter(stream.caches.values()))
    for index, _ in enumerate(stream.chunks()):
        if index == 3:
            times = {frame: cache._times[cache._page(frame)] - 6 for frame in (0, 7, 8, 9, 10, 11)}
    assert [*times.values()] == [0, 1, 2, 45, 46, 47]


KINDS = {
    "clamped": {},
    "absolute": {"temporal": TemporalPolicy("absolute")},
    "rerotate": {"temporal": TemporalPolicy("rerotate", 12, 3)},
    "history": {"mode": "history"},
    "last step": {"levers": ["last-step"]},
    "each step": {"histories": "each-step", "mode": "full", "schedule": (make_steps((1000, 500), 0),)},
    "walk": {"anchor_source": AnchorSource(walk=9)},
    "average": {"anchor_source": AnchorSource(share=0.5)},
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_exact_memory_tier_gives_the_same_frames(kind):
    """Seen to fail where past frames are turned before they are loaded."""
    asked = plan(6, **KINDS[kind])
    full = tiny.video(asked)
    for kv in EXACT[1:]:
        assert torch.equal(full, tiny.video(asked, kv=kv))
    still = tiny.video(with_anchors(asked, [], [], []))
    assert torch.equal(full[:, :, :6], still[:, :, :6])
    assert not torch.allclose(full[:, :, 6:9], still[:, :, 6:9], atol=1e-3)


def test_a_new_anchor_at_a_jump_comes_back_from_there():
    """Seen to fail without its un-rotated keys, in a video too short for its anchor to be moved."""
    asked = plan(6, num_frames=15, anchors=[6], temporal=TemporalPolicy(span=18))
    stream = tiny.stream(asked)
    for _ in stream.chunks():
        pass
    cache = next(iter(stream.caches.values()))
    assert cache._times[cache._page(6)] == 6


def test_the_orders_of_steps_see_the_same_jump():
    settings = KINDS["each step"] | {"window": Window(3, 1, 2)}
    asked = plan(9, **settings)
    for order in ("diagonal", "batched"):
        torch.testing.assert_close(tiny.video(replace(asked, order=order)), tiny.video(asked), atol=1e-4, rtol=0)


@pytest.mark.parametrize(("cut", "kv"), crossed([3, 4, 5], ["full", "lean"]))
def test_a_snapshot_knows_which_keys_stand_elsewhere(cut, kv):
    """The chunk after a jump turns them back. Seen to fail with the times of frames from their numbers."""
    assert torch.equal(*tiny.resumed(plan(9), cut, kv=kv))


def test_a_recache_behind_a_jump_computes_frames_where_they_belong():
    """Seen to fail with the times that they were cached at."""
    prompts = [Prompt(tiny.text()), Prompt(tiny.text(1), 4, recache=True)]
    stream = tiny.stream(plan(9), prompts=prompts)
    cache = next(iter(stream.caches.values()))
    seen, begin = [], cache.begin

    def watch(frames, context, **how):
        begin(frames, context, **how)
        seen.append((tuple(frames), [cache._times[cache._page(frame)] for frame in frames]))

    cache.begin = watch
    for _ in stream.chunks():
        pass
    assert ((0, 10, 11), [6, 10, 11]) in seen
    assert (tuple(range(9, 12)), [9 + JUMP, 10 + JUMP, 11 + JUMP]) in seen


def test_a_line_of_a_timeline_jumps():
    """Seen to fail where a jump begins a scene."""
    placed = place(parse_timeline("[0:00] a cat\n[0:03, jump] a dog\n[0:05, jump, new anchor] a cow"), plan(), 8)
    assert placed.plan.jumps == (6, 12)
    assert (placed.plan.anchors, placed.plan.scenes) == ((0, 12), (0,))
    again = place(parse_timeline("[0:00, jump] a fox"), placed.plan, 8, first_chunk=5)
    assert again.plan.jumps == (6, 12, 15)
    with pytest.raises(ValueError, match="use cut, recache, blend 3, spherical 3, scene, jump or new anchor"):
        parse_timeline("[0:00] a cat\n[0:03, leap] a dog")


def test_what_cannot_be_is_refused_in_a_sentence():
    for jumps, why in (((0,), "at latent frame 0 cannot be"), ((7,), "at latent frame 7 cannot be")):
        with pytest.raises(ValueError, match=why):
            plan(*jumps)
    with pytest.raises(ValueError, match="a scene begins at latent frame 6 and sees nothing to jump away from"):
        plan(6, scenes=[6])
    with pytest.raises(ValueError, match="use positions clamped, absolute or rerotate"):
        plan(6, temporal=TemporalPolicy("reset", 12, 3))
