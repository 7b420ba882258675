"""Caches that take less memory on the device than `KVCache`, and do the same.

B batch, N heads, D head dim.
"""

from functools import partial

import torch
from torch import Tensor

from ..transfer import Beside
from .window import KVCache, Pages

TIERS = {
    "full": "everything in its place on the device",
    "lean": "past frames alone, and room for one chunk that all layers share; the same frames",
    "cpu": "past frames in main memory, and the room of two layers on the device; the same frames",
    "fp8": "lean with past frames in FP8; nearly the same frames",
}
"""How keys and values may lie in memory."""

EXACT = ("full", "lean", "cpu")
"""Those that give the same frames bit for bit."""


FP8 = torch.float8_e4m3fn
MOST = torch.finfo(FP8).max


def check_tier(name: str, device: torch.device | str | None = None) -> None:
    """Refuse a name that is none, and what the device cannot hold. Raises ValueError."""
    if name not in TIERS:
        raise ValueError(f'key/value memory "{name}" does not exist: use one of {", ".join(TIERS)}')
    if name == "fp8" and device is not None and torch.device(device).type == "mps":
        raise ValueError("Apple GPUs have no FP8: use key/value memory lean, which gives the same frames as full")


class LeanCache(KVCache):
    """Keeps past frames alone; what a chunk computes lies in a window of scratch that all layers share.

    Before a layer its past frames are copied into the scratch, to the very pages where a `KVCache` has them: attention
    adds up in the same order and gives the same bits. Of a pass to commit, the frames that later chunks see are copied
    out behind each layer. So an interrupted denoising pass leaves the past as it was, an interrupted cache pass does
    not.

    With `main_memory` the past lies there, pinned for a CUDA device, and there are two windows of scratch: while one
    layer computes, the past of the next one arrives beside it.
    """

    def __init__(self, *args, local_frames: int, main_memory: bool = False, **settings):
        """`local_frames` is how many frames, besides the anchors, are kept behind a chunk."""
        self.local_frames, self.main_memory = local_frames, main_memory
        super().__init__(*args, **settings)

    def _allocate(self, num_layers: int, page: tuple[int, ...], *, moving: int, device, dtype) -> None:
        pages = self.anchor_pages + self.ring_frames
        self._scratch = [
            tuple(torch.empty(self.batch, n, *page, device=device, dtype=dtype) for n in (pages, pages, moving))
            for _ in range(2 if self.main_memory else 1)
        ]
        self.device = self._scratch[0][0].device
        self._beside = Beside(self.device if self.main_memory else None)
        self._beside.use(x for window in self._scratch for x in window)
        self._allocate_past(num_layers, page, moving=moving, dtype=self._scratch[0][0].dtype)

    def _allocate_past(self, num_layers: int, page: tuple[int, ...], *, moving: int, dtype: torch.dtype) -> None:
        frames = self.anchor_pages + self.local_frames
        self.k, self.v = (self._past(num_layers, frames, page, dtype) for _ in range(2))
        self.anchor_k = self._past(num_layers, moving, page, dtype)

    def _past(self, num_layers: int, frames: int, page: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        """Room for past frames [layers, B, frames, ...], in which each frame of a layer is one piece."""
        where = {"device": "cpu" if self.main_memory and self.device.type != "meta" else self.device}
        if self.main_memory and self.device.type == "cuda":
            where["pin_memory"] = True
        return torch.empty(num_layers, frames, self.batch, *page, dtype=dtype, **where).transpose(1, 2)

    @property
    def nbytes(self) -> int:
        scratch = sum(x.nbytes for window in self._scratch for x in window)
        return scratch if self.main_memory else scratch + self._past_bytes

    @property
    def main_bytes(self) -> int:
        return self._past_bytes if self.main_memory else 0

    @property
    def _past_bytes(self) -> int:
        return sum(getattr(self, name).nbytes for name in (*self.parts, "anchor_k"))

    def begin(self, frames, context, *, start=None) -> None:
        super().begin(frames, context, start=start)
        last = max(frames)
        self._context = [(self._page(frame), self._slot(frame)) for frame in context]
        self._survivors = [
            (page, self._slot(frame))
            for page, frame in self._staged.items()
            if self._anchor_page(frame) is not None or frame > last - self.local_frames
        ]
        self._arrived: dict[int, tuple] = {}  # by window of scratch: which layer's past lies in it, and since when
        self._computing: int | None = None
        self._kept: set[int] = set()

    def pages(self, layer: int, *, keep: bool = False) -> Pages:
        keep = keep or self._keeping
        self._save()
        self._load(layer)
        if len(self._scratch) > 1 and layer + 1 < len(self.k):
            self._load(layer + 1)
        window = layer % len(self._scratch)
        self._beside.wait(self._arrived[window][1])
        self._computing = layer if keep else None
        return self._pages(self._scratch[window], layer, keep)

    def commit(self) -> None:
        """Raises ValueError where the last pass was not one to keep: then nothing of it is there any more."""
        self._save()
        if len(self._kept) < len(self.k):
            raise ValueError("only a cache pass can be committed: this cache keeps nothing of the others")
        self._beside.wait_for_all()
        survivors = {page for page, _ in self._survivors}
        self._staged = {page: frame for page, frame in self._staged.items() if page in survivors}
        super().commit()

    def snapshot(self) -> dict[str, Tensor]:
        self._beside.synchronize()
        return super().snapshot()

    def restore(self, snapshot) -> None:
        self._beside.synchronize()
        super().restore(snapshot)

    def _load(self, layer: int) -> None:
        """Copy the past of a layer into its window of scratch, unless it lies there."""
        window = layer % len(self._scratch)
        if self._arrived.get(window, (None,))[0] != layer:
            self._arrived[window] = layer, self._beside.run(partial(self._copy_in, layer, self._scratch[window]))

    def _copy_in(self, layer: int, scratch: tuple[Tensor, ...]) -> None:
        for page, slot in self._context:
            for name, x in zip(("k", "v"), scratch, strict=False):
                self._read(name, layer, slot, x[:, page])

    def _save(self) -> None:
        """Copy what is to be kept of the layer that was computed last, where it is to be kept."""
        layer, self._computing = self._computing, None
        if layer is None:
            return
        if not self._kept:
            self._forget({slot for _, slot in self._survivors})
        self._kept.add(layer)
        self._beside.run(partial(self._copy_out, layer, self._scratch[layer % len(self._scratch)]))

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
        page = self._anchor_page(frame)
        return self.anchor_pages + (frame - self.anchor_frames) % max(1, self.local_frames) if page is None else page

    def _read(self, name: str, layer: int, slot: int, out: Tensor) -> None:
        """Put a kept frame of one layer into `out` [B, tokens, N, D]."""
        out.copy_(getattr(self, name)[layer, :, slot], non_blocking=True)


class Fp8Cache(LeanCache):
    """A lean cache whose past frames are kept in FP8, with one scale for each frame and head.

    What is kept is rounded to 3 bits behind the first, so the frames are near those of a full cache and not the same.
    The chunk's own keys and values, and the anchors' un-rotated keys, are not rounded.
    """

    parts = ("k", "v", "k_scale", "v_scale")

    def _allocate_past(self, num_layers: int, page: tuple[int, ...], *, moving: int, dtype: torch.dtype) -> None:
        frames, (_, num_heads, _) = self.anchor_pages + self.local_frames, page
        self.k, self.v = (self._past(num_layers, frames, page, FP8) for _ in range(2))
        self.k_scale, self.v_scale = (
            self._past(num_layers, frames, (1, num_heads, 1), torch.float32) for _ in range(2)
        )
        self.anchor_k = self._past(num_layers, moving, page, dtype)

    def _write(self, name: str, layer: int, slot: int, x: Tensor) -> None:
        if name not in ("k", "v"):
            super()._write(name, layer, slot, x)
            return
        scale = x.abs().amax(dim=(1, 3), keepdim=True).float().div(MOST).clamp(min=torch.finfo(torch.float32).tiny)
        super()._write(f"{name}_scale", layer, slot, scale)
        super()._write(name, layer, slot, (x / scale).clamp(-MOST, MOST).to(FP8))

    def _read(self, name: str, layer: int, slot: int, out: Tensor) -> None:
        scale = getattr(self, f"{name}_scale")[layer, :, slot]
        out.copy_(getattr(self, name)[layer, :, slot].float() * scale)
