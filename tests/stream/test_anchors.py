"""Anchors that change with the scene: the first frame behind a cut takes the place of the video's first one."""

from functools import partial

import pytest
import tiny
import torch
from laws.engine import FOUR, GRIDS, HISTREAM, NTK, SIZE, TWO, assert_same, noise, run_engine
from laws.reference import reference_histream
from slow import crossed, few

from histream_core.cost.cost import Cost
from histream_core.network.cache.tiers import make_caches
from histream_core.network.cache.window import CacheOptions
from histream_core.network.forward import Text
from histream_core.network.model import WanConfig
from histream_core.plan.chunks import lengthen, with_anchors
from histream_core.plan.positions import TemporalPolicy
from histream_core.plan.presets import find_preset
from histream_core.plan.schedule import Scale
from histream_core.plan.storage import EXACT
from histream_core.plan.window import Window
from histream_core.stream.prompts import Prompt
from histream_core.stream.timeline import Change, Cue, Placed

MOVING = TemporalPolicy("clamped", span=4)


def plan(*anchors, num_frames=21, **settings):
    return with_anchors(tiny.plan(num_frames=num_frames, **settings), anchors)


def test_all_chunks_behind_the_one_at_a_new_anchor_see_it_and_no_other():
    """Seen to fail where the chunk itself loses the anchor that it begins with."""
    assert [chunk.context for chunk in plan(6, 15).chunks] == [
        (), (0, 1, 2), (0, 4, 5), (6, 7, 8), (6, 10, 11), (6, 13, 14), (15, 16, 17),
    ]  # fmt: skip


def test_a_plan_without_new_anchors_is_the_plan_itself():
    assert with_anchors(tiny.plan(), (0,)) == tiny.plan()


def test_several_anchor_frames_change_one_after_the_other():
    window = Window(1, 2, 3)
    assert [plan(5, num_frames=9, window=window).chunks[i].context for i in (5, 6, 7, 8)] == [
        (0, 1, 2, 3, 4), (3, 4, 5), (4, 5, 6), (5, 6, 7),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("anchors", "settings", "said"),
    [
        ((7,), {}, "no chunk begins at latent frame 7, so it cannot be a new anchor: use 6"),
        ((9,), {"mode": "history"}, "every chunk sees the whole video, so there is no anchor to be changed"),
        ((9,), {"window": Window(3, 0, 2)}, "there are no anchor frames, so there is no anchor to be changed"),
        ((9, 10), {"window": Window(1, 3, 6)}, "a new anchor at latent frame 10 comes too soon after the one at 9: "
         "let it be at 12 or later"),
        ((3, 5), {"window": Window(1, 1, 5)}, "a new anchor at latent frame 5 comes too soon after the one at 3: "
         "let it be at 6 or later"),
    ],
)  # fmt: skip
def test_anchors_that_cannot_be_are_refused_with_some_that_can(anchors, settings, said):
    with pytest.raises(ValueError, match=said):
        plan(*anchors, **settings)


@pytest.mark.parametrize("span", [4, 18])
def test_new_anchors_equal_the_reference(span):
    """Seen to fail with the old anchor's place, with its time, and with a chunk that overwrites the anchor it sees."""
    model, text = tiny.lively(), torch.randn(2, 5, 12, generator=torch.Generator().manual_seed(1))
    asked = tiny.plan_of(HISTREAM, "histream-plus", num_frames=24, temporal=TemporalPolicy(span=span), **SIZE)
    chunks = [(text, 3, FOUR), *[(text, 3, TWO)] * 7]
    reference = reference_histream(model, chunks, noise, grids=GRIDS, ntk=NTK, span=span, firsts=(0, 6, 9, 15))
    assert_same(run_engine(model, with_anchors(asked, (6, 9, 15)), [Prompt(Text(text))]), reference)


