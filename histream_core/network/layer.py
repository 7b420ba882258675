"""One layer of a Wan transformer: the inputs of a call as one value, and the forward.

B batch, L tokens, N heads, D head dim.
"""

from collections.abc import Callable
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from ..plan.blocks import Blocks
from .cache.pages import Pages, attend
from .model import Block, Projections
from .ops.attention import Attention, sdpa
from .ops.elementwise import PLAIN, Elementwise, modulate
from .ops.sparse import sparse_attention

KeysValues = tuple[Tensor, Tensor]
"""Keys and values of one attention, of equal shape."""


class Share(Protocol):
    """The share of one rank in a pass that several ranks compute: some of the tokens, and in attention some heads."""

    def mine(self, x: Tensor) -> Tensor:
        """The tokens of this rank [B, l, C], of all [B, L, C]."""
        ...

    def whole(self, x: Tensor) -> Tensor:
        """All tokens [B, L, C], from those of each rank [B, l, C]."""
        ...

    def to_heads(self, *parts: Tensor) -> tuple[Tensor, ...]:
        """All tokens of this rank's heads [B, L, n, D], from all heads of its tokens [B, l, N, D]."""
        ...

    def to_tokens(self, x: Tensor) -> Tensor:
        """All heads of this rank's tokens [B, l, N, D], from all tokens of its heads [B, L, n, D]."""
        ...


class Avoided(NamedTuple):
    """Normalized attention guidance in one layer's cross-attention; the numbers are those of `plan.Guidance`."""

    text: KeysValues
    """Keys and values of the negative prompt, [B, tokens, dim] each."""
    scale: float
    limit: float
    share: float


class LayerCall(NamedTuple):
    """The inputs of one call of a layer: tensors, and plain values that stay the same within a run.

    Kernels, CUDA graphs and training agree on it; `compile/layers` tells by its fields which calls share a graph.
    A compiler makes one graph for all layers and chunks whose tensors have the same shapes.
    """

    x: Tensor
    """The layer's input [B, L, dim]. A layer may overwrite it."""
    time_modulation: Tensor
    """The timestep's part of shifts, scales and gates, which is added to the layer's own: [B, 6, dim]."""
    pages: Pages
    """This layer's part of the cache: where its keys and values are written, and which ones it attends to."""
    text: KeysValues
    """Keys and values of cross-attention, [B, tokens, dim] each."""
    attention: Attention = sdpa
    attention_scale: float = 1.0
    """A factor on the queries of self-attention."""
    share: Share | None = None
    """The share of this rank, where several compute the layer: `x` then has its tokens, and `pages` its heads."""
    avoided: Avoided | None = None
    """The text that cross-attention is led away from; None: nothing."""


RunBlock = Callable[[Block, LayerCall], Tensor]
"""The forward of a layer: `run_block`, or a function that stands in for it, such as a compiled one."""


def run_block(block: Block, call: LayerCall, elementwise: Elementwise = PLAIN) -> Tensor:
    """Compute one layer: `call.x` is overwritten and returned, keys and values are written into `call.pages`.

    `elementwise` computes norms and rotations. (`torch.unflatten` is used instead of the method because compilers
    cannot trace the method where matrix products are replaced.)
    """
    x, pages = call.x, call.pages
    shift, scale, gate, ffn_shift, ffn_scale, ffn_gate = _modulation(block, x, call.time_modulation)
    y = elementwise.modulate(block.norm1, x, shift, scale)
    q, (k, v) = _queries(block.self_attn, y), _keys(block.self_attn, y)
    if call.share:
        q, k, v = call.share.to_heads(q, k, v)
    q = elementwise.rotate_(q, pages.table)
    q = q if call.attention_scale == 1 else q * call.attention_scale
    y = _self_attend(pages.blocks, call.attention, q, *attend(pages, k, v, elementwise.rotate))
    y = call.share.to_tokens(y) if call.share else y
    x.addcmul_(block.self_attn.o(y.flatten(2)), gate)
    x.add_(_cross_attend(block.cross_attn, block.norm3(x), call))
    y = block.ffn(elementwise.modulate(block.norm2, x, ffn_shift, ffn_scale))
    return x.addcmul_(y, ffn_gate)


def stage_block(block: Block, x: Tensor, time_modulation: Tensor, pages: Pages, *, share: Share | None = None) -> None:
    """Compute only the keys and values of a layer and write them into `pages`."""
    shift, scale, *_ = _modulation(block, x, time_modulation)
    k, v = _keys(block.self_attn, modulate(block.norm1, x, shift, scale))
    if share:
        k, v = share.to_heads(k, v)
    attend(pages, k, v)


def like(parameter: Tensor, x: Tensor) -> Tensor:
    """A bare parameter in the dtype and on the device of `x`.

    Weights are cast by the submodules that hold them. A bare parameter is not, and a host may keep it elsewhere.
    """
    return parameter.to(device=x.device, dtype=x.dtype)


def _modulation(block: Block, x: Tensor, time_modulation: Tensor) -> tuple[Tensor, ...]:
    return (like(block.modulation, x) + time_modulation).chunk(6, dim=1)


def _queries(projections: Projections, x: Tensor) -> Tensor:
    """Queries of an attention, [B, L, N, D], not rotated yet."""
    return torch.unflatten(projections.norm_q(projections.q(x)), 2, (projections.num_heads, -1))


def _keys(projections: Projections, x: Tensor) -> KeysValues:
    """Keys and values of self-attention, [B, L, N, D], not rotated yet."""
    heads = (projections.num_heads, -1)
    k = torch.unflatten(projections.norm_k(projections.k(x)), 2, heads)
    return k, torch.unflatten(projections.v(x), 2, heads)


def _self_attend(blocks: Blocks | None, attention: Attention, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return sparse_attention(attention, blocks, q, k, v) if blocks else attention(q, k, v)


def _cross_attend(projections: Projections, x: Tensor, call: LayerCall) -> Tensor:
    q = _queries(projections, x)
    found = _read_text(projections, q, call.text, call.attention)
    if call.avoided:
        found = lead_away(found, _read_text(projections, q, call.avoided.text, call.attention), call.avoided)
    return projections.o(found)


def _read_text(projections: Projections, q: Tensor, text: KeysValues, attention: Attention) -> Tensor:
    """The values that queries find in a text, [B, L, dim]."""
    k, v = (torch.unflatten(y, 2, (projections.num_heads, -1)) for y in text)
    return attention(q, k, v).flatten(2)


def lead_away(found: Tensor, unwanted: Tensor, avoided: Avoided) -> Tensor:
    """Lead `found`, the values of the prompt [B, L, dim], away from the `unwanted` ones of the negative prompt.

    A sum that is longer than `limit` times `found` is shortened to that, token by token.
    """
    led = unwanted + avoided.scale * (found - unwanted)
    before, after = _lengths(found), _lengths(led)
    shortened = (avoided.limit * before / after.clamp(min=1e-7)).clamp(max=1).to(led.dtype)
    return found + avoided.share * (shortened * led - found)


def _lengths(x: Tensor) -> Tensor:
    """The sum of absolute values of each token [B, L, 1], in float32."""
    return torch.linalg.vector_norm(x, ord=1, dim=-1, keepdim=True, dtype=torch.float32)
