"""Sequence parallelism by heads (Ulysses, arXiv 2309.14509): the share of a rank in a pass.

Between attentions a rank has some tokens of the chunk and all heads of them, in attention all tokens of some heads. So
its caches hold the keys and values of its heads alone, for all tokens, and nothing cached ever travels.

B batch, L tokens, N heads, D head dim; l and n are those of this rank.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..network.layer import Share
from ..plan.sharing import TILE, deal
from .link import Link


@dataclass(frozen=True)
class HeadShare(Share):
    """The share of one rank in a pass over so many tokens: slices of tokens and heads, and how they are swapped."""

    link: Link
    tokens: Sequence[int]
    """How many tokens each rank has."""
    heads: Sequence[int]
    """How many heads each rank has."""

    @classmethod
    def of(cls, link: Link, num_tokens: int, num_heads: int) -> HeadShare:
        """Tokens and heads dealt to all ranks of a link."""
        return cls(link, deal(num_tokens, link.size, TILE), deal(num_heads, link.size))

    def mine(self, x: Tensor) -> Tensor:
        return x.split([*self.tokens], dim=1)[self.link.rank].contiguous()

    def whole(self, x: Tensor) -> Tensor:
        batch, _, channels = x.shape
        flat = x.reshape(-1)
        parts = self.link.swap([flat] * self.link.size, [batch * tokens * channels for tokens in self.tokens])
        return torch.cat([part.view(batch, -1, channels) for part in parts], dim=1)

    def to_heads(self, *parts: Tensor) -> tuple[Tensor, ...]:
        x = torch.stack(parts)  # one exchange for all of them
        count, batch, _, _, dim = x.shape
        heads = self.heads[self.link.rank]
        given = [piece.reshape(-1) for piece in x.split([*self.heads], dim=3)]
        taken = self.link.swap(given, [count * batch * tokens * heads * dim for tokens in self.tokens])
        return torch.cat([piece.view(count, batch, -1, heads, dim) for piece in taken], dim=2).unbind()

    def to_tokens(self, x: Tensor) -> Tensor:
        batch, _, _, dim = x.shape
        tokens = self.tokens[self.link.rank]
        given = [piece.reshape(-1) for piece in x.split([*self.tokens], dim=1)]
        taken = self.link.swap(given, [batch * tokens * heads * dim for heads in self.heads])
        parts = [piece.view(batch, tokens, heads, dim) for piece, heads in zip(taken, self.heads, strict=True)]
        return torch.cat(parts, dim=2)
