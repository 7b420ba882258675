"""The causal forward of a Wan transformer, over whichever module holds the weights.

The module may be core's `WanModel` or a host's: the forward only calls submodules (`block.self_attn.q(x)`), so
adapters, quantised or offloaded weights that live in those calls keep working.

B batch, C channels, T latent frames, H W latent grid, L tokens, N heads, D head dim.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from ..plan.blocks import Blocks
from ..plan.schedule import Scale, Step
from .cache.window import KVCache, Pages, attend
from .ops.attention import Attention, sdpa
from .ops.elementwise import PLAIN, Elementwise, modulate
from .ops.sparse import sparse_attention

FREQUENCY_BASE = 10000


Keys = tuple[Tensor, Tensor]
"""Keys and values, such as cross-attention's of one layer, [B, tokens, dim] each."""

RunBlock = Callable[[nn.Module, Tensor, Tensor, Pages, Keys, Attention, float], Tensor]
"""`run_block`, or a compiled one."""

Forward = Callable[..., Tensor | None]
"""`forward_chunk`, or what replays it."""


class Text:
    """One conditioning, and the cross-attention keys and values that were projected from it.

    Every prompt has its own object, so keys are never reused for another prompt; an object belongs to one model.
    """

    def __init__(self, context: Tensor):
        """`context` is a text encoder's output [B, tokens, channels], zero-padded as the encoder pads it."""
        if context.ndim != 3:
            raise ValueError(f"text conditioning has shape {list(context.shape)}: it must be [B, tokens, channels]")
        self.context = context
        self._embedded: Tensor | None = None
        self._keys: dict[int, Keys] = {}

    def keys(self, model: nn.Module, layer: int, like: Tensor) -> Keys:
        """Cross-attention keys and values of a layer, [B, tokens, dim], projected on first use."""
        if layer not in self._keys:
            if self._embedded is None:
                self._embedded = model.text_embedding(self.context.to(device=like.device, dtype=like.dtype))
            attention = model.blocks[layer].cross_attn
            self._keys[layer] = attention.norm_k(attention.k(self._embedded)), attention.v(self._embedded)
        return self._keys[layer]

    def forget(self) -> None:
        """Let go of the projected keys; they are projected again where they are asked for."""
        self._embedded, self._keys = None, {}


def embed_time(timestep: Tensor, dim: int) -> Tensor:
    """Sinusoidal embedding of timesteps [B], float32: [B, dim], cosines before sines as in Wan."""
    half = dim // 2
    frequencies = torch.pow(FREQUENCY_BASE, -torch.arange(half, device=timestep.device).float() / half)
    angles = torch.outer(timestep.float(), frequencies)
    return torch.cat([angles.cos(), angles.sin()], dim=1)


