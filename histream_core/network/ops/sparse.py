"""Attention to a part of the keys: each block of queries sees the blocks of keys whose mean fits its mean best.

B batch, L tokens, N heads, D head dim.
"""

import torch
from torch import Tensor

from ...plan.blocks import Blocks
from .attention import Attention


def sparse_attention(attention: Attention, blocks: Blocks, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Compute `attention` of queries [B, L, N, D] over the chosen blocks of keys and values [B, K, N, D].

    For each block of queries and each head, the blocks of keys are chosen whose mean has the largest product with the
    mean of the queries.
    """
    keys, values = (x.unflatten(1, (-1, blocks.keys)).permute(0, 3, 1, 2, 4) for x in (k, v))  # [B, N, K', tokens, D]
    means = q.unflatten(1, (-1, blocks.queries)).mean(2), k.unflatten(1, (-1, blocks.keys)).mean(2)
    scores = torch.einsum("bqnd,bknd->bqnk", *means)
    chosen = scores.topk(blocks.num_kept(k.shape[1]), dim=-1).indices  # [B, L', N, kept]
    parts = []
    for queries, best in zip(q.split(blocks.queries, dim=1), chosen.unbind(1), strict=True):
        seen = (torch.take_along_dim(x, best[..., None, None], dim=2).flatten(2, 3) for x in (keys, values))
        parts.append(attention(queries, *(x.transpose(1, 2) for x in seen)))
    return torch.cat(parts, dim=1)
