"""Tiny random models and runs for the tests: the real classes at sizes that take milliseconds."""

from dataclasses import replace

import torch

from histream_core.network.cache.guided import GuidedCache
from histream_core.network.cache.tiers import MainMemoryCache, make_caches
from histream_core.network.cache.window import CacheOptions, KVCache
from histream_core.network.forward import Denoiser, Text
from histream_core.network.model import WanConfig, WanModel
from histream_core.plan.chunks import Chunks, Plan, replay
from histream_core.plan.make import PlanOptions, make_plan
from histream_core.plan.positions import TemporalPolicy
from histream_core.plan.presets import Preset, find_preset
from histream_core.plan.schedule import Scale, Schedule
from histream_core.plan.window import Window
from histream_core.stream.inputs import Inputs
from histream_core.stream.noise import SeededNoise
from histream_core.stream.prompts import Prompt
from histream_core.stream.stream import Stream

DEMO = replace(find_preset("demo"), span=TemporalPolicy().span)
"""The demo's preset with times as far apart as those of Wan."""
CONFIG = WanConfig(dim=48, ffn_dim=64, num_heads=2, num_layers=2, in_dim=4, out_dim=4, text_dim=16, freq_dim=16)


def wan(config: WanConfig = CONFIG, seed: int = 0) -> WanModel:
    """A random model whose every part matters: no weight is left at the zeros or ones of initialisation."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = WanModel(config).requires_grad_(False)
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.1)
    return model


def lively(seed: int = 0) -> WanModel:
    """Random, and lively: sharp attention, no modulation near zero, heads whose three axes are not equal."""
    sizes = {"dim": 44, "ffn_dim": 64, "num_heads": 2, "num_layers": 2, "text_dim": 12, "freq_dim": 16}
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = WanModel(WanConfig(in_dim=4, out_dim=4, **sizes)).requires_grad_(False)
        for name, parameter in model.named_parameters():
            if "norm_" in name:
                parameter.copy_(2.5 + 0.5 * torch.randn_like(parameter))
            elif "modulation" in name or name.endswith("bias"):
                parameter.copy_(0.5 * torch.randn_like(parameter))
    return model


def lively_pair() -> WanModel:
    """A lively model with a second set of weights that has nothing of the first."""
    model = lively()
    model.second = lively(seed=1)
    return model


def text(seed: int = 0, batch: int = 1) -> Text:
    return Text(torch.randn(batch, 6, CONFIG.text_dim, generator=torch.Generator().manual_seed(seed)))


def plan(mode: str = "histream", num_frames: int = 11, preset: str | Preset = DEMO, **settings) -> Plan:
    known = find_preset(preset) if isinstance(preset, str) else preset
    return plan_of(known, mode, num_frames=num_frames, **settings)


def plan_of(preset: Preset, mode: str, *, num_frames: int, width: int = 64, height: int = 64, **options) -> Plan:
    """`make_plan` with the options side by side; `num_frames` are latent frames."""
    size = width, height
    return make_plan(preset, mode, size=size, num_latent_frames=num_frames, options=PlanOptions(**options))


def chunks(num_frames: int, schedule: Schedule, window: Window, **recipe) -> Chunks:
    """The chunks of a plan of a few numbers; `num_frames` are latent frames."""
    grids = {Scale.HIGH: (8, 8)} | {
        step.scale: (4, 4) for steps in schedule for step in steps if step.scale is Scale.LOW
    }
    return Plan(num_frames, schedule, window, grids, dict.fromkeys(grids, 1.0), TemporalPolicy(), **recipe).chunks


def stream(
    a_plan: Plan,
    *,
    model=None,
    denoise=None,
    seed=1,
    prompts=None,
    given=None,
    source=None,
    upsample=None,
    review=None,
    batch=1,
    kv="full",
) -> Stream:
    model = model or wan()
    caches = make_caches(a_plan, model, CacheOptions(batch=batch, kv=kv))
    return Stream(
        a_plan,
        denoise or Denoiser(model),
        caches,
        SeededNoise(seed),
        prompts or [Prompt(text(batch=batch))],
        channels=model.in_dim,
        inputs=Inputs(given, source=source, review=review),
        upsample=upsample,
    )


def main_bytes(cache: KVCache) -> int:
    """Bytes that a cache holds in main memory besides those on the device."""
    if isinstance(cache, GuidedCache):
        return main_bytes(cache.positive) + main_bytes(cache.negative)
    held = [getattr(cache, name).nbytes for name in (*cache.parts, "anchor_k", "anchor_v")]
    return sum(held) if isinstance(cache, MainMemoryCache) else 0


def video(a_plan: Plan, **settings) -> torch.Tensor:
    """The whole latent of a run, [B, C, T, H, W]."""
    return torch.cat(list(stream(a_plan, **settings).chunks()), dim=2)


def resumed(a_plan: Plan, cut: int, *, kv="full") -> tuple[torch.Tensor, torch.Tensor]:
    """The frames from chunk `cut` - 1 on, of a stream that a snapshot behind it began again, and of the whole video."""
    whole, first = video(a_plan, kv=kv), stream(a_plan, kv=kv)
    for _ in zip(range(cut), first.chunks(), strict=False):
        state = {name: x.clone() for name, x in first.snapshot().items()}
    second = stream(replay(a_plan, cut), kv=kv, given=lambda c: whole[:, :, c.frames.start : c.frames.stop])
    second.restore(state)
    return torch.cat(list(second.chunks(cut - 1)), dim=2), whole[:, :, 3 * (cut - 1) :]
