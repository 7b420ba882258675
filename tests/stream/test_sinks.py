"""Sinks that give way: frames of the anchor that are replaced where they no longer look like the video."""

from dataclasses import replace

import pytest
import tiny
import torch
from laws.engine import assert_same
from laws.reference import reference_sinks
from slow import crossed

from histream_core.network.forward import Text
from histream_core.plan.chunks import replay, with_anchors
from histream_core.plan.entry import Entry, Restyle
from histream_core.plan.positions import TemporalPolicy
from histream_core.plan.schedule import make_steps
from histream_core.plan.sinks import SinkRule
from histream_core.plan.storage import EXACT
from histream_core.plan.window import Window
from histream_core.stream.noise import SeededNoise
from histream_core.stream.prompts import Prompt
from histream_core.stream.sinks import likeness, next_sinks

ROWS = Window(1, 3, 2)
"""The window of StreamDiffusionV2: 3 sinks and a ring of 3."""

MOVING = TemporalPolicy("clamped", span=6)
TWO = (make_steps((1000, 500), 0),)
SOMETIMES = 0.93
"""A threshold that some frames of the tiny models meet."""


def plan(threshold=None, num_frames=16, **settings):
    rule = None if threshold is None else SinkRule(threshold)
    return tiny.plan("full", num_frames=num_frames, **{"schedule": TWO, "window": ROWS, "sinks": rule} | settings)


def seen(stream):
    """The latents of a stream, and the sinks and frames that each chunk sees."""
    video, sinks, held = [], [], []
    for latent in stream.chunks():
        video.append(latent)
        sinks.append(stream.sinks)
        held.append({cache.frames for cache in stream.caches.values()})
    return torch.cat(video, dim=2), sinks, held


KINDS = {
    "clamped": {"temporal": MOVING},
    "absolute": {"temporal": TemporalPolicy("absolute")},
    "rerotate": {"temporal": TemporalPolicy("rerotate", 7, 3)},
    "one sink": {"window": Window(1, 1, 3), "temporal": MOVING},
    "last steps": {"levers": ["last-step"], "temporal": MOVING},
    "each step": {"histories": "each-step", "temporal": MOVING},
}


@pytest.mark.parametrize(("kind", "threshold"), crossed(KINDS, [-0.999999, -1.0]))
def test_a_threshold_that_is_never_met_changes_no_bit(kind, threshold):
    """Law L8. Seen to fail with new frames on the highest free page, and with a rule that compares the other way."""
    assert torch.equal(tiny.video(plan(threshold, **KINDS[kind])), tiny.video(plan(**KINDS[kind])))


def test_two_resolutions_whose_sinks_never_give_way_are_as_before():
    settings = {"schedule": (make_steps((1000, 800, 500), 1),), "window": ROWS, "temporal": MOVING, "num_frames": 12}
    assert torch.equal(
        tiny.video(tiny.plan("histream", sinks=SinkRule(-1), **settings)), tiny.video(tiny.plan("histream", **settings))
    )


def test_at_the_highest_threshold_every_frame_replaces_the_least_alike():
    """Law L8. Seen to fail where the most alike sink gives way, and where it is the oldest one."""
    asked = plan(1.0)
    video, sinks, held = seen(tiny.stream(asked))
    assert sinks[:4] == [(), (0,), (0, 1), (0, 1, 2)]
    frames = video.unbind(2)
    for index in range(4, 16):
        before, after = sinks[index - 1], sinks[index]
        alike = {likeness(frames[index - 1], frames[sink]): sink for sink in before}
        assert after == tuple(sorted({*before, index - 1} - {alike[min(alike)]}))
        assert held[index] == {tuple(sorted({*after, index - 2, index - 1}))}


def test_the_caches_hold_the_sinks_and_the_last_frames_in_bytes_that_do_not_grow():
    """Law L7 with a rule. Seen to fail where a sink that gave way stays."""
    stream = tiny.stream(plan(SOMETIMES, 40, temporal=MOVING))
    size = [cache.nbytes for cache in stream.caches.values()]
    changes = set()
    for index, _ in enumerate(stream.chunks()):
        for cache in stream.caches.values():
            assert cache.frames == tuple(sorted({*stream.sinks, *range(max(0, index - 2), index)}))
        assert [cache.nbytes for cache in stream.caches.values()] == size
        changes.add(stream.sinks)
    assert 8 < len(changes) < 38, "some sinks give way and some stay"


