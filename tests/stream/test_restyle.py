"""Video to video: chunks that begin with a source, and motion-aware noise."""

import pytest
import tiny
import torch

from histream_core.plan.chunks import ENDLESS
from histream_core.plan.entry import Entry, MotionRule, Restyle
from histream_core.plan.schedule import Scale
from histream_core.stream.inputs import begin_from
from histream_core.stream.motion import Motion

SOURCE = torch.randn(1, 4, 12, 8, 8, generator=torch.Generator().manual_seed(3))


def at(plan, entry=None):
    """A source on the grid that each chunk begins on."""

    def source(chunk):
        latent = SOURCE[:, :, chunk.frames.start : chunk.frames.stop]
        scale = chunk.steps[0].scale if chunk.steps else Scale.HIGH
        step = 8 // plan.grids[scale][0]
        return entry or plan.restyle.entry(), latent[..., ::step, ::step]

    return source


def restyled(restyle, entry=None, **settings):
    plan = tiny.plan("histream", restyle=restyle)
    return torch.cat(list(tiny.stream(plan, source=at(plan, entry), **settings).chunks()), dim=2)


def test_all_noise_is_text_to_video():
    assert torch.equal(restyled(Restyle(1.0)), tiny.video(tiny.plan("histream")))


def test_no_noise_is_the_source():
    def denoise(*_):
        raise AssertionError("the network is called")

    assert torch.equal(restyled(Restyle(0.0), denoise=denoise), SOURCE[:, :, :11])


def test_the_source_is_seen():
    """Seen to fail where the source is left out of the first latent."""
    first, second = restyled(Restyle(0.6)), restyled(Restyle(0.9))
    assert not torch.equal(first, second)
    whole = tiny.video(tiny.plan("histream"))
    assert (first - SOURCE[:, :, :11]).norm() < (whole - SOURCE[:, :, :11]).norm()


def test_the_network_is_told_the_realised_entry():
    """The mixture and the level are those of the source's callback; later steps are those of the plan."""
    seen = []
    plan = tiny.plan("histream", num_frames=3, restyle=Restyle(0.8, motion=MotionRule()))

    def denoise(latent, step, cache, text):
        seen.append((step, latent.clone()))
        return latent

    noise = tiny.noise if hasattr(tiny, "noise") else None
    list(tiny.stream(plan, source=at(plan, Entry(0.75, 0.7)), denoise=denoise).chunks())
    assert noise is None
    (first, begun), *later = seen
    assert first.sigma == 0.7
    assert first.scale is Scale.LOW
    assert [step for step, _ in later] == [*plan.chunks[0].steps[1:]]
    low = SOURCE[:, :, :3, ::2, ::2]
    drawn = (begun - 0.25 * low) / 0.75
    list(tiny.stream(tiny.plan("histream", num_frames=3), denoise=denoise).chunks())
    assert torch.allclose(drawn, seen[len(later) + 1][1], atol=1e-6)


def test_a_stream_without_an_end_is_the_same_and_goes_on():
    """Seen to fail, by never beginning, where the stream lists its chunks first."""
    endless = tiny.stream(tiny.plan("histream-plus", num_frames=ENDLESS)).chunks()
    closed = tiny.stream(tiny.plan("histream-plus", num_frames=12)).chunks()
    assert all(torch.equal(*pair) for pair in zip(closed, endless, strict=False))
    assert next(endless).shape[2] == 3


def test_the_mixture_is_exact_at_its_ends():
    noise, source = torch.randn(2, 3), torch.randn(2, 3)
    assert begin_from(Entry(1, 1), noise, source) is noise
    assert begin_from(Entry(0, 0), noise, source) is source
    assert torch.equal(begin_from(Entry(0.25, 0.25), noise, source), 0.25 * noise + 0.75 * source)


def test_a_source_and_a_plan_for_it_belong_together():
    plan = tiny.plan("histream", restyle=Restyle(0.5))
    with pytest.raises(ValueError, match="restyles a source needs one"):
        tiny.stream(plan)
    with pytest.raises(ValueError, match="restyles a source needs one"):
        tiny.stream(tiny.plan("histream"), source=at(plan))


def test_a_source_of_another_shape_is_refused():
    plan = tiny.plan("histream", restyle=Restyle(0.8))
    stream = tiny.stream(
        plan, source=lambda chunk: (Entry(0.8, 0.8), SOURCE[:, :, chunk.frames.start : chunk.frames.stop])
    )
    with pytest.raises(ValueError, match=r"latents of shape \[1, 4, 3, 4, 4\]"):
        next(stream.chunks())


def moving(*levels):
    """Frames [T, C, H, W] of one value each."""
    return torch.tensor(levels).reshape(-1, 1, 1, 1).expand(-1, 3, 4, 4)


def test_motion_is_the_largest_difference_of_a_chunk():
    """The chunk's first frame is compared with the last one before it. Seen to fail without that one."""
    motion = Motion(Restyle(0.8, offset=0.1, motion=MotionRule()))
    assert motion.next(moving(0.5)).share == pytest.approx(0.8)
    assert motion.next(moving(0.5, 0.5, 0.6)).share == pytest.approx(0.9 * 0.75 + 0.1 * 0.8)
    before = motion.share
    assert motion.next(moving(0.4, 0.4)).share == pytest.approx(0.9 * 0.7 + 0.1 * before)
    before = motion.share
    assert motion.next(moving(1.4)).share == pytest.approx(0.9 * 0.7 + 0.1 * before)


def test_without_a_rule_every_chunk_begins_alike():
    motion = Motion(Restyle(0.6))
    assert motion.next(moving(0, 1)) == motion.next(moving(1, 0)) == Entry(0.6, 0.6)
