"""The VAE of a rank that decodes for the first one: latents come from there, and pixels go back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..vae.decode import Decoder
from ..vae.decoders import open_decoder
from ..vae.model import WanVAE
from ..vae.taehv import TAEHV
from .link import Link, Work, wait_for
from .pipeline import LATENTS, PIXELS, clock, tag_of


@dataclass(frozen=True)
class VaeKind:
    """A VAE as a rank is told of it, besides its weights."""

    taehv: bool
    raw_latents: bool = False
    """Whether a TAEHV takes raw latents."""

    @classmethod
    def of(cls, vae: WanVAE | TAEHV) -> VaeKind:
        return cls(True, vae.raw_latents) if isinstance(vae, TAEHV) else cls(False)

    def build(self, weights: Mapping[str, Tensor]) -> WanVAE | TAEHV:
        """The VAE of these weights."""
        if self.taehv:
            return TAEHV.from_state_dict(weights, raw_latents=self.raw_latents)
        return WanVAE.from_state_dict(weights)


class RankVae:
    """The VAE of a rank, and the stream that it decodes."""

    def __init__(self, link: Link, device: torch.device):
        self.link, self.device = link, device
        self._vae: WanVAE | TAEHV | None = None
        self._decoder: Decoder | None = None
        self._sent: tuple[Work, Tensor] | None = None
        """The newest pixels, which stay as they are until they have arrived."""

    def load(self, kind: VaeKind, dtypes: Mapping[str, str], shapes: Mapping[str, list[int]]) -> None:
        """Receive the weights of a VAE, each in its dtype."""
        self.close()
        self._vae = kind.build({name: self._receive(shapes[name], dtype) for name, dtype in dtypes.items()})

    def begin(self, **options: Any) -> None:
        """Begin a stream; `options` are those of `vae.decoders.open_decoder`."""
        if self._vae is None:
            raise ValueError("a rank was asked to decode before it had a VAE")
        self._decoder = open_decoder(self._vae, **options)

    def close(self) -> None:
        """Forget the stream; the weights stay."""
        self._settle()
        self._decoder = None

    def reset(self) -> None:
        self.decoder.reset()

    def warm_up(self, shape: list[int], dtype: str, start: int) -> None:
        self.decoder.warm_up(self._receive(shape, dtype), start=start)

    def decode(self, shape: list[int], dtype: str, number: int) -> float:
        """Decode latents that the first rank sends, and send it the pixels; returns the seconds of decoding."""
        latents = self._receive(shape, dtype)
        begun = clock(latents)
        pixels = self.decoder.decode(latents).contiguous()
        seconds = clock(pixels) - begun
        self._settle()
        self._sent = self.link.send(pixels, 0, tag_of(PIXELS, number)), pixels
        return seconds

    @property
    def decoder(self) -> Decoder:
        if self._decoder is None:
            raise ValueError("a rank was asked to decode before a stream was open")
        return self._decoder

    def _receive(self, shape: list[int], dtype: str) -> Tensor:
        x = torch.empty(shape, dtype=getattr(torch, dtype), device=self.device)
        return self.link.receive(x, 0, tag_of(LATENTS))

    def _settle(self) -> None:
        """Wait until the pixels before have arrived."""
        if self._sent:
            wait_for(self._sent[0])
        self._sent = None
