"""Rows of the sheet about the transformer: passes, whole videos, full history, noise to pixels."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Collection, Iterator

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
from ...network.ops.attention import Attention, choose_attention, sdpa
from ...network.transfer import upload
from ...plan.chunks import Plan
from ...plan.levers import LEVERS
from ...plan.presets import find_preset
from ...plan.schedule import Scale, Step
from ...plan.speed import Speed
from ...stream.noise import SeededNoise
from ...stream.prompts import Prompt
from ...stream.stream import Denoise, Stream, arrived
from ...vae.ahead import work_ahead
from ...vae.decode import to_frames
from ...vae.decoders import open_decoder
from .dry_run import no_fallback, random_model, random_text
from .naive import full_history_chunks, full_history_plan
from .sheet import ABSENT, Row, Setup
from .sheet_parts import random_taehv, random_vae

PASSES = {
    (Scale.HIGH, False, True): ("high, later chunk", 0.5),
    (Scale.HIGH, True, True): ("high, cache pass of a later chunk", None),
    (Scale.HIGH, False, False): ("high, first chunk", None),
    (Scale.LOW, False, True): ("low, later chunk", 0.06),
    (Scale.LOW, True, True): ("low, cache pass of a later chunk", None),
    (Scale.LOW, False, False): ("low, first chunk", None),
}
"""Names of the kinds of pass (scale, is a cache pass, is a later chunk), and the seconds a compiled one may take."""

LEVER_SECONDS = {"last-step": 0.0625}
"""Seconds that a frame may take with a lever: 16 frames a second, which also needs fast kernels."""

OTHER_KERNELS = {
    "eager, fused norms and rotations": (Speed(elementwise="fused"), False),
    "compiled, FP8 products": (Speed(linears="fp8"), True),
}
"""Kernels other than the defaults, and whether layers are compiled."""


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
    setup: Setup, model: WanModel, plan: Plan, *, block_forward: RunBlock | None = None, denoise: Denoise | None = None
) -> Stream:
    """A run of a plan over fresh caches."""
    where = {"device": setup.device, "dtype": setup.dtype}
    denoise = denoise or denoiser(setup, model, block_forward=block_forward)
    prompts = [Prompt(Text(random_text(model, **where)))]
    caches = make_caches(plan, model, CacheOptions(**where))
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
    """Milliseconds of each kind of pass, eager and compiled, and the difference between the two results."""
    model, last = network(setup), {}
    for name, block_forward in (("eager", None), ("compiled", compiled_block(setup))):
        start = time.perf_counter()
        exhaust(stream_of(setup, model, setup.plan("histream", 6), block_forward=block_forward).chunks())
        yield setup.row(f"first two chunks, {name}", time.perf_counter() - start, "s")
        timer = PassTimer(denoiser(setup, model, block_forward=block_forward), setup)
        last[name] = exhaust(stream_of(setup, model, setup.plan("histream", 12), denoise=timer).chunks())
        yield from timer.rows(name, with_targets=name == "compiled")
    yield setup.row("one call, compiled from eager", _one_call_error(setup, model), "relative", 0.02)
    yield setup.row("whole run, compiled from eager", relative_error(last["compiled"], last["eager"]), "relative")


def graphed_passes(setup: Setup) -> Iterator[Row]:
    """Passes at LOW, compiled and replayed as CUDA graphs."""
    if setup.device.type != "cuda":
        yield setup.row("passes at LOW as CUDA graphs", None, note=f"{ABSENT}: no CUDA device")
        return
    model, block_forward = network(setup), compiled_block(setup)
    graphed = GraphedForward(CudaRecorder(), no_fallback)
    timer = PassTimer(denoiser(setup, model, block_forward=block_forward, low_forward=graphed), setup)
    made, plain = (
        exhaust(stream_of(setup, model, setup.plan("histream", 15), denoise=denoise).chunks())
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


def chosen_passes(setup: Setup) -> Iterator[Row]:
    """Milliseconds of each kind of pass with other kernels than the defaults, and with torch's order of attention."""
    model = network(setup)
    yield from _timed_passes(setup, model, "eager, torch's order of attention", sdpa, None)
    for name, (speed, is_compiled) in OTHER_KERNELS.items():
        try:
            kernels = choose_kernels(speed, setup.device, setup.dtype)
        except ValueError as error:  # not installed, or cannot run here
            yield setup.row(f"passes, {name}", None, note=f"{ABSENT}: {error}")
            continue
        block = compiled_block(setup, kernels.run_block) if is_compiled else kernels.run_block
        yield from _timed_passes(setup, model, name, kernels.attention, block)


def _timed_passes(
    setup: Setup, model: WanModel, name: str, attention: Attention, block_forward: RunBlock | None
) -> Iterator[Row]:
    denoise = denoiser(setup, model, attention=attention, block_forward=block_forward)
    exhaust(stream_of(setup, model, setup.plan("histream", 6), denoise=denoise).chunks())
    timer = PassTimer(denoise, setup)
    exhaust(stream_of(setup, model, setup.plan("histream", 9), denoise=timer).chunks())
    yield from timer.rows(name)


def relative_error(x: Tensor, like: Tensor) -> float:
    """The root mean square of the difference, divided by that of `like`."""
    x, like = x.float(), like.float()
    return float((x - like).square().mean().sqrt() / like.square().mean().sqrt())


