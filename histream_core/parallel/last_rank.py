"""Decoding on the last rank of a pipeline, where the estimates come out: latents go there, and pixels come back.

B batch, C channels, T latent frames, F pixel frames; H W is the latent grid for latents and pixels for pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor

from ..network.cache.window import NoSnapshotError
from ..plan.sizes import PIXELS_PER_CELL, pixel_frames
from ..vae.decode import Module
from ..vae.decoders import open_decoder
from ..vae.model import WanVAE
from ..vae.taehv import TAEHV
from .gang import Gang
from .rank_vae import VaeKind

NO_SNAPSHOT = "the decoder of another rank has no snapshot: what it remembers is decoded again"


class LastRankDecoder:
    """A `Decoder` whose work the last rank does, in the order in which it is asked for rows and for this."""

    def __init__(self, gang: Gang, vae: WanVAE | TAEHV, options: Mapping[str, Any], key: object = None):
        """Sends the weights of `vae`, unless the last rank has those of the same `key`. Raises LostRankError.

        `options` are those of `vae.decoders.open_decoder`, as plain values.
        """
        self._gang, self._here = gang, open_decoder(vae, **options)
        self._dtype = next(vae.parameters()).dtype
        self._begun = False
        """Whether the stream has had its first frame, which makes a single pixel frame."""
        gang.give_vae(VaeKind.of(vae), vae.state_dict(), key)
        gang.tell_last("begin_decoding", **options)

    @property
    def vae(self) -> Module:
        """The VAE as it is in this process."""
        return self._here.vae

    @property
    def memory_frames(self) -> int:
        return self._here.memory_frames

    @property
    def cache_bytes(self) -> int:
        """Bytes in this process."""
        return self._here.cache_bytes

    def reset(self) -> None:
        self._begun = False
        self._gang.tell_last("reset_decoder")

    def warm_up(self, latents: Tensor, *, start: int) -> None:
        self._begun = True
        self._gang.ask_last("warm_up", latents, start=start)

    def decode(self, latents: Tensor) -> Tensor:
        return self.decode_later(latents)()

    def decode_later(self, latents: Tensor) -> Callable[[], Tensor]:
        """Ask for the pixels of the next latents; what is returned waits for them. Raises LostRankError."""
        batch, _, frames, height, width = latents.shape
        count = 4 * frames if self._begun else pixel_frames(frames)
        self._begun = True
        sides = height * PIXELS_PER_CELL, width * PIXELS_PER_CELL
        return self._gang.decode(latents, latents.new_empty(batch, 3, count, *sides, dtype=self._dtype))

    def snapshot(self) -> dict[str, Tensor]:
        raise NoSnapshotError(NO_SNAPSHOT)

    def restore(self, snapshot: Mapping[str, Tensor], latents: Tensor) -> None:  # noqa: ARG002 - a Decoder's
        raise ValueError(NO_SNAPSHOT)
