"""The arithmetic of costs, held against what torch counts and allocates for the real thing at its true size."""

import json
from dataclasses import replace

import pytest
import torch
from real_sizes import hd
from slow import crossed, slow
from tiny import CONFIG, main_bytes, plan, stream, wan
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from histream_core.cost.cost import Cost, PassSize, meta_vae, num_params, pass_flops, prompt_flops
from histream_core.cost.fitting import decoders
from histream_core.lab.bench.census import Census
from histream_core.lab.bench.dry_run import random_model
from histream_core.network.cache.tiers import make_caches
from histream_core.network.cache.window import CacheOptions
from histream_core.network.forward import Denoiser, PassOptions, Text, forward_chunk
from histream_core.network.model import MAX_TOKENS, WAN_1_3B, WAN_14B
from histream_core.plan.entry import Restyle
from histream_core.plan.guidance import Guidance
from histream_core.plan.levers import LEVERS
from histream_core.plan.schedule import Scale
from histream_core.plan.storage import TIERS
from histream_core.stream.prompts import Prompt
from histream_core.stream.stream import Stream
from histream_core.vae import decode
from histream_core.vae.decode import StreamingDecoder
from histream_core.vae.decoders import open_decoder
from histream_core.vae.encode import StreamingEncoder, encoder_cache_bytes
from histream_core.vae.model import WanVAE
from histream_core.vae.taehv import TAEHV

SIZES = {"1.3b": WAN_1_3B, "14b": WAN_14B}


def meta_model(config, dtype=torch.bfloat16):
    return random_model(config, device="meta", dtype=dtype)


def meta_caches(config, a_plan, **settings):
    return make_caches(a_plan, config, CacheOptions(device="meta", **settings))


class MetaRun:
    """A plan's network calls on the meta device; every distinct one is computed once."""

    def __init__(self, config, a_plan, dtype=torch.bfloat16, kv="full"):
        self.model, self.plan, self.dtype = meta_model(config, dtype), a_plan, dtype
        self.caches = meta_caches(config, a_plan, dtype=dtype, kv=kv)
        self.counted = {}

    def text(self):
        return Text(torch.empty(1, MAX_TOKENS, self.model.text_dim, dtype=self.dtype, device="meta"))

    def step(self, chunk, step, text):
        cache = self.caches[step.scale]
        for frame in chunk.context:
            cache._frames[cache._page(frame)] = frame
        cache.begin(chunk.frames, chunk.context)
        shape = (1, self.model.in_dim, len(chunk.frames), *self.plan.grids[step.scale])
        latent = torch.empty(shape, dtype=self.dtype, device="meta")
        timestep = torch.empty(1, device="meta")
        with torch.inference_mode():
            forward_chunk(self.model, latent, timestep, text, cache, PassOptions(cache_pass=step.sigma == 0))

    def flops(self, a_plan=None):
        """The count of FlopCounterMode for a whole video: each distinct call once, times how often it is made."""
        a_plan, text = a_plan or self.plan, self.text()
        calls = [(chunk, step) for chunk in a_plan.chunks for step in (*chunk.steps, *chunk.cache_steps)]
        full = next(call for call in calls if call[1].sigma > 0)
        prompt = self._count(*full, text) - self._count(*full, text)  # the first call projects the prompt too
        for chunk, step in calls:
            key = step.scale, len(chunk.frames), len(chunk.context), step.sigma == 0
            if key not in self.counted:
                self.counted[key] = self._count(chunk, step, text)
        return prompt + sum(
            self.counted[step.scale, len(chunk.frames), len(chunk.context), step.sigma == 0] for chunk, step in calls
        )

    def _count(self, chunk, step, text):
        with FlopCounterMode(display=False) as counter:
            self.step(chunk, step, text)
        return counter.get_total_flops()


# Floating-point operations


@pytest.mark.slow
def test_a_hd_video_costs_what_torch_counts_for_the_real_forward():
    """At true size; two and three layers are counted, since all thirty are alike, and a depth of 40 further below."""
    two, three = (MetaRun(replace(WAN_1_3B, num_layers=layers), hd("histream")) for layers in (2, 3))
    for mode, most in (("histream", 73.5), ("histream-plus", 50.2)):
        cost = Cost(WAN_1_3B, hd(mode)).tflops_per_frame
        assert most - 1 <= cost <= most
        some, more = two.flops(hd(mode)), three.flops(hd(mode))
        counted = some + (WAN_1_3B.num_layers - 2) * (more - some)
        assert cost == pytest.approx(counted / 81 / 1e12, rel=1e-9)
    assert len(two.counted) == 8, "high and low, first and later, denoising and cache passes"