def whole_videos(setup: Setup) -> Iterator[Row]:
    """Seconds of denoising per pixel frame of a whole video."""
    model, block_forward = network(setup), compiled_block(setup)
    for mode, target in (("histream", 0.15), ("histream-plus", 0.10)):
        for name, block in (("eager", None), ("compiled", block_forward)):
            plan = setup.plan(mode)
            if block:
                exhaust(stream_of(setup, model, setup.plan(mode, 6), block_forward=block).chunks())
            stream = stream_of(setup, model, plan, block_forward=block)
            taken = setup.seconds(lambda stream=stream: exhaust(stream.chunks())) / plan.num_pixel_frames
            yield setup.row(f"{mode}, denoising, {name}", taken, "s/frame", target if block else None)


def levers(setup: Setup) -> Iterator[Row]:
    """Seconds per frame of HiStream+ with each lever, and the distance of its latents from those without levers."""
    model = network(setup)

    def chunks(*levers: str, num_frames: int | None = None) -> list[Tensor]:
        plan = setup.plan("histream-plus", num_frames, levers=levers)
        return list(stream_of(setup, model, plan, block_forward=compiled_block(setup, levers=levers)).chunks())

    exact, pixel_frames = chunks(), setup.plan("histream-plus").num_pixel_frames
    for lever in LEVERS:
        chunks(lever, num_frames=9)
        made: list[Tensor] = []
        taken = setup.seconds(lambda made=made, lever=lever: made.extend(chunks(lever))) / pixel_frames
        yield setup.row(f"histream-plus with {lever}, denoising, compiled", taken, "s/frame", LEVER_SECONDS.get(lever))
        apart = relative_error(torch.cat(made, dim=2), torch.cat(exact, dim=2))
        yield setup.row(f"latents of histream-plus with {lever}, from exact ones", apart, "relative")


def full_history(setup: Setup) -> Iterator[Row]:
    """Seconds per frame of a loop with full history, and how many times those of HiStream, both eager."""
    model, where = network(setup), {"device": setup.device, "dtype": setup.dtype}
    plan = setup.plan("histream")
    chunks = stream_of(setup, model, plan).chunks()
    ours = setup.seconds(lambda: exhaust(chunks)) / plan.num_pixel_frames
    plan = full_history_plan(
        find_preset("self-forcing"), width=setup.width, height=setup.height, num_frames=setup.num_frames
    )
    cache = make_caches(plan, model, CacheOptions(**where))[Scale.HIGH]
    text = Text(random_text(model, **where))
    denoise, channels = denoiser(setup, model), setup.config.in_dim
    loop = full_history_chunks(plan, denoise, cache, SeededNoise(0), text, channels=channels)
    native = setup.seconds(lambda: exhaust(loop)) / plan.num_pixel_frames
    yield setup.row("core-style loop with full history, denoising, eager", native, "s/frame")
    yield setup.row("core-style loop with full history / histream", native / ours, "times", 2.3, at_least=True)


def flatness(setup: Setup) -> Iterator[Row]:
    """Seconds of the chunks of a long HiStream+ run from the third on, which are all equal."""
    model, block_forward = network(setup), compiled_block(setup)
    chunks = stream_of(
        setup, model, setup.plan("histream-plus", 3 * setup.flat_chunks), block_forward=block_forward
    ).chunks()
    taken = sorted([setup.seconds(lambda: next(chunks)) for _ in range(setup.flat_chunks)][2:-1])
    middle, high = statistics.median(taken), taken[int(0.9 * len(taken))]
    yield setup.row("histream-plus, one chunk, compiled", middle, "s", 1.15)
    yield setup.row("90th percentile of chunks / median", high / middle, "times", 1.03)


def end_to_end(setup: Setup) -> Iterator[Row]:
    """Seconds from noise to frames in memory; a chunk is decoded when it is ready, or while the next one is sampled."""
    yield from _noise_to_frames(setup, "the VAE", random_vae, targets=(0.20, 3.0, 35.0))
    yield from _noise_to_frames(setup, "the VAE beside sampling", random_vae, ahead=True)
    yield from _noise_to_frames(setup, "TAEHV", random_taehv, targets=(0.12, None, 20.0))
    yield from _noise_to_frames(setup, "TAEHV beside sampling", random_taehv, ahead=True)


def _noise_to_frames(
    setup: Setup,
    name: str,
    make: Callable[[Setup], torch.nn.Module],
    *,
    ahead: bool = False,
    targets: tuple[float | None, ...] = (None, None, None),
) -> Iterator[Row]:
    model, block_forward = network(setup), compiled_block(setup)
    plan, decoder = setup.plan("histream-plus"), open_decoder(make(setup))
    exhaust(stream_of(setup, model, setup.plan("histream-plus", 6), block_forward=block_forward).chunks())
    setup.forget()
    chunks = stream_of(setup, model, plan, block_forward=block_forward).chunks()

    def decode(clean: Tensor) -> Tensor:
        return to_frames(decoder.decode(clean))

    first: list[float] = []
    setup.wait()
    start = time.perf_counter()
    for frames in work_ahead(chunks, decode, setup.device) if ahead else map(decode, chunks):
        frames.cpu()
        first = first or [time.perf_counter() - start]
    taken = (time.perf_counter() - start) / plan.num_pixel_frames
    yield setup.row(f"histream-plus with {name}", taken, "s/frame", targets[0])
    yield setup.row(f"first 9 frames of histream-plus with {name}", first[0], "s", targets[1])
    note = "" if setup.device.type == "cuda" else f"{ABSENT}: this device does not tell"
    yield setup.row(f"peak memory of histream-plus with {name}", setup.peak_gib(), "GiB", targets[2], note=note)
