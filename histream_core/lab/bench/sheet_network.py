"""Rows of the sheet about the transformer: passes, whole videos, full history, noise to pixels."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import replace
from itertools import pairwise
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor

from ...network.cache.tiers import make_caches
from ...network.cache.window import CacheOptions, KVCache
from ...network.compile.graphs import CudaRecorder, GraphedForward
from ...network.compile.layers import CompiledBlocks
from ...network.forward import Denoiser, Forward, Text, forward_chunk
from ...network.kernels import choose_kernels
from ...network.layer import RunBlock, run_block
from ...network.model import WanModel
from ...network.ops.attention import Attention, choose_attention
from ...network.transfer import upload
from ...plan.chunks import Plan
from ...plan.levers import LAST_STEP
from ...plan.presets import find_preset
from ...plan.schedule import Scale, Step
from ...plan.speed import Speed
from ...stream.noise import SeededNoise
from ...stream.prompts import Prompt
from ...stream.stream import Denoise, Stream, arrived
from ...vae.decode import to_frames
from ...vae.decoders import open_decoder
from ...video.pixels import to_uint8
from .dry_run import no_fallback, random_model, random_text
from .naive import full_history_plan
from .sheet import ABSENT, Row, Setup
from .sheet_parts import fp8_products, random_taehv, random_vae

PASSES = {
    (Scale.HIGH, False, True): ("high, later chunk", 0.5),
    (Scale.HIGH, True, True): ("high, cache pass of a later chunk", None),
    (Scale.HIGH, False, False): ("high, first chunk", None),
    (Scale.LOW, False, True): ("low, later chunk", 0.06),
    (Scale.LOW, True, True): ("low, cache pass of a later chunk", None),
    (Scale.LOW, False, False): ("low, first chunk", None),
}
"""Names of the kinds of pass (scale, is a cache pass, is a later chunk), and the seconds a compiled one may take."""

FULL_HISTORY = (0, 3, 6)
"""Chunks whose passes are timed under full history."""

SMALL_SIZE = 832, 480


def compiled_block(setup: Setup, block: RunBlock = run_block, *, levers: Collection[str] = ()) -> RunBlock:
    """The forward of a layer, compiled for the shapes that recur in runs with these levers."""
    plan = setup.plan("histream", 9, levers=levers)
    return CompiledBlocks(plan, no_fallback, backend=setup.backend, run_block=block)


def network(setup: Setup) -> WanModel:
    torch.manual_seed(0)
    return random_model(setup.config, device=setup.device, dtype=setup.dtype)


def denoiser(
    setup: Setup,
    model: WanModel,
    *,
    attention: Attention | None = None,
    block_forward: RunBlock | None = None,
    low_forward: Forward = forward_chunk,
) -> Denoiser:
    """The network's call, by default with the attention that a run would choose."""
    attention = attention or choose_attention("auto", setup.device, setup.dtype)[0]
    forwards = {Scale.LOW: low_forward}
    return Denoiser(model, dtype=setup.dtype, attention=attention, block_forward=block_forward, forwards=forwards)


def stream_of(
    setup: Setup,
    model: WanModel,
    plan: Plan,
    *,
    block_forward: RunBlock | None = None,
    denoise: Denoise | None = None,
    kv: str = "full",
) -> Stream:
    """A run of a plan over fresh caches."""
    where = {"device": setup.device, "dtype": setup.dtype}
    denoise = denoise or denoiser(setup, model, block_forward=block_forward)
    prompts = [Prompt(Text(random_text(model, **where)))]
    caches = make_caches(plan, model, CacheOptions(**where, kv=kv))
    return Stream(plan, denoise, caches, SeededNoise(0), prompts, channels=setup.config.in_dim)


def exhaust(chunks: Iterator[Tensor]) -> Tensor:
    """Run to the end and return the last chunk."""
    for clean in chunks:
        last = clean
    return last


class PassTimer:
    """A denoiser that times each of its calls, and waits for the device before and after it."""

    def __init__(self, denoise: Denoise, setup: Setup):
        self.denoise, self.setup = denoise, setup
        self.seconds: dict[tuple, list[float]] = {}

    def __call__(self, latent: Tensor, step: Step, cache: KVCache, text: Text) -> Tensor:
        kind = step.scale, step.sigma == 0, cache.pages(0).visible is not None
        out: list[Tensor] = []
        took = self.setup.seconds(lambda: out.append(self.denoise(latent, step, cache, text)))
        self.seconds.setdefault(kind, []).append(took)
        return out[0]

    def rows(self, name: str, *, with_targets: bool = False, scales: Collection[Scale] = tuple(Scale)) -> Iterator[Row]:
        """Rows with the median milliseconds of every kind of pass at these scales."""
        for kind, (words, seconds) in PASSES.items():
            if kind[0] not in scales:
                continue
            target = 1000 * seconds if seconds and with_targets else None
            yield self.setup.row(f"pass {words}, {name}", 1000 * statistics.median(self.seconds[kind]), "ms", target)


