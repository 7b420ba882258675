"""The VAE on the ends of a pipeline: the first rank encodes, the last one decodes, and the bits are those of one."""

import threading
from contextlib import contextmanager
from dataclasses import replace

import pytest
import tiny
import torch
from slow import few
from tiny_ranks import CPU, gang_of
from tiny_vae import make_taehv, make_vae

from histream_core.network.model import WanConfig
from histream_core.parallel import engine, gang, pipeline, rank_vae
from histream_core.parallel.last_rank import LastRankDecoder
from histream_core.plan.anchoring import AnchorSource
from histream_core.plan.chunks import with_anchors
from histream_core.plan.entry import Restyle
from histream_core.plan.histories import EACH_STEP
from histream_core.plan.order import DIAGONAL
from histream_core.plan.presets import find_preset
from histream_core.plan.sharing import PIPELINE, Sharing
from histream_core.plan.speed import DEFAULTS
from histream_core.runs.render import Order, stream_frames
from histream_core.runs.restyle import EncodedSource
from histream_core.runs.weights import Weights
from histream_core.stream.noise import SeededNoise
from histream_core.stream.prompts import Prompt
from histream_core.vae.decode import StreamingDecoder, begin_scene
from histream_core.vae.decoders import open_decoder

CONFIG = WanConfig(dim=48, ffn_dim=64, num_heads=2, num_layers=8, text_dim=16, freq_dim=16)
MODEL = tiny.wan(CONFIG)
SIZE = {"width": 64, "height": 32}
VAES = {"wan": make_vae, "taehv": make_taehv, "taehv-raw": lambda: make_taehv(raw_latents=True)}
LATENTS = torch.randn(1, 16, 9, 4, 8, generator=torch.Generator().manual_seed(3))


def plan_of(num_frames=14, **options):
    return tiny.plan("full", num_frames=num_frames, histories=EACH_STEP, order=DIAGONAL, **SIZE, **options)


def weights_of(vae="wan", ranks=1):
    speed = replace(DEFAULTS, decode="ahead")
    sharing = Sharing(PIPELINE, ranks) if ranks > 1 else engine.ALONE
    return Weights(MODEL, VAES[vae](), find_preset("histream"), CPU, torch.float32, speed=speed, sharing=sharing)


@contextmanager
def ranks_of(size, monkeypatch):
    """A gang that a run on `size` devices finds."""
    with gang_of(size) as found:
        monkeypatch.setattr(engine, "hold_gang", lambda *_: found)
        yield found


def model_clock(monkeypatch, costs):
    """Let the clock of each rank count so many seconds for each layer of a row, chunk encoded and chunk decoded."""
    spent = threading.local()

    def costing(method, seconds):
        def call(*args, **options):
            spent.seconds = getattr(spent, "seconds", 0.0) + seconds(*args)
            return method(*args, **options)

        return call

    for module in (gang, pipeline, rank_vae):
        monkeypatch.setattr(module, "clock", lambda *_: getattr(spent, "seconds", 0.0))
    layers = costing(pipeline.run_layers, lambda *args: costs["layer"] * len(args[5].layers))
    monkeypatch.setattr(pipeline, "run_layers", layers)
    for kind, method, cost in ((StreamingDecoder, "decode", "decode"), (EncodedSource, "__call__", "encode")):
        monkeypatch.setattr(kind, method, costing(getattr(kind, method), lambda *_, cost=cost: costs[cost]))


def order_of(plan, weights):
    draw = torch.Generator().manual_seed(5)
    pictures = (torch.rand(SIZE["height"], SIZE["width"], 3, generator=draw) for _ in range(plan.num_pixel_frames))
    source = weights.open_source(pictures, plan) if plan.restyle else None
    return Order(plan, (Prompt(tiny.text(3)),), SeededNoise(1), source=source)


def video(plan, weights):
    """The frames of a video [F, H, W, 3]."""
    return torch.cat(list(stream_frames(weights, order_of(plan, weights))))


@pytest.mark.parametrize("restyle", [None, Restyle(0.8)], ids=["made", "restyled"])
@pytest.mark.parametrize("ranks", few([3, 2, 5, 8], 1))
def test_the_same_frames(ranks, restyle, monkeypatch):
    """Seen to fail when the last rank decodes each chunk as the first of a stream."""
    plan = plan_of(restyle=restyle)
    with ranks_of(ranks, monkeypatch):
        assert torch.equal(video(plan, weights_of(ranks=ranks)), video(plan, weights_of()))


