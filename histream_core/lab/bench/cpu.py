"""`histream bench --cpu`: ratios of times, on one thread, in process time.

The two sides of a ratio are measured alternately, so that other load on the machine affects both equally, and medians
are taken. No figure is a time by itself.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor

from ...cost.cost import PassSize, pass_flops
from ...files.reading import read_text
from ...network.cache.tiers import make_caches
from ...network.forward import Denoiser, Text
from ...network.model import WanConfig, WanModel
from ...plan.chunks import Plan
from ...plan.make import PlanOptions, make_plan
from ...plan.presets import find_preset
from ...plan.schedule import Scale, Step
from ...stream.noise import SeededNoise
from ...stream.prompts import Prompt
from ...stream.stream import Stream, arrived
from ...vae.decode import StreamingDecoder, causal_kernels
from ...vae.model import WanVAE
from .bars import Bar
from .dry_run import random_model
from .naive import decode_at_once

CONFIG = WanConfig(dim=96, ffn_dim=192, num_heads=4, num_layers=3, in_dim=4, out_dim=4, text_dim=16, freq_dim=16)
WIDE = WanConfig(dim=192, ffn_dim=768, num_heads=4, num_layers=2, in_dim=4, out_dim=4, text_dim=16, freq_dim=16)
STATM = Path("/proc/self/statm")
TRIES = 3


def cpu_bars() -> Iterator[Bar]:
    """Every bar that is a ratio of times, and the bars of memory and exactness beside them."""
    with one_thread():
        yield from memory()
        yield from flat_chunks()
        yield from half_resolution()
        yield from exact_decoding()
        yield from flat_decoding()
        yield from still_decoding()
        yield from orchestration()


@contextmanager
def one_thread() -> Iterator[None]:
    """Compute on one thread: times on several threads of a busy machine mean nothing."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def spent(work: Callable[[], object]) -> float:
    """Seconds of process time that `work` takes."""
    start = time.process_time()
    work()
    return time.process_time() - start


def in_turns(one: Callable[[], object], other: Callable[[], object], times: int) -> float:
    """The ratio of the median times of `one` and `other`, measured alternately."""
    pairs = [(spent(one), spent(other)) for _ in range(times)]
    return statistics.median(a for a, _ in pairs) / statistics.median(b for _, b in pairs)


def flatness(ratio: Callable[[], float], limit: float) -> float:
    """The factor between a ratio and 1; measured again where it misses the limit: real growth shows every time."""
    values: list[float] = []
    while len(values) < TRIES and not (values and min(values) <= limit):
        found = ratio()
        values.append(max(found, 1 / found))
    return min(values)


def small_plan(mode: str, num_chunks: int, *, width: int = 128, height: int = 128, **settings) -> Plan:
    options = PlanOptions(**settings)
    return make_plan(find_preset("demo"), mode, size=(width, height), num_latent_frames=3 * num_chunks, options=options)


def small_stream(plan: Plan, model: WanModel, denoise=None) -> Stream:
    caches = make_caches(plan, model)
    text = Text(torch.ones(1, 6, model.text_dim))
    return Stream(plan, denoise or Denoiser(model), caches, SeededNoise(0), [Prompt(text)], channels=model.in_dim)


def resident_mb() -> float:
    """Resident memory of this process in MB."""
    return int(read_text(STATM).split()[1]) * 4096 / 1e6


def memory() -> Iterator[Bar]:
    """Bar 6: memory that sixty chunks add to the process. No bar where the system does not report memory."""
    if not STATM.exists():
        return
    model = random_model(CONFIG, device="cpu", dtype=torch.float32)

    def gained(mode: str) -> float:
        sizes = [resident_mb() for _ in small_stream(small_plan(mode, 60), model).chunks()]
        return sizes[-1] - sizes[3]

    ours = gained("histream-plus")
    yield Bar("MB of memory gained from chunk 4 to 60", ours, 8, "full history", gained("history"))


def flat_chunks() -> Iterator[Bar]:
    """Bar 5: a late chunk takes as long as an early one."""
    model = random_model(CONFIG, device="cpu", dtype=torch.float32)

    def late_over_early(mode: str, late: int) -> float:
        runs = []
        for start in (late, 3):
            chunks = small_stream(small_plan(mode, late + 12), model).chunks()
            runs.append(chunks)
            for _ in range(start):
                next(chunks)
        return in_turns(*(lambda chunks=chunks: next(chunks) for chunks in runs), times=10)

    yield Bar(
        "time of chunks 50 to 60 / 3 to 13, or its inverse",
        flatness(lambda: late_over_early("histream-plus", late=50), 1.1), 1.1,
        "full history, chunks 20 to 30", late_over_early("history", late=20),
    )  # fmt: skip