def passes(setup: Setup) -> Iterator[Row]:
    """Milliseconds of each kind of pass, compiled and eager, and the difference between the two results."""
    model, block_forward = network(setup), compiled_block(setup)
    start = time.perf_counter()
    exhaust(stream_of(setup, model, setup.plan("histream", 6), block_forward=block_forward).chunks())
    yield setup.row("first two chunks, compiled", time.perf_counter() - start, "s")
    yield from _timed_passes(setup, model, "compiled", block_forward, with_targets=True)
    yield setup.row("one call, compiled from eager", _one_call_error(setup, model), "relative", 0.02)
    yield from _timed_passes(setup, model, "eager", None)


def _timed_passes(
    setup: Setup, model: WanModel, name: str, block_forward: RunBlock | None, *, with_targets: bool = False
) -> Iterator[Row]:
    timer = PassTimer(denoiser(setup, model, block_forward=block_forward), setup)
    exhaust(stream_of(setup, model, setup.plan("histream", 9), denoise=timer).chunks())
    yield from timer.rows(name, with_targets=with_targets)


def graphed_passes(setup: Setup) -> Iterator[Row]:
    """Passes at LOW, compiled and replayed as CUDA graphs."""
    if setup.device.type != "cuda":
        yield setup.row("passes at LOW as CUDA graphs", None, note=f"{ABSENT}: no CUDA device")
        return
    model, block_forward = network(setup), compiled_block(setup)
    graphed = GraphedForward(CudaRecorder(), no_fallback)
    timer = PassTimer(denoiser(setup, model, block_forward=block_forward, low_forward=graphed), setup)
    made, plain = (
        exhaust(stream_of(setup, model, setup.plan("histream", 12), denoise=denoise).chunks())
        for denoise in (timer, denoiser(setup, model, block_forward=block_forward))
    )
    yield from timer.rows("compiled, CUDA graphs", scales=[Scale.LOW])
    yield setup.row("whole run, CUDA graphs from none", relative_error(made, plain), "relative", 0.02)


def _one_call_error(setup: Setup, model: WanModel) -> float:
    """The relative change of a prediction at HIGH by compiling, in the dtype of the sheet."""
    predicted = []
    for block_forward in (compiled_block(setup), None):
        stream = stream_of(setup, model, setup.plan("full", 3), block_forward=block_forward)
        step, cache = stream.plan.chunks[0].steps[0], stream.caches[Scale.HIGH]
        shape = torch.Size((1, setup.config.in_dim, 3, *stream.plan.grids[Scale.HIGH]))
        cache.begin(range(3), ())
        noise = upload(SeededNoise(0)(0, 0, shape), setup.device)
        predicted.append(arrived(stream.denoise(noise, step, cache, stream.prompts[0].text)) - noise)
    return relative_error(*predicted)


def fp8_passes(setup: Setup) -> Iterator[Row]:
    """Milliseconds of matrix products and of passes in FP8, compiled; and of passes with fused norms and rotations."""
    yield from fp8_products(setup)
    model = network(setup)
    for name, speed, is_compiled in (
        ("compiled, FP8 products", Speed(linears="fp8"), True),
        ("eager, fused norms and rotations", Speed(elementwise="fused"), False),
    ):
        try:
            block = choose_kernels(speed, setup.device, setup.dtype).run_block
        except ValueError as error:  # not installed, or cannot run here
            yield setup.row(f"passes, {name}", None, note=f"{ABSENT}: {error}")
            continue
        block = compiled_block(setup, block) if is_compiled else block
        if is_compiled:
            exhaust(stream_of(setup, model, setup.plan("histream", 6), block_forward=block).chunks())
        yield from _timed_passes(setup, model, name, block)


def relative_error(x: Tensor, like: Tensor) -> float:
    """The root mean square of the difference, divided by that of `like`."""
    x, like = x.float(), like.float()
    return float((x - like).square().mean().sqrt() / like.square().mean().sqrt())


