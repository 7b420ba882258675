"""The latent upsampler of Ultra Flash (arXiv 2606.09150): latents of twice the sides, causal in time.

It knows no attention and no convolution over time: each block sees a frame and the one before it, as in a TAEHV. Widths
and depth follow from the weights. The activation (ReLU) and what stands before the first frame (itself) are those of
the published configuration, as weights do not tell them. B batch, C channels, T latent frames, H W latent grid.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn

from .taehv import MemBlock

SIZE_KEYS = ("pre_shuffle.0.weight", "final.weight")
"""Keys of the tensors whose shapes are the sizes of an upsampler."""

FACTOR = 2
"""How many times as long sides become."""

MOST_BLOCKS = 100


class Sizes(NamedTuple):
    """The sizes of an upsampler."""

    channels: int = 16
    width: int = 128
    num_blocks: int = 8


Memory = tuple[Tensor, ...]
"""The input of each block at the frame before; none before the first frame."""


class LatentUpsampler(nn.Module):
    """The upsampler under the names of its published weights."""

    def __init__(self, channels: int = 16, width: int = 128, num_blocks: int = 8) -> None:
        super().__init__()
        self.pre_shuffle = nn.Sequential(
            nn.Conv2d(channels, width * FACTOR**2, 3, padding=1), nn.PixelShuffle(FACTOR), nn.ReLU()
        )
        self.blocks = nn.ModuleList(MemBlock(width) for _ in range(num_blocks))
        self.final = nn.Conv2d(width, channels, 3, padding=1)

    @classmethod
    def of_sizes(cls, shapes: Mapping[str, Tensor]) -> LatentUpsampler:
        """An upsampler of the sizes of these weights, on the meta device. Raises ValueError for no such sizes."""
        channels, width = shapes["final.weight"].shape[:2]
        num_blocks = len({match[1] for key in shapes if (match := re.match(r"blocks\.(\d+)\.", key))})
        if not (0 < channels <= 2**16 and 0 < width <= 2**16 and 0 < num_blocks <= MOST_BLOCKS):
            raise ValueError(f"{channels} channels, {width} within, {num_blocks} blocks: use those of an upsampler")
        with torch.device("meta"):
            return cls(channels, width, num_blocks)

    @property
    def sizes(self) -> Sizes:
        return Sizes(self.final.out_channels, self.final.in_channels, len(self.blocks))

    @property
    def reach(self) -> int:
        """Latent frames before a frame on which it depends."""
        return len(self.blocks)

    def forward(self, latent: Tensor, memory: Memory = ()) -> tuple[Tensor, Memory]:
        """The latent [B, C, T, 2 H, 2 W] of the next frames [B, C, T, H, W], and the memory behind them.

        Frames are computed one at a time, so any cut of a video gives the same bits.
        """
        frames = []
        for frame in latent.to(self.final.weight.dtype).unbind(2):
            larger, memory = self._frame(frame, memory)
            frames.append(larger)
        return torch.stack(frames, dim=2).to(latent.dtype), memory

    def _frame(self, frame: Tensor, memory: Memory) -> tuple[Tensor, Memory]:
        """One frame [B, C, H, W], and the memory behind it."""
        x, seen = self.pre_shuffle(frame), []
        for index, block in enumerate(self.blocks):
            seen.append(x)
            x = block(x, memory[index] if memory else x)
        return self.final(x), tuple(seen)