def half_resolution() -> Iterator[Bar]:
    """Bar 8: a LOW call is faster than a HIGH call by nearly the ratio of their operations."""
    model = random_model(WIDE, device="cpu", dtype=torch.float32)

    def calls(low_scale: float) -> list[Callable[[], Tensor]]:
        plan = small_plan("histream", 3, width=640, height=352, low_scale=low_scale)
        stream = small_stream(plan, model)
        chunks = stream.chunks()
        next(chunks)
        next(chunks)  # the second chunk has just been made and sees three frames
        step, text = plan.chunks[1].steps[-1], stream.prompts[0].text
        latents = {scale: torch.randn(1, 4, 3, *plan.grids[scale]) for scale in (Scale.HIGH, Scale.LOW)}

        def call(scale: Scale) -> Tensor:
            return arrived(stream.denoise(latents[scale], Step(step.sigma, scale), stream.caches[scale], text))

        return [lambda: call(Scale.HIGH), lambda: call(Scale.LOW)]

    operations = [pass_flops(WIDE, PassSize(3, tokens=3 * t, visible=6 * t)) for t in (22 * 40, 11 * 20)]
    factor = operations[0] / operations[1]
    ours, naive = (in_turns(*calls(low_scale), times=5) / factor for low_scale in (0.5, 1.0))
    yield Bar(
        "time of HIGH / LOW, per ratio of their operations", ours, 0.9,
        "LOW at full size", naive, at_least=True,
    )  # fmt: skip


def small_vae() -> WanVAE:
    torch.manual_seed(0)
    return WanVAE(dim=8).requires_grad_(False).eval()


def exact_decoding() -> Iterator[Bar]:
    """Bar 11: decoding chunk by chunk gives the pixels of decoding all chunks at once."""
    vae, latents = small_vae(), torch.randn(1, 16, 12, 8, 8, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        whole = decode_at_once(vae, latents)
    decoder = StreamingDecoder(vae, normalised=False)
    streamed = torch.cat([decoder.decode(chunk) for chunk in latents.split(3, dim=2)], dim=2)
    alone = [StreamingDecoder(vae, normalised=False).decode(chunk) for chunk in latents.split(3, dim=2)]
    frames = torch.cat(alone, dim=2).shape[2]
    yield Bar(
        "greatest difference of streamed pixels from those decoded at once",
        float((streamed - whole).abs().max()), 1e-5,
        "each chunk decoded alone", float((torch.cat(alone, dim=2) - whole[:, :, :frames]).abs().max()),
    )  # fmt: skip


def flat_decoding() -> Iterator[Bar]:
    """Bar 11: decoding a late chunk takes as long as an early one."""
    vae, chunk = small_vae(), torch.randn(1, 16, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    early, late = (StreamingDecoder(vae, normalised=False) for _ in range(2))
    for decoder, num_chunks in ((early, 2), (late, 20)):
        for _ in range(num_chunks):
            decoder.decode(chunk)

    def again(num_chunks: int) -> Callable[[], object]:
        clip = chunk.repeat(1, 1, num_chunks, 1, 1)
        return lambda: StreamingDecoder(vae, normalised=False).decode(clip)

    yield Bar(
        "time to decode chunks 20 to 30 / 2 to 12, or its inverse",
        flatness(lambda: in_turns(lambda: late.decode(chunk), lambda: early.decode(chunk), times=11), 1.05), 1.05,
        "the whole clip again for every chunk, chunk 6 / 2", in_turns(again(6), again(2), times=3),
    )  # fmt: skip


def still_decoding() -> Iterator[Bar]:
    """Time saved by kernels without weights for past frames, as the demo VAE has above its smallest grid."""
    latents = torch.randn(1, 16, 1, 16, 20, generator=torch.Generator().manual_seed(0))

    def work(kept: float) -> Callable[[], object]:
        torch.manual_seed(0)
        vae = WanVAE(dim=16).requires_grad_(False).eval()
        for kernel in causal_kernels(vae.decoder.upsamples[4:]):
            if kernel.kernel_size[1] > 1:
                kernel.weight[:, :, :-1] *= kept
        decoder = StreamingDecoder(vae, normalised=False, rollback=False)
        decoder.decode(latents)
        return lambda: decoder.decode(latents)

    full = work(1.0)
    yield Bar(
        "time to decode without weights for the past above the smallest grid / with",
        in_turns(work(0.0), full, times=5), 0.85,
        "weights for the past that are small", in_turns(work(0.001), full, times=5),
    )  # fmt: skip


def orchestration() -> Iterator[Bar]:
    """Bar 12: time of a network call outside of the network: noise, tables, pages, re-noising."""
    model = random_model(CONFIG, device="cpu", dtype=torch.float32)
    plan = small_plan("histream-plus", 20, width=64, height=64)

    def stub(latent: Tensor, _step: Step, _cache, _text: Text) -> Tensor:
        return latent

    def planning(latent: Tensor, _step: Step, _cache, _text: Text) -> Tensor:
        tuple(small_plan("histream-plus", 800).chunks)
        return latent

    calls = plan.num_steps() + sum(len(chunk.cache_steps) for chunk in plan.chunks)

    def milliseconds(denoise) -> float:
        times = [spent(lambda: list(small_stream(plan, model, denoise).chunks())) for _ in range(3)]
        return 1000 * statistics.median(times) / calls

    yield Bar(
        "ms of a call that are not the network", milliseconds(stub), 2.0,
        "ten minutes planned anew in every call", milliseconds(planning),
    )  # fmt: skip
