"""`histream bench --meta`: counts of what the real forward asks for at 1920x1088, on any machine.

Nothing is timed and tensors have no values: every figure is a count, equal on every machine. The transformer is counted
with one layer and with two; since all layers are equal, the counts of thirty layers follow.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from unittest import mock

import torch

from ...cost.cost import GB, Cost, meta_taehv, meta_vae
from ...network import transfer
from ...network.cache.tiers import make_caches
from ...network.cache.window import CacheOptions, CacheWindow
from ...network.compile.layers import CompiledBlocks
from ...network.forward import Denoiser, Text
from ...network.layer import RunBlock
from ...network.model import WAN_1_3B, ModelSizes, WanConfig
from ...network.ops.rope import Rope
from ...plan.chunks import Plan
from ...plan.make import PlanOptions, make_plan
from ...plan.positions import TemporalPolicy
from ...plan.presets import find_preset
from ...plan.schedule import Scale
from ...plan.window import Window
from ...stream.noise import SeededNoise
from ...stream.prompts import Prompt
from ...stream.stream import Stream
from ...vae.decode import StreamingDecoder, vae_cache_bytes
from ...vae.decoders import decoder_cache_bytes, open_decoder
from .bars import Bar
from .census import Census
from .dry_run import Run, dry_run, no_fallback, random_model
from .naive import (
    ConcatenatingCache,
    ForgetfulText,
    NumberedLayers,
    WaitingDenoiser,
    decode_at_once,
    numbered_block,
    unfused_block,
)

SIZE = {"width": 1920, "height": 1088}
LATENT_FRAMES = 21
"""Latent frames of 81 pixel frames, the length that the paper measures."""

KERNELS_PER_LAYER = 57
"""Kernels that a layer launches at HIGH in a later chunk, as torch 2.13 dispatches it; may only fall."""

LEVER_TFLOPS = {"clean-anchor": 32.4, "last-step": 30.3, "survivors": 41.6, "pooled-low": 47.3, "sparse": 34.6}
"""TFLOP that a frame of histream-plus may cost with each lever."""

LONG = 60
"""Chunks of the long runs: 45 seconds of video."""

SMALL = WanConfig(dim=48, ffn_dim=64, num_heads=2, num_layers=2, in_dim=4, out_dim=4, text_dim=16, freq_dim=16)


def meta_bars() -> Iterator[Bar]:
    """Every bar that is a count."""
    yield from operations()
    yield from savings()
    yield from passes()
    yield from levers()
    yield from long_run()
    yield from caches()
    yield from prompt_and_waits()
    yield from layer()
    yield from decoding()
    yield from small_decoding()
    yield from graphs()


def hd(mode: str, num_frames: int = LATENT_FRAMES, **settings) -> Plan:
    """A plan at true size under the preset of HiStream's own weights."""
    return make_plan(
        find_preset("histream"),
        mode,
        size=(SIZE["width"], SIZE["height"]),
        num_latent_frames=num_frames,
        options=PlanOptions(**settings),
    )


@cache
def counted(
    mode: str,
    *,
    layers: int = 2,
    num_frames: int = LATENT_FRAMES,
    low_scale: float = 0.5,
    levers: tuple[str, ...] = (),
) -> Run:
    """The counts of a run of a transformer with so few layers."""
    return dry_run(replace(WAN_1_3B, num_layers=layers), hd(mode, num_frames, low_scale=low_scale, levers=levers))


def deep(one: float, two: float) -> float:
    """A count for thirty layers, from those for one layer and for two."""
    return one + (WAN_1_3B.num_layers - 1) * (two - one)


def tflops(mode: str, **settings) -> float:
    """Counted TFLOP per pixel frame of the real 1.3B forward."""
    return deep(*(counted(mode, layers=layers, **settings).tflops_per_frame for layers in (1, 2)))


def published_tflops(mode: str) -> float:
    """Counted TFLOP per pixel frame under the published schedule: whole cache passes, also after the last chunk."""
    return deep(*(_published(counted(mode, layers=layers)) for layers in (1, 2)))


def _published(run: Run) -> float:
    """TFLOP per frame where a cache pass costs what a denoising call of its chunk and scale costs."""
    whole = {(call.chunk, call.step.scale): call.counts.flops for call in run.calls if not call.is_cache_pass}
    steps = sum(call.counts.flops for call in run.calls if not call.is_cache_pass)
    return (steps + sum(whole.values())) / run.plan.num_pixel_frames / 1e12


