"""Gaussian noise that depends on seed, item, chunk and step, not on when or where it is drawn.

B batch, C channels, T latent frames, H W latent grid.
"""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

Noise = Callable[[int, int, torch.Size], Tensor]
"""Function (chunk, step, shape) that returns noise of shape [B, C, T, H, W]; a chunk starts from step 0."""

MAX_SEED = 2**64 - 1


class SeededNoise:
    """One CPU generator per (seed, batch item, chunk, step), so resuming, device and batch size change no noise."""

    def __init__(self, seed: int):
        if not 0 <= seed <= MAX_SEED:
            raise ValueError(f"seed {seed} is out of range: use 0 to {MAX_SEED}")
        self.seed = seed

    def __call__(self, chunk: int, step: int, shape: torch.Size) -> Tensor:
        return torch.stack([self._draw(item, chunk, step, shape[1:]) for item in range(shape[0])])

    def _draw(self, item: int, chunk: int, step: int, shape: torch.Size) -> Tensor:
        words = np.random.SeedSequence(self.seed, spawn_key=(item, chunk, step)).generate_state(1, np.uint64)
        return torch.randn(shape, generator=torch.Generator().manual_seed(int(words[0])))
