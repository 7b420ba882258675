"""TAEHV: a small decoder in place of that of the Wan VAE, with a hundredth of its parameters and less exact frames.

The module tree has the state-dict keys of the published files (`taew2_1`, `lighttaew2_1`), decoder only. Its history is
one frame for each `MemBlock`; `StreamingTAEHV` carries it between calls, over these modules or the host's own.

Shapes: B batch, C channels, T latent frames, H W latent grid, N features. Pixels are 8x the latent grid. A latent frame
makes four pixel frames; the first three of a stream are dropped.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from fractions import Fraction
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from .decode import History, Module, StreamingDecoder, latent_statistics
from .model import Z_DIM

WIDTHS = (256, 128, 64, 64)
GROWTH = (1, 2, 2)
"""Frames that each level makes of one."""

DROPPED_FRAMES = math.prod(GROWTH) - 1
"""Pixel frames of the first latent frame that are not part of the video."""

BLOCKS_PER_LEVEL = 3
SIZE_KEYS = ("decoder.1.weight", "decoder.8.weight", "decoder.14.weight", "decoder.20.weight")


class Clamp(nn.Module):
    """Soft limit of latents to [-3, 3]."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(x / 3) * 3


class MemBlock(nn.Module):
    """Three convolutions over a frame and the one before it, and a shortcut."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        layers = [_conv(2 * dim, dim), nn.ReLU(), _conv(dim, dim), nn.ReLU(), _conv(dim, dim)]
        self.conv = nn.Sequential(*layers)
        self.skip = nn.Identity()
        self.act = nn.ReLU()

    def forward(self, x: Tensor, past: Tensor) -> Tensor:
        """A frame and the one before it, [B, N, H, W] each, to [B, N, H, W]."""
        return self.act(self.conv(torch.cat([x, past], dim=1)) + self.skip(x))


class TGrow(nn.Module):
    """A convolution of one frame [B, N, H, W] to `stride` frames [B * stride, N, H, W]."""

    def __init__(self, dim: int, stride: int) -> None:
        super().__init__()
        self.stride = stride
        self.conv = nn.Conv2d(dim, dim * stride, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x).reshape(-1, *x.shape[1:])


class TAEHV(nn.Module):
    """The decoder. `raw_latents`: it takes raw VAE latents (lighttaew2_1), not normalised ones (taew2_1)."""

    def __init__(self, *, widths: tuple[int, ...] = WIDTHS, raw_latents: bool = False) -> None:
        super().__init__()
        self.raw_latents = raw_latents
        layers: list[nn.Module] = [Clamp(), _conv(Z_DIM, widths[0]), nn.ReLU()]
        for (dim, out_dim), growth in zip(pairwise(widths), GROWTH, strict=True):
            layers += [MemBlock(dim) for _ in range(BLOCKS_PER_LEVEL)]
            layers += [nn.Upsample(scale_factor=2), TGrow(dim, growth), _conv(dim, out_dim, bias=False)]
        self.decoder = nn.Sequential(*layers, nn.ReLU(), _conv(widths[-1], 3))

    @classmethod
    def from_state_dict(cls, state_dict: Mapping[str, Tensor], *, raw_latents: bool = False) -> TAEHV:
        """Build the decoder of these weights, in their sizes and dtype; weights of an encoder are ignored.

        Raises ValueError that names missing weights and those of a wrong size.
        """
        weights = decoder_weights(state_dict)
        absent = [key for key in SIZE_KEYS if key not in weights]
        if absent:
            raise ValueError(f"this is not a TAEHV decoder: {absent[0]} is missing")
        with torch.device("meta"):
            vae = cls(widths=tuple(weights[key].shape[0] for key in SIZE_KEYS), raw_latents=raw_latents)
        expected = vae.state_dict()
        odd = sorted(expected.keys() ^ weights.keys())
        odd += [k for k in expected.keys() & weights.keys() if expected[k].shape != weights[k].shape]
        if odd:
            raise ValueError(f"{len(odd)} TAEHV weights are missing, left over or of the wrong size: {odd[:5]}")
        vae.load_state_dict(weights, strict=True, assign=True)
        return vae.requires_grad_(False).eval()


def decoder_weights(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights of the decoder in a file; of a layer that makes more frames than Wan needs, the last ones."""
    weights = {key: x for key, x in state_dict.items() if key.startswith("decoder.")}
    for level, growth in enumerate(GROWTH):
        key = f"decoder.{7 + 6 * level}.conv.weight"
        if key in weights and weights[key].ndim == 4:
            weights[key] = weights[key][-growth * weights[key].shape[1] :]
    return weights


