"""Resizing of latents between the grids of Dual-Resolution Caching.

B batch, C channels, T latent frames, H W latent grid.
"""

import torch
from torch import Tensor

from ..plan.sizes import Grid


def resize(latent: Tensor, grid: Grid, mode: str = "bilinear") -> Tensor:
    """Resize the last two dims of [B, C, T, H, W]; frames are never mixed, and an equal grid changes nothing.

    `mode` is one of RESIZE_MODES. Antialiased: clean latents are resized, and the noise left in them is damped (halving
    pure noise leaves a standard deviation of 0.31 with bilinear, 0.41 with bicubic, 0.50 with area).
    """
    if latent.shape[-2:] == grid:
        return latent
    if mode == "area-down":
        mode = "area" if grid[0] < latent.shape[-2] else "bilinear"
    smooth = {} if mode == "area" else {"antialias": True, "align_corners": False}
    frames = latent.transpose(1, 2).flatten(0, 1)
    frames = torch.nn.functional.interpolate(frames, grid, mode=mode, **smooth)
    return frames.unflatten(0, (latent.shape[0], -1)).transpose(1, 2)
