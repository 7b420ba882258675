"""Anchors that walk over the first frames, or are an average of what leaves the window."""

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

from histream_core.network.cache import window
from histream_core.network.forward import Text
from histream_core.plan.anchoring import AnchorSource
from histream_core.plan.chunks import replay, with_anchors
from histream_core.plan.positions import TemporalPolicy
from histream_core.plan.presets import find_preset
from histream_core.plan.storage import EXACT
from histream_core.plan.window import Window
from histream_core.stream.prompts import Prompt

MOVING = TemporalPolicy("clamped", span=6)
WALK, MEAN = AnchorSource(walk=5), AnchorSource(share=0.7)
SOURCES = {"walk": WALK, "average": MEAN}


def plan(source, num_frames=24, mode="histream", **settings):
    return tiny.plan(mode, num_frames, **{"temporal": MOVING, "anchor_source": source} | settings)


WALKED = {0: 0, 3: 0, 6: 1, 9: 4, 12: 1, 15: 2, 18: 3, 21: 0}
"""The anchor of each chunk, by hand: over frames 0 to 4 and back, a frame for each frame of the video from 5 on."""


@pytest.fixture(scope="module")
def prompt():
    return torch.randn(2, 5, 12, generator=torch.Generator().manual_seed(1))


def shares(share, count):
    """By first frame of a chunk: what each frame of the anchor is the sum of, where chunks have 3 and see 2 before."""
    sums, found = [{i: 1.0} for i in range(count)], {}
    for start in range(0, 24, 3):
        for frame in (start - 5, start - 4):
            if frame >= count:
                mine = sums[frame % count]
                sums[frame % count] = {f: share * weight for f, weight in mine.items()} | {frame: 1 - share}
        found[start] = {i: sums[i] for i in range(count)} if start > 5 else {}
    return found


def test_a_walking_anchor_equals_the_reference(prompt):
    """Both resolutions. Seen to fail with an anchor that walks a frame for each chunk, and with stale keys."""
    model, text = tiny.lively(), prompt
    asked = tiny.plan_of(HISTREAM, "histream-plus", num_frames=24, temporal=MOVING, anchor_source=WALK, **SIZE)
    reference = reference_histream(
        model,
        [(text, 3, FOUR), *[(text, 3, TWO)] * 7],
        noise,
        grids=GRIDS,
        ntk=NTK,
        see=lambda start: sorted({WALKED[start], *range(start - 2, start)}) if start else [],
        stand=lambda start: {WALKED[start]: max(WALKED[start], start - 6)},
    )
    assert_same(run_engine(model, asked, [Prompt(Text(text))]), reference)


@pytest.mark.parametrize("count", [1, 2])
def test_an_average_equals_the_reference(prompt, count):
    """Keys without positions, and values, of both resolutions, are mixed. Seen to fail with rotated keys, with a share
    for each chunk instead of each frame, and with values that stay."""
    model, text, window = tiny.lively(), prompt, Window(3, count, 2)
    settings = {"temporal": MOVING, "anchor_source": MEAN, "window": window}
    asked = tiny.plan_of(HISTREAM, "histream-plus", num_frames=24, **settings, **SIZE)
    mixed = shares(0.7, count)
    reference = reference_histream(
        model,
        [(text, 3, FOUR), *[(text, 3, TWO)] * 7],
        noise,
        grids=GRIDS,
        ntk=NTK,
        window=(count, 2),
        span=6,
        mix=lambda start: mixed[start],
    )
    assert_same(run_engine(model, asked, [Prompt(Text(text))]), reference)


def test_reward_forcing_averages_as_its_code_does(prompt):
    """Its local_attn_size 9, sink_size 3 and compression_alpha 0.999: a cache of nine frames with the chunk's own, at
    times 0 to 8; values, and keys without positions, are mixed before the chunk's first step.

    Seen to fail with six frames before the chunk, with a span of 18, and with a share of 0.99.
    """
    preset = replace(find_preset("reward-forcing"), timesteps=(1000,))
    asked = tiny.plan_of(preset, "full", num_frames=15, anchor_source=AnchorSource(share=0.999), **SIZE)
    once = {i: {i: 0.999, i + 3: 0.001} for i in range(3)}
    twice = {i: {i: 0.999**2, i + 3: 0.999 * 0.001, i + 6: 0.001} for i in range(3)}
    reference = reference_histream(
        tiny.lively(),
        [(prompt, 3, [(1.0, "high")])] * 5,
        noise,
        grids=GRIDS,
        ntk={"low": 1.0, "high": 1.0},
        window=(3, 3),
        stand=lambda start: {i: max(i, start - 6 + i) for i in range(3)},
        mix=lambda start: {9: once, 12: twice}.get(start, {}),
    )
    assert_same(run_engine(tiny.lively(), asked, [Prompt(Text(prompt))]), reference)


