"""Keys and values of past frames, in pages of one frame, written in place.

B batch, L tokens, N heads, D head dim.
"""

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from ...plan.blocks import Blocks
from ...plan.chunks import anchor_before
from ...plan.positions import TemporalPolicy
from ..ops.rope import Rope, Rotate, rotate
from ..transfer import upload

_STRANGER = "it belongs to another model, size or window"


class Pages(NamedTuple):
    """One layer's part of a cache while a chunk is computed: tensors and plain values alone, as compilers want it."""

    k: Tensor
    """[B, pages, tokens of a frame, N, D], as is `v`."""
    v: Tensor
    anchor_k: Tensor
    written: Tensor
    """The pages of the chunk's own frames."""
    visible: slice | Tensor | None
    """The pages that the chunk sees; None: itself alone."""
    anchors: tuple[tuple[int, int], ...]
    """(frame of the chunk, anchor page) of every anchor that the chunk writes."""
    table: Tensor
    """Rotations of the chunk's tokens."""
    grid: tuple[int, int] = (0, 0)
    """Rows and columns of a frame's tokens."""
    pooled: "Pages | None" = None
    """Pages of the same layer at a lower resolution, which take what is staged here too, averaged."""
    blocks: Blocks | None = None
    """Where the chunk sees blocks of its window alone: how long they are."""


class PageSource(Protocol):
    """Whatever provides the pages of each layer: a `KVCache` that has begun a chunk, or a stand-in for one."""

    def pages(self, layer: int, *, keep: bool = False) -> Pages:
        """The pages of one layer; layers come in order. `keep`: the pass is one to commit."""
        ...


def attend(pages: Pages, k: Tensor, v: Tensor, rotate: Rotate = rotate) -> tuple[Tensor, Tensor]:
    """Stage un-rotated keys and values [B, L, N, D] of the current frames; return all that they attend to.

    `rotate` stands in for `rope.rotate`.
    """
    rotated = _stage(pages, k, v, rotate)
    if pages.pooled is not None:
        _stage(pages.pooled, *(pool(x, pages.grid, pages.pooled.grid) for x in (k, v)), rotate)
    if pages.visible is None:
        return rotated, v
    keys, values = pages.k[:, pages.visible], pages.v[:, pages.visible]
    return keys.flatten(1, 2).to(k.dtype), values.flatten(1, 2).to(v.dtype)


def _stage(pages: Pages, k: Tensor, v: Tensor, rotate: Rotate) -> Tensor:
    """Write keys and values into the pages of the current frames; return the keys, rotated."""
    rotated = rotate(k, pages.table)
    by_frame = (pages.written.shape[0], -1)
    raw, keys, values = (torch.unflatten(x.to(pages.k.dtype), 1, by_frame) for x in (k, rotated, v))
    pages.k.index_copy_(1, pages.written, keys)
    pages.v.index_copy_(1, pages.written, values)
    for frame, page in pages.anchors:
        pages.anchor_k[:, page] = raw[:, frame]
    return rotated


def pool(x: Tensor, grid: tuple[int, int], lower: tuple[int, int]) -> Tensor:
    """Tokens [B, T * grid, N, D] on a lower grid, each the mean of those that it covers."""
    batch, _, heads, _ = x.shape
    frames = torch.unflatten(x.flatten(2), 1, (-1, *grid)).flatten(0, 1).permute(0, 3, 1, 2)
    frames = torch.nn.functional.adaptive_avg_pool2d(frames, lower).permute(0, 2, 3, 1)
    return torch.unflatten(torch.unflatten(frames, 0, (batch, -1)).flatten(1, 3), 2, (heads, -1))