def wan_tflops() -> float:
    """TFLOP per pixel frame of plain Wan2.1: all frames at once, 50 steps, each with and without the prompt."""
    plan = hd("full", window=Window(chunk_frames=LATENT_FRAMES))
    one, two = (dry_run(replace(WAN_1_3B, num_layers=layers), plan).calls[-1].counts.flops for layers in (1, 2))
    return 2 * 50 * deep(one, two) / plan.num_pixel_frames / 1e12


def operations() -> Iterator[Bar]:
    """Bar 1: operations per frame, and how many fewer than Wan2.1's."""
    wan = wan_tflops()
    for mode, most, fewer in (("histream", 72.6, 99.5), ("histream-plus", 49.4, 146.0)):
        ours, published = tflops(mode), published_tflops(mode)
        yield Bar(f"TFLOP per frame, {mode}", ours, most, "published schedule, whole cache passes", published)
        yield Bar(
            f"times fewer operations than Wan2.1 with 50 steps, {mode}",
            wan / ours, fewer, "published schedule, whole cache passes", wan / published, at_least=True,
        )  # fmt: skip


def savings() -> Iterator[Bar]:
    """Bar 2: operations that each mechanism saves."""
    histream = tflops("histream")
    yield Bar("operations, histream-plus / histream", tflops("histream-plus") / histream, 0.70, "all steps", 1.0)
    full = tflops("full")
    yield Bar(
        "operations without dual-resolution caching / with",
        full / histream, 1.45, "LOW at full size", full / tflops("histream", low_scale=1.0), at_least=True,
    )  # fmt: skip
    yield Bar(
        "operations without a window / with",
        tflops("history") / histream, 1.75, "a window as long as the video", 1.0, at_least=True,
    )  # fmt: skip


def passes() -> Iterator[Bar]:
    """Bar 3: network calls of every chunk."""
    for mode, first, later, last in (
        ("histream", (3, 3), (3, 3), (2, 2)),
        ("histream-plus", (3, 3), (2, 2), (1, 1)),
    ):
        chunks = counted(mode).per_chunk(lambda call: call.step.scale)
        found = [(chunk.count(Scale.HIGH), chunk.count(Scale.LOW)) for chunk in chunks]
        wanted = [first, *[later] * (len(chunks) - 2), last]
        cached = [*found[:-1], tuple(calls + 1 for calls in found[-1])]
        yield Bar(
            f"network calls that the schedule does not need, {mode}",
            _too_many(found, wanted), 0, "the last chunk is cached too", _too_many(cached, wanted),
        )  # fmt: skip


def levers() -> Iterator[Bar]:
    """Operations that are left with each lever; no lever is on by default."""
    exact = tflops("histream-plus")
    for lever, most in LEVER_TFLOPS.items():
        found = tflops("histream-plus", levers=(lever,))
        yield Bar(f"TFLOP per frame, histream-plus with {lever}", found, most, "no lever", exact)


def _too_many(found: list[tuple[int, int]], wanted: list[tuple[int, int]]) -> int:
    return sum(abs(f - w) for a, b in zip(found, wanted, strict=True) for f, w in zip(a, b, strict=True))


def long_run() -> Iterator[Bar]:
    """Bars 4 and 6: every later chunk takes the same operations, and the caches never grow."""
    run, history = (counted(mode, layers=1, num_frames=n) for mode, n in (("histream-plus", 3 * LONG), ("history", 30)))

    def kinds(a_run: Run) -> int:
        chunks = a_run.per_chunk(lambda call: (call.step.scale, call.is_cache_pass, call.counts))
        return len(set(chunks[2:-1]))

    yield Bar(
        f"kinds of chunk from the third of {LONG} on, by operations, kernels and shapes",
        kinds(run), 1, "full history, ten chunks", kinds(history),
    )  # fmt: skip
    yield Bar(
        f"bytes of the caches / those of 6.5 frames at two sizes, {LONG} chunks",
        max(run.kv_bytes) / _window_bytes(layers=1), 1.0,
        "full history", Cost(WAN_1_3B, hd("history", 3 * LONG)).kv_bytes / _window_bytes(WAN_1_3B.num_layers),
    )  # fmt: skip