class StreamingTAEHV(StreamingDecoder):
    """A `StreamingDecoder` whose VAE is a TAEHV, core's or the host's.

    `raw_latents`: whether the VAE takes raw latents; None: as its attribute says.
    """

    def __init__(self, vae: Module, *, raw_latents: bool | None = None, **options: Any) -> None:
        self.raw_latents = vae.raw_latents if raw_latents is None else raw_latents
        super().__init__(vae, **options)

    @property
    def memory_frames(self) -> int:
        """See `StreamingDecoder.memory_frames`; 8 in the published decoder."""
        reach, rate = Fraction(0), 1
        for layer in self.vae.decoder:
            reach += Fraction(hasattr(layer, "skip"), rate)
            rate *= layer.stride if _grows(layer) else 1
        return math.ceil(reach)

    def _scaled(self, latents: Tensor) -> Tensor:
        if self.normalised != self.raw_latents:
            return latents
        mean, std = latent_statistics(latents)
        return latents.float() * std + mean if self.raw_latents else (latents.float() - mean) / std

    def _remembered(self, latents: Tensor) -> Iterator[tuple[nn.Module, tuple[int, ...], bool]]:
        batch, (height, width) = latents.shape[0], latents.shape[-2:]
        for layer in self.vae.decoder:
            if hasattr(layer, "skip"):
                yield layer, (batch, layer.conv[0].in_channels // 2, height, width), True
            elif isinstance(layer, nn.Upsample):
                height, width = 2 * height, 2 * width

    def _decode_frame(self, frame: Tensor, history: History, *, first: bool) -> Tensor:
        frames = self._grow(frame[:, :, 0], list(self.vae.decoder), history)
        return torch.stack(frames[DROPPED_FRAMES if first else 0 :], dim=2) * 2 - 1

    def _grow(self, x: Tensor, layers: list[Module], history: History) -> list[Tensor]:
        """Run one frame [B, N, H, W] through the layers to the frames that it becomes, depth first to save memory."""
        for i, layer in enumerate(layers):
            if hasattr(layer, "skip"):
                past = history.frames.get(layer)
                y = layer(x, torch.zeros_like(x) if past is None else past)
                history.remember(layer, x)
                x = y
                continue
            x = layer(x)
            if _grows(layer) and layer.stride > 1:
                parts = x.unflatten(0, (-1, layer.stride)).unbind(1)
                return [frame for part in parts for frame in self._grow(part, layers[i + 1 :], history)]
        return [x]


def is_taehv(vae: Module) -> bool:
    """Whether a VAE is a TAEHV for Wan 2.1, core's or the host's."""
    layers: list[Module] = list(vae.decoder.children())
    grown = math.prod(layer.stride for layer in layers if _grows(layer))
    blocks = sum(hasattr(layer, "skip") for layer in layers)
    return blocks > 0 and grown == math.prod(GROWTH) and layers[1].in_channels == Z_DIM and layers[-1].out_channels == 3


def taehv_cache_bytes(
    vae: Module, height: int, width: int, *, dtype: torch.dtype = torch.bfloat16, batch: int = 1
) -> int:
    """Bytes that a `StreamingTAEHV` holds between calls for frames of that size; the VAE may lie on the meta device."""
    cells, values = (height // 8) * (width // 8), 0
    for layer in vae.decoder:
        if hasattr(layer, "skip"):
            values += layer.conv[0].in_channels // 2 * cells
        cells *= 4 if isinstance(layer, nn.Upsample) else 1
    return values * batch * dtype.itemsize


def _grows(layer: Module) -> bool:
    """Whether a layer is a `TGrow`."""
    return hasattr(layer, "stride") and hasattr(layer, "conv")


def _conv(dim: int, out_dim: int, *, bias: bool = True) -> nn.Conv2d:
    return nn.Conv2d(dim, out_dim, 3, padding=1, bias=bias)