def last_step(setup: Setup) -> Iterator[Row]:
    """Seconds per frame of HiStream+ with the lever last-step, later chunks alone: 16 frames a second or not."""
    model, block = network(setup), compiled_block(setup, levers=[LAST_STEP])
    plan = setup.plan("histream-plus", levers=[LAST_STEP])
    chunks = stream_of(setup, model, plan, block_forward=block).chunks()
    taken = [setup.seconds(lambda: next(chunks)) for _ in plan.chunks[:5]]
    yield setup.row("histream-plus with last-step, denoising, compiled", min(taken[2:]) / 12, "s/frame", 0.0625)


def full_history(setup: Setup) -> Iterator[Row]:
    """Milliseconds of a pass that sees all frames before it, eager, at some chunks; the caches hold any values."""
    model, where = network(setup), {"device": setup.device, "dtype": setup.dtype}
    frames = 3 * (FULL_HISTORY[-1] + 1)
    plan = full_history_plan(find_preset("self-forcing"), width=setup.width, height=setup.height, num_frames=frames)
    cache, text = make_caches(plan, model, CacheOptions(**where))[Scale.HIGH], Text(random_text(model, **where))
    cache.k.zero_()
    cache.v.zero_()
    denoise = denoiser(setup, model)
    latent = torch.randn(1, setup.config.in_dim, 3, *plan.grids[Scale.HIGH], device=setup.device)
    for chunk in plan.chunks:
        cache.begin(chunk.frames, chunk.context)
        if chunk.index in FULL_HISTORY:
            step = chunk.steps[0]
            taken = min(setup.seconds(lambda step=step: denoise(latent, step, cache, text)) for _ in range(2))
            words = f"pass with full history, chunk {chunk.index}, eager"
            yield setup.row(words, 1000 * taken, "ms", is_main=True)
        cache.commit()


def with_taehv(setup: Setup) -> Iterator[Row]:
    """Noise to frames with TAEHV."""
    yield from noise_to_frames(setup, "TAEHV", random_taehv, targets=(0.12, None, 20.0))


def with_vae(setup: Setup) -> Iterator[Row]:
    """Noise to frames with the Wan VAE, channels last."""
    options = {"channels_last": True}
    yield from noise_to_frames(setup, "the VAE", random_vae, options=options, targets=(0.20, 3.0, 35.0))


def smaller(setup: Setup) -> Iterator[Row]:
    """Noise to frames at 832x480, and passes with keys and values in main memory."""
    if setup.has_targets:
        setup = replace(setup, width=SMALL_SIZE[0], height=SMALL_SIZE[1], has_targets=False)
    yield from noise_to_frames(setup, f"TAEHV at {setup.width}x{setup.height}", random_taehv)
    model, timer = network(setup), None
    plan = setup.plan("histream", 9)
    timer = PassTimer(denoiser(setup, model), setup)
    exhaust(stream_of(setup, model, plan, denoise=timer, kv="cpu").chunks())
    yield from timer.rows(f"eager, kv_memory cpu, {setup.width}x{setup.height}", scales=[Scale.HIGH])


def noise_to_frames(
    setup: Setup,
    name: str,
    make: Callable[[Setup], torch.nn.Module],
    *,
    options: Mapping[str, Any] = MappingProxyType({}),
    targets: tuple[float | None, ...] = (None, None, None),
) -> Iterator[Row]:
    """Seconds from noise to frames in main memory, of HiStream+, whose chunks from the third on are all equal."""
    model, block_forward = network(setup), compiled_block(setup)
    exhaust(stream_of(setup, model, setup.plan("histream-plus", 6), block_forward=block_forward).chunks())
    plan, decoder = setup.plan("histream-plus"), open_decoder(make(setup), **options)
    setup.forget()
    seconds: list[float] = []
    setup.wait()
    start = time.perf_counter()
    for clean in stream_of(setup, model, plan, block_forward=block_forward).chunks():
        to_uint8(to_frames(decoder.decode(clean))[0])
        seconds.append(time.perf_counter() - start)
    chunks = sorted(after - before for before, after in pairwise(seconds[1:]))
    middle = statistics.median(chunks)
    yield setup.row(f"histream-plus with {name}", seconds[-1] / plan.num_pixel_frames, "s/frame", targets[0])
    yield setup.row(f"later chunks of histream-plus with {name}", middle / 12, "s/frame", is_main=True)
    yield setup.row(f"first 9 frames of histream-plus with {name}", seconds[0], "s", targets[1])
    note = "" if setup.device.type == "cuda" else f"{ABSENT}: this device does not tell"
    yield setup.row(f"peak memory of histream-plus with {name}", setup.peak_gib(), "GiB", targets[2], note=note)
    yield setup.row(f"slowest later chunk / median, {name}", chunks[-1] / middle, "times", targets[0] and 1.03)
