"""The caches of steps that are computed in one network call, a row for each step.

B batch, N heads, D head dim.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch

from ...plan.blocks import Blocks
from ..model import ModelSizes
from ..ops.rope import Rope
from .pages import Pages
from .window import CacheOptions, CacheWindow, KVCache


class RowsCache(KVCache):
    """The keys and values of all rows in one tensor; row i has the batch items from i * B on.

    Each row is a cache of its own, which begins and commits. `join` makes several of them one cache for a network call.
    """

    def __init__(
        self,
        rope: Rope,
        sizes: ModelSizes,
        windows: Sequence[CacheWindow],
        options: CacheOptions,
        *,
        blocks: Blocks | None = None,
    ):
        """`windows` are those of the rows; they differ in how far their rings are turned."""
        super().__init__(rope, sizes, windows[0], replace(options, batch=len(windows) * options.batch), blocks=blocks)
        self.rows = [RowCache(self, row, sizes, window, options) for row, window in enumerate(windows)]
        self._items = slice(0)

    def join(self, rows: Sequence[KVCache]) -> RowsCache:
        """This cache, for a call of these rows, which follow one another and have begun. Raises ValueError."""
        first, last, row_batch = rows[0], rows[-1], rows[0].batch
        start = self.rows.index(first)  # type: ignore[arg-type]
        if [*rows] != self.rows[start : start + len(rows)] or len({row.written_pages for row in rows}) > 1:
            raise ValueError("rows of one call follow one another and write the same pages: compute these one by one")
        self._items = slice(start * row_batch, (self.rows.index(last) + 1) * row_batch)  # type: ignore[arg-type]
        self._written, self._visible, self._anchors_written = first._written, first._visible, ()
        self.table = torch.stack([row.table for row in rows]).repeat_interleave(row_batch, dim=0)
        return self

    def pages(self, layer: int, *, keep: bool = False) -> Pages:
        tensors = self.k[layer, self._items], self.v[layer, self._items], self.anchor_k[layer, self._items]
        return self._pages(tensors, layer, keep)


class RowCache(KVCache):
    """One row of a `RowsCache`: a cache whose pages are a part of that one's."""

    def __init__(self, whole: RowsCache, row: int, sizes: ModelSizes, window: CacheWindow, options: CacheOptions):
        self.whole, self._items = whole, slice(row * options.batch, (row + 1) * options.batch)
        super().__init__(whole.rope, sizes, window, options, blocks=whole.blocks)

    def _allocate(self, *_: object) -> None:
        whole = self.whole
        self.k, self.v, self.anchor_k, self.anchor_v = (
            x[:, self._items] for x in (whole.k, whole.v, whole.anchor_k, whole.anchor_v)
        )
        self.device = whole.device