@pytest.mark.parametrize(("kind", "threshold"), crossed(["clamped", "absolute", "one sink"], [0.9, 1.0]))
def test_sinks_that_give_way_equal_the_reference(kind, threshold):
    """Law L8: one that is adopted is as if it had been cached in that place. The reference has no caches.

    Seen to fail with the time of the sink before, with its un-rotated keys, and with a page that is overwritten.
    """
    model, settings = tiny.lively(), KINDS[kind]
    count = 16 if threshold == 1 else 24  # frames in which two sinks give way; the reference sees all of them
    asked = plan(threshold, count, **settings)
    text = torch.randn(1, 5, 12, generator=torch.Generator().manual_seed(1))
    noise, (window, temporal) = SeededNoise(1), (asked.window, asked.temporal)
    stream = tiny.stream(asked, model=model, prompts=[Prompt(Text(text))])
    video, sinks, _ = seen(stream)
    steps = [step.sigma for step in asked.chunks[0].steps]
    reference, found = reference_sinks(
        model,
        (text, steps, count),
        noise,
        grid=(8, 8),
        window=(window.anchor_frames, window.local_frames),
        span=temporal.span if temporal.kind == "clamped" else None,
        threshold=threshold,
    )
    assert sinks == found
    assert len({*sinks}) >= window.anchor_frames + 3, "two sinks at least give way"
    assert_same(video, reference)


@pytest.mark.parametrize(("kind", "kv"), crossed([*KINDS], EXACT[1:]))
def test_every_exact_memory_tier_gives_the_same_frames(kind, kv):
    """Seen to fail where a lean cache gives a frame the slot of a sink."""
    asked = plan(SOMETIMES, **KINDS[kind])
    full = tiny.video(asked)
    assert torch.equal(full, tiny.video(asked, kv=kv))
    assert not torch.allclose(full, tiny.video(replace(asked, sinks=None)), atol=1e-2)


@pytest.mark.parametrize(("cut", "kind"), crossed([2, 6, 9, 13], ["clamped", "rerotate", "each step"]))
def test_a_snapshot_brings_the_sinks_back(cut, kind):
    """Law L4. Seen to fail without the pages of the frames, and with the first frames as sinks."""
    asked = plan(SOMETIMES, **KINDS[kind])
    kv = "full" if kind == "each step" else "lean"  # there a kept step overwrites what its chunk sees
    whole, sinks, _ = seen(tiny.stream(asked, kv=kv))
    first = tiny.stream(asked, kv=kv)
    for _ in zip(range(cut), first.chunks(), strict=False):
        state = {name: x.clone() for name, x in first.snapshot().items()}
    second = tiny.stream(replay(asked, cut), kv=kv, given=lambda chunk: whole[:, :, chunk.index : chunk.index + 1])
    second.restore(state)
    rest, after = [], []
    for latent in second.chunks(cut - 1):
        rest.append(latent)
        after.append(second.sinks)
    assert torch.equal(torch.cat(rest, dim=2), whole[:, :, cut - 1 :])
    assert after == sinks[cut - 1 :]


def test_a_snapshot_of_one_tier_fits_the_others():
    asked = plan(SOMETIMES, temporal=MOVING)
    whole, *_ = seen(tiny.stream(asked))
    first = tiny.stream(asked)
    for _ in zip(range(9), first.chunks(), strict=False):
        state = {name: x.clone() for name, x in first.snapshot().items()}
    second = tiny.stream(asked, kv="lean", given=lambda chunk: whole[:, :, chunk.index : chunk.index + 1])
    second.plan = replay(asked, 9)
    second.restore(state)
    assert torch.equal(torch.cat([*second.chunks(8)], dim=2), whole[:, :, 8:])


def test_a_snapshot_of_other_sinks_is_refused():
    first, second = tiny.stream(plan(SOMETIMES, temporal=MOVING)), tiny.stream(plan(SOMETIMES, temporal=MOVING))
    for _ in zip(range(6), first.chunks(), strict=False):
        state = first.snapshot()
    with pytest.raises(ValueError, match=r"sinks \[90\] are not among its frames"):
        second.restore(state | {"window.sinks": torch.tensor([90])})
    with pytest.raises(ValueError, match="frames and pages do not fit together"):
        second.restore(state | {"high.pages": torch.tensor([90])})
    with pytest.raises(KeyError, match=r"window\.sinks"):
        second.restore({name: x for name, x in state.items() if name != "window.sinks"})


