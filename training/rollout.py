"""Self-rollout: the student makes a video with the engine's stream and caches; some calls keep their gradient.

All chunks are made as in inference, whichever step is trained, so the context is always the engine's own. As in
Self-Forcing, one step of a chunk has a gradient, and the cached keys and values have none.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from histream_core.network.cache.tiers import make_caches
from histream_core.network.cache.window import CacheOptions, KVCache
from histream_core.network.forward import PassOptions, Text, forward_chunk
from histream_core.network.layer import RunBlock
from histream_core.plan.chunks import Plan
from histream_core.plan.schedule import Scale, Step
from histream_core.stream.noise import Noise
from histream_core.stream.prompts import Prompt
from histream_core.stream.stream import Stream
from training.forward import run_block
from training.network import Network
from training.rng import Rng


@dataclass(frozen=True, slots=True)
class Rolled:
    """A video of the student."""

    estimates: Tensor | None
    """Clean estimates of the chosen steps, one per trained chunk, [B, C, T, h, w] on the grid of those steps; None
    where no step was chosen."""
    chunks: tuple[Tensor, ...]
    """Finished chunks, [B, C, T, H, W] each, without gradient."""


class Watched:
    """The engine's network call, which keeps the gradient and the estimate of the chosen step of each chunk."""

    def __init__(self, network: Network, tokens: Tensor, device_type: str, bf16: bool) -> None:
        self.network, self.tokens = network, tokens
        self.autocast = {"device_type": device_type, "dtype": torch.bfloat16, "enabled": bf16}
        self.chosen: Step | None = None
        self.estimates: list[Tensor] = []
        self._text: Text | None = None

    def __call__(self, latent: Tensor, step: Step, cache: KVCache, text: Text) -> Tensor:
        if step != self.chosen:
            with torch.no_grad(), torch.autocast(**self.autocast):
                return self._clean(latent, step, cache, text)
        with torch.autocast(**self.autocast):
            if self._text is None:  # projected once for all chosen steps, separately from those without gradient
                self._text = self.network.text(self.tokens)
            clean = self._clean(latent, step, cache, self._text, run_block)
        self.estimates.append(clean)
        return clean.detach()

    def _clean(
        self, latent: Tensor, step: Step, cache: KVCache, text: Text, block_forward: RunBlock | None = None
    ) -> Tensor:
        timestep = latent.new_full(latent.shape[:1], step.timestep)
        options = PassOptions(
            attention_scale=step.attention_scale, cache_pass=step.sigma == 0, block_forward=block_forward
        )
        flow = forward_chunk(self.network.model, latent, timestep, text, cache, options)
        return latent if flow is None else latent - step.sigma * flow.to(latent.dtype)


def rollout(
    network: Network, plan: Plan, tokens: Tensor, noise: Noise, chosen: Sequence[Step | None], *, bf16: bool = False
) -> Rolled:
    """Make the video of `plan` under captions [B, L]; `chosen` is the step of each chunk that has a gradient.

    All chosen steps are of one scale; None: no step of that chunk.
    """
    device = tokens.device
    caches = make_caches(plan, network.config, CacheOptions(batch=len(tokens), device=device))
    with torch.no_grad(), torch.autocast(device.type, torch.bfloat16, enabled=bf16):
        text = network.text(tokens)
    watched = Watched(network, tokens, device.type, bf16)
    stream = Stream(plan, watched, caches, noise, [Prompt(text)], channels=network.config.out_dim)
    chunks, made = stream.chunks(), []
    for _, step in zip(plan.chunks, chosen, strict=False):
        watched.chosen = step
        made.append(next(chunks))
    return Rolled(torch.cat(watched.estimates, dim=2) if watched.estimates else None, tuple(made))


def until(plan: Plan, chosen: Sequence[Step | None]) -> Plan:
    """Shorten a plan to end after the last chosen step."""
    last = max(index for index, step in enumerate(chosen) if step is not None)
    chunk = plan.chunks[last]
    steps = chunk.steps[: chunk.steps.index(chosen[last]) + 1]
    schedule = (*(earlier.steps for earlier in plan.chunks[:last]), steps)
    return replace(plan, schedule=schedule, num_latent_frames=chunk.frames.stop)


def choose_steps(plan: Plan, scale: Scale, trained: range, rng: Rng) -> list[Step | None]:
    """Draw one step at a scale for each of the chunks in `trained`; None for the others."""
    chosen = []
    for chunk in plan.chunks:
        steps = [step for step in chunk.steps if step.scale is scale]
        chosen.append(rng.choices.choice(steps) if chunk.index in trained else None)
    return chosen
