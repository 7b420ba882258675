"""Against slow drift of colour and contrast: later chunks keep the statistics of the first one.

B batch, C channels, T latent frames, H W latent grid.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

LEAST_SPREAD = 1e-5
"""Of a channel that is flat all over: it has no contrast to change."""


@dataclass(frozen=True)
class Statistics:
    """Mean and standard deviation of every channel of a latent, each [B, C, 1, 1, 1] float32."""

    mean: Tensor
    std: Tensor


def statistics_of(latent: Tensor) -> Statistics:
    """Over all frames of a latent [B, C, T, H, W]."""
    # A chunk that is read from a file lies in memory in another order than when it was made, and sums may follow that.
    std, mean = torch.std_mean(latent.float().contiguous(), dim=(2, 3, 4), correction=0, keepdim=True)
    return Statistics(mean, std)


def match(latent: Tensor, anchor: Statistics, weight: float) -> Tensor:
    """A latent [B, C, T, H, W], `weight` of the way (0: itself) to one that has the anchor's statistics."""
    own = statistics_of(latent)
    matched = (latent - own.mean) / own.std.clamp(min=LEAST_SPREAD) * anchor.std + anchor.mean
    return torch.lerp(latent.float(), matched, weight).to(latent.dtype)
