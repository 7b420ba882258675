"""Attention over part of the keys: each block of queries sees the blocks of keys that answer best to it, on average.

B batch, L tokens, N heads, D head dim.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from .attention import Attention

SHARE = 0.5
"""Of the key blocks in the window, how many are seen."""

MOST_QUERIES, MOST_KEYS = 1024, 128
"""Tokens of a block at most. Keys are copied together for each block of queries, so those are longer."""


class Blocks(NamedTuple):
    """How many tokens a block of queries and one of keys have; both divide a frame."""

    queries: int
    keys: int

    def num_kept(self, visible: int) -> int:
        """Blocks of keys that are seen, of so many visible tokens."""
        return math.ceil(SHARE * visible / self.keys)


def blocks_for(tokens_per_frame: int) -> Blocks:
    """Blocks of equal length, as long as they may be: 1020 and 120 tokens at 1920x1088."""
    return Blocks(_divisor(tokens_per_frame, MOST_QUERIES), _divisor(tokens_per_frame, MOST_KEYS))


def sparse_attention(attention: Attention, blocks: Blocks, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """`attention` of queries [B, L, N, D] over those keys and values [B, K, N, D] alone whose blocks are chosen.

    A block of keys is chosen for a block of queries, in each head by itself, by the product of their means.
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


def _divisor(number: int, most: int) -> int:
    return max(each for each in range(1, most + 1) if number % each == 0)
