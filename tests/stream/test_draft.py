"""Drafts at LOW: what they show of the video, and chunks that are drawn again before HIGH is spent."""

import pytest
import tiny
import torch

from histream_core.network.forward import Denoiser
from histream_core.plan.chunks import replay
from histream_core.plan.draft import draft_of
from histream_core.plan.entry import Restyle
from histream_core.plan.histories import EACH_STEP
from histream_core.plan.schedule import Scale
from histream_core.stream.noise import SeededNoise
from histream_core.stream.resize import resize

MODES = ("histream", "histream-plus")


class Reviewer:
    """Rejects chunks with a new seed each, and keeps what it was shown."""

    def __init__(self, seeds=()):
        self.seeds, self.shown = {chunk: [*more] for chunk, more in dict(seeds).items()}, []

    def __call__(self, chunk, clean):
        self.shown.append((chunk.index, clean))
        left = self.seeds.get(chunk.index)
        return SeededNoise(left.pop(0)) if left else None


class Counted:
    """A denoiser that counts its calls that denoise, by scale."""

    def __init__(self, model):
        self.denoise, self.calls = Denoiser(model), dict.fromkeys(Scale, 0)

    def __call__(self, latent, step, cache, text):
        self.calls[step.scale] += step.sigma > 0
        return self.denoise(latent, step, cache, text)


def reviewed(plan, review, **settings):
    return torch.cat(list(tiny.stream(plan, review=review, **settings).chunks()), dim=2)


def seeds_from(starts):
    """Noise by seeds that each begin at a chunk."""
    return lambda chunk, step, shape: SeededNoise(
        [seed for first, seed in sorted(starts.items()) if first <= chunk][-1]
    )(chunk, step, shape)


@pytest.mark.parametrize("mode", MODES)
def test_the_first_chunk_of_a_draft_is_the_low_estimate_and_later_ones_are_not(mode):
    """Seen to fail with a draft that takes the rotary factor, the grid or the attention scale of HIGH."""
    plan = tiny.plan(mode, num_frames=9, preset="histream", width=96, height=64)
    seen = Reviewer()
    whole = reviewed(plan, seen)
    draft = tiny.video(draft_of(plan))
    assert draft.shape == (1, 4, 9, *plan.grids[Scale.LOW])
    assert torch.equal(draft[:, :, :3], seen.shown[0][1])
    assert not torch.equal(draft[:, :, 3:6], seen.shown[1][1])
    assert whole.shape[-2:] == plan.grids[Scale.HIGH]


def test_from_the_same_clean_frames_a_later_chunk_of_a_draft_is_the_low_estimate_too():
    """The two part by what they see alone: here chunk 0 is given, as the whole video has it, but shrunk."""
    plan = tiny.plan(num_frames=6, resize="area")
    seen = Reviewer()
    first = reviewed(plan, seen)[:, :, :3]
    draft = draft_of(plan)
    shrunk = resize(first, plan.grids[Scale.LOW], "area")
    continued = tiny.stream(replay(draft, 1), given=shrunk)
    assert torch.equal([*continued.chunks()][1], seen.shown[1][1])


@pytest.mark.parametrize("mode", MODES)
def test_whoever_only_looks_changes_no_bit(mode):
    plan, seen = tiny.plan(mode, num_frames=9), Reviewer()
    assert torch.equal(reviewed(plan, seen), tiny.video(plan))
    assert [chunk for chunk, _ in seen.shown] == [0, 1, 2]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(("rejected", "starts"), [({0: [5]}, {0: 5}), ({1: [5, 6], 2: [7]}, {0: 1, 1: 6, 2: 7})])
def test_a_chunk_that_is_drawn_again_spends_no_high_call_and_is_that_of_its_seed(mode, rejected, starts):
    """Seen to fail with a review after the first step at HIGH, and with noise that serves one chunk alone."""
    plan, model = tiny.plan(mode, num_frames=9), tiny.wan()
    network, plain = Counted(model), Counted(model)
    latents = reviewed(plan, Reviewer(rejected), denoise=network)
    at_once = tiny.stream(plan, denoise=plain)
    at_once.noise = seeds_from(starts)
    assert torch.equal(latents, torch.cat(list(at_once.chunks()), dim=2))
    assert network.calls[Scale.HIGH] == plain.calls[Scale.HIGH]
    again = sum(
        len(seeds) * sum(step.scale is Scale.LOW for step in plan.chunks[chunk].steps)
        for chunk, seeds in rejected.items()
    )
    assert network.calls[Scale.LOW] == plain.calls[Scale.LOW] + again


@pytest.mark.parametrize("lever", ["last-step", "clean-anchor", "pooled-low", "survivors"])
def test_a_chunk_is_drawn_again_under_every_lever(lever):
    plan = tiny.plan(num_frames=9, levers=(lever,))
    at_once = tiny.stream(plan)
    at_once.noise = seeds_from({0: 1, 1: 5})
    assert torch.equal(reviewed(plan, Reviewer({1: [5]})), torch.cat(list(at_once.chunks()), dim=2))


@pytest.mark.parametrize(
    ("plan", "why"),
    [
        (lambda: tiny.plan("full"), "take mode histream"),
        (lambda: tiny.plan(restyle=Restyle(0.8)), "begins with its source"),
        (lambda: tiny.plan("full", histories=EACH_STEP), "take mode histream"),
    ],
)
def test_what_has_no_draft_is_refused(plan, why):
    with pytest.raises(ValueError, match=why):
        draft_of(plan())


def test_a_review_of_a_plan_without_low_is_refused_before_the_first_call():
    with pytest.raises(ValueError, match="take mode histream"):
        tiny.stream(tiny.plan("full"), review=Reviewer())
