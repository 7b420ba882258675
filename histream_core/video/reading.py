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

from torch import Tensor

from .formats import MOST_FPS, NTSC
from .frames import aspect_of, check_aspect, unit_frame
from .media import LATEST, Source, check_picture, name_of, open_media, video_stream

BACK_SECONDS = 0.5
"""First distance to seek before a frame: containers find key frames by decoding time, which is earlier."""

MAX_FRAMES = 1_000_001
"""Most frames of a video that are read."""

RATES = 1, MOST_FPS
"""Least and most frames per second of a video that is read."""

COUNTED = ("avi", "mpeg", "mpegvideo", "m4v")
"""Containers (FFmpeg's names) that do not hold the time of each frame: frames are counted from the beginning."""

RATE_ERROR = 8e-7
"""Largest relative error of a rate of NTSC; Matroska rounds the length of a frame to a nanosecond."""


GUESSED = {"mpegts": (120, 240), "flv": (120, 240)}
"""Whole rates by container (FFmpeg's names) that FFmpeg gives for those of NTSC beside them too; H.264 tells."""


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
        is_timed, is_avi = _is_timed(stream), _is_avi(stream)
        for packet in container.demux(stream):
            if not packet.size or packet.is_discard:
                continue
            if packet.pts is None or abs(packet.pts) >= LATEST:
                raise _untimed(source)
            if len(times) == MAX_FRAMES:
                raise ValueError(f"{name_of(source)} has more than {MAX_FRAMES} frames: cut it into shorter ones")
            times.append(packet.pts if is_timed else _counted(packet, len(times), rate))
            digest.update(packet)
    if not times:
        raise ValueError(f"{name_of(source)} has no frame in it: choose another file")
    times.sort()
    if is_avi and times[-1] - times[0] < MAX_FRAMES:
        times = list(range(times[0], times[-1] + 1))
    frames_per_unit = float(unit * rate)
    for index, time in enumerate(times):
        if round((time - times[0]) * frames_per_unit) != index:
            raise _uneven(source, index)
    return VideoIndex(tuple(times), unit, rate, digest.hexdigest())


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
    last = -1
    for last, frame, aspect in _numbered(source, begin):
        if last < begin:
            continue
        if last != index + 1:
            raise _uneven(source, index + 1)
        index = last
        yield unit_frame(frame, aspect)
        if index + 1 == end:
            return
    if index < begin or (end is not None and index < end - 1):
        raise ValueError(f"{name_of(source)} has {last + 1} frames: ask for fewer than {count} from {start} on")


def _numbered(source: Source, begin: int) -> Iterator[tuple[int, Any, Fraction]]:
    """Yield the number of each decoded frame, the frame and the aspect of its pixels, from `begin` or before it on."""
    seeks = True
    back = BACK_SECONDS
    while True:
        with open_video(source) as container:
            stream = video_stream(container, source)
            rate, is_timed = _rate(stream, source), _is_timed(stream)
            zero = (stream.start_time or 0) if is_timed else 0
            time, step = zero + int(begin / rate / stream.time_base), max(1, int(back / stream.time_base))
            far = seeks and is_timed and time - step > zero
            if far and not _seek(container, stream, time - step):
                seeks = False
                continue
            frames = container.decode(stream) if is_timed else _decode_counted(container, stream, rate)
            first = next(frames, None)
            if far and (first is None or (first.pts or 0) > time):
                back *= 4
                continue
            before, aspect = None, aspect_of(stream)
            for frame in _checked(itertools.chain([] if first is None else [first], frames), source):
                check_aspect(frame, aspect, source)
                number = round((frame.pts - zero) * frame.time_base * rate)
                if before is not None and _is_avi(stream):
                    yield from ((missing, before[1], aspect) for missing in range(before[0] + 1, number))
                yield number, frame, aspect
                before = number, frame
            return


def _seek(container: Any, stream: Any, time: int) -> bool:
    """Go to a key frame at `time` or before it; False where the file cannot, and must be opened again."""
    import av.error

    try:
        container.seek(time, stream=stream)
    except av.error.FFmpegError:
        return False
    return True


def _is_timed(stream: Any) -> bool:
    """Whether packets and frames of a stream hold the time at which they are shown."""
    name = stream.container.format.name
    return name not in COUNTED or (_is_avi(stream) and stream.codec_context.codec.intra_only)


def _is_avi(stream: Any) -> bool:
    """Whether frames are numbered, and one that is missing is the one before it, shown again."""
    return stream.container.format.name == "avi"


def _counted(packet: Any, count: int, rate: Fraction) -> int:
    """The time of a packet that does not hold one, behind `count` others."""
    if _is_avi(packet.stream) and packet.dts is not None:
        return packet.dts
    return round(count / rate / packet.time_base)


def _decode_counted(container: Any, stream: Any, rate: Fraction) -> Iterator[Any]:
    """Decode all frames, each with its number for a time: the next one, in AVI the next that a packet has."""
    numbers: list[int] = []
    count = 0
    for packet in container.demux(stream):
        if packet.size:
            numbers.append(packet.dts if _is_avi(stream) and packet.dts is not None else len(numbers))
        for frame in packet.decode():
            frame.pts, frame.time_base = numbers[min(count, len(numbers) - 1)] - numbers[0], 1 / rate
            yield frame
            count += 1


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


def _rate(stream: Any, source: Source) -> Fraction:
    """Frames per second of a stream, exactly. Raises ValueError for a rate that no video has."""
    rate = stream.guessed_rate  # the average rate is wrong where Matroska rounded the times
    if not rate or not RATES[0] <= rate <= RATES[1]:
        shown = f"shows {float(rate):g} frames" if rate else "does not say how many frames it shows"
        raise ValueError(f"{name_of(source)} {shown} in a second: convert it to MP4 with {RATES[0]} to {RATES[1]}")
    told = stream.codec_context.framerate
    if told and rate in GUESSED.get(stream.container.format.name, ()) and told == rate * NTSC:
        return Fraction(told)
    whole = round(rate / NTSC) * NTSC
    return whole if abs(rate / whole - 1) < RATE_ERROR else Fraction(rate)


def _uneven(source: Source, index: int) -> ValueError:
    return ValueError(
        f"{name_of(source)} has no frame where frame {index} should be, its rate is not constant: "
        "convert it to a constant frame rate"
    )


def _untimed(source: Source) -> ValueError:
    return ValueError(f"{name_of(source)} does not say when its frames are shown: convert it to MP4")


@contextlib.contextmanager
def open_video(source: Source) -> Iterator[Any]:
    """Open a container that has a video stream. Raises OSError or ValueError for anything else."""
    with open_media(source, f"{name_of(source)} is not a video that can be read") as container:
        video_stream(container, source)
        yield container
