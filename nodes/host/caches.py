"""The memory of a run's caches: counted before it is allocated, and room for it on the device."""

import math
from collections.abc import Sequence
from dataclasses import replace

import comfy.model_management
import torch

from ...histream_core.network.cache.tiers import make_caches
from ...histream_core.network.cache.window import CacheOptions
from ...histream_core.network.model import WanModel
from ...histream_core.plan.chunks import Plan
from ...histream_core.plan.schedule import Scale


def dtype_of(model) -> torch.dtype:
    """The dtype that a MODEL computes in, also where another node chose it and the host has not loaded it yet."""
    return model.get_model_object("manual_cast_dtype") or model.model.get_dtype()


def kv_bytes(plan: Plan, model: WanModel, options: CacheOptions) -> int:
    """Bytes of a run's caches on the device, counted without allocating them."""
    caches = make_caches(plan, model, replace(options, device="meta"))
    return sum(cache.nbytes for cache in caches.values())


def chunk_shape(model, plan: Plan, noise_shape: Sequence[int], *, kv: str, extra_bytes: int = 0) -> list[int]:
    """The latent shape that takes as much memory as one chunk, the key-value caches and `extra_bytes` together."""
    (batch, channels, *_), grid = noise_shape, plan.grids[Scale.HIGH]
    options = CacheOptions(batch=batch, dtype=dtype_of(model), kv=kv)
    frame_bytes = model.model.memory_required([2 * batch, channels, 1, *grid])
    num_bytes = kv_bytes(plan, model.model.diffusion_model, options) + extra_bytes
    extra = math.ceil(num_bytes / max(1, frame_bytes))
    return [batch, channels, plan.window.chunk_frames + extra, *grid]


def make_room(num_bytes: int, guider, device: torch.device) -> None:
    """Free memory on the device, but never that of the models that this run needs."""
    needed = [guider.model_patcher, *guider.loaded_models]
    keep = [known for known in comfy.model_management.current_loaded_models if known.model in needed]
    comfy.model_management.free_memory(num_bytes, device, keep_loaded=keep)