def _window_bytes(layers: int) -> int:
    """Six frames of keys and values in bfloat16 at 8160 and 2040 tokens, and the anchor's un-rotated keys."""
    return int(6.5 * (8160 + 2040) * 2 * 2 * WAN_1_3B.dim * layers)


def caches() -> Iterator[Bar]:
    """Bar 7: bytes that a pass moves to update its caches, in units of its own new keys and values."""
    run = counted("histream-plus", layers=1, num_frames=3 * LONG)
    later = [call for call in run.calls if call.chunk > 0]
    new = {scale: 3 * run.plan.tokens_per_frame(scale) * 2 * 2 * WAN_1_3B.dim for scale in Scale}
    yield Bar(
        "bytes moved in the caches / new keys and values, any pass of a later chunk",
        max(call.counts.moved / new[call.step.scale] for call in later), 1.0,
        "keys concatenated in every pass", _concatenated(run.plan) / new[Scale.HIGH],
    )  # fmt: skip


def _concatenated(plan: Plan) -> int:
    """Bytes that a layer at HIGH moves where the window is concatenated."""
    height, width = plan.grids[Scale.HIGH]
    cache = ConcatenatingCache(
        Rope(128, (height // 2, width // 2), device="meta"),
        ModelSizes(num_layers=1, num_heads=12, head_dim=128),
        CacheWindow(TemporalPolicy(), anchor_frames=1, ring_frames=5, local_frames=2),
        CacheOptions(device="meta", dtype=torch.bfloat16),
    )
    census, tokens = Census(), plan.tokens_per_frame(Scale.HIGH)
    census.watch(cache.k, cache.v)
    k = torch.empty(1, 3 * tokens, 12, 128, device="meta", dtype=torch.bfloat16)
    cache.begin(range(3), ())
    with census():
        cache.attend(0, k, k)
    return census.take().moved


def prompt_and_waits() -> Iterator[Bar]:
    """Bar 10: the prompt is projected once, and the CPU never waits for the device."""
    run, config, short = counted("histream"), replace(WAN_1_3B, num_layers=2), hd("histream", 6)
    forgetful = dry_run(config, short, text_type=ForgetfulText).projected
    waiting = dry_run(config, short, wrap=WaitingDenoiser)
    forgets, waits = "projected in every call", "a value read back in every call"
    yield Bar("embeddings of one prompt", run.projected["text"], 1, forgets, forgetful["text"])
    yield Bar("projections of one prompt per layer", run.projected["keys"] / 2, 1, forgets, forgetful["keys"] / 2)
    per_call = [max(call.counts.waits for call in a_run.calls) for a_run in (run, waiting)]
    yield Bar("waits for the device in a network call", per_call[0], 0, waits, per_call[1])
    with mock.patch.object(transfer, "NON_BLOCKING", ()):
        blocking = dry_run(config, short)
    per_chunk = [max(counts.waits for counts in a_run.between) for a_run in (run, blocking)]
    yield Bar(
        "waits for the device in a chunk outside of its calls",
        per_chunk[0], 0, "noise and tables by plain copies", per_chunk[1],
    )  # fmt: skip


def layer() -> Iterator[Bar]:
    """Bar 12: kernels that one more layer launches."""

    def per_layer(block_forward: RunBlock | None) -> int:
        one, two = (
            dry_run(replace(WAN_1_3B, num_layers=layers), hd("histream-plus", 6), block_forward=block_forward)
            for layers in (1, 2)
        )
        return two.calls[-1].counts.kernels - one.calls[-1].counts.kernels

    yield Bar("kernels per layer", per_layer(None), KERNELS_PER_LAYER, "as usually written", per_layer(unfused_block))


def decoding() -> Iterator[Bar]:
    """Bar 11, counted: the memory of decoding does not depend on length."""
    vae = meta_vae(96).to(torch.bfloat16)

    def latents(frames: int) -> torch.Tensor:
        return torch.empty(1, 16, frames, SIZE["height"] // 8, SIZE["width"] // 8, device="meta", dtype=torch.bfloat16)

    def streamed(chunks: int) -> tuple[int, int]:
        decoder, census = StreamingDecoder(vae, rollback=False), Census(memory=True)
        with census():
            for _ in range(chunks):
                decoder.decode(latents(3))
        return census.peak_bytes, decoder.cache_bytes

    def at_once(frames: int) -> int:
        census = Census(memory=True)
        with census(), torch.no_grad():
            decode_at_once(vae, latents(frames))
        return census.peak_bytes

    (early, _), (late, held) = streamed(2), streamed(5)
    yield Bar(
        "bytes alive at the peak of decoding, 5 chunks / 2 chunks", late / early, 1.0,
        "the clip decoded at once", at_once(15) / at_once(6),
    )  # fmt: skip
    yield Bar(
        "GB of the decoder's memory between chunks", held / GB, 9.25,
        "in float32", vae_cache_bytes(vae, SIZE["height"], SIZE["width"], dtype=torch.float32) / GB,
    )  # fmt: skip


def small_decoding() -> Iterator[Bar]:
    """Operations and memory of a TAEHV and of strips, against the whole Wan VAE."""
    vae, small, size = meta_vae(96).to(torch.bfloat16), meta_taehv().to(torch.bfloat16), (SIZE["height"], SIZE["width"])

    def teraflops(vae: torch.nn.Module) -> float:
        decoder, census = open_decoder(vae), Census()
        latents = torch.empty(1, 16, 1, size[0] // 8, size[1] // 8, device="meta", dtype=torch.bfloat16)
        with census():
            decoder.decode(latents)
            census.take()
            decoder.decode(latents)
        return census.take().flops / 4e12

    full = teraflops(vae), decoder_cache_bytes(vae, *size) / GB
    yield Bar("TFLOP to decode a frame, TAEHV", teraflops(small), 0.72, "the Wan VAE", full[0])
    yield Bar("GB of a TAEHV's memory", decoder_cache_bytes(small, *size) / GB, 0.335, "the Wan VAE", full[1])
    yield Bar(
        "GB of the decoder's memory on the device, 4 strips",
        decoder_cache_bytes(vae, *size, strips=4) / GB, 2.7, "the whole picture", full[1],
    )  # fmt: skip


def graphs() -> Iterator[Bar]:
    """Bar 9: graphs of compiled layers, for a small model with values on the CPU and a compiler that only counts."""
    plan = make_plan(find_preset("histream"), "histream", size=(64, 64), num_latent_frames=3 * LONG)
    model = random_model(SMALL, device="cpu", dtype=torch.float32)
    backend = CountingBackend()
    first = _run_small(model, plan, CompiledBlocks(plan, no_fallback, backend=backend), seed=0)
    found = backend.graphs
    plain = _run_small(model, plan, None, seed=0)
    other = _run_small(model, plan, CompiledBlocks(plan, no_fallback, backend=backend), seed=1)
    again = backend.graphs - found
    numbered = CountingBackend()
    layers = NumberedLayers(torch.compile(numbered_block, dynamic=False, backend=numbered))
    one_chunk = make_plan(find_preset("histream"), "naive", size=(64, 64), num_latent_frames=3)
    counted_graphs = []
    for _ in range(2):
        _run_small(model, one_chunk, layers, seed=0)
        counted_graphs.append(numbered.graphs)
    naive, anew = "layers numbered by Python numbers, two chunks", counted_graphs[1] - counted_graphs[0]
    yield Bar(f"compiled graphs, {LONG} chunks at two sizes", found, 4, naive, counted_graphs[1])
    yield Bar("graphs compiled anew for a second run and another prompt", again, 0, naive, anew)
    apart, control = (float((video - plain).abs().max()) for video in (first, other))
    yield Bar("greatest difference between compiled and eager", apart, 0, "another seed and prompt", control)


class CountingBackend:
    """A compiler that counts its graphs and compiles nothing."""

    def __init__(self) -> None:
        self.graphs = 0

    def __call__(self, module, _inputs):
        self.graphs += 1
        return module.forward


def _run_small(model, plan: Plan, block_forward: RunBlock | None, *, seed: int) -> torch.Tensor:
    caches = make_caches(plan, model)
    text = Text(torch.randn(1, 6, SMALL.text_dim, generator=torch.Generator().manual_seed(seed)))
    denoiser = Denoiser(model, block_forward=block_forward)
    stream = Stream(plan, denoiser, caches, SeededNoise(seed), [Prompt(text)], channels=SMALL.in_dim)
    return torch.cat(list(stream.chunks()), dim=2)