@pytest.mark.parametrize("settings", [
    {"mode": "history"}, slow({"mode": "full"}), slow({"mode": "naive"}), slow({"num_frames": 20}),
    slow({"preset": "longlive"}), {"first_frame": True, "given_frames": 1, "num_frames": 13},
    {"preset": "causal-forcing-1step", "num_frames": 5},
], ids=str)  # fmt: skip
def test_every_kind_of_plan_costs_what_torch_counts(settings):
    a_plan = hd(**({"mode": "histream", "width": 256, "height": 128, "num_frames": 9} | settings))
    assert Cost(CONFIG, a_plan).flops == MetaRun(CONFIG, a_plan).flops()


@pytest.mark.slow
def test_a_14b_pass_costs_what_torch_counts():
    run = MetaRun(WAN_14B, hd("histream"))
    chunk, text = run.plan.chunks[1], run.text()
    tokens = 3 * run.plan.tokens_per_frame(Scale.HIGH)
    counted = run._count(chunk, chunk.steps[-1], text)
    assert pass_flops(WAN_14B, PassSize(3, tokens, 2 * tokens)) + prompt_flops(WAN_14B) == counted
    assert 1570e12 < counted < 1590e12


def test_batch_and_prompts_multiply_what_they_should():
    one = Cost(WAN_1_3B, hd("histream"))
    assert replace(one, batch=2).flops == 2 * one.flops
    assert replace(one, num_prompts=3).flops - one.flops == 2 * prompt_flops(WAN_1_3B)


def test_every_mechanism_saves_what_it_promises():
    """Dual-resolution caching at least 1.45 times, the window at least 1.75 times, fast steps to about 0.68.

    Bars a little below the published 0.70 and 1.85: leaving out the last chunk's cache passes and the last layer of
    the others is exact, and saves most where there are few steps or a long history.
    """
    cost = {
        mode: Cost(WAN_1_3B, hd(mode)).tflops_per_frame for mode in ("histream", "histream-plus", "full", "history")
    }
    assert 0.67 <= cost["histream-plus"] / cost["histream"] <= 0.70
    assert cost["full"] / cost["histream"] >= 1.45
    assert cost["history"] / cost["histream"] >= 1.75


def test_every_later_chunk_costs_the_same_however_long_the_video():
    a_plan = hd("histream-plus", num_frames=180)
    assert len({tuple(passes.items()) for passes in Cost(WAN_1_3B, a_plan).passes[1:-1]}) == 1
    cost = [Cost(WAN_1_3B, hd("histream-plus", num_frames=3 * chunks)).flops for chunks in (20, 21, 59, 60)]
    assert cost[1] - cost[0] == cost[3] - cost[2]


@pytest.mark.parametrize(("mode", "levers"), [
    slow("histream-plus", ["last-step"]), ("histream-plus", ["clean-anchor", "survivors", "pooled-low"]),
    slow("histream-plus", ["survivors", "sparse"]), slow("history", ["clean-anchor", "survivors"]),
], ids=str)  # fmt: skip
def test_levers_cost_what_torch_counts_for_a_whole_run(mode, levers):
    """Seen to fail with whole chunks counted where survivors alone are computed."""
    a_plan = hd(mode, width=256, height=128, num_frames=13, levers=levers)
    run = MetaRun(CONFIG, a_plan)
    denoise = Denoiser(run.model, dtype=run.dtype)

    def noise(chunk, step, shape):
        return torch.empty(shape, device="meta")

    stream = Stream(a_plan, denoise, run.caches, noise, [Prompt(run.text())], channels=CONFIG.in_dim)
    with FlopCounterMode(display=False) as counter:
        list(stream.chunks())
    assert Cost(CONFIG, a_plan).flops == counter.get_total_flops()


def test_every_lever_saves_what_it_promises():
    """Shares of the operations of 81 frames at true size, as docs/performance.md has them."""
    cost = {
        levers: Cost(WAN_1_3B, hd("histream-plus", levers=levers)).flops for levers in ((), *((x,) for x in LEVERS))
    }
    saved = {name: round(100 * (1 - cost[name,] / cost[()]), 1) for name in LEVERS}
    assert saved == {"clean-anchor": 34.5, "last-step": 38.7, "survivors": 15.9, "pooled-low": 4.2, "sparse": 30.0}


# Passes


def high_low(mode):
    return [(passes[Scale.HIGH], passes[Scale.LOW]) for passes in Cost(WAN_1_3B, hd(mode)).passes]


