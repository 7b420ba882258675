"""Frames as bytes, and single pictures. Frames are [F, H, W, 3], red green blue: float in [0, 1] (torch) or uint8."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..files.disk import write_whole
from .pixels import pictures_of, png


def to_uint8(frames: Tensor | np.ndarray) -> np.ndarray:
    """Frames [F, H, W, 3] as uint8; float ones are clamped to [0, 1] and rounded. ValueError for other shapes."""
    if frames.ndim != 4 or frames.shape[-1] != 3:
        raise ValueError(f"frames must be [F, H, W, 3], got {list(frames.shape)}")
    if isinstance(frames, np.ndarray):
        if frames.dtype != np.uint8:
            raise ValueError(f"frames in numpy must be uint8, got {frames.dtype}")
        return frames
    return (frames.clamp(0, 1) * 255 + 0.5).to(torch.uint8).cpu().numpy()


def write_png(path: str | Path, picture: np.ndarray) -> None:
    """Write a picture [H, W, 3], uint8, as PNG. The file appears whole or not at all."""
    height, width = picture.shape[:2]
    write_whole(Path(path), png(pictures_of(picture[None], (width, height))[0], 8))
