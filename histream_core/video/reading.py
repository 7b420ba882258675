"""Frames of a video, of the part that is asked for only, and the parts to ask for.

`av` is imported where it is used. Frames are [H, W, 3], red green blue, float32 in [0, 1].
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from torch import Tensor

from ..plan.sizes import PIXEL_FRAMES_PER_LATENT
from .pixels import BLUE, CHROMA_STEPS, RED, picture_of

FULL_RANGE = 2
BT601 = 0.299, 0.114
"""Luma weights of red and blue in ITU-R BT.601, and the codes under which files name it."""
BT601_CODES = (5, 6)

BACK_SECONDS = 0.5
"""How far before a frame to begin at first: key frames are found by when they are stored, which is before."""

Source = str | Path | BinaryIO
"""A file, or a file object that can be wound back."""

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


@dataclass(frozen=True)
class VideoIndex:
    """Which frames a video has, counted in its packets and not decoded."""

    times: tuple[int, ...]
    """When each frame is shown, in order, in units of `unit` seconds."""
    unit: Fraction
    rate: Fraction
    """Frames per second."""
    digest: str
    """The same for the same packets, whatever the file is called."""

    @property
    def num_frames(self) -> int:
        return len(self.times)

    def within(self, start: float, seconds: float = 0) -> range:
        """The frames shown from `start` seconds on, for `seconds` or (0) to the end."""
        begin, end = int(start / self.unit), int((start + seconds) / self.unit)
        return range(bisect_left(self.times, begin), bisect_left(self.times, end) if seconds else self.num_frames)


def index_video(source: Source) -> VideoIndex:
    """Read all packets of a video and say which frames it has.

    Raises ValueError where their times are unknown or not evenly spaced, and as `frames_of` does.
    """
    times, digest = [], hashlib.blake2b(digest_size=8)
    with open_video(source) as container:
        stream = container.streams.video[0]
        rate, unit = _rate(stream, source), stream.time_base
        for packet in container.demux(stream):
            if not packet.size or packet.is_discard:
                continue
            if packet.pts is None:
                raise ValueError(f"{_name(source)} does not say when its frames are shown: convert it to MP4")
            times.append(packet.pts)
            digest.update(packet)
    times.sort()
    frames_per_unit = float(unit * rate)
    for index, time in enumerate(times):
        if round((time - times[0]) * frames_per_unit) != index:
            raise _uneven(source, index)
    return VideoIndex(tuple(times), unit, rate, digest.hexdigest())


def frames_of(source: Source, start: int = 0, count: int | None = None, *, overlap: int = 0) -> Iterator[Tensor]:
    """Yield the frames `start` to `start + count` of a video, and `overlap` frames before them where there are.

    Decodes from the key frame before on, and holds one frame at a time. Raises ValueError for frames that the video
    does not have or does not show at a constant rate, and ValueError or OSError where it is not a video.
    """
    if start < 0 or overlap < 0 or (count is not None and count < 1):
        raise ValueError(f"{count} frames from {start} on, {overlap} before: ask for frames 0 and later, 1 or more")
    begin, end = max(0, start - overlap), None if count is None else start + count
    index = begin - 1
    with open_video(source) as container:
        stream = container.streams.video[0]
        rate, zero = _rate(stream, source), stream.start_time or 0
        for frame in _decode_from(container, zero + int(begin / rate / stream.time_base)):
            shown = round((frame.pts - zero) * frame.time_base * rate)
            if shown < begin:
                continue
            if shown != index + 1:
                raise _uneven(source, index + 1)
            index = shown
            yield unit_frame(frame)
            if index + 1 == end:
                return
    if index < begin or (end is not None and index < end - 1):
        raise ValueError(f"{_name(source)} has {max(index + 1, 0)} frames: ask for fewer than {count} from {start} on")


def _decode_from(container: Any, time: int) -> Iterator[Any]:
    """Frames from the one shown at `time` on, or from some before it: containers promise no more than a try."""
    stream = container.streams.video[0]
    zero, back = stream.start_time or 0, int(BACK_SECONDS / stream.time_base)
    while True:
        if time > zero:
            container.seek(time - back, stream=stream)
        frames = container.decode(stream)
        first = next(frames, None)
        if time - back < zero or (first is not None and first.pts <= time):
            break
        back *= 4
    yield from itertools.chain([] if first is None else [first], frames)


def _rate(stream: Any, source: Source) -> Fraction:
    if not stream.guessed_rate:
        raise ValueError(f"{_name(source)} does not say how many frames it shows in a second: convert it to MP4")
    return Fraction(stream.guessed_rate)  # the average one suffers from rounded times in Matroska


def _uneven(source: Source, index: int) -> ValueError:
    return ValueError(
        f"{_name(source)} has no frame where frame {index} should be, its rate is not constant: "
        "convert it to a constant frame rate"
    )


def _name(source: Source) -> str:
    return str(source) if isinstance(source, (str, Path)) else "the video in memory"


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
    return torch.from_numpy(upright(picture, frame).astype(np.float32, copy=False))


def upright(picture: np.ndarray, frame: Any) -> np.ndarray:
    """The `picture` [H, W, 3] of a decoded frame, turned as its file asks for: a telephone may have been held upright.

    Contiguous.
    """
    return np.ascontiguousarray(np.rot90(picture, round(frame.rotation / 90)))


def _values(plane: Any, depth: int) -> np.ndarray:
    """The numbers of one plane [rows, columns], without what pads its lines."""
    kind = np.uint8 if depth == 8 else np.dtype("<u2")
    return np.frombuffer(plane, kind).reshape(plane.height, -1)[:, : plane.width]


@contextlib.contextmanager
def open_video(source: Source) -> Iterator[Any]:
    """An open container with pictures in it. Raises OSError or ValueError where it is not one."""
    import av

    try:
        if isinstance(source, (str, Path)):
            container = av.open(str(source))
        else:
            source.seek(0)
            container = av.open(source)
    except av.error.InvalidDataError as error:
        raise ValueError(f"{_name(source)} is not a video that can be read") from error
    with container:
        if not container.streams.video:
            raise ValueError(f"{_name(source)} has no picture in it")
        yield container
