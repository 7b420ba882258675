"""Conversion between RGB frames and the planes of a pixel format.

A picture is one frame [H, W, 3], RGB, float32 in [0, 1], as display values (sRGB). All arithmetic is numpy's in one
thread, so the same frame gives the same bytes on any number of cores.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

RED, GREEN, BLUE = 0.2126, 0.7152, 0.0722
"""Luma coefficients of ITU-R BT.709."""

CHROMA_STEPS = {"yuv420p": (2, 2), "yuv422p": (1, 2), "yuv444p": (1, 1)}
"""Chroma subsampling of each pixel format: rows and columns of luma for one of chroma."""

Metadata = Mapping[str, str]


def pictures_of(frames: Tensor | np.ndarray, size: tuple[int, int]) -> list[np.ndarray]:
    """Split frames [F, H, W, 3] into F pictures, cropped at the centre to `size` (width, height).

    Float frames are clamped to [0, 1], uint8 frames divided by 255. Raises ValueError for other shapes and dtypes, and
    for frames smaller than `size`.
    """
    if frames.ndim != 4 or frames.shape[-1] != 3:
        raise ValueError(f"frames must be [F, H, W, 3], got {list(frames.shape)}")
    if isinstance(frames, np.ndarray) and frames.dtype != np.uint8:
        raise ValueError(f"frames in numpy must be uint8, got {frames.dtype}")
    width, height = size
    rows, columns = frames.shape[1:3]
    top, left = (rows - height) // 2, (columns - width) // 2
    if top < 0 or left < 0:
        raise ValueError(f"frames of {columns}x{rows} are smaller than the video of {width}x{height}")
    frames = frames[:, top : top + height, left : left + width]
    return [_to_unit(picture) for picture in (frames if isinstance(frames, np.ndarray) else frames.cpu().numpy())]


def _to_unit(picture: np.ndarray) -> np.ndarray:
    """The picture as float32 in [0, 1]."""
    if picture.dtype == np.uint8:
        return picture.astype(np.float32) / np.float32(255)
    return np.clip(picture.astype(np.float32, copy=False), 0, 1)


def quantise(values: np.ndarray, depth: int) -> np.ndarray:
    """Values in [0, 1] as integers of `depth` bits, rounded half up."""
    return (values * np.float32((1 << depth) - 1) + np.float32(0.5)).astype(np.uint8 if depth == 8 else np.uint16)


def planes_of(picture: np.ndarray, pixels: str, depth: int) -> list[np.ndarray]:
    """The planes of a picture in the pixel format `pixels`: YUV of BT.709 in limited range, or RGB in full range."""
    if pixels.startswith("gbrp"):
        red, green, blue = np.moveaxis(quantise(picture, depth), -1, 0)
        return [green, blue, red]
    if pixels == "bgr0":
        return [np.pad(quantise(picture, depth)[..., ::-1], ((0, 0), (0, 0), (0, 1))).reshape(len(picture), -1)]
    return _yuv(picture, CHROMA_STEPS[pixels[:7]], depth)


def _yuv(picture: np.ndarray, steps: tuple[int, int], depth: int) -> list[np.ndarray]:
    red, green, blue = np.moveaxis(picture, -1, 0)
    luma = np.float32(RED) * red + np.float32(GREEN) * green + np.float32(BLUE) * blue
    scale, kind = 1 << (depth - 8), np.uint8 if depth == 8 else np.uint16
    planes = [luma * np.float32(219 * scale) + np.float32(16 * scale + 0.5)]
    for colour, weight in ((blue, BLUE), (red, RED)):
        chroma = _subsample((colour - luma) * np.float32(0.5 / (1 - weight)), steps)
        planes.append(chroma * np.float32(224 * scale) + np.float32(128 * scale + 0.5))
    return [plane.astype(kind) for plane in planes]


def _subsample(plane: np.ndarray, steps: tuple[int, int]) -> np.ndarray:
    """Subsample chroma: means of two rows, and columns weighted 1 2 1 around the even ones, where chroma is sited."""
    if steps[0] == 2:
        plane = (plane[0::2] + plane[1::2]) * np.float32(0.5)
    if steps[1] == 2:
        wide = np.pad(plane, ((0, 0), (1, 0)), mode="edge")
        plane = (wide[:, 0:-1:2] + wide[:, 2::2]) * np.float32(0.25) + wide[:, 1::2] * np.float32(0.5)
    return plane


def picture_of(planes: list[np.ndarray], depth: int, *, limited: bool, weights: tuple[float, float]) -> np.ndarray:
    """The picture of YUV planes, not clamped: the inverse of `planes_of`.

    `limited`: values have limited (video) range. `weights`: luma coefficients of red and blue.
    """
    scale = np.float32(1 << (depth - 8))
    low, luma_range, chroma_range = (16, 219, 224) if limited else (0, 255 + (1 - 1 / scale), 255 + (1 - 1 / scale))
    rows, columns = planes[0].shape
    luma = (planes[0].astype(np.float32) / scale - low) / np.float32(luma_range)
    blue_difference, red_difference = (
        (_upsample(plane.astype(np.float32), (rows, columns)) / scale - 128) / np.float32(chroma_range)
        for plane in planes[1:]
    )
    red_weight, blue_weight = weights
    red = luma + np.float32(2 - 2 * red_weight) * red_difference
    blue = luma + np.float32(2 - 2 * blue_weight) * blue_difference
    green = (luma - red_weight * red - blue_weight * blue) / np.float32(1 - red_weight - blue_weight)
    return np.stack([red, green, blue], axis=-1).astype(np.float32)


def _upsample(plane: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Chroma at the shape of luma, by linear interpolation."""
    rows, columns = shape
    if len(plane) < rows:  # a chroma row is sited between two luma rows
        above, below = np.concatenate([plane[:1], plane[:-1]]), np.concatenate([plane[1:], plane[-1:]])
        pairs = np.stack([plane * 0.75 + above * 0.25, plane * 0.75 + below * 0.25], axis=1)
        plane = pairs.reshape(-1, plane.shape[1])[:rows]
    if plane.shape[1] < columns:  # a chroma column is sited on an even luma column
        right = np.concatenate([plane[:, 1:], plane[:, -1:]], axis=1)
        plane = np.stack([plane, (plane + right) * 0.5], axis=2).reshape(len(plane), -1)[:, :columns]
    return plane


def to_uint8(frames: Tensor | np.ndarray) -> np.ndarray:
    """Frames [F, H, W, 3] as uint8; floats are clamped to [0, 1] and rounded. Raises ValueError for other shapes."""
    if frames.ndim != 4 or frames.shape[-1] != 3:
        raise ValueError(f"frames must be [F, H, W, 3], got {list(frames.shape)}")
    if isinstance(frames, np.ndarray):
        if frames.dtype != np.uint8:
            raise ValueError(f"frames in numpy must be uint8, got {frames.dtype}")
        return frames
    return (frames.clamp(0, 1) * 255 + 0.5).to(torch.uint8).cpu().numpy()
