"""The memory tiers: `make_caches` allocates the caches of a plan in one of them.

The classes here do the same as `KVCache` in less memory of the device.

B batch, N heads, D head dim.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor

from ...plan.chunks import Plan
from ...plan.histories import Level
from ...plan.order import BATCHED
from ...plan.schedule import Scale
from ...plan.storage import TIERS
from ..model import ModelSizes, WanConfig, WanModel
from ..ops.fp8 import FP8, FP8_MAX
from ..ops.rope import Rope
from ..transfer import CopyStream
from .guided import GuidedCache
from .pages import Pages, placed
from .rows import RowsCache
from .window import CacheOptions, CacheWindow, KVCache


def check_tier(name: str, device: torch.device | str | None = None) -> None:
    """Refuse an unknown tier, and one that the device cannot store. Raises ValueError."""
    if name not in TIERS:
        raise ValueError(f'key/value memory "{name}" does not exist: use one of {", ".join(TIERS)}')
    if name == "fp8" and device is not None and torch.device(device).type == "mps":
        raise ValueError("Apple GPUs have no FP8: use key/value memory lean, which gives the same frames as full")


class LeanCache(KVCache):
    """A cache that stores only past frames; the chunk that is computed lies in a scratch window of one layer.

    Before a layer computes, its past frames are copied into the scratch window, to the very pages where a `KVCache`
    has them: attention then adds up in the same order and gives the same bits. After a layer of a pass that is going
    to be committed, the frames that later chunks see are copied out. So an interrupted denoising pass leaves the past
    as it was, an interrupted cache pass does not.
    """

    main_memory = False
    """Whether past frames lie in main memory, and there are two scratch windows."""

    def _allocate(self, num_layers: int, page: tuple[int, int, int], options: CacheOptions) -> None:
        pages, moving = self.window.num_pages, self.window.moving_pages
        self._scratch = [
            tuple(
                torch.empty(self.batch, n, *page, device=options.device, dtype=options.dtype)
                for n in (pages, pages, moving)
            )
            for _ in range(2 if self.main_memory else 1)
        ]
        self.device = self._scratch[0][0].device
        self._slots: dict[int, int] = {}  # of past frames, where sinks give way
        self._copies = CopyStream(self.device if self.main_memory else None)
        self._copies.use(x for window in self._scratch for x in window)
        self._allocate_past(num_layers, page, options.dtype)

    def _allocate_past(self, num_layers: int, page: tuple[int, int, int], dtype: torch.dtype) -> None:
        frames = self.window.anchor_pages + self.window.past_frames
        self.k, self.v = (self._past(num_layers, frames, page, dtype) for _ in range(2))
        self._allocate_raw(num_layers, page, dtype)

    def _allocate_raw(self, num_layers: int, page: tuple[int, int, int], dtype: torch.dtype) -> None:
        window, dtype = self.window, self._mean_dtype(dtype)
        self.anchor_k = self._past(num_layers, window.moving_pages, page, dtype)
        self.anchor_v = self._past(num_layers, window.mean_pages, page, dtype)

    def _past(self, num_layers: int, frames: int, page: tuple[int, int, int], dtype: torch.dtype) -> Tensor:
        """Room for past frames [layers, B, frames, ...], contiguous for each frame of a layer."""
        device = "cpu" if self.main_memory and self.device.type != "meta" else self.device
        pinned = self.main_memory and self.device.type == "cuda"
        shape = num_layers, frames, self.batch, *page
        return torch.empty(shape, dtype=dtype, device=device, pin_memory=pinned).transpose(1, 2)

    @property
    def nbytes(self) -> int:
        scratch = sum(x.nbytes for window in self._scratch for x in window)
        past = sum(getattr(self, name).nbytes for name in (*self.parts, "anchor_k", "anchor_v"))
        return scratch if self.main_memory else scratch + past

    def begin(
        self, frames: Sequence[int], context: tuple[int, ...], *, start: int | None = None, sinks: tuple[int, ...] = ()
    ) -> None:
        super().begin(frames, context, start=start, sinks=sinks)
        self._context = [(self._page(frame), self._slot(frame)) for frame in context]
        self._survivors = [
            (page, self._slot(frame)) for page, frame in self._staged.items() if self._survives(frame, max(frames))
        ]
        # By scratch window: the layer whose past lies in it, and the event after which it does.
        self._loaded: dict[int, tuple[int, torch.Event | None]] = {}
        self._computing: int | None = None
        self._kept: set[int] = set()

    def pages(self, layer: int, *, keep: bool = False) -> Pages:
        keep = keep or self._keeping
        self._save()
        self._load(layer)
        if len(self._scratch) > 1 and layer + 1 < len(self.k):
            self._load(layer + 1)
        window = layer % len(self._scratch)
        self._copies.wait(self._loaded[window][1])
        self._computing = layer if keep else None
        k, v, anchor_k = self._scratch[window]
        return self._pages((k, v, anchor_k), layer, keep)

    def commit(self) -> None:
        """Raises ValueError where the last pass was not declared as one to keep: nothing of it is stored then."""
        self._save()
        if len(self._kept) < len(self.k):
            raise ValueError("only a cache pass can be committed: this cache keeps nothing of the others")
        self._copies.wait_for_all()
        survivors = {page for page, _ in self._survivors}
        self._staged = {page: frame for page, frame in self._staged.items() if page in survivors}
        super().commit()

    def snapshot(self) -> dict[str, Tensor]:
        self._copies.synchronize()
        return super().snapshot()

    def restore(self, snapshot: Mapping[str, Tensor]) -> None:
        self._copies.synchronize()
        super().restore(snapshot)

    def _load(self, layer: int) -> None:
        """Copy the past of a layer into its scratch window, unless it is there already."""
        window = layer % len(self._scratch)
        if window not in self._loaded or self._loaded[window][0] != layer:
            self._loaded[window] = layer, self._copies.run(partial(self._copy_in, layer, self._scratch[window]))

    def _copy_in(self, layer: int, scratch: tuple[Tensor, ...]) -> None:
        for page, slot in self._context:
            for name, x in zip(("k", "v"), scratch, strict=False):
                self._read(name, layer, slot, x[:, page])

    def _save(self) -> None:
        """Copy out what later chunks see of the layer that was computed last, where its pass is one to keep."""
        layer, self._computing = self._computing, None
        if layer is None:
            return
        if not self._kept:
            self._forget({slot for _, slot in self._survivors})
        self._kept.add(layer)
        self._copies.run(partial(self._copy_out, layer, self._scratch[layer % len(self._scratch)]))

    def _copy_out(self, layer: int, scratch: tuple[Tensor, ...]) -> None:
        k, v, anchor_k = scratch
        for page, slot in self._survivors:
            self._write("k", layer, slot, k[:, page])
            self._write("v", layer, slot, v[:, page])
        for _, page in self._anchors_written:
            self._write("anchor_k", layer, page, anchor_k[:, page])

    def _forget(self, slots: set[int]) -> None:
        for page, frame in enumerate(self._frames):
            if frame is not None and self._slot(frame) in slots:
                self._frames[page] = None

    def _slot(self, frame: int) -> int:
        return self._slots[frame] if self.window.gives_way else self.window.past_slot(frame)

    def _make_room(self, frames: Sequence[int], context: Collection[int], start: int, sinks: tuple[int, ...]) -> None:
        super()._make_room(frames, context, start, sinks)
        staying = [frame for frame in sorted({*context, *frames}) if self._survives(frame, max(frames))]
        seen = {frame: slot for frame, slot in self._slots.items() if frame in context}
        new = [frame for frame in frames if frame in staying]
        self._slots = seen | placed(self._slots, staying, new, range(self.k.shape[2]))

    def _take_places(self, frames: Sequence[int], snapshot: Mapping[str, Tensor]) -> None:
        super()._take_places(frames, snapshot)
        if len(frames) > self.k.shape[2]:
            raise ValueError(f"the snapshot has {len(frames)} frames, and there is room for {self.k.shape[2]}")
        self._slots = {frame: slot for slot, frame in enumerate(frames)}

    def _read(self, name: str, layer: int, slot: int, out: Tensor) -> None:
        """Put a stored frame of one layer into `out` [B, tokens, N, D]."""
        out.copy_(getattr(self, name)[layer, :, slot], non_blocking=True)


class MainMemoryCache(LeanCache):
    """A lean cache whose past frames lie in main memory, pinned for a CUDA device.

    There are two scratch windows: while one layer computes, the past of the next one is copied to the device.
    """

    main_memory = True


class Fp8Cache(LeanCache):
    """A lean cache that stores past frames in FP8, with one scale for each frame and head.

    Stored numbers keep 3 bits behind the first, so the video is near that of a full cache and not equal to it. The
    chunk's own keys and values, and the anchors' un-rotated keys, are not rounded.
    """

    parts = ("k", "v", "k_scale", "v_scale")

    def _allocate_past(self, num_layers: int, page: tuple[int, int, int], dtype: torch.dtype) -> None:
        frames, (_, num_heads, _) = self.window.anchor_pages + self.window.past_frames, page
        self.k, self.v = (self._past(num_layers, frames, page, FP8) for _ in range(2))
        self.k_scale, self.v_scale = (
            self._past(num_layers, frames, (1, num_heads, 1), torch.float32) for _ in range(2)
        )
        self._allocate_raw(num_layers, page, dtype)

    def _write(self, name: str, layer: int, slot: int, x: Tensor) -> None:
        if name not in ("k", "v"):
            super()._write(name, layer, slot, x)
            return
        scale = x.abs().amax(dim=(1, 3), keepdim=True).float().div(FP8_MAX).clamp(min=torch.finfo(torch.float32).tiny)
        super()._write(f"{name}_scale", layer, slot, scale)
        super()._write(name, layer, slot, (x / scale).clamp(-FP8_MAX, FP8_MAX).to(FP8))

    def _stored(self, name: str, layer: int, slot: int) -> Tensor:
        tokens, (heads, dim) = self.k.shape[-3], self.k.shape[-2:]
        found = self.anchor_k.new_empty(self.batch, tokens, heads, dim)
        self._read(name, layer, slot, found)
        return found

    def _read(self, name: str, layer: int, slot: int, out: Tensor) -> None:
        scale = getattr(self, f"{name}_scale")[layer, :, slot]
        out.copy_(getattr(self, name)[layer, :, slot].float() * scale)


CLASSES: dict[str, type[KVCache]] = {"full": KVCache, "lean": LeanCache, "cpu": MainMemoryCache, "fp8": Fp8Cache}
"""The class of each of TIERS."""

DEFAULT_OPTIONS = CacheOptions()


def make_caches(
    plan: Plan,
    model: WanModel | WanConfig | ModelSizes,
    options: CacheOptions = DEFAULT_OPTIONS,
    *,
    levels: Collection[Level] | None = None,
) -> dict[Level, KVCache]:
    """Allocate one cache for every level of a plan, or for some: for every scale, or for every denoising step.

    With classifier-free guidance each is a pair. `model` is any Wan module, core's or a host's, or its config: only its
    sizes are read. Raises ValueError for a memory tier that does not exist or that the device cannot store.
    """
    check_tier(options.kv, options.device)
    positive = _make(plan, model, options, levels)
    if plan.guidance.passes == 1:
        return positive
    negative, cfg = _make(plan, model, options, levels), plan.guidance.cfg
    pairs: dict[Level, KVCache] = {}
    for level in sorted(positive, key=lambda level: level is Scale.HIGH):
        low = pairs[Scale.LOW] if positive[level].pooled else None
        pairs[level] = GuidedCache(positive[level], negative[level], cfg, pooled=low)  # type: ignore[arg-type]
    return {level: pairs[level] for level in positive}


def _make(
    plan: Plan, model: WanModel | WanConfig | ModelSizes, options: CacheOptions, levels: Collection[Level] | None
) -> dict[Level, KVCache]:
    """One cache for every level."""
    sizes, window, cache_class = ModelSizes.of(model), CacheWindow.of(plan), CLASSES[options.kv]
    wanted = [level for level in plan.levels if levels is None or level in levels]
    if plan.order == BATCHED:
        if options.kv != "full":
            raise ValueError(f"rows in one network call cannot be kept in the memory {options.kv}: use full")
        rope = _rope(plan, Scale.HIGH, sizes, options)
        windows = [replace(window, turn=step * plan.window.chunk_frames) for step, _ in enumerate(plan.levels)]
        rows = RowsCache(rope, sizes, windows, options, blocks=plan.blocks(Scale.HIGH)).rows
        return dict(zip(plan.levels, rows, strict=True))
    made: dict[Level, KVCache] = {}
    for level in sorted(wanted, key=lambda level: level is Scale.HIGH):  # it may fill the one at LOW
        scale, step = (level, 0) if isinstance(level, Scale) else level
        rope = _rope(plan, scale, sizes, options)
        pooled = made[Scale.LOW] if plan.pooled_low and scale is Scale.HIGH else None
        turned = replace(window, turn=step * plan.window.chunk_frames)
        made[level] = cache_class(rope, sizes, turned, options, pooled=pooled, blocks=plan.blocks(scale))
    return {level: made[level] for level in wanted}


def _rope(plan: Plan, scale: Scale, sizes: ModelSizes, options: CacheOptions) -> Rope:
    height, width = plan.grids[scale]
    return Rope(sizes.head_dim, (height // 2, width // 2), ntk=plan.ntk[scale], device=options.device)
