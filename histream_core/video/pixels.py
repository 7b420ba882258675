"""Conversion between RGB frames and the planes of a pixel format.

A picture is one frame [H, W, 3], RGB, float32 in [0, 1], as display values (sRGB). Planes are computed by numpy in one
thread, or by torch on the frames' device: one operation at a time on each value, each rounded alone, so that the same
frame gives the same bytes everywhere.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..network.transfer import download

RED, GREEN, BLUE = 0.2126, 0.7152, 0.0722
"""Luma coefficients of ITU-R BT.709."""

CHROMA_STEPS = {"yuv420p": (2, 2), "yuv422p": (1, 2), "yuv444p": (1, 1)}
"""Chroma subsampling of each pixel format: rows and columns of luma for one of chroma."""

Metadata = Mapping[str, str]

Values = Any
"""An array of numpy, or a tensor of torch on any device; what is computed of it is of the same kind."""


def pictures_of(frames: Tensor | np.ndarray, size: tuple[int, int]) -> list[np.ndarray]:
    """Split frames [F, H, W, 3] into F pictures, cropped at the centre to `size` (width, height).

    Float frames are clamped to [0, 1], uint8 frames divided by 255. Raises ValueError for other shapes and dtypes, and
    for frames smaller than `size`.
    """
    frames = cropped(frames, size)
    return [_to_unit(picture) for picture in (frames if isinstance(frames, np.ndarray) else frames.cpu().numpy())]


def cropped(frames: Values, size: tuple[int, int]) -> Values:
    """The middle of frames [F, H, W, 3], of `size` (width, height). Raises the errors of `pictures_of`."""
    if frames.ndim != 4 or frames.shape[-1] != 3:
        raise ValueError(f"frames must be [F, H, W, 3], got {list(frames.shape)}")
    if isinstance(frames, np.ndarray) and frames.dtype != np.uint8:
        raise ValueError(f"frames in numpy must be uint8, got {frames.dtype}")
    width, height = size
    rows, columns = frames.shape[1:3]
    top, left = (rows - height) // 2, (columns - width) // 2
    if top < 0 or left < 0:
        raise ValueError(f"frames of {columns}x{rows} are smaller than the video of {width}x{height}")
    return frames[:, top : top + height, left : left + width]


def _to_unit(picture: np.ndarray) -> np.ndarray:
    """The picture as float32 in [0, 1]."""
    if picture.dtype == np.uint8:
        return picture.astype(np.float32) / np.float32(255)
    return np.clip(picture.astype(np.float32, copy=False), 0, 1)


def quantise(values: Values, depth: int) -> Values:
    """Values in [0, 1] as integers of `depth` bits, rounded half up."""
    return _whole(values * float((1 << depth) - 1) + 0.5, depth)


def planes_of(pictures: Values, pixels: str, depth: int) -> list[Values]:
    """The planes of pictures [..., H, W, 3] in the pixel format `pixels`, [..., rows, columns] each, of the same kind.

    YUV of BT.709 in limited range, or RGB in full range; folders of pictures have one plane [..., rows, columns, 3], in
    OpenEXR of half floats.
    """
    if pixels == "gbrpf32le":
        return [pictures.astype(np.float16) if isinstance(pictures, np.ndarray) else pictures.half()]
    if pixels.startswith("rgb"):
        return [quantise(pictures, depth)]
    if pixels.startswith("gbrp"):
        red, green, blue = _channels(quantise(pictures, depth))
        return [green, blue, red]
    if pixels == "bgr0":
        red, green, blue = _channels(quantise(pictures, depth))
        library: Any = np if isinstance(pictures, np.ndarray) else torch
        mixed = library.stack([blue, green, red, library.zeros_like(red)], -1)
        return [mixed.reshape(*mixed.shape[:-2], -1)]
    return _yuv(pictures, CHROMA_STEPS[pixels[:7]], depth)


def _channels(values: Values) -> tuple[Values, Values, Values]:
    return values[..., 0], values[..., 1], values[..., 2]


def _whole(values: Values, depth: int) -> Values:
    """Values without their fractions, in the smallest integers of `depth` bits; torch's are signed from 9 bits on.

    Those of 16 bits have the same bytes there, and are negative in their upper half.
    """
    if isinstance(values, np.ndarray):
        return values.astype(np.uint8 if depth == 8 else np.uint16)
    if depth == 16:
        return values.to(torch.int32).to(torch.int16)
    return values.to(torch.uint8 if depth == 8 else torch.int16)


def _yuv(pictures: Values, steps: tuple[int, int], depth: int) -> list[Values]:
    red, green, blue = _channels(pictures)
    luma = red * RED + green * GREEN + blue * BLUE
    scale = 1 << (depth - 8)
    planes = [luma * float(219 * scale) + (16 * scale + 0.5)]
    for colour, weight in ((blue, BLUE), (red, RED)):
        chroma = _subsample((colour - luma) * (0.5 / (1 - weight)), steps)
        planes.append(chroma * float(224 * scale) + (128 * scale + 0.5))
    return [_whole(plane, depth) for plane in planes]


def _subsample(plane: Values, steps: tuple[int, int]) -> Values:
    """Subsample chroma: means of two rows, and columns weighted 1 2 1 around the even ones, where chroma is sited."""
    if steps[0] == 2:
        plane = (plane[..., 0::2, :] + plane[..., 1::2, :]) * 0.5
    if steps[1] == 2:
        library: Any = np if isinstance(plane, np.ndarray) else torch
        odd = plane[..., 1::2]
        left = library.concatenate([plane[..., :1], odd[..., :-1]], -1)  # the edge stands for what is left of it
        plane = (left + odd) * 0.25 + plane[..., 0::2] * 0.5
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


@dataclass(frozen=True)
class Form:
    """The form in which a writer takes frames from a device: planes of a pixel format, of pictures of one size."""

    size: tuple[int, int]
    pixels: str
    depth: int


class Leaving:
    """Frames on their way from a device to main memory, as planes; iterate over them to wait for them.

    The planes are computed on the device, and copied from there without the caller's waiting.
    """

    def __init__(self, frames: Tensor, form: Form) -> None:
        """`frames` [F, H, W, 3] are floats in [0, 1]. Raises ValueError where they are smaller than the picture."""
        self.form = form
        pictures = cropped(frames, form.size).float().clamp(0, 1)
        self._planes = [download(plane) for plane in planes_of(pictures, form.pixels, form.depth)]
        self._there = torch.cuda.current_stream(frames.device).record_event() if frames.is_cuda else None

    def __len__(self) -> int:
        return len(self._planes[0])

    def __iter__(self) -> Iterator[list[np.ndarray]]:
        """The planes of each picture, as `planes_of` computes them by numpy."""
        if self._there is not None:
            self._there.synchronize()
        planes = (plane.numpy() for plane in self._planes)
        unsigned = (plane.view(np.uint16) if plane.dtype == np.int16 else plane for plane in planes)
        yield from map(list, zip(*unsigned, strict=True))
