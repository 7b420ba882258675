"""Naive variants of parts of the engine, which cost more: the controls of the bars, for measurements alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ...network.cache.pages import attend
from ...network.cache.window import KVCache
from ...network.forward import Text
from ...network.layer import KeysValues, LayerCall, run_block
from ...network.model import Block, WanModel
from ...network.ops.rope import rotate
from ...plan.chunks import Plan
from ...plan.make import PlanOptions, make_plan
from ...plan.presets import Preset
from ...plan.schedule import Step
from ...plan.window import Window
from ...stream.stream import Denoise
from ...vae.decode import decoder_layers
from ...vae.model import WanVAE


class ConcatenatingCache(KVCache):
    """A cache that concatenates context and chunk in every pass, instead of writing into pages in place."""

    def attend(self, layer: int, k: Tensor, v: Tensor, *, keep: bool = False) -> tuple[Tensor, Tensor]:  # noqa: ARG002
        rotated = rotate(k, self.table)
        new = len(self._staged) * self.k.shape[3]
        for held, value in ((self.k, rotated), (self.v, v)):
            pages = held[layer].flatten(1, 2)
            held[layer].flatten(1, 2).copy_(torch.cat([pages[:, new:], value.to(held.dtype)], dim=1))
        return self.k[layer].flatten(1, 2), self.v[layer].flatten(1, 2)


class ForgetfulText(Text):
    """A prompt that is embedded and projected again in every layer of every call."""

    def keys(self, model: WanModel, layer: int, like: Tensor) -> KeysValues:
        self.forget()
        return super().keys(model, layer, like)


class WaitingDenoiser:
    """A denoiser that reads a value back from the device in every call."""

    def __init__(self, denoise: Denoise):
        self.denoise = denoise

    def __call__(self, latent: Tensor, step: Step, cache: KVCache, text: Text) -> Tensor:
        clean = self.denoise(latent, step, cache, text)
        if not torch.isfinite(clean).all():
            raise ValueError("the model made NaN")
        return clean


def unfused_block(block: Block, call: LayerCall) -> Tensor:
    """Compute a layer as it is usually written: scale, shift and gate apart, rotations as complex numbers."""
    x, attention = call.x, call.attention
    modulation = (block.modulation.to(x) + call.time_modulation).chunk(6, dim=1)
    shift, scale, gate, ffn_shift, ffn_scale, ffn_gate = modulation
    heads = (block.self_attn.num_heads, -1)
    y = block.norm1(x) * (1 + scale) + shift
    q = block.self_attn.norm_q(block.self_attn.q(y)).unflatten(2, heads)
    k = block.self_attn.norm_k(block.self_attn.k(y)).unflatten(2, heads)
    v = block.self_attn.v(y).unflatten(2, heads)
    q = rotate_complex(q, call.pages.table) * call.attention_scale
    y = attention(q, *attend(call.pages, k, v))
    x = x + block.self_attn.o(y.flatten(2)) * gate
    cross = block.cross_attn
    q = cross.norm_q(cross.q(block.norm3(x))).unflatten(2, heads)
    x = x + cross.o(attention(q, *(y.unflatten(2, heads) for y in call.text)).flatten(2))
    return x + block.ffn(block.norm2(x) * (1 + ffn_scale) + ffn_shift) * ffn_gate


def rotate_complex(x: Tensor, table: Tensor) -> Tensor:
    """Apply rotations in complex double precision, as Wan's own code does."""
    turns = torch.view_as_complex(torch.stack([table[..., 0, 0], table[..., 1, 0]], dim=-1).double())
    pairs = torch.view_as_complex(x.double().unflatten(-1, (-1, 2)).contiguous())
    return torch.view_as_real(pairs * turns).flatten(-2).to(x.dtype)


def numbered_block(block: Block, call: LayerCall, number: int) -> Tensor:
    """Compute a layer that takes its number as a Python int, so that every layer is a graph of its own."""
    return run_block(block, call._replace(time_modulation=call.time_modulation + 0 * number))


class NumberedLayers:
    """A forward of layers that numbers its calls and runs a `numbered_block`."""

    def __init__(self, block_forward: Callable[[Block, LayerCall, int], Tensor]):
        self.block_forward, self.done = block_forward, 0

    def __call__(self, block: Block, call: LayerCall) -> Tensor:
        self.done += 1
        return self.block_forward(block, call, self.done)


def full_history_plan(preset: Preset, *, width: int, height: int, num_frames: int) -> Plan:
    """A plan with every step at full resolution, in which every chunk sees all frames before it."""
    whole = Window(preset.chunk_frames, preset.anchor_frames, local_frames=None)
    return make_plan(
        preset, "full", size=(width, height), num_latent_frames=num_frames, options=PlanOptions(window=whole)
    )


def decode_at_once(vae: WanVAE, latents: Tensor) -> Tensor:
    """Decode all raw latents [B, C, T, H, W] of a clip together: no memory is carried, and the whole clip is held."""
    x = vae.conv2(latents)
    layer: Any
    for layer in decoder_layers(vae):
        mode = getattr(layer, "mode", None)
        if hasattr(layer, "residual"):
            y = x
            for part in layer.residual:
                y = part(y)
            x = y + layer.shortcut(x)
        elif mode is None:
            x = layer(x)
        else:
            x = _resample(layer, x, in_time=mode == "upsample3d" and x.shape[2] > 1)
    return x


def _resample(layer: Any, x: Tensor, *, in_time: bool) -> Tensor:
    if in_time:  # the first frame of a clip stays one frame
        doubled = layer.time_conv(x[:, :, 1:]).unflatten(1, (2, -1))
        x = torch.cat([x[:, :, :1], doubled.permute(0, 2, 3, 1, 4, 5).flatten(2, 3)], dim=2)
    frames = layer.resample(x.transpose(1, 2).flatten(0, 1))
    return frames.unflatten(0, (x.shape[0], -1)).transpose(1, 2)
