"""One attention call.

B batch, L tokens, N heads, D head dim.
"""

from collections.abc import Callable

import torch
from torch import Tensor

Attention = Callable[[Tensor, Tensor, Tensor], Tensor]
"""Queries [B, L, N, D] over keys and values [B, K, N, D] with the softmax scale 1 / sqrt(D): gives [B, L, N, D]."""


def sdpa(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """PyTorch's own attention; exact, and on every device."""
    q, k, v = (x.transpose(1, 2) for x in (q, k, v))
    return torch.nn.functional.scaled_dot_product_attention(q, k, v).transpose(1, 2)
