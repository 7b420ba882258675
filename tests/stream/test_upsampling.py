"""A learned way up from LOW to HIGH in a stream: chunk by chunk as the whole clip, and forgetting at a cut."""

import pytest
import tiny
import torch

from histream_core.plan.chunks import replay, with_anchors
from histream_core.plan.draft import check_low
from histream_core.stream.inputs import Inputs
from histream_core.stream.upsampling import LearnedUpsampling
from histream_core.vae.upsampler import LatentUpsampler


def network(num_blocks=4):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return LatentUpsampler(4, 6, num_blocks).requires_grad_(False)


NETWORK = network()


def estimates(num_frames):
    return torch.randn(1, 4, num_frames, 4, 4, generator=torch.Generator().manual_seed(2))


def enlarged(plan, latent, first=0, given_low=None):
    """The chunks from `first` on, one after the other."""
    way = LearnedUpsampling(NETWORK, plan, given_low)
    return [way(slice_of(latent, chunk), chunk) for chunk in plan.chunks[first:]]


def slice_of(latent, chunk):
    return latent[:, :, chunk.frames.start : chunk.frames.stop]


def test_chunk_by_chunk_is_the_whole_clip():
    """Seen to fail with a memory that ends with its chunk."""
    latent = estimates(12)
    assert torch.equal(torch.cat(enlarged(tiny.plan(num_frames=12), latent), dim=2), NETWORK(latent)[0])


def test_a_scene_begins_without_what_came_before():
    plan = with_anchors(tiny.plan(num_frames=12), (), scenes=(6,))
    latent = estimates(12)
    parts = enlarged(plan, latent)
    assert torch.equal(torch.cat(parts[:2], dim=2), NETWORK(latent[:, :, :6])[0])
    assert torch.equal(torch.cat(parts[2:], dim=2), NETWORK(latent[:, :, 6:])[0])


def test_it_remembers_across_a_jump_in_time():
    """So does the decoder; also where a run goes on behind the jump. Seen to fail where it forgets at a jump."""
    plan, latent = with_anchors(tiny.plan(num_frames=12), (), (), [6]), estimates(12)
    whole = NETWORK(latent)[0]
    assert torch.equal(torch.cat(enlarged(plan, latent), dim=2), whole)
    later = enlarged(plan, latent, 3, lambda chunk: slice_of(latent, chunk))
    assert torch.equal(torch.cat(later, dim=2), whole[:, :, 9:])


@pytest.mark.parametrize("first", [1, 2, 3, 4])
@pytest.mark.parametrize("scenes", [(), (6,)])
def test_a_run_that_goes_on_looks_back_as_far_as_it_must(first, scenes):
    """Reads no more chunks than the network depends on. Seen to fail with a frame less."""
    plan = with_anchors(tiny.plan(num_frames=15), (), scenes=scenes) if scenes else tiny.plan(num_frames=15)
    latent, asked = estimates(15), []

    def given_low(chunk):
        asked.append(chunk.index)
        return slice_of(latent, chunk)

    whole = enlarged(plan, latent)
    assert all(map(torch.equal, enlarged(plan, latent, first, given_low), whole[first:]))
    scene = 2 if scenes and first >= 2 else 0
    assert asked == [*range(max(scene, first - 2), first)]  # four frames before are in two chunks


def test_a_first_frame_is_not_remembered():
    plan = tiny.plan(num_frames=7, given_frames=1, first_frame=True)
    latent = estimates(7)
    assert torch.equal(torch.cat(enlarged(plan, latent, 1), dim=2), NETWORK(latent[:, :, 1:])[0])


def test_whoever_kept_no_estimates_is_refused():
    with pytest.raises(ValueError, match="before 6: give their LOW estimates"):
        enlarged(tiny.plan(num_frames=9), estimates(9), 2)


def test_a_stream_takes_it_and_keeps_what_it_was_shown():
    """The video differs from a resized one, and a continued stream from none that was never cut."""
    plan = tiny.plan(num_frames=12)
    run, low, clean = stream(plan), [], []
    for chunk in run.chunks():
        low.append(run.low)
        clean.append(chunk)
    assert not torch.allclose(torch.cat(clean, dim=2), tiny.video(plan), atol=1e-2)
    inputs = {"given": torch.cat(clean[:2], dim=2), "given_low": lambda chunk: low[chunk.index]}
    later = list(stream(replay(plan, 2), **inputs).chunks())
    assert all(map(torch.equal, later, clean))


def stream(plan, **inputs):
    made = tiny.stream(plan, given=inputs.pop("given", None))
    made.upsample = LearnedUpsampling(NETWORK, plan, Inputs(**inputs).given_low)
    return made


def test_a_plan_with_chunks_without_low_is_refused():
    check_low(tiny.plan("histream-plus"))
    with pytest.raises(ValueError, match="not every chunk has an estimate at half resolution"):
        check_low(tiny.plan("full"))
