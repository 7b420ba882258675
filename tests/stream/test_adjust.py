"""The strength and the steps of a running stream change between two chunks, and nothing else does."""

from itertools import islice

import pytest
import tiny
import tiny_vae
import torch

from histream_core.plan.adjust import adjusted
from histream_core.plan.chunks import ENDLESS
from histream_core.plan.entry import MotionRule, Restyle
from histream_core.plan.schedule import Scale
from histream_core.runs.restyle import EncodedSource

VAE, MODEL = tiny_vae.make_vae(z_dim=4), tiny.wan()
CHANGES = [{"strength": 0.4}, {"strength": 0.95}, {"steps": 2}, {"strength": 0.9, "steps": 2}]


def plan(share=0.8, motion=None, **settings):
    restyle = Restyle(share, motion=motion)
    return tiny.plan("histream", num_frames=ENDLESS, width=32, height=32, restyle=restyle, **settings)


def frames():
    generator = torch.Generator().manual_seed(4)
    return iter(torch.rand(45, 32, 32, 3, generator=generator))


def opened(a_plan):
    source = EncodedSource(frames(), a_plan, VAE, normalised=False)
    return tiny.stream(a_plan, model=MODEL, source=source), source


def played(a_plan, changes, count=4):
    """The chunks of a stream; before chunk n it goes over to the plan `changes[n]`."""
    stream, source = opened(a_plan)
    chunks, found = stream.chunks(), []
    for index in range(count):
        if index in changes:
            stream.change_plan(changes[index])
            source.change_plan(changes[index])
        found.append(next(chunks))
    return found


@pytest.mark.parametrize("motion", [None, MotionRule(span=0.05)])
def test_a_change_to_the_values_that_there_are_changes_nothing(motion):
    a_plan = plan(motion=motion)
    same = adjusted(a_plan, strength=0.8, steps=3)
    kept = [*islice(opened(a_plan)[0].chunks(), 4)]
    assert all(torch.equal(*pair) for pair in zip(kept, played(a_plan, {1: same, 3: same}), strict=True))


@pytest.mark.parametrize("change", CHANGES)
def test_a_chunk_after_a_change_is_that_of_a_plan_made_so_with_the_same_history(change):
    """The other stream has the new plan from its beginning, and the caches of the one that changed."""
    old, new = plan(), adjusted(plan(), **change)
    found = played(old, {2: new})
    before, source = opened(old)
    for _ in islice(before.chunks(), 2):
        pass
    source.change_plan(new)
    after = tiny.stream(new, model=MODEL, source=source)
    after.restore(before.snapshot())
    after.given = lambda chunk: found[1]
    first, *later = islice(_continued(after, found[1]), 3)
    assert torch.equal(first, found[1])
    assert all(torch.equal(*pair) for pair in zip(later, found[2:], strict=True))


def _continued(stream, given):
    """The chunks of a restored stream, where chunk 1 is given."""
    take, taken = stream._generate, stream.plan

    def generate(chunk, text):
        return given if chunk.index == 1 else take(chunk, text)

    stream._generate = generate
    assert stream.plan is taken
    return stream.chunks(1)


@pytest.mark.parametrize("change", CHANGES)
def test_chunks_before_a_change_stay_and_the_next_one_is_another(change):
    old = plan()
    kept, found = [*islice(opened(old)[0].chunks(), 3)], played(old, {2: adjusted(old, **change)}, 3)
    assert [torch.equal(*pair) for pair in zip(kept, found, strict=True)] == [True, True, False]


def test_a_step_less_is_a_call_less():
    calls, a_plan = [], plan()

    def denoise(latent, step, cache, text):
        calls.append(step)
        return latent

    source = EncodedSource(frames(), a_plan, VAE, normalised=False)
    stream = tiny.stream(a_plan, model=MODEL, source=source, denoise=denoise)
    chunks, counts = stream.chunks(), []
    for steps in (3, 2, 2, 3):
        stream.change_plan(adjusted(a_plan, steps=steps))
        calls.clear()
        next(chunks)
        counts.append(sum(step.sigma > 0 for step in calls))
    assert counts == [3, 2, 2, 3]


def test_a_resolution_that_was_not_needed_is_encoded_as_where_a_video_begins():
    """Bit for bit the latents of a fresh source over the last nine frames of the chunk."""
    low, high = plan(0.8), plan(0.4)
    source, pictures = EncodedSource(frames(), high, VAE, normalised=False), [*frames()]
    source(high.chunks[0])
    source.change_plan(low)
    _, found = source(low.chunks[1])
    _, fresh = EncodedSource(iter(pictures[12:21]), low, VAE, normalised=False)(low.chunks[0])
    assert low.chunks[1].steps[0].scale is Scale.LOW and torch.equal(found, fresh)


def test_the_top_of_a_rule_for_motion_is_what_changes():
    rule = MotionRule(span=0.05)
    source = EncodedSource(frames(), plan(0.8, rule), VAE, normalised=False)
    entries = [source(chunk)[0].share for chunk in plan(0.8).chunks[:2]]
    source.change_plan(plan(0.6, rule))
    after = [source(chunk)[0].share for chunk in plan(0.6).chunks[2:3]]
    assert entries == pytest.approx([0.755, 0.7505]) and after == pytest.approx([0.9 * 0.55 + 0.1 * 0.7505])
