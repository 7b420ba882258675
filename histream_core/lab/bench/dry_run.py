"""The real stream and the real forward on the meta device, at true size, every network call counted."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NoReturn

import torch
from torch import Tensor

from ...network.cache.tiers import make_caches
from ...network.cache.window import CacheOptions, KVCache
from ...network.forward import Denoiser, Text
from ...network.layer import RunBlock
from ...network.model import MAX_TOKENS, WanConfig, WanModel
from ...plan.chunks import Plan
from ...plan.schedule import Step
from ...stream.prompts import Prompt
from ...stream.stream import Denoise, Stream
from ...weights.loading import cast_model
from .census import SUMS, Census, Counts


@dataclass(frozen=True)
class Call:
    """One network call and its counts."""

    chunk: int
    step: Step
    new_frames: int
    counts: Counts

    @property
    def is_cache_pass(self) -> bool:
        return self.step.sigma == 0


@dataclass(frozen=True)
class Run:
    """The counts of a whole run."""

    plan: Plan
    calls: tuple[Call, ...]
    between: tuple[Counts, ...]
    """For each chunk, the counts outside of its network calls."""
    kv_bytes: tuple[int, ...]
    """Bytes of the caches after each chunk."""
    projected: dict[str, int]
    """How often the prompt was embedded ("text"), and projected to cross-attention keys ("keys")."""

    @property
    def tflops_per_frame(self) -> float:
        return sum(call.counts.flops for call in self.calls) / self.plan.num_pixel_frames / 1e12

    def per_chunk(self, count: Callable[[Call], object]) -> list[tuple]:
        """The values of `count` for the calls of each chunk, its cache passes included."""
        return [tuple(count(call) for call in self.calls if call.chunk == chunk.index) for chunk in self.plan.chunks]


def random_model(config: WanConfig, *, device: str | torch.device, dtype: torch.dtype) -> WanModel:
    """A Wan transformer with random weights in the dtypes that loading gives them; it has no values on "meta"."""
    with torch.device(device):
        return cast_model(WanModel(config).requires_grad_(False), dtype)


def no_fallback(words: str) -> NoReturn:
    """Raise RuntimeError where a compiler or recorder fails: a measurement must not go on without it."""
    raise RuntimeError(words)


def random_text(model: WanModel, *, device: str | torch.device, dtype: torch.dtype) -> Tensor:
    """An embedding of a prompt [1, tokens, channels], all zeros."""
    return torch.zeros(1, MAX_TOKENS, model.text_dim, dtype=dtype, device=device)


class Recorder:
    """A denoiser that records the counts of each of its calls."""

    def __init__(self, denoise: Denoise, census: Census):
        self.denoise, self.census = denoise, census
        self.calls: list[Call] = []
        self.between: list[Counts] = []

    def __call__(self, latent: Tensor, step: Step, cache: KVCache, text: Text) -> Tensor:
        self.between.append(self.census.take())
        clean = self.denoise(latent, step, cache, text)
        self.calls.append(Call(-1, step, latent.shape[2], self.census.take()))
        return clean


def dry_run(
    config: WanConfig,
    plan: Plan,
    *,
    block_forward: RunBlock | None = None,
    wrap: Callable[[Denoise], Denoise] = lambda denoise: denoise,
    text_type: type[Text] = Text,
    dtype: torch.dtype = torch.bfloat16,
) -> Run:
    """Run a plan and count its operations.

    `block_forward`, `wrap` (around the denoiser) and `text_type` replace parts by naive variants.
    """
    model = random_model(config, device="meta", dtype=dtype)
    caches = make_caches(plan, model, CacheOptions(device="meta", dtype=dtype))
    projected = _count_projections(model)
    census = Census()
    for cache in caches.values():
        census.watch(cache.k, cache.v, cache.anchor_k)
    recorder = Recorder(wrap(Denoiser(model, dtype=dtype, block_forward=block_forward)), census)
    text = text_type(random_text(model, device="meta", dtype=dtype))
    stream = Stream(plan, recorder, caches, lambda *key: torch.empty(key[2]), [Prompt(text)], channels=config.in_dim)
    calls, between, kv_bytes = [], [], []
    with census():
        for chunk, _ in zip(plan.chunks, stream.chunks(), strict=True):
            for call in recorder.calls:  # the previous chunk is cached when this one begins
                calls.append(Call(chunk.index - call.is_cache_pass, call.step, call.new_frames, call.counts))
            between.append(_sum([*recorder.between, census.take()]))
            recorder.calls, recorder.between = [], []
            kv_bytes.append(sum(cache.nbytes for cache in caches.values()))
    return Run(plan, tuple(calls), tuple(between), tuple(kv_bytes), projected)


def _count_projections(model: WanModel) -> dict[str, int]:
    counted = {"text": 0, "keys": 0}

    def counting(name: str) -> Callable[..., None]:
        def hook(*_: object) -> None:
            counted[name] += 1

        return hook

    model.text_embedding.register_forward_hook(counting("text"))
    for block in model.blocks:
        block.cross_attn.k.register_forward_hook(counting("keys"))
    return counted


def _sum(counts: list[Counts]) -> Counts:
    sums = {name: sum(getattr(each, name) for each in counts) for name in SUMS}
    return Counts(**sums, shapes=hash(tuple(each.shapes for each in counts)))