@pytest.mark.parametrize("kind", SOURCES)
def test_a_restyled_video_has_the_anchor_of_the_reference(prompt, kind):
    """Its chunks begin with a source. Seen to fail with an anchor that stays."""
    settings = {"temporal": MOVING, "anchor_source": SOURCES[kind], "restyle": RESTYLE}
    asked = tiny.plan_of(HISTREAM, "naive", num_frames=12, **settings, **SIZE)
    mixed = shares(0.7, 1)
    walk = {
        "see": lambda start: sorted({WALKED[start], *range(start - 2, start)}) if start else [],
        "stand": lambda start: {WALKED[start]: max(WALKED[start], start - 6)},
    }
    reference = reference_histream(
        tiny.lively(),
        [(prompt, 3, RESTYLED)] * 4,
        restyled_noise,
        grids=GRIDS,
        ntk=NTK,
        **(walk if kind == "walk" else {"span": 6, "mix": lambda start: mixed[start]}),
    )
    assert_same(run_engine(tiny.lively(), asked, [Prompt(Text(prompt))]), reference)


def test_a_walk_goes_on_by_a_frame_for_each_frame_and_turns():
    """Seen to fail where it begins before all of its frames are there."""
    shown = [WALK.shown(start, 0, 1) for start in WALKED]
    assert shown == [(frame,) for frame in WALKED.values()]
    three = AnchorSource(walk=6)
    assert [three.shown(start, 30, 3) for start in (33, 36, 38, 40, 43)] == [
        (30, 31, 32),
        (30, 31, 32),
        (32, 33, 34),
        (34, 33, 32),
        (31, 32, 33),
    ]
    assert plan(WALK).chunks[3].context == (4, 7, 8)
    assert plan(WALK).remembered(9) == (0, 1, 2, 3, 4, 7, 8)


@pytest.mark.parametrize(("settings", "kind"), crossed([
    {}, {"window": Window(3, 2, 4)}, {"mode": "full"}, {"levers": ["survivors"]}, {"levers": ["last-step"]},
    {"window": Window(1, 1, 3)},
], SOURCES))  # fmt: skip
def test_every_exact_memory_tier_gives_the_same_frames(kind, settings):
    """Seen to fail with an average of frames that only the full cache holds."""
    source = replace(WALK, walk=6) if kind == "walk" else MEAN
    asked = plan(source, 14, **settings)
    full = tiny.video(asked)
    for kv in EXACT[1:]:
        assert torch.equal(full, tiny.video(asked, kv=kv))
    assert not torch.allclose(full, tiny.video(replace(asked, anchor_source=AnchorSource())), atol=1e-3)


@pytest.mark.parametrize(("cut", "kind", "kv"), crossed([2, 3, 6], SOURCES, ["full", "lean"]))
def test_a_snapshot_brings_the_anchor_back(cut, kind, kv):
    """Seen to fail without the frames of a walk that are not seen, and without the values of an average."""
    assert torch.equal(*tiny.resumed(plan(SOURCES[kind]), cut, kv=kv))


@pytest.mark.parametrize("kind", SOURCES)
def test_a_chunk_that_is_begun_again_changes_nothing(kind):
    """An average takes each frame once, also where what it holds was stored between two chunks. Seen to fail where
    frames that left are held on to."""
    asked = plan(SOURCES[kind])
    whole, stream = tiny.video(asked), tiny.stream(asked)
    for index, _ in enumerate(stream.chunks()):
        if index == 3:
            stream.remember()
            state = {name: x.clone() for name, x in stream.snapshot().items()}
        chunk = asked.chunks[index + 1] if index < 7 else None
        if chunk and index > 3:
            stream.remember()
            for _ in range(2):
                stream._begin(chunk.frames, chunk.context)
    assert torch.equal(torch.cat(list(stream.chunks()), dim=2), whole)
    again = tiny.stream(replay(asked, 4), given=whole[:, :, :12])
    again.restore(state)
    assert torch.equal(torch.cat(list(again.chunks(4)), dim=2), whole[:, :, 12:])


