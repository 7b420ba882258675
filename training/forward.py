"""The engine's forward with gradients: equal to `network.forward`, without in-place operations.

B batch, C channels, T latent frames, H W latent grid, L tokens.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise

import torch
from torch import Tensor, nn

from histream_core.network.cache.pages import Pages
from histream_core.network.forward import PassOptions, forward_chunk
from histream_core.network.layer import LayerCall
from histream_core.network.model import Block
from histream_core.network.ops.rope import Rope, rotate

Flow = Callable[[Tensor, Tensor, Tensor], Tensor]
"""Maps noisy clips [B, C, T, H, W], sigmas [B] and captions [B, L] to their flow."""


def run_block(block: Block, call: LayerCall) -> Tensor:
    """`network.layer.run_block` out of place: `call.x` and the cache are unchanged, the window has no gradient."""
    x, pages, attention = call.x, call.pages, call.attention
    shift, scale, gate, ffn_shift, ffn_scale, ffn_gate = (block.modulation + call.time_modulation).chunk(6, dim=1)
    y = torch.addcmul(shift, block.norm1(x), 1 + scale)
    own, heads = block.self_attn, (block.self_attn.num_heads, -1)
    v = own.v(y).unflatten(2, heads)
    q, k = (
        rotate(norm(linear(y)).unflatten(2, heads), pages.table).to(v.dtype)
        for norm, linear in ((own.norm_q, own.q), (own.norm_k, own.k))
    )
    past = context(pages)
    if past is not None:
        k = torch.cat([pages.k[:, past].flatten(1, 2).to(k.dtype), k], dim=1)
        v = torch.cat([pages.v[:, past].flatten(1, 2).to(v.dtype), v], dim=1)
    y = attention(q * call.attention_scale, k, v)
    x = torch.addcmul(x, own.o(y.flatten(2)), gate)
    cross = block.cross_attn
    k, v = (z.unflatten(2, heads) for z in call.text)
    q = cross.norm_q(cross.q(block.norm3(x))).unflatten(2, heads)
    x = x + cross.o(attention(q.to(v.dtype), k.to(v.dtype), v).flatten(2))
    y = block.ffn(torch.addcmul(ffn_shift, block.norm2(x), 1 + ffn_scale))
    return torch.addcmul(x, y, ffn_gate)


def context(pages: Pages) -> Tensor | None:
    """Committed pages that a chunk sees besides its own; None where there are none."""
    if pages.visible is None:
        return None
    every = torch.arange(pages.k.shape[1], device=pages.k.device)
    seen = every[pages.visible]
    return seen[~torch.isin(seen, pages.written)]


class Alone:
    """Cache interface without any context, for a clip whose frames see only each other."""

    def __init__(self, table: Tensor) -> None:
        nothing = table.new_empty(0)
        self._pages = Pages(nothing, nothing, nothing, nothing, None, (), table)

    def pages(self, layer: int, *, keep: bool = False) -> Pages:
        return self._pages


class Bidirectional:
    """Bidirectional forward of a network on whole clips, as the teacher has it."""

    def __init__(self, network: nn.Module, ropes: Sequence[Rope]) -> None:
        """Take one of `ropes` for each grid of tokens that clips may have."""
        self.network, self.ropes = network, {rope.grid: rope for rope in ropes}

    def __call__(self, latent: Tensor, sigma: Tensor, tokens: Tensor) -> Tensor:
        """Flow, noise - clean, of noisy clips [B, C, T, H, W] at sigmas [B] under captions [B, L]."""
        frames, height, width = latent.shape[2:]
        alone = Alone(self.ropes[height // 2, width // 2].table(list(range(frames))))
        text = self.network.text(tokens)
        return forward_chunk(
            self.network.model, latent, 1000 * sigma, text, alone, PassOptions(block_forward=run_block)
        )


@contextmanager
def hidden_state(model: nn.Module, layer: int) -> Iterator[list[Tensor]]:
    """Yield a list that collects the input [..., L, dim] of block `layer` at every forward."""
    found: list[Tensor] = []
    hook = model.blocks[layer].norm1.register_forward_pre_hook(lambda module, given: found.append(given[0]))
    try:
        yield found
    finally:
        hook.remove()


def spread(sigma: Tensor, like: Tensor) -> Tensor:
    """Noise levels [B] or [B, R] with as many dimensions as `like`."""
    return sigma.view(*sigma.shape, *[1] * (like.ndim - sigma.ndim))


def guided(flow: Flow, latent: Tensor, sigma: Tensor, tokens: Tensor, guidance: float) -> Tensor:
    """Flow under classifier-free guidance, with both captions in one batch; `guidance` 1 is none."""
    if guidance == 1:
        return flow(latent, sigma, tokens)
    twice = torch.cat([latent, latent]), torch.cat([sigma, sigma]), torch.cat([tokens, torch.zeros_like(tokens)])
    asked, free = flow(*twice).chunk(2)
    return free + guidance * (asked - free)


@torch.no_grad()
def solve(flow: Flow, latent: Tensor, sigmas: Sequence[float], tokens: Tensor, guidance: float) -> Tensor:
    """Solve the ODE from noisy `latent` at the first of `sigmas` to the last in Euler steps."""
    for now, following in pairwise(sigmas):
        level = latent.new_full(latent.shape[:1], now)
        latent = latent + (following - now) * guided(flow, latent, level, tokens, guidance)
    return latent
