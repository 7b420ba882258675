"""The source of a restyled video: its frames as latents, chunk by chunk."""

import pytest
import tiny
import tiny_runs
import tiny_vae
import torch
from tiny_runs import recipes

from histream_core.plan.entry import MotionRule, Restyle
from histream_core.plan.schedule import Scale
from histream_core.runs.restyle import EncodedSource, length_for, size_for
from histream_core.vae.encode import StreamingEncoder, to_pixels


def frames(count, size=64):
    return [torch.rand(size, size, 3, generator=torch.Generator().manual_seed(number)) for number in range(count)]


def plan(num_frames=6, **settings):
    return tiny.plan("histream", num_frames=num_frames, **settings)


def opened(a_plan, shown, vae):
    return EncodedSource(iter(shown), a_plan, vae, normalised=True)


@pytest.fixture(scope="module")
def vae():
    return tiny_vae.make_vae()


def test_a_length_of_any_number_of_frames():
    """Latent frames, and how many pixel frames are cropped from their end."""
    assert [length_for(count) for count in (1, 2, 4, 5, 6, 33, 100)] == [
        (1, 0), (2, 3), (2, 1), (2, 0), (3, 3), (9, 0), (26, 1),
    ]  # fmt: skip


def test_a_size_of_any_source():
    assert [size_for(*size) for size in ((256, 256), (1280, 720), (1080, 1920), (1, 33))] == [
        (256, 256), (1280, 736), (1088, 1920), (32, 64),
    ]  # fmt: skip


def test_latents_are_those_of_one_shot_at_the_entry_scale(vae):
    """At LOW the pixels are averaged first. Seen to fail with an encoder that begins anew in each chunk."""
    shown, a_plan = frames(21), plan(restyle=Restyle(0.9))
    source = opened(a_plan, shown, vae)
    got = torch.cat([source(chunk)[1] for chunk in a_plan.chunks], dim=2)
    small = torch.stack(shown).unflatten(1, (32, 2)).unflatten(3, (32, 2)).mean((2, 4))
    whole = StreamingEncoder(vae).encode(to_pixels(small))
    assert all(chunk.steps[0].scale is Scale.LOW for chunk in a_plan.chunks)
    assert got.shape == whole.shape
    assert torch.allclose(got, whole, atol=1e-5)


def test_chunks_that_are_skipped_are_seen(vae):
    """A run that goes on at chunk 2 has the source and the motion of one that was never stopped."""
    shown, a_plan = frames(33), plan(9, restyle=Restyle(0.8, motion=MotionRule()))
    source = opened(a_plan, shown, vae)
    whole = [source(chunk) for chunk in a_plan.chunks]
    entry, latent = opened(a_plan, shown, vae)(a_plan.chunks[2])
    assert entry == whole[2][0]
    assert torch.equal(latent, whole[2][1])
    assert len({entry.share for entry, _ in whole}) == 3
    with pytest.raises(ValueError, match="is past"):
        source(a_plan.chunks[0])


def test_the_last_frame_is_repeated(vae):
    shown, a_plan = frames(3), plan(3, restyle=Restyle(0.9))
    short, held = (opened(a_plan, part, vae)(a_plan.chunks[0])[1] for part in (shown, [*shown, *shown[-1:] * 6]))
    assert torch.equal(short, held)
    with pytest.raises(ValueError, match="holds no frame"):
        opened(a_plan, [], vae)(a_plan.chunks[0])


def test_a_size_that_is_no_multiple_is_drawn_out(vae):
    """Nothing is scaled: the picture itself lies in the middle."""
    a_plan = plan(1, restyle=Restyle(0.3))
    shown = [torch.rand(56, 60, 3)]
    wide = torch.nn.functional.pad(shown[0].movedim(-1, 0)[None], (2, 2, 4, 4), mode="replicate")[0].movedim(0, -1)
    assert torch.equal(*(opened(a_plan, part, vae)(a_plan.chunks[0])[1] for part in (shown, [wide])))


def test_motion_of_latents(vae):
    a_plan = plan(6, restyle=Restyle(0.8, motion=MotionRule(metric="latents", full=100.0)))
    source = opened(a_plan, frames(21), vae)
    first, second = (source(chunk)[0].share for chunk in a_plan.chunks)
    assert 0.7 < second < first < 0.8


def test_the_strength_is_part_of_every_recipe():
    """A chunk of another strength is no chunk of this run, also where its steps are the same."""
    rule = MotionRule(span=0.05)
    runs = [tiny_runs.manifest(plan(6, restyle=Restyle(0.8, motion=motion))) for motion in (None, rule)]
    assert all(one != other for one, other in zip(*map(recipes, runs), strict=True))


@pytest.mark.parametrize("motion", [None, MotionRule(), MotionRule(metric="latents", full=100.0)])
def test_what_is_encoded_ahead_changes_nothing(vae, motion):
    """A chunk's first latent frames, while its other frames are still to come."""
    shown, a_plan = frames(33), plan(9, restyle=Restyle(0.8, motion=motion))
    whole, source = opened(a_plan, shown, vae), opened(a_plan, shown, vae)
    for chunk in a_plan.chunks:
        first = 4 if chunk.index else 1
        source.encode_ahead(first)
        if chunk.index != 1:
            source.encode_ahead(4)
        (entry, latent), (expected, of_whole) = source(chunk), whole(chunk)
        assert entry == expected and torch.equal(latent, of_whole)


def test_what_was_encoded_ahead_is_forgotten_where_a_scene_begins(vae):
    """Seen to fail where the frames of before are kept."""
    a_plan = plan(6, restyle=Restyle(0.8))
    source, fresh = opened(a_plan, frames(10), vae), opened(a_plan, frames(21)[10:], vae)
    source(a_plan.chunks[0])
    source.encode_ahead(1)
    source.begin_again(iter(frames(21)[10:]))
    assert torch.equal(source(a_plan.chunks[0])[1], fresh(a_plan.chunks[0])[1])


def test_a_resolution_that_comes_in_with_another_plan_is_encoded_whole(vae):
    """Its latents are those of a fresh encoder; frames encoded ahead at the other one are no part of them."""
    low, high = plan(9, restyle=Restyle(0.9)), plan(9, restyle=Restyle(0.3))
    shown, found = frames(33), []
    for ahead in (0, 4):
        source = opened(low, shown, vae)
        source(low.chunks[0])
        if ahead:
            source.encode_ahead(ahead)
        source.change_plan(high)
        found.append(source(high.chunks[1])[1])
    assert low.chunks[1].steps[0].scale is not high.chunks[1].steps[0].scale
    assert torch.equal(*found)
