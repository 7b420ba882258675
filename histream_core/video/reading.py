"""Reading any part of a video, one frame at a time.

Frames are [H, W, 3], RGB, float32 in [0, 1]. `av` is imported where it is used.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .formats import MOST_FPS
from .media import LATEST, Source, check_picture, name_of, open_media, video_stream
from .pixels import BLUE, CHROMA_STEPS, RED, picture_of

FULL_RANGE = 2
"""FFmpeg's code of full range."""

BT601 = 0.299, 0.114
"""Luma coefficients of red and blue in ITU-R BT.601."""

BT2020 = 0.2627, 0.0593
"""Luma coefficients of red and blue in ITU-R BT.2020, of non-constant luminance."""

WEIGHTS = {5: BT601, 6: BT601, 9: BT2020}
"""Luma coefficients by FFmpeg's codes of colour spaces; of all others those of BT.709."""

HDR = {16: "PQ", 18: "HLG"}
"""Names of HDR's transfer characteristics, by FFmpeg's codes."""

BACK_SECONDS = 0.5
"""First distance to seek before a frame: containers find key frames by decoding time, which is earlier."""

MAX_FRAMES = 1_000_001
"""Most frames of a video that are read."""

RATES = 1, MOST_FPS
"""Least and most frames per second of a video that is read."""

_DEPTHS = ("", "10le", "12le", "16le")
"""Suffixes of the pixel formats that are converted here; the library converts all others."""


@dataclass(frozen=True)
class VideoIndex:
    """The frames of a video, listed from its packets without decoding."""

    times: tuple[int, ...]
    """Presentation time of each frame, in order, in units of `unit` seconds."""
    unit: Fraction
    rate: Fraction
    """Frames per second."""
    digest: str
    """Identifies the content: equal for equal packets, whatever the name of the file."""

    @property
    def num_frames(self) -> int:
        return len(self.times)

    def within(self, start: float, seconds: float = 0) -> range:
        """The frames that begin from `start` seconds on, within `seconds`; 0 means to the end."""
        begin, end = int(start / self.unit), int((start + seconds) / self.unit)
        return range(bisect_left(self.times, begin), bisect_left(self.times, end) if seconds else self.num_frames)


def index_video(source: Source) -> VideoIndex:
    """List the frames of a video by reading all its packets.

    Raises ValueError where frame times are unknown or not evenly spaced, and the errors of `frames_of`.
    """
    times, digest = [], hashlib.blake2b(digest_size=8)
    with open_video(source) as container:
        stream = video_stream(container, source)
        rate, unit = _rate(stream, source), stream.time_base
        for packet in container.demux(stream):
            if not packet.size or packet.is_discard:
                continue
            if packet.pts is None or abs(packet.pts) >= LATEST:
                raise _untimed(source)
            if len(times) == MAX_FRAMES:
                raise ValueError(f"{name_of(source)} has more than {MAX_FRAMES} frames: cut it into shorter ones")
            times.append(packet.pts)
            digest.update(packet)
    if not times:
        raise ValueError(f"{name_of(source)} has no frame in it: choose another file")
    times.sort()
    frames_per_unit = float(unit * rate)
    for index, time in enumerate(times):
        if round((time - times[0]) * frames_per_unit) != index:
            raise _uneven(source, index)
    return VideoIndex(tuple(times), unit, rate, digest.hexdigest())


def check_sdr(source: Source) -> None:
    """Raise ValueError for a video in HDR: frames in [0, 1] would have other colours. Raises as `open_video` does."""
    with open_video(source) as container:
        found = HDR.get(video_stream(container, source).codec_context.color_trc)
        if found:
            raise ValueError(f"{name_of(source)} is HDR ({found}): convert it to SDR, BT.709")


