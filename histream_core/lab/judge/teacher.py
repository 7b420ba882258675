"""The teacher: bidirectional attention over the whole clip, an ODE solver of many steps, classifier-free guidance.

For the engine the clip is one chunk, so forward and caches are those of the other arms.

B batch, C channels, T latent frames, H W latent grid.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from ...network.cache.tiers import make_caches
from ...network.cache.window import CacheOptions
from ...network.forward import Denoiser, Text
from ...plan.chunks import Plan
from ...plan.make import PlanOptions, make_plan
from ...plan.presets import Preset
from ...plan.schedule import NUM_TIMESTEPS, Scale, Step, make_steps
from ...plan.window import Window
from ...runs.weights import Weights
from ...stream.noise import Noise
from ...stream.resize import resize


@dataclass(frozen=True)
class Solver:
    """Settings of the teacher's sampling."""

    steps: int = 32
    low_steps: int = 0
    """Number of steps at half resolution; 0 is the teacher of the papers."""
    guidance: float = 2.0
    """Scale of classifier-free guidance; 1 is none."""
    shift: float = 2.0
    """Time shift of the noise levels."""

    def __post_init__(self):
        if self.steps < 1 or not 0 <= self.low_steps < self.steps:
            raise ValueError(
                f"{self.low_steps} of {self.steps} steps at half resolution cannot be: use 0 of 32, or fewer than all"
            )

    def plan(self, preset: Preset, *, size: tuple[int, int], num_latent_frames: int) -> Plan:
        """Plan of one chunk as long as the clip. Raises ValueError for impossible sizes and lengths."""
        timesteps = [NUM_TIMESTEPS * (1 - index / self.steps) for index in range(self.steps)]
        steps = make_steps(timesteps, self.low_steps, shift_low=self.shift, shift_high=self.shift)
        return make_plan(
            preset,
            "full",
            size=(size[0], size[1]),
            num_latent_frames=num_latent_frames,
            options=PlanOptions(
                schedule=(steps,), window=Window(chunk_frames=num_latent_frames, anchor_frames=0, local_frames=0)
            ),
        )


@torch.inference_mode()
def solve(weights: Weights, plan: Plan, texts: Tensor, noise: Noise, guidance: float) -> Tensor:
    """Sample clean latents [B, C, T, H, W] of clips whose text embeddings are `texts` [B, tokens, channels].

    `plan` is from `Solver.plan`. Steps between noise levels are Euler steps; where the resolution changes, the clean
    estimate is resized and new noise is added. The embedding of no prompt is all zeros.
    """
    (chunk,) = plan.chunks
    model, batch = weights.model, len(texts)
    both = texts if guidance == 1 else torch.cat([texts, torch.zeros_like(texts)])
    options = CacheOptions(batch=len(both), device=weights.device, dtype=weights.dtype)
    caches = make_caches(plan, model, options)
    for cache in caches.values():
        cache.begin(chunk.frames, ())
    denoise, text = Denoiser(model, dtype=weights.dtype), Text(both.to(weights.device))

    def estimate(latent: Tensor, step: Step) -> Tensor:
        if guidance == 1:
            return denoise(latent, step, caches[step.scale], text)
        asked, free = denoise(torch.cat([latent, latent]), step, caches[step.scale], text).chunk(2)
        return free + guidance * (asked - free)

    def draw(index: int, scale: Scale) -> Tensor:
        shape = torch.Size((batch, model.out_dim, len(chunk.frames), *plan.grids[scale]))
        return noise(0, index, shape).to(weights.device)

    latent = draw(0, chunk.steps[0].scale)
    for index, (step, following) in enumerate(pairwise(chunk.steps), start=1):
        clean = estimate(latent, step)
        if following.scale is step.scale:
            latent = clean + following.sigma / step.sigma * (latent - clean)
        else:
            clean = resize(clean, plan.grids[following.scale], plan.resize)
            latent = (1 - following.sigma) * clean + following.sigma * draw(index, following.scale)
    return estimate(latent, chunk.steps[-1])
