"""Videos that a student makes while it trains: what windows show, and which true clips go on from them."""

from dataclasses import replace

import pytest
import torch
from tiny_training import bank, network

from histream_core.plan.schedule import Scale
from training.data import Drawing
from training.forcing import LATEST, TeacherForcing
from training.protocol import Protocol
from training.rng import Rng
from training.videos import Videos

START = 3 * LATEST


def videos(seed: int = 0, **more) -> Videos:
    """Five videos of up to six chunks of a network that knows nothing."""
    forcing = TeacherForcing(network(), Protocol(size=64), ("histream", "histream-plus"), "cpu", context_noise=0)
    return Videos(forcing, bank(), Drawing(places=4, **more), Rng(seed), 5, 6)


@pytest.fixture
def faultless(monkeypatch):
    """A student that makes every chunk as it should be, or in each but the first is a cell too far along its way."""

    def install(ahead: bool = False):
        def make(self, clips, start):
            ways = self.bank.steps[clips.index].flip(1) * (ahead and start > 0)
            chunks = clips.latents[:, :, -3:]
            return torch.stack([chunk.roll(way, (-2, -1)) for chunk, way in zip(chunks, ways.tolist(), strict=True)])

        monkeypatch.setattr(Videos, "_make", make)

    return install


def test_a_student_without_mistakes_sees_true_clips(faultless):
    """Over many chunks and videos. Seen to fail with the chunk after the next as the answer."""
    faultless()
    found = videos()
    for _ in range(40):
        clips = found.draw(3)
        assert torch.equal(clips.seen, clips.latents[:, :, :6])
        *_, before, following = clips.latents.split(3, dim=2)
        ways = (3 * found.bank.steps[clips.index].flip(1)).tolist()
        moved = [chunk.roll(way, (-2, -1)) for chunk, way in zip(before, ways, strict=True)]
        assert torch.equal(following, torch.stack(moved)), "a cell for each latent frame"
        assert clips.latents.shape == (3, 16, 9, 16, 16) and clips.geometry.shape[2] == 9
    assert len({tuple(video.index.tolist()) for video in found.videos}) > 1


def test_the_true_clip_follows_a_video_that_is_ahead(faultless):
    """Seen to fail without catching up."""
    faultless(ahead=True)
    found = videos()
    for _ in range(12):
        clips = found.draw(4)
        assert torch.equal(clips.seen[:, :, 3:], clips.latents[:, :, 3:6])
    assert any(not torch.equal(video.roll, video.begun) for video in found.videos)


def test_windows_show_what_the_student_made():
    """Seen to fail with true windows: then the flow of the later chunk cannot depend on what was seen."""
    found = videos()
    clips, forcing = found.draw(4), found.forcing
    shown, true = (forcing.loss(one, START, Scale.LOW, Rng(1)) for one in (clips, replace(clips, seen=None)))
    assert shown["first low"] == true["first low"]
    assert abs(shown["later low"] - true["later low"]) > 1e-4


def test_videos_go_on_in_turn_and_give_way_when_they_are_over():
    """Seen to fail with the same video every time, and with videos that never end."""
    found, begun = videos(), []
    for _ in range(60):
        found.draw(1)
        assert all(2 <= video.chunks < video.length <= 6 for video in found.videos)
        begun += [video.first for video in found.videos if not any(video.first is one for one in begun)]
    assert max(video.chunks for video in found.videos) > 2
    assert len(begun) > 2 * found.count


def test_a_run_that_goes_on_has_the_same_videos():
    whole, cut, later = videos(), videos(), videos()
    for _ in range(4):
        expected = whole.draw(2)
    for _ in range(2):
        cut.draw(2)
    later.load_state_dict(cut.state_dict())
    later.rng.load_state_dict(cut.rng.state_dict())
    later.forcing = whole.forcing
    for _ in range(2):
        found = later.draw(2)
    assert torch.equal(found.seen, expected.seen) and torch.equal(found.latents, expected.latents)
