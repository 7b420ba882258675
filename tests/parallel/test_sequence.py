"""Passes that several ranks compute together give what one computes, bit for bit."""

import time
from dataclasses import replace
from types import SimpleNamespace

import pytest
import tiny
import torch
from slow import crossed
from tiny_ranks import SIZES, gang_of

from histream_core.network.cache.window import CacheOptions
from histream_core.network.forward import Denoiser
from histream_core.network.model import WanConfig
from histream_core.parallel.link import EndedRankError, LostRankError
from histream_core.parallel.share import HeadShare
from histream_core.plan.anchoring import AnchorSource
from histream_core.plan.chunks import with_anchors
from histream_core.plan.entry import Entry, Restyle
from histream_core.plan.positions import TemporalPolicy
from histream_core.plan.schedule import Scale
from histream_core.plan.sharing import deal
from histream_core.plan.speed import DEFAULTS
from histream_core.stream.inputs import Inputs
from histream_core.stream.noise import SeededNoise
from histream_core.stream.prompts import Prompt
from histream_core.stream.stream import Stream

CONFIG = WanConfig(dim=72, ffn_dim=64, num_heads=12, num_layers=2, in_dim=4, out_dim=4, text_dim=16, freq_dim=16)
MODEL = tiny.wan(CONFIG)
SIZE = {"width": 192, "height": 128}
"""96 tokens in a frame: a chunk at LOW then has fewer tiles of tokens than eight ranks."""

GIVEN = torch.randn(1, 4, 14, 16, 24, generator=torch.Generator().manual_seed(0))


def case(plan, inputs=None, prompts=None):
    return plan, inputs or Inputs(), prompts or [Prompt(tiny.text(3))]


def source(chunk):
    return Entry(0.8, 0.8), GIVEN[:, :, chunk.frames.start : chunk.frames.stop, ::2, ::2]


CASES = {
    "histream": case(tiny.plan("histream", num_frames=14, **SIZE)),
    "histream-plus": case(tiny.plan("histream-plus", num_frames=14, **SIZE)),
    "first-frame": case(tiny.plan("histream", num_frames=12, given_frames=3, **SIZE), Inputs(GIVEN[:, :, :3])),
    "timeline": case(
        tiny.plan("histream", num_frames=14, **SIZE),
        prompts=[Prompt(tiny.text(3)), Prompt(tiny.text(4), 2), Prompt(tiny.text(5), 3, recache=True)],
    ),
    "restyled": case(tiny.plan("histream", num_frames=11, restyle=Restyle(0.8), **SIZE), Inputs(source=source)),
    "pooled": case(tiny.plan("histream", num_frames=14, levers=("pooled-low",), **SIZE)),
    "last-step": case(tiny.plan("histream", num_frames=14, levers=("last-step",), **SIZE)),
}


MOVED = {"num_frames": 12, "temporal": TemporalPolicy(span=6), **SIZE}
ANCHORS = {
    "walk": case(tiny.plan("naive", anchor_source=AnchorSource(walk=5), **MOVED)),
    "average": case(tiny.plan("naive", anchor_source=AnchorSource(share=0.7), **MOVED)),
    "jump": case(with_anchors(tiny.plan("naive", **MOVED), [], [], [6])),
}


def video(name, gang, kv, levels=None):
    """The latents of a case by a gang; by one process without one."""
    plan, inputs, prompts = (CASES | ANCHORS)[name]
    if gang is None:
        return tiny.video(plan, model=MODEL, kv=kv, prompts=prompts, given=inputs.given, source=inputs.source)
    gang.give_weights(MODEL, CONFIG, torch.float32, "tiny")
    caches = gang.prepare(plan, MODEL, CacheOptions(kv=kv), DEFAULTS, plan.levels if levels is None else levels)
    denoise = Denoiser(MODEL, forwards=dict.fromkeys(Scale, gang.forward))
    stream = Stream(plan, denoise, caches, SeededNoise(1), prompts, channels=4, inputs=inputs)
    return torch.cat(list(stream.chunks()), dim=2)


@pytest.mark.parametrize(("name", "size", "kv"), crossed(CASES, SIZES, ["full", "lean", "cpu", "fp8"]))
def test_the_same_latents(name, size, kv):
    """Seen to fail when a rank takes the heads of another, and when tokens are dealt one by one."""
    with gang_of(size) as gang:
        assert torch.equal(video(name, gang, kv), video(name, None, kv))


def test_anchors_and_times_that_move_do_so_on_every_rank():
    """Seen to fail where the others have caches of a plan without them."""
    with gang_of(2) as gang:
        for name in ANCHORS:
            assert torch.equal(video(name, gang, "full", [Scale.HIGH]), video(name, None, "full"))
            gang.close()


def test_a_gang_makes_another_run_with_the_same_weights_and_high_alone():
    """Seen to fail when a second run finds the first one's texts or frames."""
    with gang_of(3) as gang:
        for name in ("timeline", "histream", "timeline"):
            assert torch.equal(video(name, gang, "full", [Scale.HIGH]), video(name, None, "full"))
            gang.close()


def test_what_a_rank_raises_is_told_and_not_the_loss_that_it_causes():
    plan, _, prompts = CASES["histream"]
    with pytest.raises(ValueError, match="before it had weights"), gang_of(2) as gang:
        caches = gang.prepare(plan, MODEL, CacheOptions(), DEFAULTS, plan.levels)
        denoise = Denoiser(MODEL, forwards=dict.fromkeys(Scale, gang.forward))
        list(Stream(plan, denoise, caches, SeededNoise(1), prompts, channels=4).chunks())


def test_a_rank_whose_process_has_ended_is_named_at_once(monkeypatch):
    """Seen to fail where the others are asked why for a second."""
    waited = []
    monkeypatch.setattr(time, "sleep", waited.append)

    def ended():
        raise EndedRankError("rank 2 has ended")

    with gang_of(3) as gang:
        monkeypatch.setattr(gang.peers[1], "check", ended)
        with pytest.raises(EndedRankError, match="rank 2"), gang._asking():
            raise LostRankError("the connection to another rank broke")
        assert gang.lost and not waited


@pytest.mark.parametrize(
    ("count", "ranks", "tile"), [(12, 5, 1), (40, 8, 1), (288, 8, 16), (72, 8, 16), (24480, 7, 16), (5, 3, 16)]
)
def test_all_is_dealt_and_a_rank_has_a_tile_or_nothing(count, ranks, tile):
    dealt = deal(count, ranks, tile)
    assert sum(dealt) == count and len(dealt) == ranks
    assert all(not part or part >= min(tile, count) for part in dealt)
    assert max(dealt) - min(dealt) < 2 * tile
    assert sum(part % tile > 0 for part in dealt) <= 1


def test_few_tokens_are_not_shared():
    """A matrix product of three rows rounds otherwise than one of 24."""
    share = HeadShare.of(SimpleNamespace(size=8), 24, 8)
    assert share.tokens == [24, 0, 0, 0, 0, 0, 0, 0] and share.heads == [1] * 8


def test_shares_fit_together():
    """Seen to fail when pieces are put together in another order."""
    x = torch.arange(2 * 100 * 5 * 4, dtype=torch.bfloat16).view(2, 100, 5, 4)
    with gang_of(1) as gang:
        share = HeadShare.of(gang.link, 100, 5)
        assert torch.equal(share.to_heads(x)[0], x) and torch.equal(share.to_tokens(x), x)
        assert torch.equal(share.whole(share.mine(x.flatten(2))), x.flatten(2))
        assert replace(share, tokens=[100]) == share