class KVCache:
    """What a chunk may attend to at one resolution: the anchor frames, the local frames, itself.

    Page `f` holds anchor frame f; behind the anchors lies a ring of `ring_frames` pages, as many as the local
    frames and one chunk together. Attention does not care in which order keys come, so nothing is ever moved: a
    chunk overwrites exactly the pages that have left the window. With `ring_frames` as long as the video the same
    object is a full history in temporal order. Where anchors change, there is room for two, which they take in turn:
    the chunk that writes a new one still sees the one before.

    `begin` says which frames are computed and which they look at, `attend` stages them layer by layer (every pass
    over the same chunk overwrites the one before), `commit` keeps the last pass. An interrupted chunk leaves the
    window as it was; an interrupted recache, which computes the window itself, does not.

    What `pooled` names is another cache, of a lower resolution, that takes what is staged to be kept too, averaged; it
    has to begin and to commit with this one.

    `tiers` has caches that do the same in less memory.
    """

    parts: tuple[str, ...] = ("k", "v")
    """Names of the tensors [layers, B, pages, ...] that hold the committed frames, besides `anchor_k`."""

    def __init__(
        self,
        rope: Rope,
        temporal: TemporalPolicy,
        *,
        num_layers: int,
        num_heads: int,
        head_dim: int,
        batch: int,
        anchor_frames: int,
        ring_frames: int,
        moving_anchor: bool,
        anchors: Sequence[int] = (0,),
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ):
        """`moving_anchor`: keep the anchors' keys un-rotated too, so that they can be put at another time.

        `anchors` are the first frames of all anchors, in order, of `anchor_frames` frames each.
        """
        self.rope, self.temporal, self.batch = rope, temporal, batch
        self.anchor_frames, self.ring_frames, self.anchors = anchor_frames, ring_frames, tuple(anchors)
        self.anchor_pages = anchor_frames * min(2, len(self.anchors))
        pages = self.anchor_pages + ring_frames
        page = (rope.grid[0] * rope.grid[1], num_heads, head_dim)
        self._allocate(num_layers, page, moving=self.anchor_pages if moving_anchor else 0, device=device, dtype=dtype)
        self._frames: list[int | None] = [None] * pages
        self._times: list[int] = [0] * pages
        self._staged: dict[int, int] = {}
        self._keeping = False
        self.pooled: KVCache | None = None
        self.blocks: Blocks | None = None

    def _allocate(self, num_layers: int, page: tuple[int, ...], *, moving: int, device, dtype) -> None:
        pages = self.anchor_pages + self.ring_frames
        self.k = torch.empty(num_layers, self.batch, pages, *page, device=device, dtype=dtype)
        self.v = torch.empty_like(self.k)
        self.anchor_k = self.k.new_empty(num_layers, self.batch, moving, *page)
        self.device = self.k.device

    @property
    def frames(self) -> tuple[int, ...]:
        """The video frames whose committed keys are held, in temporal order."""
        return tuple(sorted(frame for frame in self._frames if frame is not None))

    @property
    def nbytes(self) -> int:
        """Bytes allocated on the device; never changes."""
        return sum(x.nbytes for x in (self.k, self.v, self.anchor_k))

    @property
    def main_bytes(self) -> int:
        """Bytes allocated in main memory besides."""
        return 0

    def begin(self, frames: tuple[int, ...] | range, context: tuple[int, ...], *, start: int | None = None) -> None:
        """Take aim: the next passes compute `frames`, which see themselves and the committed `context`.

        `start` is the first frame of the chunk on whose behalf this happens, by default the first of `frames`.
        """
        start = frames[0] if start is None else start
        pages = [self._page(frame) for frame in frames]
        seen = sorted(self._page(frame) for frame in context)
        missing = [frame for frame in context if self._frames[self._page(frame)] != frame]
        if missing:
            raise ValueError(f"frames {missing} are not in the window, which holds {list(self.frames)}")
        times = [self._time(frame, start) for frame in frames]
        self._place_anchors(set(seen), start)
        self._frames = [frame if frame in context else None for frame in self._frames]  # an anchor may have given way
        for page, time in zip(pages, times, strict=True):
            self._times[page] = time
        self._staged, self._keeping = dict(zip(pages, frames, strict=True)), False
        self._written = upload(torch.tensor(pages), self.device)
        self._visible = self._span(sorted({*pages, *seen})) if seen else None
        self._anchors_written = tuple((i, page) for i, page in enumerate(pages) if page < self.anchor_k.shape[2])
        self.table = upload(self.rope.table(times), self.device)

    def keep(self) -> None:
        """Say that what follows is a pass to commit, whatever noise is in it; holds until `begin`."""
        self._keeping = True

    def pages(self, layer: int, *, keep: bool = False) -> Pages:
        """What `attend` needs to know of one layer, from `begin` on; layers come in order.

        `keep` says that the pass is one to commit, as `keep()` does.
        """
        return self._pages((self.k[layer], self.v[layer], self.anchor_k[layer]), layer, keep or self._keeping)

    def _pages(self, tensors: tuple[Tensor, Tensor, Tensor], layer: int, keep: bool) -> Pages:
        """Pages in these keys, values and anchors' keys of a layer."""
        pooled = self.pooled.pages(layer, keep=True) if self.pooled and keep else None
        about = self._written, self._visible, self._anchors_written, self.table
        return Pages(*tensors, *about, self.rope.grid, pooled, self.blocks if self._visible is not None else None)

    def attend(self, layer: int, k: Tensor, v: Tensor, *, keep: bool = False) -> tuple[Tensor, Tensor]:
        """`attend` on the pages of one layer."""
        return attend(self.pages(layer, keep=keep), k, v)

    def commit(self) -> None:
        """Keep the pass that was staged last: its frames are now part of the window."""
        for page, frame in self._staged.items():
            self._frames[page] = frame

    def snapshot(self) -> dict[str, Tensor]:
        """The committed window as tensors; not copied, so write or clone them before the next pass.

        Frame by frame, and so the same whatever tier of memory they lie in.
        """
        times = [self._times[self._page(frame)] for frame in self.frames]
        window = {"window": self._window(), "frames": torch.tensor(self.frames, dtype=torch.long)}
        return window | {"times": torch.tensor(times, dtype=torch.long)} | self._tensors(self.frames)

    def restore(self, snapshot: Mapping[str, Tensor]) -> None:
        """Become what `snapshot` was taken of; ValueError where it is of another window, shape or dtype."""
        if not torch.equal(snapshot["window"], self._window()):
            theirs, mine = snapshot["window"].tolist(), self._window().tolist()
            raise ValueError(f"the snapshot's window is {theirs}, this run needs {mine}: {_STRANGER}")
        frames = snapshot["frames"].tolist()
        tensors = self._tensors(frames)
        for name, mine in tensors.items():
            theirs = snapshot[name]
            if (theirs.shape, theirs.dtype) != (mine.shape, mine.dtype):
                raise ValueError(
                    f"the snapshot's {name} is {theirs.dtype} {list(theirs.shape)}, this run needs {mine.dtype} "
                    f"{list(mine.shape)}: {_STRANGER}"
                )
        for name, mine in tensors.items():
            mine.copy_(snapshot[name])
        self._frames = [None] * len(self._frames)
        for frame, time in zip(frames, snapshot["times"].tolist(), strict=True):
            self._frames[self._page(frame)], self._times[self._page(frame)] = frame, time

    def _window(self) -> Tensor:
        return torch.tensor([self.anchor_frames, self.ring_frames])

    def _tensors(self, frames: Sequence[int]) -> dict[str, Tensor]:
        """Where these frames lie, by name: [layers, B, ...] each."""
        found = {
            f"{name}.{frame}": getattr(self, name)[:, :, self._slot(frame)] for frame in frames for name in self.parts
        }
        moving = [frame for frame in frames if self._page(frame) < self.anchor_k.shape[2]]
        return found | {f"anchor_k.{frame}": self.anchor_k[:, :, self._page(frame)] for frame in moving}

    def _slot(self, frame: int) -> int:
        """Where a committed frame lies in `k` and `v`."""
        return self._page(frame)

    def _page(self, frame: int) -> int:
        page = self._anchor_page(frame)
        return self.anchor_pages + (frame - self.anchor_frames) % self.ring_frames if page is None else page

    def _anchor_page(self, frame: int) -> int | None:
        """The page of a frame that is part of an anchor, whichever; None for any other."""
        index = bisect_right(self.anchors, frame) - 1
        within = frame - self.anchors[index]
        return index % 2 * self.anchor_frames + within if within < self.anchor_frames else None

    def _span(self, pages: list[int]) -> slice | Tensor:
        """An index of `pages`: a slice, which copies nothing, wherever they are the first ones."""
        if pages == list(range(len(pages))):
            return slice(len(pages))
        return upload(torch.tensor(pages), self.device)

    def _time(self, frame: int, start: int) -> int:
        """Frames of the chunk itself count on from its start; older ones stand where they were cached."""
        if frame >= start:
            return self.temporal.chunk_time(start) + frame - start
        anchor = anchor_before(self.anchors, start)
        if 0 <= frame - anchor < self.anchor_frames:
            return self.temporal.anchor_time(start, anchor) + frame - anchor
        return self._times[self._page(frame)]

    def _place_anchors(self, seen: set[int], start: int) -> None:
        """Put the anchor's keys at another time: rotated anew from the un-rotated copy, so nothing wears off."""
        if not self.anchor_k.shape[2]:
            return
        anchor = anchor_before(self.anchors, start)
        for frame in range(anchor, anchor + self.anchor_frames):
            page, time = self._page(frame), self._time(frame, start)
            if page in seen and self._times[page] != time:
                table = upload(self.rope.table([time]), self.device)
                for layer, raw in enumerate(self.anchor_k):
                    keys = rotate(raw[:, page].to(self.device, non_blocking=True), table)
                    self._write("k", layer, page, keys)
                self._times[page] = time

    def _write(self, name: str, layer: int, slot: int, x: Tensor) -> None:
        """Keep one frame of one layer, [B, tokens, N, D]."""
        getattr(self, name)[layer, :, slot].copy_(x, non_blocking=True)
