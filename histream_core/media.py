"""Reading videos back, and single pictures.

Frames are [F, H, W, 3], red green blue: float in [0, 1] (torch) or uint8. `av` is imported where it is used.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from .disk import write_whole
from .pixels import pictures_of, png
from .reading import open_video, unit_frame


def to_uint8(frames: Tensor | np.ndarray) -> np.ndarray:
    """Frames [F, H, W, 3] as uint8; float ones are clamped to [0, 1] and rounded. ValueError for other shapes."""
    if frames.ndim != 4 or frames.shape[-1] != 3:
        raise ValueError(f"frames must be [F, H, W, 3], got {list(frames.shape)}")
    if isinstance(frames, np.ndarray):
        if frames.dtype != np.uint8:
            raise ValueError(f"frames in numpy must be uint8, got {frames.dtype}")
        return frames
    return (frames.clamp(0, 1) * 255 + 0.5).to(torch.uint8).cpu().numpy()


@dataclass(frozen=True)
class VideoInfo:
    """What is really in a file: frames are counted by decoding them."""

    num_frames: int
    width: int
    height: int
    fps: float
    codec: str
    pix_fmt: str

    @property
    def seconds(self) -> float:
        return self.num_frames / self.fps


def probe(path: str | Path) -> VideoInfo:
    """Decode a video and say what it holds. Raises OSError or ValueError where it is not one."""
    with open_video(path) as container:
        stream = container.streams.video[0]
        count = sum(1 for _ in container.decode(stream))
        context = stream.codec_context
        return VideoInfo(
            count, context.width, context.height, float(stream.guessed_rate or 0), context.name, context.pix_fmt
        )


def read_frames(path: str | Path) -> Iterator[np.ndarray]:
    """Yield the frames [H, W, 3] of a video, uint8. Raises OSError or ValueError where it is not one."""
    with open_video(path) as container:
        for frame in container.decode(container.streams.video[0]):
            yield to_uint8(unit_frame(frame)[None])[0]


def write_png(path: str | Path, picture: np.ndarray) -> None:
    """Write a picture [H, W, 3], uint8, as PNG. The file appears whole or not at all."""
    height, width = picture.shape[:2]
    write_whole(Path(path), png(pictures_of(picture[None], (width, height))[0], 8))
