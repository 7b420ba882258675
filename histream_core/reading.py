"""Frames of a video, of the part that is asked for only, and the parts to ask for.

`av` is imported where it is used. Frames are [H, W, 3], red green blue, float32 in [0, 1].
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .pixels import BLUE, CHROMA_STEPS, RED, picture_of
from .plan import PIXEL_FRAMES_PER_LATENT

FULL_RANGE = 2
BT601 = 0.299, 0.114
"""Luma weights of red and blue in ITU-R BT.601, and the codes under which files name it."""
BT601_CODES = (5, 6)

_DEPTHS = ("", "10le", "12le", "16le")
"""How the names of pixel formats end that are read as they are; for others the library converts."""


def whole_below(num_frames: int) -> int:
    """The largest 4n + 1 that is not above `num_frames`. Raises ValueError for none."""
    if num_frames < 1:
        raise ValueError(f"a range of {num_frames} frames is empty: ask for 81, or at least 1")
    return num_frames - (num_frames - 1) % PIXEL_FRAMES_PER_LATENT


def ranges(num_frames: int, size: int, overlap: int = 0) -> tuple[range, ...]:
    """Ranges that cover a video, all of the same length 4n + 1, at most `size`; the last may overlap more.

    Neighbours share `overlap` frames at least. Raises ValueError where that cannot be.
    """
    length = whole_below(min(size, num_frames))
    if not 0 <= overlap < length:
        raise ValueError(f"an overlap of {overlap} frames does not fit into {length}: use 0 to {length - 1}")
    last = num_frames - length
    starts = [*range(0, last, length - overlap), last]
    return tuple(range(start, start + length) for start in starts)


def frames_of(path: str | Path, start: int = 0, count: int | None = None, *, overlap: int = 0) -> Iterator[Tensor]:
    """Yield the frames `start` to `start + count` of a video file, and `overlap` frames before them where there are.

    Decodes from the key frame before on, and holds one frame at a time. Raises ValueError for frames that the file
    does not have, and ValueError or OSError where it is not a video.
    """
    if start < 0 or overlap < 0 or (count is not None and count < 1):
        raise ValueError(f"{count} frames from {start} on, {overlap} before: ask for frames 0 and later, 1 or more")
    begin, end = max(0, start - overlap), None if count is None else start + count
    index = begin - 1
    with open_video(path) as container:
        stream = container.streams.video[0]
        rate = Fraction(stream.guessed_rate)  # the average one suffers from rounded times in Matroska
        if begin:
            container.seek(int(begin / rate / stream.time_base), stream=stream)
        for frame in container.decode(stream):
            shown = round((frame.pts - (stream.start_time or 0)) * frame.time_base * rate)
            if shown < begin:
                continue
            if end is not None and shown >= end:
                return
            index = shown
            yield unit_frame(frame)
    if index < begin or (end is not None and index < end - 1):
        raise ValueError(f"{path} has {max(index + 1, 0)} frames: ask for fewer than {count} from {start} on")


def unit_frame(frame: Any) -> Tensor:
    """A decoded frame [H, W, 3] in [0, 1], at the depth of the file."""
    depth = frame.format.components[0].bits
    kind = frame.format.name
    if kind[:7] in CHROMA_STEPS and kind[7:] in _DEPTHS:
        picture = picture_of(
            [_values(plane, depth) for plane in frame.planes],
            depth,
            limited=frame.color_range != FULL_RANGE,
            weights=BT601 if frame.colorspace in BT601_CODES else (RED, BLUE),
        ).clip(0, 1)
    elif kind.startswith("gbrp") and kind[4:] in _DEPTHS:
        green, blue, red = (_values(plane, depth) for plane in frame.planes)
        picture = np.stack([red, green, blue], axis=-1) / np.float32((1 << depth) - 1)
    elif depth == 8:
        picture = frame.to_ndarray(format="rgb24") / np.float32(255)
    else:
        picture = frame.to_ndarray(format="rgb48le") / np.float32(65535)
    return torch.from_numpy(picture.astype(np.float32, copy=False))


def _values(plane: Any, depth: int) -> np.ndarray:
    """The numbers of one plane [rows, columns], without what pads its lines."""
    kind = np.uint8 if depth == 8 else np.dtype("<u2")
    return np.frombuffer(plane, kind).reshape(plane.height, -1)[:, : plane.width]


@contextlib.contextmanager
def open_video(path: str | Path) -> Iterator[Any]:
    """An open container with pictures in it. Raises OSError or ValueError where it is not one."""
    import av

    try:
        container = av.open(str(path))
    except av.error.InvalidDataError as error:
        raise ValueError(f"{path} is not a video that can be read") from error
    with container:
        if not container.streams.video:
            raise ValueError(f"{path} has no picture in it")
        yield container
