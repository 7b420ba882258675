"""One layer's access to its cache: writes a chunk's keys and values into pages, and reads all that the chunk sees.

A page holds one latent frame. B batch, L tokens, N heads, D head dim, T latent frames.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from ...plan.blocks import Blocks
from ..ops.rope import Rotate, rotate


class Pages(NamedTuple):
    """One layer's part of a cache while a chunk is computed: only tensors and plain values, as compilers want it."""

    k: Tensor
    """Rotated keys [B, pages, tokens of a frame, N, D]."""
    v: Tensor
    """Values, of the same shape."""
    anchor_k: Tensor
    """Un-rotated keys of the anchors' pages, of the same shape; no pages where the pass writes none."""
    written: Tensor
    """Indices of the pages that the chunk's own frames are written to."""
    visible: slice | Tensor | None
    """Indices of the pages that the chunk sees; None: only its own frames."""
    anchors: tuple[tuple[int, int], ...]
    """(frame within the chunk, page) of every anchor frame whose un-rotated keys are written."""
    table: Tensor
    """Rotations of the chunk's tokens, as `Rope.table` makes them."""
    grid: tuple[int, int] = (0, 0)
    """Rows and columns of a frame's tokens."""
    pooled: Pages | None = None
    """Pages of the same layer at a lower resolution, which receive the average of what is written here."""
    blocks: Blocks | None = None
    """Block sizes of sparse attention to the visible pages; None: attention to all of their tokens."""


class PageSource(Protocol):
    """The source of the pages of each layer: a `KVCache` that has begun a chunk, or a stand-in for one."""

    def pages(self, layer: int, *, keep: bool = False) -> Pages:
        """The pages of one layer; layers come in order. `keep`: the pass is going to be committed."""
        ...


def placed(
    places: Mapping[int, int], kept: Collection[int], new: Iterable[int], order: Sequence[int]
) -> dict[int, int]:
    """The places of the frames that are `kept`; those of `new` without one take the first of `order` that is free."""
    found = {frame: place for frame, place in places.items() if frame in kept}
    for frame in new:
        if frame not in found:
            taken = {*found.values()}
            found[frame] = next(place for place in order if place not in taken)
    return found


def attend(pages: Pages, k: Tensor, v: Tensor, rotate: Rotate = rotate) -> tuple[Tensor, Tensor]:
    """Write un-rotated keys and values [B, L, N, D] of the current frames; return all that these frames attend to.

    `rotate` is used in place of `rope.rotate`.
    """
    rotated = _write(pages, k, v, rotate)
    if pages.pooled is not None:
        low_k, low_v = (pool(x, pages.grid, pages.pooled.grid) for x in (k, v))
        _write(pages.pooled, low_k, low_v, rotate)
    if pages.visible is None:
        return rotated, v
    keys, values = pages.k[:, pages.visible], pages.v[:, pages.visible]
    return keys.flatten(1, 2).to(k.dtype), values.flatten(1, 2).to(v.dtype)


def _write(pages: Pages, k: Tensor, v: Tensor, rotate: Rotate) -> Tensor:
    """Write keys and values into the pages of the current frames; return the rotated keys."""
    rotated = rotate(k, pages.table)
    by_frame = (pages.written.shape[0], -1)
    raw, keys, values = (torch.unflatten(x.to(pages.k.dtype), 1, by_frame) for x in (k, rotated, v))
    pages.k.index_copy_(1, pages.written, keys)
    pages.v.index_copy_(1, pages.written, values)
    for frame, page in pages.anchors:
        pages.anchor_k[:, page] = raw[:, frame]
    return rotated


def pool(x: Tensor, grid: tuple[int, int], lower: tuple[int, int]) -> Tensor:
    """Average tokens [B, T * grid, N, D] down to a lower grid: each of its tokens is the mean of those it covers."""
    batch, _, heads, _ = x.shape
    frames = torch.unflatten(x.flatten(2), 1, (-1, *grid)).flatten(0, 1).permute(0, 3, 1, 2)
    frames = torch.nn.functional.adaptive_avg_pool2d(frames, lower).permute(0, 2, 3, 1)
    return torch.unflatten(torch.unflatten(frames, 0, (batch, -1)).flatten(1, 3), 2, (heads, -1))