def test_new_anchors_and_recaches_equal_the_reference():
    """Seen to fail with a recache that puts the new anchor to the time of the first."""
    model, generator = tiny.lively(), torch.Generator().manual_seed(1)
    texts = [torch.randn(2, 5, 12, generator=generator) for _ in range(3)]
    asked = tiny.plan_of(HISTREAM, "histream-plus", num_frames=18, temporal=TemporalPolicy(span=4), **SIZE)
    changes = [Prompt(Text(texts[i]), first_chunk, recache=True) for i, first_chunk in enumerate((0, 2, 4))]
    chunks = [(texts[c // 2], 3, TWO if c else FOUR) for c in range(6)]
    settings = {"grids": GRIDS, "ntk": NTK, "span": 4, "recache": [2, 4], "firsts": (0, 6, 12)}
    reference = reference_histream(model, chunks, noise, **settings)
    assert_same(run_engine(model, with_anchors(asked, (6, 12)), changes), reference)


WINDOWS = {
    "histream": {},
    "moving": {"temporal": MOVING},
    "frame by frame": {"window": Window(1, 1, 5), "temporal": MOVING},
    "three anchors": {"window": Window(3, 3, 6), "temporal": MOVING},
    "clean anchors": {"levers": ("clean-anchor", "survivors"), "temporal": MOVING},
    "last steps": {"levers": ("last-step", "pooled-low")},
}


@pytest.mark.parametrize("settings", few(WINDOWS, 2))
def test_every_exact_memory_tier_gives_the_same_frames(settings):
    """Seen to fail where a lean cache gives a new anchor the place of the one before."""
    asked = plan(6, 15, **WINDOWS[settings])
    full, *others = (tiny.video(asked, kv=kv) for kv in EXACT)
    assert all(torch.equal(full, other) for other in others)
    assert not torch.allclose(full, tiny.video(plan(**WINDOWS[settings])), atol=1e-2)


def test_the_caches_hold_what_the_next_chunk_sees_and_their_size_is_the_one_that_is_told():
    """Seen to fail with an anchor that stays behind the one that took its place."""
    asked = plan(6, 15)
    cache = make_caches(asked, tiny.CONFIG)[Scale.HIGH]
    for chunk in asked.chunks:
        cache.begin(chunk.frames, chunk.context)
        assert cache.frames == chunk.context
        cache.commit()
    config = WanConfig(dim=48, ffn_dim=64, num_heads=2, num_layers=2, in_dim=4, out_dim=4, text_dim=16, freq_dim=16)
    for kv in EXACT:
        caches = make_caches(asked, tiny.CONFIG, CacheOptions(kv=kv, device="meta"))
        cost = Cost(config, asked, dtype=torch.float32, kv=kv)
        assert cost.kv_bytes == sum(cache.nbytes for cache in caches.values())


@pytest.mark.parametrize(("cut", "kv"), crossed([2, 3, 4], ["full", "lean"]))
def test_a_snapshot_around_a_new_anchor_brings_the_run_back(cut, kv):
    """Seen to fail with un-rotated keys that are kept of the first anchor alone."""
    asked = plan(6, 12, temporal=MOVING)
    whole = list(tiny.stream(asked, kv=kv).chunks())
    first = tiny.stream(asked, kv=kv)
    for _ in zip(range(cut), first.chunks(), strict=False):
        state = {name: x.clone() for name, x in first.snapshot().items()}
    second = tiny.stream(asked, kv=kv, given=lambda chunk: whole[chunk.index])
    second.restore(state)
    rest = list(second.chunks(cut - 1))
    assert all(torch.equal(x, y) for x, y in zip(whole[cut - 1 :], rest, strict=True))


def test_a_longer_plan_keeps_its_anchors():
    short, long = plan(6, num_frames=12), plan(6, num_frames=21)
    assert lengthen(short, 21) == long
    assert with_anchors(lengthen(short, 21), (6, 12)) == plan(6, 12)


def test_a_given_first_frame_and_its_heightened_cache_pass_stay_as_they_are():
    preset = find_preset("histream")
    asked = partial(tiny.plan_of, preset, "histream", width=1920, height=1088, given_frames=1, first_frame=True)
    found = with_anchors(asked(num_frames=13), (7,))
    assert found.chunks[0] == asked(num_frames=13).chunks[0]
    assert found.chunks[0].cache_steps[0].attention_scale > 1
    assert [chunk.context for chunk in found.chunks] == [(), (0,), (0, 2, 3), (0, 5, 6), (7, 8, 9)]
    assert lengthen(asked(num_frames=13), 22).chunks[:4] == asked(num_frames=22).chunks[:4]


def test_a_timeline_names_its_anchors():
    cues = [Cue(0, "a", Change("cut", new_anchor=True)), Cue(1, "b"), Cue(3, "c", Change("cut", new_anchor=True))]
    assert Placed(tuple(cues), (0, 2, 4), tiny.plan(num_frames=21), ()).starts.anchors == [12]
