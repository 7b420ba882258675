"""The decoder for a VAE, and decoding in strips where the whole frame does not fit into memory.

B batch, C channels, T latent frames, H W latent grid, F pixel frames; pixels are 8x the latent grid.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from ..plan.sizes import PIXELS_PER_CELL
from .decode import Decoder, Module, StreamingDecoder, vae_cache_bytes
from .model import WanVAE
from .taehv import StreamingTAEHV, is_taehv, taehv_cache_bytes

_log = logging.getLogger(__name__)

FAST_CUDNN = 91500
"""The first cuDNN, 9.15, whose 3-D convolutions in half precision are fast from torch 2.9."""

OVERLAP = 8
"""Latent cells that neighbouring strips share: 64 pixels, over which one fades into the other."""


def open_decoder(
    vae: Module,
    *,
    dtype: torch.dtype | None = None,
    normalised: bool = True,
    raw_latents: bool | None = None,
    channels_last: bool = False,
    strips: int = 1,
) -> Decoder:
    """Open the decoder for a Wan VAE or a TAEHV, without rollback (see `StreamingDecoder`).

    `raw_latents`: see `StreamingTAEHV`. `strips`: number of strips of a `TiledDecoder`.
    """

    def decoder() -> StreamingDecoder:
        options: dict[str, Any] = {
            "dtype": dtype,
            "normalised": normalised,
            "rollback": False,
            "channels_last": channels_last,
        }
        if is_taehv(vae):
            return StreamingTAEHV(vae, raw_latents=raw_latents, **options)
        return StreamingDecoder(vae, **options)

    if isinstance(vae, WanVAE) and is_on_cuda(vae) and (warning := slow_convolutions()):
        _log.warning(warning)  # the host's own modules have another way around it
    return decoder() if strips == 1 else TiledDecoder([decoder() for _ in range(strips)])


def is_on_cuda(vae: Module) -> bool:
    """Whether a VAE lies on a CUDA device."""
    return next(vae.parameters()).is_cuda


def slow_convolutions() -> str:
    """A sentence where this torch is known to decode slowly on CUDA devices; else empty."""
    version = tuple(int(part) for part in torch.__version__.split(".")[:2])
    cudnn = torch.backends.cudnn.version() if torch.version.cuda else None
    if version != (2, 9) or cudnn is None or cudnn >= FAST_CUDNN:
        return ""
    return (
        f"torch 2.9 with cuDNN {cudnn // 10000}.{cudnn // 100 % 100} is slow in the VAE's 3-D convolutions in half "
        "precision: install a cuDNN of 9.15 or newer, or another torch"
    )


class TiledDecoder:
    """A decoder of strips along the longer side, each a stream of its own, faded into its neighbours.

    Only the history of the strip that is being decoded lies on the device, all others in main memory. Frames differ a
    little from those of a whole decode: in the fades, and because the attention of the VAE sees one strip.
    """

    def __init__(self, decoders: list[StreamingDecoder]) -> None:
        self.decoders = decoders

    @property
    def vae(self) -> Module:
        """The VAE of all strips."""
        return self.decoders[0].vae

    @property
    def memory_frames(self) -> int:
        """See `StreamingDecoder.memory_frames`."""
        return self.decoders[0].memory_frames

    @property
    def cache_bytes(self) -> int:
        """Bytes of the histories of all strips between calls, in main memory."""
        return sum(decoder.cache_bytes for decoder in self.decoders)

    def reset(self) -> None:
        """Begin a new stream."""
        for decoder in self.decoders:
            decoder.reset()

    def warm_up(self, latents: Tensor, *, start: int) -> None:
        """See `StreamingDecoder.warm_up`."""
        for decoder, cells in self._strips(latents):
            decoder.warm_up(_part(latents, cells), start=start)
            decoder.park()

    def decode(self, latents: Tensor) -> Tensor:
        """Decode the next latents of the stream; see `StreamingDecoder.decode`."""
        pixels: Tensor | None = None
        for decoder, cells in self._strips(latents):
            decoder.fetch(latents.device)
            part = decoder.decode(_part(latents, cells))
            decoder.park()
            if pixels is None:
                size = (cell * PIXELS_PER_CELL for cell in latents.shape[-2:])
                pixels = part.new_zeros(*part.shape[:3], *size)
            fade_in(pixels, part, cells.start * PIXELS_PER_CELL)
        assert pixels is not None
        return pixels

    def snapshot(self) -> dict[str, Tensor]:
        """The histories of all strips as tensors, not copied."""
        if torch.cuda.is_available():
            torch.cuda.synchronize()  # `park` copies asynchronously
        return {f"{i}.{name}": x for i, strip in enumerate(self.decoders) for name, x in strip.snapshot().items()}

    def restore(self, snapshot: Mapping[str, Tensor], latents: Tensor) -> None:
        """See `StreamingDecoder.restore`."""
        for i, (decoder, cells) in enumerate(self._strips(latents)):
            own = {name.removeprefix(f"{i}."): x for name, x in snapshot.items() if name.startswith(f"{i}.")}
            decoder.restore(own, _part(latents, cells))
            decoder.park()

    def _strips(self, latents: Tensor) -> Iterator[tuple[StreamingDecoder, range]]:
        if latents.ndim != 5:
            raise ValueError(f"latents must be [B, C, T, H, W] with T >= 1, got {list(latents.shape)}")
        yield from zip(self.decoders, strip_ranges(max(latents.shape[-2:]), len(self.decoders)), strict=True)


def most_strips(cells: int) -> int:
    """The largest number of strips for a side of `cells` latent cells."""
    return max(1, cells // (2 * OVERLAP))


def strip_ranges(cells: int, strips: int) -> list[range]:
    """The latent cells of each strip along a side; neighbours share OVERLAP. Raises ValueError for too many strips."""
    most = most_strips(cells)
    if not 1 <= strips <= most:
        raise ValueError(f"{strips} strips are too many for {cells * PIXELS_PER_CELL} pixels: use at most {most}")
    edges = [round(cells * i / strips) for i in range(strips + 1)]
    half = OVERLAP // 2
    return [range(max(0, a - half), min(cells, b + half)) for a, b in pairwise(edges)]


def fade_in(pixels: Tensor, part: Tensor, start: int) -> None:
    """Write a strip [..., h, w] into a frame [..., H, W] from pixel `start` of its longer side on.

    The first pixels of every strip but the first fade in over those of the strip before.
    """
    side = -1 if pixels.shape[-1] >= pixels.shape[-2] else -2
    room = pixels.narrow(side, start, part.shape[side])
    if not start:
        room.copy_(part)
        return
    fade = OVERLAP * PIXELS_PER_CELL
    share = (torch.arange(fade, device=part.device, dtype=part.dtype) + 0.5) / fade
    share = share if side == -1 else share.unsqueeze(-1)
    room.narrow(side, 0, fade).lerp_(part.narrow(side, 0, fade), share)
    rest = part.shape[side] - fade
    room.narrow(side, fade, rest).copy_(part.narrow(side, fade, rest))


def decoder_cache_bytes(
    vae: Module, height: int, width: int, *, dtype: torch.dtype = torch.bfloat16, batch: int = 1, strips: int = 1
) -> int:
    """Bytes of a decoder's history on the device, for frames of that size; with strips that of the largest one."""
    count = taehv_cache_bytes if is_taehv(vae) else vae_cache_bytes
    return count(vae, *strip_size(height, width, strips=strips), dtype=dtype, batch=batch)


def strip_size(height: int, width: int, *, strips: int) -> tuple[int, int]:
    """Height and width in pixels of the largest strip of a frame."""
    longest = PIXELS_PER_CELL * max(map(len, strip_ranges(max(height, width) // PIXELS_PER_CELL, strips)))
    return (height, longest) if width >= height else (longest, width)


def _part(latents: Tensor, cells: range) -> Tensor:
    """The latents of one strip."""
    return latents.narrow(-1 if latents.shape[-1] >= latents.shape[-2] else -2, cells.start, len(cells))
