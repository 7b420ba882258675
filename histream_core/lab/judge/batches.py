"""Clips of the tables: a batch goes through the network at once, then each clip is decoded and judged.

B batch, C channels, T latent frames, H W latent grid.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from ...network.cache.tiers import make_caches
from ...network.cache.window import CacheOptions
from ...network.forward import Denoiser, Text
from ...plan.sizes import pixel_frames
from ...runs.weights import Weights
from ...stream.noise import Noise, SeededNoise
from ...stream.prompts import Prompt
from ...stream.stream import Stream
from ...vae.decode import stream_frames
from ...video.pixels import to_uint8
from .ablations import TEACHER, Ablation
from .judge import LAG, judge, painted_area
from .prompts import DemoPrompt
from .records import Record
from .scores import adherence, score
from .teacher import solve
from .throughout import WORDS, read_seconds


def make_records(
    row: Ablation, weights: Weights, texts: Tensor, asked: Sequence[tuple[int, DemoPrompt]]
) -> Iterator[tuple[Record, list[np.ndarray]]]:
    """Make and score clips of one row; yield each record with the frames of its clip, [H, W, 3] uint8.

    `texts` [B, tokens, channels] are the embeddings of `asked`, pairs of a number and a prompt.
    """
    began = time.process_time()
    latents = make_latents(row, weights, texts, noise_of([one.seed for _, one in asked]))
    denoise_s = (time.process_time() - began) / len(asked)
    for latent, (number, one) in zip(latents.split(1), asked, strict=True):
        began = time.process_time()
        pictures = decode_clip(weights, latent)
        decode_s = time.process_time() - began
        frames = np.stack(pictures).astype(np.float32) / 255
        verdict, scores = score(frames, one.combination)
        first = frames[: num_first_chunk_frames(weights)]
        yield (
            Record(
                arm=row.name,
                number=number,
                seen={word: getattr(verdict, word) for word in WORDS},
                area=verdict.area / painted_area(one.combination.shape),
                speed=verdict.speed,
                scores=scores,
                first=adherence(judge(first), read_seconds(first), one.combination),
                denoise_s=denoise_s,
                decode_s=decode_s,
            ),
            pictures,
        )


def noise_of(seeds: Sequence[int]) -> Noise:
    """Noise of a batch: each item gets the noise of a single clip with its own seed."""
    each = [SeededNoise(seed) for seed in seeds]

    def draw(chunk: int, step: int, shape: torch.Size) -> Tensor:
        return torch.cat([one(chunk, step, torch.Size((1, *shape[1:]))) for one in each])

    return draw


def make_latents(row: Ablation, weights: Weights, texts: Tensor, noise: Noise) -> Tensor:
    """Clean latents [B, C, T, H, W] of a row."""
    if row.weights == TEACHER:
        return solve(weights, row.plan, texts, noise, row.guidance)
    model = weights.model
    options = CacheOptions(batch=len(texts), device=weights.device, dtype=weights.dtype)
    caches = make_caches(row.plan, model, options)
    prompts = [Prompt(Text(texts.to(weights.device)))]
    run = Stream(row.plan, Denoiser(model, dtype=weights.dtype), caches, noise, prompts, channels=model.out_dim)
    return torch.cat(list(run.chunks()), dim=2)


def decode_clip(weights: Weights, latent: Tensor) -> list[np.ndarray]:
    """Decode one clip [1, C, T, H, W] chunk by chunk to frames [H, W, 3], uint8."""
    chunks = latent.split(weights.preset.chunk_frames, dim=2)
    return [picture for frames in stream_frames(weights.open_decoder(), chunks) for picture in to_uint8(frames)]


def num_first_chunk_frames(weights: Weights) -> int:
    """Number of pixel frames in the first chunk, at least as many as motion can be read from."""
    return max(LAG + 1, pixel_frames(weights.preset.chunk_frames))
