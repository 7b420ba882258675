"""A small bank of clips and a small network for the tests of the training."""

import numpy as np
import torch

from histream_core.demo import painter
from histream_core.demo.text import TEXT_DIM
from histream_core.network.model import WanConfig
from training.data import Bank, describe
from training.network import Network

CONFIG = WanConfig(dim=24, ffn_dim=24, num_heads=2, num_layers=2, text_dim=TEXT_DIM, freq_dim=32)

RED_CIRCLES = [c for c in painter.training_combinations() if (c.shape, c.colour) == ("circle", "red")]


def bank(combinations=None, grid: int = 16, scale: float = 1.0) -> Bank:
    """A bank whose latents are the painter's geometry."""
    combinations = combinations or painter.training_combinations()[::9]
    latents = np.stack([describe(c, grid, scale) for c in combinations])[..., :16].transpose(0, 1, 4, 2, 3)
    return Bank(torch.from_numpy(latents.copy()), combinations, scale)


def network(features: int = 0) -> Network:
    """A network without any zero weights."""
    torch.manual_seed(0)
    made = Network(CONFIG, features)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.1)
    return made