def forward_chunk(
    model: nn.Module,
    latent: Tensor,
    timestep: Tensor,
    text: Text,
    cache: KVCache,
    *,
    attention: Attention = sdpa,
    attention_scale: float = 1.0,
    cache_pass: bool = False,
    on_block: Callable[[int], None] | None = None,
    block_forward: RunBlock | None = None,
) -> Tensor | None:
    """Predict the flow, noise - clean, of the chunk that `cache` was told to begin: [B, C, T, H, W].

    `latent` [B, C, T, H, W] sets the dtype of the computation; `timestep` [B] is a thousand sigmas, one for the
    whole chunk. Its keys and values are staged in `cache` on the way. A `cache_pass` is only for those: it ends
    at the last layer's keys and returns None. `on_block` is told the number of each block before it runs;
    `block_forward` stands in for `run_block`, such as a compiled `run_block`.
    """
    dtype, (frames, height, width) = latent.dtype, latent.shape[2:]
    x = model.patch_embedding(latent.float()).to(dtype).flatten(2).transpose(1, 2)
    # One row per frame though all are alike: a matrix product of one row rounds otherwise, and hosts have a row each.
    time = model.time_embedding(embed_time(timestep.repeat_interleave(frames), model.freq_dim).to(dtype))
    time6 = model.time_projection(time)[::frames].unflatten(1, (6, model.dim))
    time = time[::frames]

    last = len(model.blocks) - 1
    for layer, block in enumerate(model.blocks):
        if on_block:
            on_block(layer)
        x, pages = x.contiguous(), cache.pages(layer, keep=cache_pass)
        if cache_pass and layer == last:
            stage_block(block, x, time6, pages)
            return None
        keys = text.keys(model, layer, x)
        x = (block_forward or run_block)(block, x, time6, pages, keys, attention, attention_scale)

    shift, scale = (_like(model.head.modulation, x) + time.unsqueeze(1)).chunk(2, dim=1)
    x = model.head.head(torch.addcmul(shift, model.head.norm(x), 1 + scale))
    x = x.unflatten(2, (1, 2, 2, -1)).unflatten(1, (frames, height // 2, width // 2))
    return torch.einsum("bthwpqrc->bctphqwr", x).flatten(6, 7).flatten(4, 5).flatten(2, 3)


def run_block(
    block: nn.Module,
    x: Tensor,
    time6: Tensor,
    pages: Pages,
    text: Keys,
    attention: Attention,
    attention_scale: float,
    elementwise: Elementwise = PLAIN,
) -> Tensor:
    """One layer, [B, L, dim] to the same: `x` is overwritten and comes back, keys and values are staged in `pages`.

    A function of tensors and of values that never change within a run: compiled, it is one graph for all layers
    and chunks of one shape. (`torch.unflatten` and not the method: compilers cannot follow that one where products are
    replaced.)
    """
    shift, scale, gate, ffn_shift, ffn_scale, ffn_gate = _modulation(block, x, time6)
    y = elementwise.modulate(block.norm1, x, shift, scale)
    q, (k, v) = _queries(block.self_attn, y), _keys(block.self_attn, y)
    q = elementwise.rotate_(q, pages.table)
    q = q if attention_scale == 1 else q * attention_scale
    y = _self_attend(pages.blocks, attention, q, *attend(pages, k, v, elementwise.rotate))
    x.addcmul_(block.self_attn.o(y.flatten(2)), gate)
    x.add_(_cross_attend(block.cross_attn, block.norm3(x), text, attention))
    y = block.ffn(elementwise.modulate(block.norm2, x, ffn_shift, ffn_scale))
    return x.addcmul_(y, ffn_gate)


def stage_block(block: nn.Module, x: Tensor, time6: Tensor, pages: Pages) -> None:
    """As much of a layer as its keys and values take."""
    shift, scale, *_ = _modulation(block, x, time6)
    attend(pages, *_keys(block.self_attn, modulate(block.norm1, x, shift, scale)))


def _modulation(block: nn.Module, x: Tensor, time6: Tensor) -> tuple[Tensor, ...]:
    return (_like(block.modulation, x) + time6).chunk(6, dim=1)


def _like(parameter: Tensor, x: Tensor) -> Tensor:
    """Bare parameters are not cast by any submodule, and a host may keep them in another dtype or place."""
    return parameter.to(device=x.device, dtype=x.dtype)


def _queries(attention: nn.Module, x: Tensor) -> Tensor:
    """Queries of an attention, [B, L, N, D]; not rotated yet."""
    return torch.unflatten(attention.norm_q(attention.q(x)), 2, (attention.num_heads, -1))


def _keys(attention: nn.Module, x: Tensor) -> Keys:
    """Keys and values of self-attention, [B, L, N, D]; not rotated yet."""
    heads = (attention.num_heads, -1)
    return torch.unflatten(attention.norm_k(attention.k(x)), 2, heads), torch.unflatten(attention.v(x), 2, heads)


def _self_attend(blocks: Blocks | None, attention: Attention, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return sparse_attention(attention, blocks, q, k, v) if blocks else attention(q, k, v)


def _cross_attend(cross: nn.Module, x: Tensor, text: Keys, attention: Attention) -> Tensor:
    k, v = (torch.unflatten(y, 2, (cross.num_heads, -1)) for y in text)
    return cross.o(attention(_queries(cross, x), k, v).flatten(2))


class Denoiser:
    """The few-step sampler's network call on a bare Wan module, without a host: latents in, clean latents out."""

    def __init__(
        self,
        model: nn.Module,
        *,
        dtype: torch.dtype = torch.float32,
        attention: Attention = sdpa,
        block_forward: RunBlock | None = None,
        low_forward: Forward = forward_chunk,
    ):
        """`low_forward` stands in for `forward_chunk` at LOW."""
        self.model, self.dtype, self.attention, self.block_forward = model, dtype, attention, block_forward
        self.low_forward = low_forward

    @torch.inference_mode()
    def __call__(self, latent: Tensor, step: Step, cache: KVCache, text: Text) -> Tensor:
        """Clean estimate x - sigma v of a noisy `latent` [B, C, T, H, W], in the latent's dtype."""
        timestep = torch.full(latent.shape[:1], step.timestep, device=latent.device)
        forward = self.low_forward if step.scale is Scale.LOW else forward_chunk
        flow = forward(
            self.model,
            latent.to(self.dtype),
            timestep,
            text,
            cache,
            attention=self.attention,
            attention_scale=step.attention_scale,
            cache_pass=step.sigma == 0,
            block_forward=self.block_forward,
        )
        return latent if flow is None else latent - step.sigma * flow.to(latent.dtype)
