"""The learned way up from LOW to HIGH, for one stream: it remembers the frames before, and forgets them at a cut.

B batch, C channels, T latent frames, H W latent grid.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

from ..network.transfer import upload
from ..plan.chunks import Chunk, Plan, scene_at
from .inputs import Given

Upsample = Callable[[Tensor, Chunk], Tensor]
"""Function that takes a chunk's LOW estimate [B, C, T, H, W] to the grid of HIGH."""


class LearnedUpsampling:
    """An `Upsample` by a network that depends on frames before, such as that of `vae/upsampler`.

    Where the chunk before was not its last one, because the run was continued, it looks as far back as the network
    does, at the LOW estimates that were kept. Given frames have none, so its memory begins behind them. A jump in time
    is no scene: its chunk sees the frames before it, and the decoder goes on from them, so the memory stays too.
    """

    def __init__(self, network: Any, plan: Plan, given_low: Given | None = None) -> None:
        """`network(latent, memory)` returns the larger latent and the memory behind it, () where there is none.

        `network.reach` is the number of frames before a frame on which that depends.
        """
        self._network, self._plan, self._given_low = network, plan, given_low
        self._memory, self._next = (), 0

    def __call__(self, clean: Tensor, chunk: Chunk) -> Tensor:
        """The estimate of a chunk, which is the next one of its scene or one before which all chunks have estimates."""
        start = chunk.frames.start
        first = max(scene_at(self._plan.scenes, start), self._plan.given_frames)
        if start == first:
            self._memory = ()
        elif start != self._next:
            self._look_back(range(max(first, start - self._network.reach), start), clean)
        larger, self._memory = self._network(clean, self._memory)
        self._next = chunk.frames.stop
        return larger

    def _look_back(self, frames: range, like: Tensor) -> None:
        """Fill the memory from the kept estimates of `frames`."""
        if self._given_low is None:
            raise ValueError(f"the upsampler remembers frames before {frames.stop}: give their LOW estimates")
        self._memory = ()
        for chunk in self._plan.chunks[self._chunk_of(frames.start) : self._chunk_of(frames.stop)]:
            seen = self._given_low(chunk)[:, :, max(0, frames.start - chunk.frames.start) :]
            _, self._memory = self._network(upload(seen, like.device), self._memory)

    def _chunk_of(self, frame: int) -> int:
        """The index of the chunk that a frame is in."""
        first, size = self._plan.first_chunk_frames, self._plan.window.chunk_frames
        return 0 if frame < first else 1 + (frame - first) // size