def test_a_recache_computes_the_sinks_of_that_moment():
    """Seen to fail where the frames are laid on other pages, or the first anchor is computed."""
    prompts = [Prompt(tiny.text()), Prompt(tiny.text(5), 8, recache=True)]
    asked = plan(SOMETIMES, temporal=MOVING)
    full, lean = (tiny.video(asked, prompts=prompts, kv=kv) for kv in ("full", "lean"))
    assert torch.equal(full, lean)
    stays = replace(asked, sinks=SinkRule(-1))
    fixed = tiny.video(replace(asked, sinks=None), prompts=prompts)
    assert torch.equal(tiny.video(stays, prompts=prompts), fixed)


def test_a_replayed_chunk_sees_the_sinks_of_its_first_attempt():
    """They are journaled: a cosine at the threshold may round otherwise elsewhere. Seen to fail without them."""
    asked = plan(SOMETIMES, temporal=MOVING)
    whole, sinks, _ = seen(tiny.stream(asked))
    again = tiny.stream(replay(replace(asked, sinks=SinkRule(-1)), 9), given=whole[:, :, :9])
    again.given_sinks = lambda chunk: sinks[chunk.index]
    assert seen(again)[1][:9] == sinks[:9]


def test_a_batch_is_refused():
    with pytest.raises(ValueError, match="in one video at a time, and the batch has 2"):
        tiny.stream(plan(0.5), batch=2)


def test_the_first_frames_are_sinks_and_then_the_least_alike_gives_way():
    asked = plan(0.5)
    latents = {frame: torch.tensor(mean).reshape(1, 2, 1, 1).expand(1, 2, 3, 3) for frame, mean in enumerate(
        [(1.0, 0.0), (1.0, 0.1), (0.9, -0.9), (1.0, 0.0), (0.0, 1.0)])}  # fmt: skip
    sinks = ()
    for frame in range(4):
        sinks = next_sinks(asked, sinks, frame, latents)
    assert sinks == (0, 1, 2)
    assert next_sinks(asked, sinks, 4, latents) == (0, 1, 4)


def test_likeness_is_the_cosine_of_mean_colours():
    one = torch.tensor([3.0, 4.0]).reshape(1, 2, 1, 1).expand(1, 2, 4, 4)
    assert likeness(one, one) == pytest.approx(1.0)
    assert likeness(one, 2 * one.flip(1)) == pytest.approx(24 / 25)
    noisy = one + torch.tensor([1.0, -1.0]).repeat(8).reshape(4, 4)
    assert likeness(one, noisy.flip(-1)) == pytest.approx(likeness(one, noisy)) == pytest.approx(1.0)


def test_sinks_of_a_source_that_is_not_changed_change_nothing():
    source = torch.randn(1, 4, 11, 8, 8, generator=torch.Generator().manual_seed(3))
    asked = plan(1.0, 11, restyle=Restyle(0.0))
    found = tiny.video(asked, source=lambda chunk: (Entry(0, 0), source[:, :, chunk.index : chunk.index + 1]))
    assert torch.equal(found, source)


def test_a_plan_says_why_its_sinks_cannot_give_way():
    cases = [
        (r"give way to single frames, and the chunks have 3", {"window": Window()}),
        ("need a window with anchor and local frames", {"window": Window(1, 0, 2)}),
        ("need a window with anchor and local frames", {"window": Window(1, 3, None)}),
        ("a frame is seen before it is finished", {"histories": "each-step", "order": "diagonal"}),
        ("needs to know the anchor beforehand", {"levers": ["clean-anchor"]}),
        ("have no room for a window of 5: use a span of 5 or more", {"temporal": TemporalPolicy(span=4)}),
    ]
    for said, settings in cases:
        with pytest.raises(ValueError, match=said):
            plan(0.5, **settings)
    with pytest.raises(ValueError, match="not by a new anchor or scene"):
        with_anchors(plan(0.5), (8,))
    with pytest.raises(ValueError, match=r"below a cosine of 1.2: use a number from -1"):
        SinkRule(1.2)
