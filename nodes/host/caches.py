"""The memory of a run's caches: counted before it is allocated, and room for it on the device."""

import math
from collections.abc import Sequence

import comfy.model_management
import torch
from torch import nn

from ...histream_core.plan.chunks import Plan
from ...histream_core.stream.stream import make_caches


def model_sizes(module: nn.Module) -> dict[str, int]:
    """What `make_caches` wants to know about a Wan module."""
    heads = module.num_heads
    return {"num_layers": len(module.blocks), "num_heads": heads, "head_dim": module.dim // heads}


def kv_bytes(plan: Plan, batch: int, **sizes) -> int:
    """Bytes of a run's caches on the device, without allocating them."""
    return sum(cache.nbytes for cache in make_caches(plan, batch=batch, device="meta", **sizes).values())


def chunk_shape(model, plan: Plan, noise_shape: Sequence[int], *, kv: str, extra_bytes: int = 0) -> list[int]:
    """The latent shape whose memory is that of one chunk, of the key-value caches and of `extra_bytes`."""
    batch, channels, _, *grid = noise_shape
    sizes = model_sizes(model.model.diffusion_model) | {"dtype": model.model.get_dtype_inference(), "kv": kv}
    frame_bytes = model.model.memory_required([2 * batch, channels, 1, *grid])
    extra = math.ceil((kv_bytes(plan, batch, **sizes) + extra_bytes) / max(1, frame_bytes))
    return [batch, channels, plan.window.chunk_frames + extra, *grid]


def make_room(num_bytes: int, guider, device: torch.device) -> None:
    """Free memory on the device, but never of the models that this run needs."""
    needed = [guider.model_patcher, *guider.loaded_models]
    keep = [known for known in comfy.model_management.current_loaded_models if known.model in needed]
    comfy.model_management.free_memory(num_bytes, device, keep_loaded=keep)
