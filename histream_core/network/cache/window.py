"""The keys and values of the frames that a chunk may attend to, in pages of one frame that are written in place.

B batch, N heads, D head dim.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ...plan.anchoring import FIRST_FRAMES, AnchorSource
from ...plan.blocks import Blocks
from ...plan.chunks import Plan, anchor_before
from ...plan.positions import JUMP, TemporalPolicy
from ..model import ModelSizes
from ..ops.rope import Rope, rotate
from ..transfer import upload
from .pages import Pages, attend, placed

MAX_FRAMES = 100_000
"""Most frames of a snapshot."""

TURNED = -1
"""The time of a frame whose keys have to be rotated anew."""

_MISMATCH = "it belongs to another model, size or window"


class NoSnapshotError(ValueError):
    """A cache has no snapshot."""


@dataclass(frozen=True, slots=True)
class CacheOptions:
    """How caches are stored."""

    batch: int = 1
    device: torch.device | str | None = None
    dtype: torch.dtype = torch.float32
    kv: str = "full"
    """The memory tier, one of TIERS; `make_caches` chooses the class by it."""


@dataclass(frozen=True, slots=True)
class CacheWindow:
    """Which frames a cache has room for, on which page each of them lies, and at which time it stands.

    Pages of anchors come first. Behind them lies a ring of pages, which frames take in turn.
    """

    temporal: TemporalPolicy
    anchor_frames: int
    """Frames that are kept for one anchor."""
    ring_frames: int
    """Pages of the ring: the local frames and one chunk, or all frames of the video."""
    local_frames: int
    """How many frames a chunk sees at most besides itself and the anchor."""
    anchors: tuple[int, ...] = (0,)
    """The first frame of every anchor, in order."""
    moving_anchor: bool = False
    """Whether anchors are moved in time, so that their keys are kept un-rotated too."""
    turn: int = 0
    """Pages by which the ring is turned: caches that are as many frames apart then use the same pages."""
    gives_way: bool = False
    """Whether any frame may take the place of one of the anchor, so that a cache looks up where each frame lies."""
    source: AnchorSource = FIRST_FRAMES
    """The content of the anchor while the video goes on."""
    jumps: tuple[int, ...] = ()
    """The first frames of chunks that jump in time."""
    shown_frames: int = 0
    """Frames of one anchor that a chunk sees, where the anchor walks or is an average."""

    @classmethod
    def of(cls, plan: Plan) -> CacheWindow:
        """The window that the chunks of a plan need."""
        anchor_frames, ring_frames = plan.window.pages(plan.generated_frames)
        return cls(
            plan.temporal,
            anchor_frames and plan.kept_anchor_frames,
            ring_frames,
            local_frames=plan.window.past_frames(plan.generated_frames),
            anchors=tuple(plan.anchors),
            moving_anchor=plan.moving_anchor and anchor_frames > 0,
            gives_way=plan.sinks is not None,
            source=plan.anchor_source,
            jumps=plan.jumps,
            shown_frames=anchor_frames,
        )

    @property
    def anchor_pages(self) -> int:
        """Pages of anchors: two anchors have room where anchors change, and take it in turn."""
        return self.anchor_frames * min(2, len(self.anchors))

    @property
    def moving_pages(self) -> int:
        """Pages of un-rotated keys; any frame has one while it may still become part of the anchor."""
        return self.anchor_pages + self.gives_way if self.moving_anchor else 0

    @property
    def mean_pages(self) -> int:
        """Pages of values that frames are mixed into."""
        return self.moving_pages if self.source.share < 1 else 0

    @property
    def past_frames(self) -> int:
        """Room for past frames besides anchors where only these are kept: those of an average outlive a chunk."""
        return self.ring_frames if self.source.share < 1 else self.local_frames

    @property
    def num_pages(self) -> int:
        return self.anchor_pages + self.ring_frames

    def page(self, frame: int) -> int:
        """The page of a frame, where anchors do not give way."""
        page = self.anchor_page(frame)
        if page is not None:
            return page
        return self.anchor_pages + (frame - self.anchor_frames + self.turn) % self.ring_frames

    def past_slot(self, frame: int) -> int:
        """The place of a frame where only past frames are kept, and the ring has no pages for a chunk."""
        page = self.anchor_page(frame)
        return self.anchor_pages + (frame - self.anchor_frames) % max(1, self.past_frames) if page is None else page

    def anchor_page(self, frame: int) -> int | None:
        """The page of a frame that is part of any anchor; None for all other frames."""
        index = bisect_right(self.anchors, frame) - 1
        within = frame - self.anchors[index]
        return index % 2 * self.anchor_frames + within if within < self.anchor_frames else None


def _whole_numbers(tensor: Tensor) -> list[int]:
    """The numbers from 0 on in a tensor of a snapshot. Raises ValueError for another one."""
    if tensor.dtype != torch.long or tensor.ndim != 1 or len(tensor) > MAX_FRAMES or (tensor < 0).any():
        raise ValueError(f"the snapshot lists frames as {tensor.dtype} {list(tensor.shape)}: {_MISMATCH}")
    return tensor.tolist()


class KVCache:
    """Keys and values that a chunk may attend to at one resolution: of anchor frames, local frames, and its own.

    Page `f` holds anchor frame f; behind the anchors lies a ring of `ring_frames` pages, as many as the local
    frames and one chunk together. Attention does not care in which order keys come, so nothing is ever moved: a
    chunk overwrites exactly the pages that have left the window. With `ring_frames` as long as the video the same
    object is a full history in temporal order. Where anchors change, there is room for two, which they take in turn:
    the chunk that writes a new one still sees the one before.

    `begin` says which frames are computed and which they look at, `attend` stages them layer by layer (every pass
    over the same chunk overwrites the one before), `commit` keeps the last pass. An interrupted chunk leaves the
    window as it was; an interrupted recache, which computes the window itself, does not.

    `pooled` is another cache, of a lower resolution, that receives the average of every pass that is kept. It has to
    begin and to commit together with this one.

    The classes in `tiers` do the same in less memory.
    """

    parts: tuple[str, ...] = ("k", "v")
    """Names of the tensors [layers, B, pages, ...] that hold the committed frames, besides `anchor_k`."""

    def __init__(
        self,
        rope: Rope,
        sizes: ModelSizes,
        window: CacheWindow,
        options: CacheOptions,
        *,
        pooled: KVCache | None = None,
        blocks: Blocks | None = None,
    ):
        """`blocks`: chunks that see past frames attend sparsely, in blocks of these sizes; None: to every token."""
        self.rope, self.window, self.pooled, self.blocks = rope, window, pooled, blocks
        self.batch = options.batch
        page = (rope.grid[0] * rope.grid[1], sizes.num_heads, sizes.head_dim)
        self._allocate(sizes.num_layers, page, options)
        self._frames: list[int | None] = [None] * window.num_pages
        self._times: list[int] = [0] * window.num_pages
        self._staged: dict[int, int] = {}
        self._keeping = False
        # Where sinks give way: the sinks of the chunk that has begun, and the pages of frames and of un-rotated keys.
        self._sinks: tuple[int, ...] = ()
        self._places: dict[int, int] = {}
        self._raw_places: dict[int, int] = {}

    def _allocate(self, num_layers: int, page: tuple[int, int, int], options: CacheOptions) -> None:
        """Allocate room for pages of shape [tokens, N, D]."""
        shape = num_layers, self.batch, self.window.num_pages, *page
        self.k = torch.empty(shape, device=options.device, dtype=options.dtype)
        self.v = torch.empty_like(self.k)
        self.anchor_k, self.anchor_v = (
            self.k.new_empty(num_layers, self.batch, n, *page, dtype=self._mean_dtype(options.dtype))
            for n in (self.window.moving_pages, self.window.mean_pages)
        )
        self.device = self.k.device

    def _mean_dtype(self, dtype: torch.dtype) -> torch.dtype:
        """The type of un-rotated keys: averages are float32, as less loses what a frame adds to them."""
        return torch.float32 if self.window.mean_pages else dtype

    @property
    def frames(self) -> tuple[int, ...]:
        """The video frames whose committed keys are held, in temporal order."""
        return tuple(sorted(frame for frame in self._frames if frame is not None))

    @property
    def written_pages(self) -> tuple[int, ...]:
        """The pages that the frames of the chunk are written to, once it has begun."""
        return tuple(self._staged)

    @property
    def nbytes(self) -> int:
        """Bytes allocated on the device; never changes."""
        return sum(x.nbytes for x in (self.k, self.v, self.anchor_k, self.anchor_v))

    def begin(
        self, frames: Sequence[int], context: tuple[int, ...], *, start: int | None = None, sinks: tuple[int, ...] = ()
    ) -> None:
        """Set what the next passes compute: `frames`, which see themselves and the committed frames `context`.

        `start` is the first frame of the chunk that this is done for, by default the first of `frames`. `sinks` are
        the frames of its anchor, where they can give way. Raises ValueError where a frame of the context is not held.
        """
        start = frames[0] if start is None else start
        held = {*self._frames}
        missing = [frame for frame in context if frame not in held]
        if missing:
            raise ValueError(f"frames {missing} are not in the window, which holds {list(self.frames)}")
        if self.window.gives_way:
            self._make_room(frames, context, start, sinks)
        pages = [self._page(frame) for frame in frames]
        seen = sorted(self._page(frame) for frame in context)
        times = [self._time(frame, start) for frame in frames]
        if self.window.mean_pages:
            self._mix(set(context), start)
        self._place_anchors(set(seen), start)
        if self.window.temporal.kind == "rerotate" or self.window.jumps:
            self._rerotate(context, start)
        # Frames that left the window are forgotten here, such as an anchor that another one has replaced.
        kept = {*context}
        if self.window.source.walk:
            kept |= {*self.window.source.kept(start, anchor_before(self.window.anchors, start))}
        self._frames = [frame if frame in kept else None for frame in self._frames]
        for page, time in zip(pages, times, strict=True):
            self._times[page] = time
        self._staged, self._keeping = dict(zip(pages, frames, strict=True)), False
        self._written = upload(torch.tensor(pages), self.device)
        self._visible = self._index(sorted({*pages, *seen})) if seen else None
        raw = enumerate(map(self._raw_page, frames))
        self._anchors_written = tuple((i, page) for i, page in raw if page is not None)
        self.table = upload(self.rope.table(times), self.device)

    def keep(self) -> None:
        """Declare that the next pass will be committed, whatever noise its latent holds; lasts until `begin`."""
        self._keeping = True

    def pages(self, layer: int, *, keep: bool = False) -> Pages:
        """The pages of one layer for `attend`, once a chunk has begun; layers come in order.

        `keep` declares that the pass will be committed, as `keep()` does.
        """
        return self._pages((self.k[layer], self.v[layer], self.anchor_k[layer]), layer, keep or self._keeping)

    def _pages(self, tensors: tuple[Tensor, Tensor, Tensor], layer: int, keep: bool) -> Pages:
        """Pages in these keys, values and un-rotated keys of a layer."""
        k, v, anchor_k = tensors
        return Pages(
            k,
            v,
            anchor_k if self._anchors_written else anchor_k[:, :0],  # passes of one kind have one shape
            written=self._written,
            visible=self._visible,
            anchors=self._anchors_written,
            table=self.table,
            grid=self.rope.grid,
            pooled=self.pooled.pages(layer, keep=True) if self.pooled and keep else None,
            blocks=self.blocks if self._visible is not None else None,
        )

    def attend(self, layer: int, k: Tensor, v: Tensor, *, keep: bool = False) -> tuple[Tensor, Tensor]:
        """Call `pages.attend` on the pages of one layer."""
        return attend(self.pages(layer, keep=keep), k, v)

    def commit(self) -> None:
        """Keep the last pass: its frames are now part of the window."""
        for page, frame in self._staged.items():
            self._frames[page] = frame
        if self.window.mean_pages:
            self._begin_average()

    def _begin_average(self) -> None:
        """Begin the average of each new frame of the anchor, and forget the frames that no chunk will see."""
        last = max(self._staged.values())
        for page, frame in self._staged.items():
            raw_page = self._raw_page(frame)
            if raw_page is not None:
                for layer in range(len(self.k)):
                    self._write("anchor_v", layer, raw_page, self._stored("v", layer, self._slot(frame)))
            if not self._survives(frame, last):
                self._frames[page] = None

    def snapshot(self) -> dict[str, Tensor]:
        """The committed window as tensors; not copied, so write or clone them before the next pass.

        Frames are stored one by one, so a snapshot does not depend on the memory tier, except that `fp8` stores
        numbers of its own. The keys, where F is the number of frames held and `f` is the index of a frame:

        - `window`: [2] int64, the anchor frames and the ring frames of the window.
        - `frames`: [F] int64, the indices of the frames in temporal order.
        - `times`: [F] int64, the time at which each frame's keys are rotated.
        - `k.f`, `v.f`: [layers, B, tokens of a frame, N, D] in the caches' dtype, the rotated keys and the values; for
          `fp8` in float8_e4m3fn.
        - `k_scale.f`, `v_scale.f`: [layers, B, 1, N, 1] float32, the factors of `k.f` and `v.f`; for `fp8` alone.
        - `anchor_k.f`: as `k.f` in the caches' dtype, un-rotated; for the frames of anchors alone, and only where
          anchors are moved in time.
        - `anchor_v.f`: as `anchor_k.f`, the values; only where the anchor is an average, and both are float32.
        - `pages`: [F] int64, the page of each frame in the tier `full`; only where sinks give way.
        """
        pages = [self._page(frame) for frame in self.frames]
        lists = {"frames": self.frames, "times": [self._times[page] for page in pages]}
        if self.window.gives_way:
            lists["pages"] = pages
        numbers = {name: torch.tensor(found, dtype=torch.long) for name, found in lists.items()}
        return {"window": self._shape()} | numbers | self._tensors(self.frames)

    def restore(self, snapshot: Mapping[str, Tensor]) -> None:
        """Take over a snapshot. Raises ValueError where it is of another window, shape or dtype."""
        window, frames, times = (_whole_numbers(snapshot[name]) for name in ("window", "frames", "times"))
        if window != self._shape().tolist():
            raise ValueError(f"the snapshot's window is {window}, this run needs {self._shape().tolist()}: {_MISMATCH}")
        if self.window.gives_way:
            self._take_places(frames, snapshot)
        if len(times) != len(frames) or len({self._page(frame) for frame in frames}) < len(frames):
            raise ValueError(f"the snapshot's frames and times do not fit together: {_MISMATCH}")
        tensors = self._tensors(frames)
        for name, mine in tensors.items():
            theirs = snapshot[name]
            if (theirs.shape, theirs.dtype) != (mine.shape, mine.dtype):
                raise ValueError(
                    f"the snapshot's {name} is {theirs.dtype} {list(theirs.shape)}, this run needs {mine.dtype} "
                    f"{list(mine.shape)}: {_MISMATCH}"
                )
        for name, mine in tensors.items():
            mine.copy_(snapshot[name])
        self._frames = [None] * len(self._frames)
        for frame, time in zip(frames, times, strict=True):
            self._frames[self._page(frame)], self._times[self._page(frame)] = frame, time

    def _shape(self) -> Tensor:
        return torch.tensor([self.window.anchor_frames, self.window.ring_frames])

    def _tensors(self, frames: Sequence[int]) -> dict[str, Tensor]:
        """The tensors that hold these frames, by their names in a snapshot: [layers, B, ...] each."""
        found = {
            f"{name}.{frame}": getattr(self, name)[:, :, self._slot(frame)] for frame in frames for name in self.parts
        }
        raw = {frame: page for frame in frames if (page := self._raw_page(frame)) is not None}
        kinds = ("anchor_k", "anchor_v") if self.window.mean_pages else ("anchor_k",)
        return found | {f"{kind}.{f}": getattr(self, kind)[:, :, page] for f, page in raw.items() for kind in kinds}

    def _page(self, frame: int) -> int:
        return self._places[frame] if self.window.gives_way else self.window.page(frame)

    def _raw_page(self, frame: int) -> int | None:
        """The page of a frame's un-rotated keys; None where none are kept."""
        if self.window.gives_way:
            return self._raw_places.get(frame)
        page = self._page(frame)
        return page if page < self.window.moving_pages else None

    def _make_room(self, frames: Sequence[int], context: Collection[int], start: int, sinks: tuple[int, ...]) -> None:
        """Give frames that are going to be computed pages on which nothing lies that they see.

        These are the pages that the ring would give, as long as no sink has given way.
        """
        self._sinks = sinks
        in_turn = [self.window.page(frame) for frame in range(self.window.num_pages)]
        self._places = placed(self._places, {*context, *frames}, frames, in_turn)
        if self.window.moving_pages:
            raw = [frame for frame in frames if frame in sinks or frame >= start]
            self._raw_places = placed(self._raw_places, {*sinks, *raw}, raw, range(self.window.moving_pages))

    def _take_places(self, frames: Sequence[int], snapshot: Mapping[str, Tensor]) -> None:
        """Take over the pages of a snapshot's frames. Raises ValueError for pages that this cache has not."""
        pages = _whole_numbers(snapshot["pages"])
        raw = [frame for frame in frames if f"anchor_k.{frame}" in snapshot]
        if len(pages) != len(frames) or max(pages, default=0) >= self.window.num_pages:
            raise ValueError(f"the snapshot's frames and pages do not fit together: {_MISMATCH}")
        least = min(len(frames), self.window.anchor_frames) if self.window.moving_pages else 0
        if not least <= len(raw) <= self.window.moving_pages:
            raise ValueError(f"the snapshot has un-rotated keys of {len(raw)} frames: {_MISMATCH}")
        self._places = dict(zip(frames, pages, strict=True))
        self._raw_places = placed({}, (), raw, range(self.window.moving_pages))

    def _survives(self, frame: int, last: int) -> bool:
        """Whether the chunk behind frame `last` can see a frame."""
        anchored = frame in self._sinks if self.window.gives_way else self.window.anchor_page(frame) is not None
        return anchored or frame > last - self.window.local_frames

    def _slot(self, frame: int) -> int:
        """The index of a committed frame in `k` and `v`."""
        return self._page(frame)

    def _index(self, pages: list[int]) -> slice | Tensor:
        """An index of these pages: a slice, which copies nothing, where they are the first pages."""
        if pages == list(range(len(pages))):
            return slice(len(pages))
        return upload(torch.tensor(pages), self.device)

    def _time(self, frame: int, start: int) -> int:
        """Frames of the chunk itself count on from its start; older ones stand where they were cached."""
        own = self.window.temporal.chunk_time(start) + frame - start
        if frame >= start:
            return own + JUMP * (start in self.window.jumps)
        anchor = self._anchor_times(start)
        return anchor[frame] if frame in anchor else own if self.window.jumps else self._times[self._page(frame)]

    def _anchor_times(self, start: int) -> dict[int, int]:
        """The frames of the anchor that the chunk at frame `start` sees, and the time of each."""
        window, temporal = self.window, self.window.temporal
        if window.gives_way:
            return {sink: temporal.sink_time(start, sink, rank) for rank, sink in enumerate(self._sinks)}
        anchor = anchor_before(window.anchors, start)
        frames: Sequence[int] = range(anchor, anchor + (window.shown_frames or window.anchor_frames))
        if window.source.walk:
            frames = window.source.shown(start, anchor, window.shown_frames)
        first = temporal.anchor_time(start, min(frames, default=anchor))
        return {frame: first + place for place, frame in enumerate(frames)}

    def _mix(self, context: set[int], start: int) -> None:
        """Mix the frames that leave the window into the anchor, one after the other.

        A frame goes into the frame of the anchor whose turn it is. Its keys are rotated back first.
        """
        anchor, count = anchor_before(self.window.anchors, start), self.window.shown_frames
        leaving = [frame for frame in self.frames if frame >= anchor + count and frame not in context]
        for frame in leaving if anchor in context else ():
            page, into = self._page(frame), anchor + (frame - anchor) % count
            back, raw_page = self.rope.back(self._times[page]), self._raw_page(into)
            assert raw_page is not None  # the anchor of an average has them
            self._frames[self._page(into)] = None  # neither the old average nor the new one
            for layer in range(len(self.k)):
                keys, values = (self._stored(name, layer, self._slot(frame)).float() for name in ("k", "v"))
                for name, x in (("anchor_k", rotate(keys, back)), ("anchor_v", values)):
                    mean = getattr(self, name)[layer, :, raw_page].to(self.device)
                    self._write(name, layer, raw_page, torch.lerp(x, mean, self.window.source.share))
                self._write("v", layer, self._slot(into), self.anchor_v[layer, :, raw_page].to(self.device))
            self._times[self._page(into)] = TURNED
            self._frames[page] = None  # mixed in, and never again
            self._frames[self._page(into)] = into

    def _place_anchors(self, seen: set[int], start: int) -> None:
        """Move the anchor's keys in time: they are rotated from the un-rotated copy, so errors do not add up."""
        if not self.window.moving_pages:
            return
        for frame, time in self._anchor_times(start).items():
            page, raw_page = self._page(frame), self._raw_page(frame)
            if page in seen and self._times[page] != time:
                table = upload(self.rope.table([time]), self.device)
                for layer, raw in enumerate(self.anchor_k):
                    keys = rotate(raw[:, raw_page].to(self.device, non_blocking=True), table)
                    self._write("k", layer, self._slot(frame), keys)
                self._times[page] = time

    def _rerotate(self, context: Sequence[int], start: int) -> None:
        """Turn the keys of past frames to where they stand before the chunk, if its time or theirs has jumped.

        A frame leaves the ring long before the next jump, so its keys are rounded once more and not again and again.
        """
        anchor = self._anchor_times(start)
        for frame in context:
            page = self._page(frame)
            jump = self.window.temporal.chunk_time(start) + frame - start - self._times[page]
            if jump and frame < start and frame not in anchor:
                table, slot = upload(self.rope.jump(jump), self.device), self._slot(frame)
                self._frames[page] = None  # some layers are turned, others not yet
                for layer in range(len(self.k)):
                    self._write("k", layer, slot, rotate(self._stored("k", layer, slot), table))
                self._times[page] += jump
                self._frames[page] = frame

    def _stored(self, name: str, layer: int, slot: int) -> Tensor:
        """The rotated keys or the values of one frame of one layer on the device, [B, tokens, N, D]."""
        return getattr(self, name)[layer, :, slot].to(self.device, non_blocking=True)

    def _write(self, name: str, layer: int, slot: int, x: Tensor) -> None:
        """Store one frame of one layer, [B, tokens, N, D]."""
        getattr(self, name)[layer, :, slot].copy_(x, non_blocking=True)
