"""Anchor match: moves later chunks to the statistics of the first one, against slow drift of colour and contrast.

B batch, C channels, T latent frames, H W latent grid.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

LEAST_SPREAD = 1e-5
"""Smallest standard deviation to divide by; a constant channel has no contrast to change."""


@dataclass(frozen=True)
class Statistics:
    """Mean and standard deviation of every channel of a latent, each [B, C, 1, 1, 1] float32."""

    mean: Tensor
    std: Tensor


def statistics_of(latent: Tensor) -> Statistics:
    """The statistics over all frames of a latent [B, C, T, H, W]."""
    # A chunk read from a file has another memory layout than a new one, which can change the last bits of sums.
    std, mean = torch.std_mean(latent.float().contiguous(), dim=(2, 3, 4), correction=0, keepdim=True)
    return Statistics(mean, std)


def match(latent: Tensor, anchor: Statistics, weight: float) -> Tensor:
    """Blend a latent [B, C, T, H, W] with itself moved to the statistics of `anchor`; `weight` 0 changes nothing."""
    own = statistics_of(latent)
    matched = (latent - own.mean) / own.std.clamp(min=LEAST_SPREAD) * anchor.std + anchor.mean
    return torch.lerp(latent.float(), matched, weight).to(latent.dtype)