@pytest.mark.parametrize("kind", SOURCES)
def test_a_stream_that_begins_again_is_a_fresh_one(kind):
    asked = plan(SOURCES[kind])
    stream, whole = tiny.stream(asked), tiny.video(asked)
    for _ in zip(range(5), stream.chunks(), strict=False):
        pass
    stream.begin_again([Prompt(tiny.text())])
    assert torch.equal(torch.cat(list(stream.chunks()), dim=2), whole)


@pytest.mark.parametrize("kind", SOURCES)
def test_a_scene_is_a_video_of_its_own_and_a_batch_holds_single_videos(kind):
    asked, source = plan(SOURCES[kind], 36), SOURCES[kind]
    cut = with_anchors(asked, [], [15])
    whole = tiny.video(cut)
    head = tiny.video(plan(source, 15))
    assert torch.equal(whole[:, :, :15], head)
    assert not torch.allclose(whole[:, :, 15:], tiny.video(asked)[:, :, 15:], atol=1e-2)
    two = tiny.video(cut, batch=2)
    assert two.shape[0] == 2 and not torch.equal(two[0], two[1])


@pytest.mark.parametrize("kind", SOURCES)
def test_a_new_anchor_begins_another_walk_or_average(kind, monkeypatch):
    """Frames of before are not mixed into the new anchor. Seen to fail where they are."""
    moved, made, mixed, lerp = with_anchors(plan(SOURCES[kind], 36), [15]), [], set(), torch.lerp

    def mix(x, mean, share):
        mixed.add(moved.chunks[len(made)].frames.start)
        return lerp(x, mean, share)

    assert moved.chunks[6].context[0] == 15
    stream = tiny.stream(moved)
    monkeypatch.setattr(window.torch, "lerp", mix)
    for chunk in stream.chunks():
        made.append(chunk)
    assert torch.isfinite(torch.cat(made, dim=2)).all()
    assert min(next(iter(stream.caches.values())).frames) == 15
    assert mixed == ({*range(6, 36, 3)} - {18} if kind == "average" else set())


def test_with_a_share_of_one_nothing_is_mixed_and_nothing_costs_memory():
    assert torch.equal(tiny.video(plan(AnchorSource(share=1.0))), tiny.video(plan(AnchorSource())))


def test_a_first_frame_is_where_a_walk_begins():
    asked = plan(WALK, 24, given_frames=1, first_frame=True)
    given = torch.randn(1, 4, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    video = tiny.video(asked, given=given)
    assert torch.equal(video[:, :, :1], given)
    assert [chunk.context[0] for chunk in asked.chunks[1:5]] == [0, 0, 2, 3]


def test_what_cannot_be_is_refused_in_a_sentence():
    recached = [Prompt(tiny.text()), Prompt(tiny.text(1), 2, recache=True)]
    for source, why in ((WALK, "walks over 5 frames would have"), (MEAN, "average cannot be computed anew")):
        with pytest.raises(ValueError, match=f"{why}.*let prompts change by a cut or a blend"):
            tiny.stream(plan(source), prompts=recached)
        with pytest.raises(ValueError, match="needs clamped positions, not absolute"):
            plan(source, temporal=TemporalPolicy("absolute"))
        with pytest.raises(ValueError, match="use anchor 1 and local 2"):
            plan(source, window=Window(3, 0, 3))
        with pytest.raises(ValueError, match="use anchor 1 and local 2"):
            plan(source, mode="history")
    with pytest.raises(ValueError, match=r"a walk over 2 latent frames would meet.*use 3 or more"):
        plan(AnchorSource(walk=2))
    with pytest.raises(ValueError, match=r"cannot keep a share of 1\.5 of itself: use 0\.9"):
        AnchorSource(share=1.5)
    with pytest.raises(ValueError, match="not both: leave one of them out"):
        AnchorSource(walk=5, share=0.5)