def test_passes_per_chunk_are_those_of_the_paper_and_the_last_chunk_is_not_cached():
    assert high_low("histream") == [(3, 3)] * 6 + [(2, 2)]
    assert high_low("histream-plus") == [(3, 3)] + [(2, 2)] * 5 + [(1, 1)]
    assert high_low("naive") == [(2, 2)] * 6 + [(1, 1)]
    assert high_low("full") == [(5, 0)] * 6 + [(4, 0)]


@pytest.mark.parametrize("mode", ["histream", "histream-plus", "full", "history", "naive", "sd"])
def test_the_passes_of_a_real_run_are_the_ones_counted(mode):
    a_plan, model, calls = plan(mode, num_frames=12), wan(), []
    run = stream(a_plan, model=model)
    denoise = run.denoise
    run.denoise = lambda latent, step, cache, text: calls.append(step.scale) or denoise(latent, step, cache, text)
    list(run.chunks())
    passes = Cost(CONFIG, a_plan).passes
    assert {scale: calls.count(scale) for scale in Scale} == {
        scale: sum(chunk[scale] for chunk in passes) for scale in Scale
    }


# Bytes


@pytest.mark.parametrize("kv", TIERS)
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("settings", [
    {}, {"num_frames": 60}, {"mode": "history"}, {"mode": "full"}, {"preset": "longlive"}, {"num_frames": 1},
    {"preset": "causal-forcing-framewise"}, {"width": 832, "height": 480}, {"preset": "causvid", "num_frames": 60},
    {"guidance": Guidance(cfg=5)}, {"guidance": Guidance(nag=5)},
], ids=str)  # fmt: skip
def test_key_value_bytes_are_what_the_caches_say(kv, size, settings):
    """Seen to fail with the scratch of lean left out, and with its un-rotated anchor left out."""
    a_plan = hd(**({"mode": "histream"} | settings))
    for dtype, batch in ((torch.bfloat16, 1), (torch.float32, 2)):
        caches = meta_caches(SIZES[size], a_plan, dtype=dtype, batch=batch, kv=kv)
        cost = Cost(SIZES[size], a_plan, dtype=dtype, batch=batch, kv=kv)
        assert cost.kv_bytes == sum(cache.nbytes for cache in caches.values())
        assert cost.kv_main_bytes == sum(main_bytes(cache) for cache in caches.values())


def test_key_value_bytes_do_not_grow_with_length_but_for_the_anchor_that_moves():
    """6 frames at both resolutions, 184,320 bytes a token; past the trained span one frame of keys more."""
    frame = (8160 + 2040) * 184_320
    for num_frames, frames in ((6, 6), (21, 6), (22, 6.5), (2000, 6.5)):
        assert Cost(WAN_1_3B, hd("histream", num_frames=num_frames)).kv_bytes == frames * frame
    lengths = [Cost(WAN_1_3B, hd("history", num_frames=n)).kv_bytes for n in (21, 42)]
    assert lengths[1] == 2 * lengths[0]


@pytest.mark.parametrize("config", [CONFIG, WAN_1_3B, WAN_14B], ids=["tiny", *SIZES])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_weight_bytes_are_those_of_a_loaded_model(config, dtype):
    model = meta_model(config, dtype)
    assert num_params(config) == sum(x.numel() for x in model.parameters())
    bytes_held = sum(x.numel() * x.element_size() for x in model.parameters())
    assert Cost(config, plan(), dtype=dtype).weight_bytes == bytes_held


class Live(TorchDispatchMode):
    """Counts the bytes of every tensor that is alive, and remembers the most."""

    def __init__(self):
        super().__init__()
        self.storages, self.peak = {}, 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        inputs = {x.untyped_storage()._cdata for x in tree_leaves((args, kwargs)) if isinstance(x, torch.Tensor)}
        for x in tree_leaves(result):
            if isinstance(x, torch.Tensor) and x.untyped_storage()._cdata not in inputs:
                storage = x.untyped_storage()
                self.storages[storage._cdata] = StorageWeakRef(storage), storage.nbytes()
        self.storages = {key: held for key, held in self.storages.items() if not held[0].expired()}
        self.peak = max(self.peak, self.now)
        return result

    @property
    def now(self):
        return sum(size for _, size in self.storages.values())


@pytest.mark.parametrize("kv", TIERS)
@pytest.mark.parametrize("num_frames", [21, 60])
def test_key_value_bytes_are_alive_when_the_caches_are_made(kv, num_frames):
    """And nothing else but the rotations of a grid. Main memory is counted with them: meta stands for both."""
    a_plan = hd("histream", num_frames=num_frames)
    with Live() as live:
        caches = meta_caches(CONFIG, a_plan, dtype=torch.bfloat16, kv=kv)
    rotations = sum(cache.rope._space.untyped_storage().nbytes() for cache in caches.values())
    cost = Cost(CONFIG, a_plan, kv=kv)
    assert live.now - rotations == cost.kv_bytes + cost.kv_main_bytes