def frames_of(source: Source, start: int = 0, count: int | None = None, *, overlap: int = 0) -> Iterator[Tensor]:
    """Yield `count` frames of a video from frame `start` on (None: to its end), and up to `overlap` frames before them.

    Decodes from the previous key frame on, and holds one frame at a time. Raises ValueError for frames that the video
    does not have and for a frame rate that is not constant, and ValueError or OSError for a file that is no video.
    """
    if start < 0 or overlap < 0 or (count is not None and count < 1):
        raise ValueError(f"{count} frames from {start} on, {overlap} before: ask for frames 0 and later, 1 or more")
    begin, end = max(0, start - overlap), None if count is None else start + count
    index = begin - 1
    if begin > MAX_FRAMES:
        raise ValueError(f"{start} is no frame of {name_of(source)}: at most {MAX_FRAMES} frames of a video are read")
    with open_video(source) as container:
        stream = video_stream(container, source)
        rate, zero = _rate(stream, source), stream.start_time or 0
        for frame in _checked(_decode_from(container, stream, zero + int(begin / rate / stream.time_base)), source):
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
        raise ValueError(
            f"{name_of(source)} has {max(index + 1, 0)} frames: ask for fewer than {count} from {start} on"
        )


def _checked(frames: Iterator[Any], source: Source) -> Iterator[Any]:
    """Yield decoded frames that have a time, and all the size of the first. Raises ValueError for others."""
    size = None
    for frame in frames:
        if frame.pts is None or not frame.time_base:
            raise _untimed(source)
        check_picture(frame, source)
        size = size or (frame.width, frame.height)
        if size != (frame.width, frame.height):
            raise ValueError(
                f"{name_of(source)} changes its size from {size[0]}x{size[1]} to {frame.width}x{frame.height}: "
                "convert it to one size"
            )
        yield frame


def _decode_from(container: Any, stream: Any, time: int) -> Iterator[Any]:
    """Decode from a frame at or before `time` on; seeks further back until that holds, as seeking is not exact."""
    zero, back = stream.start_time or 0, max(1, int(BACK_SECONDS / stream.time_base))
    while True:
        if time > zero:
            container.seek(time - back, stream=stream)
        frames = container.decode(stream)
        first = next(frames, None)
        if time - back < zero or (first is not None and (first.pts or 0) <= time):
            break
        back *= 4
    yield from itertools.chain([] if first is None else [first], frames)


def _rate(stream: Any, source: Source) -> Fraction:
    rate = stream.guessed_rate  # the average rate is wrong where Matroska rounded the times
    if not rate or not RATES[0] <= rate <= RATES[1]:
        shown = f"shows {float(rate):g} frames" if rate else "does not say how many frames it shows"
        raise ValueError(f"{name_of(source)} {shown} in a second: convert it to MP4 with {RATES[0]} to {RATES[1]}")
    return Fraction(rate)


def _uneven(source: Source, index: int) -> ValueError:
    return ValueError(
        f"{name_of(source)} has no frame where frame {index} should be, its rate is not constant: "
        "convert it to a constant frame rate"
    )


def _untimed(source: Source) -> ValueError:
    return ValueError(f"{name_of(source)} does not say when its frames are shown: convert it to MP4")


def unit_frame(frame: Any) -> Tensor:
    """Convert a decoded frame to RGB [H, W, 3] in [0, 1], at the bit depth of the file.

    The matrix is the file's; primaries are taken as those of BT.709, so that colours of BT.2020 come out paler.
    """
    depth = frame.format.components[0].bits
    kind = frame.format.name
    if kind[:7] in CHROMA_STEPS and kind[7:] in _DEPTHS:
        picture = picture_of(
            [_values(plane, depth) for plane in frame.planes],
            depth,
            limited=frame.color_range != FULL_RANGE,
            weights=WEIGHTS.get(frame.colorspace, (RED, BLUE)),
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
    """Rotate the `picture` [H, W, 3] of a decoded frame as its file says (phones store upright video lying down)."""
    return np.ascontiguousarray(np.rot90(picture, round(frame.rotation / 90)))


def _values(plane: Any, depth: int) -> np.ndarray:
    """The values of one plane [rows, columns], without the padding of its lines."""
    kind = np.uint8 if depth == 8 else np.dtype("<u2")
    return np.frombuffer(plane, kind).reshape(plane.height, -1)[:, : plane.width]


@contextlib.contextmanager
def open_video(source: Source) -> Iterator[Any]:
    """Open a container that has a video stream. Raises OSError or ValueError for anything else."""
    with open_media(source, f"{name_of(source)} is not a video that can be read") as container:
        video_stream(container, source)
        yield container
