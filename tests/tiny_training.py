"""A small bank of clips, and videos of a student, for the tests of the training."""

import numpy as np
import torch

from histream_core.demo import painter
from training.data import Bank, Rollouts, describe

RED_CIRCLES = [c for c in painter.training_combinations() if (c.shape, c.colour) == ("circle", "red")]


def bank(combinations=None, grid: int = 16, scale: float = 1.0) -> Bank:
    """A bank whose latents are the painter's geometry."""
    combinations = combinations or painter.training_combinations()[::9]
    latents = np.stack([describe(c, grid, scale) for c in combinations])[..., :16].transpose(0, 1, 4, 2, 3)
    return Bank(torch.from_numpy(latents.copy()), combinations, scale)


def rollouts(data: Bank) -> Rollouts:
    """Videos of three chunks of noise, with true clips that move by two cells in every chunk."""
    count = len(data.combinations)
    latents = torch.randn(count, 16, 9, 8, 8, generator=torch.Generator().manual_seed(0))
    rolls = torch.tensor([[0, 0], [2, 0], [4, 0]]).expand(count, -1, -1)
    found = {"combinations": [list(painter.astuple(c)) for c in data.combinations], "latents": latents, "rolls": rolls}
    return Rollouts(found, data)
