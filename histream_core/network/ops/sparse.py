"""Attention to a part of the keys: each block of queries sees the blocks of keys whose mean fits its mean best.

B batch, L tokens, N heads, D head dim.
"""

import torch
from torch import Tensor

from ...plan.blocks import BLOCKS_AT_ONCE, Blocks
from .attention import Attention


def sparse_attention(attention: Attention, blocks: Blocks, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Compute `attention` of queries [B, L, N, D] over the chosen blocks of keys and values [B, K, N, D].

    For each block of queries and each head, the blocks of keys are chosen whose mean has the largest product with the
    mean of the queries. (`torch.unflatten` for compilers, as in `layer.run_block`.)
    """
    by_block = torch.unflatten(q, 1, (-1, blocks.queries))  # [B, L', tokens, N, D]
    key_blocks, value_blocks = (torch.unflatten(x, 1, (-1, blocks.keys)) for x in (k, v))
    scores = torch.einsum("bqnd,bknd->bqnk", by_block.mean(2), key_blocks.mean(2))
    chosen = scores.topk(blocks.num_kept(k.shape[1]), dim=-1).indices  # [B, L', N, kept]
    keys, values = (x.permute(0, 3, 1, 2, 4).unsqueeze(1) for x in (key_blocks, value_blocks))  # [B, 1, N, K', ...]
    parts = []
    for queries, best in zip(by_block.split(BLOCKS_AT_ONCE, 1), chosen.split(BLOCKS_AT_ONCE, 1), strict=True):
        seen = (torch.take_along_dim(x, best[..., None, None], dim=3).flatten(3, 4) for x in (keys, values))
        seen = (x.flatten(0, 1).transpose(1, 2) for x in seen)  # a batch of all blocks, [B * L', kept tokens, N, D]
        parts.append(torch.unflatten(attention(queries.flatten(0, 1), *seen), 0, (q.shape[0], -1)))
    return torch.cat(parts, dim=1).flatten(1, 2)