@pytest.mark.parametrize(("size", "kv"), crossed([
    ("1.3b", {}), ("14b", {}), ("1.3b", {"width": 832, "height": 480}), ("1.3b", {"preset": "longlive"}),
    ("1.3b", {"preset": "self-forcing", "mode": "history"}),
], TIERS), ids=str)  # fmt: skip
def test_working_memory_of_a_pass_is_what_is_alive_at_its_peak(size, kv):
    size, settings = size
    config = replace(SIZES[size], num_layers=2)
    run = MetaRun(config, hd(**({"mode": "histream"} | settings)), kv=kv)
    with Live() as live:
        text = run.text()
        run.step(run.plan.chunks[-1], run.plan.chunks[-1].steps[-1], text)
    cost = Cost(config, run.plan, kv=kv)
    assert live.now >= cost.text_bytes * 0.99, "the prompt's keys stay"
    assert live.peak - cost.text_bytes == pytest.approx(cost.working_bytes, rel=0.06)


@pytest.mark.parametrize(("width", "height", "dim"), [slow(1920, 1088, 96), (256, 256, 32), (832, 480, 24)])
def test_working_memory_of_the_vae_is_what_is_alive_at_its_peak(width, height, dim, monkeypatch):
    """In the narrow one attention needs most. Seen to fail with its scores not counted."""
    monkeypatch.setattr(decode, "is_finite", lambda x: True)
    with torch.device("meta"):
        vae = WanVAE(dim=dim).to(torch.bfloat16)
    decoder = StreamingDecoder(vae, rollback=False)
    with Live() as live:
        for _ in range(2):
            decoder.decode(torch.empty(1, 16, 3, height // 8, width // 8, device="meta"))
    cost = Cost(WAN_1_3B, hd("histream", width=width, height=height), vae_width=dim)
    assert decoder.cache_bytes == cost.vae_cache_bytes
    assert live.peak - cost.vae_cache_bytes == pytest.approx(cost.vae_working_bytes, rel=0.15)
    assert cost.vae_weight_bytes == sum(x.numel() * 2 for x in vae.parameters())


@pytest.mark.parametrize(("width", "height", "dim"), [slow(1920, 1088, 96), (256, 256, 32)])
def test_working_memory_of_the_encoder_is_what_is_alive_at_its_peak(width, height, dim, monkeypatch):
    """One scale; the pixels are counted at the size of the video."""
    monkeypatch.setattr(torch, "isfinite", lambda x: torch.ones(1))
    with torch.device("meta"):
        vae = WanVAE(dim=dim)
    encoder = StreamingEncoder(vae)
    with Live() as live:
        for _ in range(3):
            encoder.encode(torch.empty(1, 3, 12, height, width, device="meta"))
    plan = replace(hd("full", width=width, height=height), restyle=Restyle(0.8))
    cost = Cost(WAN_1_3B, plan, vae_width=dim, vae_dtype=torch.float32)
    assert encoder.cache_bytes == cost.encoder_bytes
    assert live.peak - cost.encoder_bytes == pytest.approx(cost.encoder_working_bytes, rel=0.15)


def test_a_restyled_run_needs_the_memory_of_its_encoder_too():
    """In float32, at each scale that chunks begin at, beside the decoder; and no TAEHV can be in its place."""
    free = Cost(WAN_1_3B, hd("histream", preset="histream"))
    cost = replace(free, plan=replace(free.plan, restyle=Restyle(0.8)))
    assert (free.encoder_bytes, free.encoder_working_bytes) == (0, 0)
    params = sum(x.numel() for x in meta_vae(96).parameters())
    low, high = ([side * 8 for side in cost.plan.grids[scale]] for scale in (Scale.LOW, Scale.HIGH))
    scales = cost.plan.restyle.scales(cost.plan.schedule)
    sizes = [low if scale is Scale.LOW else high for scale in scales]
    histories = sum(encoder_cache_bytes(meta_vae(96), *size) for size in sizes)
    assert cost.encoder_bytes == 4 * params + histories
    working = max(cost.working_bytes, cost.vae_working_bytes, cost.encoder_working_bytes)
    before = max(free.working_bytes, free.vae_working_bytes)
    assert cost.peak_bytes - free.peak_bytes == cost.encoder_bytes + working - before
    assert cost.sampling_bytes > free.sampling_bytes + cost.encoder_bytes
    assert "taehv" in decoders(free) and "taehv" not in decoders(cost)


def test_working_memory_of_a_taehv_is_what_is_alive_at_its_peak(monkeypatch):
    monkeypatch.setattr(decode, "is_finite", lambda x: True)
    with torch.device("meta"):
        vae = TAEHV().to(torch.bfloat16)
    decoder = open_decoder(vae)
    with Live() as live:
        for _ in range(2):
            decoder.decode(torch.empty(1, 16, 3, 136, 240, device="meta"))
    cost = Cost(WAN_1_3B, hd("histream"), taehv=True)
    assert decoder.cache_bytes == cost.vae_cache_bytes
    assert live.peak - cost.vae_cache_bytes == pytest.approx(cost.vae_working_bytes, rel=0.05)
    assert cost.vae_weight_bytes == sum(x.numel() * 2 for x in vae.parameters())


@pytest.mark.slow
def test_working_memory_of_strips_is_what_is_alive_at_its_peak(monkeypatch):
    """Main memory is counted with it: meta stands for both."""
    monkeypatch.setattr(decode, "is_finite", lambda x: True)
    monkeypatch.setattr(StreamingDecoder, "park", lambda self: None)
    with torch.device("meta"):
        vae = WanVAE().to(torch.bfloat16)
    decoder = open_decoder(vae, strips=3)
    with Live() as live:
        for _ in range(2):
            decoder.decode(torch.empty(1, 16, 3, 136, 240, device="meta"))
    cost = Cost(WAN_1_3B, hd("histream"), vae_strips=3)
    assert decoder.cache_bytes == cost.vae_main_bytes > 2.5 * cost.vae_cache_bytes
    assert live.peak - cost.vae_main_bytes == pytest.approx(cost.vae_working_bytes, rel=0.15)


def test_the_peak_is_the_sum_of_what_is_held_together():
    cost = Cost(WAN_1_3B, hd("histream"))
    held = cost.weight_bytes + cost.kv_bytes + cost.text_bytes + cost.vae_weight_bytes + cost.vae_cache_bytes
    assert cost.peak_bytes == held + max(cost.working_bytes, cost.vae_working_bytes)
    assert cost.peak_bytes < cost.sampling_bytes + cost.decoding_bytes
    assert 9.8e9 < cost.vae_cache_bytes < 9.9e9 and 2.83e9 < cost.weight_bytes < 2.85e9


def test_the_summary_is_plain_values():
    found = Cost(WAN_1_3B, hd("histream")).summary()
    assert json.loads(json.dumps(found)) == found
    assert found["passes"][0] == {"low": 3, "high": 3} and found["chunks"] == 7 and found["frames"] == 81
    assert all(isinstance(value, int) for key, value in found.items() if key.endswith("_bytes"))


@torch.no_grad()
@pytest.mark.parametrize("width", [16, 96])
def test_the_operations_of_the_vae_are_those_that_are_counted(width):
    """For each frame that is decoded, and of a restyled video encoded; its attention is left out.

    On the meta device: torch's counter does not see the convolutions that a CPU computes by oneDNN.
    """
    vae, counted = meta_vae(width).requires_grad_(False), Census()
    decoder, encoder = StreamingDecoder(vae, normalised=False), StreamingEncoder(vae, normalised=False)
    latents, frames = torch.zeros(1, 16, 1, 8, 8, device="meta"), torch.zeros(1, 3, 4, 64, 64, device="meta")
    with counted():
        decoder.decode(latents), decoder.decode(latents), encoder.encode(frames[:, :, :1])
        counted.take()
        decoder.decode(latents)
        decoding = counted.take().flops
        encoder.encode(frames)
        encoding = counted.take().flops
    cost = Cost(CONFIG, plan("full"), vae_width=width)
    assert cost.frame_flops == cost.decode_flops == pytest.approx(decoding / 4, rel=0.03)
    restyled = replace(cost, plan=plan("full", restyle=Restyle(0.8)))
    assert restyled.encode_flops == pytest.approx(encoding / 4, rel=0.03)
    assert restyled.frame_flops == restyled.decode_flops + restyled.encode_flops


@torch.no_grad()
def test_the_operations_of_a_taehv_are_those_that_are_counted():
    decoder = open_decoder(TAEHV().requires_grad_(False).eval(), normalised=False)
    latents = torch.zeros(1, 16, 1, 8, 8)
    decoder.decode(latents), decoder.decode(latents)
    with FlopCounterMode(display=False) as counter:
        decoder.decode(latents)
    assert Cost(CONFIG, plan("full"), taehv=True).frame_flops == counter.get_total_flops() / 4