def made_while_layers_move(plan, monkeypatch):
    """The frames of three ranks whose layers move behind every chunk."""
    made = []
    with ranks_of(3, monkeypatch) as found:
        for index, frames in enumerate(stream_frames(weights_of(ranks=3), order_of(plan, weights_of()))):
            made.append(frames)
            found.move([(0, 1, 6, 8), (0, 5, 6, 8), (0, 2, 4, 8)][index % 3])
    return torch.cat(made)


def test_what_the_decoder_remembers_stays_where_layers_move(monkeypatch):
    plan = plan_of(23)
    alone = video(plan, weights_of())
    assert torch.equal(made_while_layers_move(plan, monkeypatch), alone)


def test_a_jump_in_time_is_the_same_where_layers_move(monkeypatch):
    """The next chunk turns the keys of its frames back. An anchor that walks or is an average has no pipeline."""
    plan = with_anchors(plan_of(), [6], [], [6])
    alone = video(plan, weights_of())
    assert torch.equal(made_while_layers_move(plan, monkeypatch), alone)
    assert not torch.equal(alone, video(plan_of(), weights_of()))
    for source in (AnchorSource(walk=5), AnchorSource(share=0.5)):
        with pytest.raises(ValueError, match="needs one chunk after the other: take the order chunks"):
            plan_of(anchor_source=source)


@pytest.mark.parametrize("vae", VAES)
def test_a_decoder_of_the_last_rank_is_a_decoder(vae):
    """In pieces, entered in the middle, after a cut, and for a second stream; the weights are sent once."""
    with gang_of(3) as found:
        told, tell = [], found.tell_last
        found.tell_last = lambda verb, **values: told.append(verb) or tell(verb, **values)
        for _ in range(2):
            here = open_decoder(VAES[vae](), normalised=True)
            there = LastRankDecoder(found, VAES[vae](), {"normalised": True}, key=vae)
            assert there.memory_frames == here.memory_frames
            for piece in LATENTS.split([1, 3, 2, 3], dim=2):
                assert torch.equal(there.decode(piece), here.decode(piece))
            for decoder in (here, there):
                begin_scene(decoder, LATENTS[:, :, 4:])
            assert torch.equal(there.decode(LATENTS[:, :, 4:]), here.decode(LATENTS[:, :, 4:]))
            for decoder in (here, there):
                decoder.warm_up(LATENTS[:, :, 2:6], start=2)
            assert torch.equal(there.decode(LATENTS[:, :, 6:]), here.decode(LATENTS[:, :, 6:]))
            found.close()
    assert told.count("load_vae") == 1


def test_pixels_are_asked_for_before_they_are_waited_for():
    with gang_of(2) as found:
        there = LastRankDecoder(found, make_vae(), {})
        here = open_decoder(make_vae())
        later = [there.decode_later(piece) for piece in LATENTS.split(3, dim=2)]
        for wait, piece in zip(later, LATENTS.split(3, dim=2), strict=True):
            assert torch.equal(wait(), here.decode(piece))


def test_what_the_last_rank_refuses_is_told():
    with pytest.raises(ValueError, match="NaN or infinity"), gang_of(2) as found:
        LastRankDecoder(found, make_vae(), {}).decode(LATENTS * float("nan"))


def test_layers_leave_the_ranks_that_encode_and_decode(monkeypatch):
    """By a clock that counts what was computed: a layer takes 1 second, encoding a chunk 4 and decoding it 12.

    Four layers for each of the two ranks first, then those that leave the last one the least. Seen to fail where the
    seconds of the VAE are counted nowhere, and where they are counted as those of layers.
    """
    costs = {"layer": 1.0, "encode": 4.0, "decode": 12.0}
    model_clock(monkeypatch, costs)
    plan = plan_of(32, restyle=Restyle(0.8))
    steps = len(plan.chunks[0].steps)
    with ranks_of(2, monkeypatch) as found:
        seen = []
        for _ in stream_frames(weights_of(ranks=2), order_of(plan, weights_of())):
            seen.append(found._ring.bounds[1])
    best = min(range(1, 8), key=lambda first: max(4.0 + steps * first, 12.0 + steps * (8 - first)))
    assert seen[0] == 4 and seen[-1] == best != 4


def test_nobody_waits_for_reports(monkeypatch):
    """Those of a chunk are collected LATE chunks later. Seen to fail where they are waited for at once."""
    events = []
    expect = gang.Ring.expect_reports

    def watched(ring, number):
        events.append(("asked", number))
        arrived = expect(ring, number)
        return lambda: events.append(("read", number)) or arrived()

    monkeypatch.setattr(gang.Ring, "expect_reports", watched)
    with ranks_of(3, monkeypatch):
        video(plan_of(20), weights_of(ranks=3))
    read = [number for event, number in events if event == "read"]
    assert len(read) > 2
    assert all(events.index(("asked", number + gang.LATE)) < events.index(("read", number)) for number in read)
