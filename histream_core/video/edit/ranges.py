"""Frame ranges of a video for another program, and the processed ranges back into one video.

Each processed range is a closed file in the folder NAME.ranges beside the video NAME. A record in that folder says
which video and settings they belong to, so that ranges of two videos are never mixed. When all ranges are there they
are joined without encoding again. The files stay: a range that is written again replaces its file, and the video is
joined again.

A frame interpolator gives more pictures back than it got. Where it gives `factor` times as many, picture `j` of a range
lies at frame `j / factor` of it, and the video plays `factor` times as fast: its time stays.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

from torch import Tensor

from ...files.disk import check_own, make_folder, write_whole
from ...files.reading import parse_json, printable, read_bytes
from ...plan.sizes import PIXEL_FRAMES_PER_LATENT
from ..container import join
from ..formats import Format
from ..pixels import Metadata
from ..space import check_space
from ..writers import VideoFile, segment_name

RECORD = "ranges.json"
VERSION = 1
MAX_RECORD = 2**16

FACTOR = "pictures for each frame"
"""Key in the record; records of ranges that came back as they went out have none."""

SHOWN_FACTORS = tuple(Fraction(factor) for factor in (2, 3, 4))
BETWEEN_FACTORS = tuple(Fraction(*parts) for parts in ((5, 4), (3, 2), (5, 2)))
"""From 24 to 30, from 16 to 24 and from 24 to 60 frames per second: with 4n + 1 frames they give a whole number."""


@dataclass(frozen=True)
class VideoRange:
    """One of the ranges that a video was divided into."""

    index: int
    num_ranges: int
    frames: range
    """The frames of the video that it covers."""
    new_from: int
    """Number of frames at its start that the range before covers too."""
    overlap: int
    """The requested overlap; the last range may have more."""
    num_frames: int
    """Number of frames of the whole video."""
    fps: float
    source: str
    """Identifies the content of the video: equal for equal frames."""
    factor: Fraction = Fraction(1)
    """Pictures that come back for each step from a frame to the next."""

    @property
    def new_pictures(self) -> range:
        """The pictures of the range that no range before has; the others, also behind its last frame, are dropped."""
        first = (self.new_from - 1) * self.factor + 1 if self.new_from else Fraction(0)
        return range(int(first), _pictures(len(self.frames), self.factor))

    @property
    def num_pictures(self) -> int:
        """Number of pictures of the whole video."""
        return _pictures(self.num_frames, self.factor)

    @property
    def picture_rate(self) -> float:
        """Pictures per second: the video takes as long as before."""
        return float(self.fps * self.factor)


def longest_range(num_frames: int) -> int:
    """The largest 4n + 1 up to `num_frames`. Raises ValueError below 1."""
    if num_frames < 1:
        raise ValueError(f"a range of {num_frames} frames is empty: ask for 81, or at least 1")
    return num_frames - (num_frames - 1) % PIXEL_FRAMES_PER_LATENT


def divide(num_frames: int, size: int, overlap: int = 0) -> tuple[range, ...]:
    """Divide a video into ranges of the same length 4n + 1, at most `size`, that share at least `overlap` frames.

    The last range may share more with the one before. Raises ValueError for an overlap as long as a range.
    """
    length = longest_range(min(size, num_frames))
    if not 0 <= overlap < length:
        raise ValueError(f"an overlap of {overlap} frames does not fit into {length}: use 0 to {length - 1}")
    last = num_frames - length
    starts = [*range(0, last, length - overlap), last]
    return tuple(range(start, start + length) for start in starts)


def range_at(index: int, *, num_frames: int, size: int, overlap: int, fps: float, source: str) -> VideoRange:
    """Range `index` of those of `divide`. Raises ValueError past the last one."""
    parts = divide(num_frames, size, overlap)
    if not 0 <= index < len(parts):
        raise ValueError(
            f"there is no range {index}: the video has {len(parts)}, 0 to {len(parts) - 1}; begin again with 0"
        )
    frames = parts[index]
    new_from = parts[index - 1].stop - frames.start if index else 0
    return VideoRange(index, len(parts), frames, new_from, overlap, num_frames, fps, source)


def came_back(part: VideoRange, pictures: Tensor) -> VideoRange:
    """The range with the factor by which its pictures [F, H, W, 3] are more than its frames.

    Raises ValueError for a number that no interpolator gives, or that can be read in two ways, and where pictures
    between two ranges would be missing; the message has what would work.
    """
    count, frames = len(pictures), len(part.frames)
    found = _factors(pictures, frames)
    if len(found) != 1:
        several = f", which can be {' or '.join(f'{float(factor):g}' for factor in found)} for each" if found else ""
        raise ValueError(
            f"{count} pictures came back for range {part.index}, which has {frames} frames{several}: "
            f"{_counts_that_work(frames)}"
        )
    part = replace(part, factor=found[0])
    if part.factor != 1:
        _check_seams(part)
    return part


def _pictures(num_frames: int, factor: Fraction) -> int:
    """Number of pictures from the first frame to the last."""
    return int((num_frames - 1) * factor) + 1


def _factors(pictures: Tensor, num_frames: int) -> list[Fraction]:
    """The factors that pictures of `num_frames` frames can have.

    Interpolators give the pictures up to the last frame, or hold that frame to be a whole number of times as many.
    """
    count = len(pictures)
    if count == num_frames:
        return [Fraction(1)]
    found = {factor for factor in BETWEEN_FACTORS if num_frames > 1 and _pictures(num_frames, factor) == count}
    if num_frames > 1 and count > 1 and (count - 1) % (num_frames - 1) == 0:
        found.add(Fraction(count - 1, num_frames - 1))
    if num_frames > 1 and count and count % num_frames == 0:
        last = pictures[-(count // num_frames) :]
        if all(picture.equal(last[0]) for picture in last[1:]):
            found.add(Fraction(count // num_frames))
    return sorted(found)


def _counts_that_work(num_frames: int) -> str:
    """Advice for the error message about a number of pictures."""
    if num_frames == 1:
        return "give 1 back, or set range_frames to 5 or more for a frame interpolator"
    few = ", ".join(f"{_pictures(num_frames, factor)} ({factor} times)" for factor in SHOWN_FACTORS)
    half = _pictures(num_frames, Fraction(3, 2))
    return f"give {num_frames} back, or from a frame interpolator {half} (1.5 times), {few} or so on"


def _check_seams(part: VideoRange) -> None:
    """Raise ValueError where pictures between two ranges would be missing, or lie at other times than in one piece."""
    for before, after in pairwise(divide(part.num_frames, len(part.frames), part.overlap)):
        if before.stop == after.start:
            raise ValueError(
                f"the pictures between frames {before.stop - 1} and {after.start} would be missing, where a range ends "
                "and the next begins: set overlap to 1 at Frames of a Video, and begin again with range 0"
            )
        if (after.start * part.factor).denominator != 1:
            raise ValueError(
                f"with {float(part.factor):g} times as many pictures no picture lies at frame {after.start}, where a "
                f"range begins: set overlap to 1, and trim the video to {longest_range(part.num_frames)} frames"
            )


def ranges_folder(video: Path) -> Path:
    """The folder of the ranges of `video`."""
    return video.with_name(f"{video.stem}.ranges")


def write_range(
    video: Path, format: Format, part: VideoRange, size: tuple[int, int], frames: Iterable[Tensor]
) -> tuple[int, ...]:
    """Write the `new_pictures` [F, H, W, 3] of a range; return the indices of ranges still missing.

    `size`: width and height. Raises ValueError where `video` or its folder belongs to another video or the number of
    frames is wrong, and the errors of a writer; existing ranges stay as they are.
    """
    if format.is_sequence:
        raise ValueError(f"{format.name} is a folder of pictures and cannot be joined: use a format that is one file")
    format.check_size(size)
    folder = _claim(video, format, part, size)
    with VideoFile(segment_name(folder, format, part.index), format, size=size, fps=part.picture_rate) as writer:
        for batch in frames:
            writer.write(batch)
        wanted = len(part.new_pictures)
        if writer.num_frames != wanted:
            raise ValueError(f"{writer.num_frames} new frames came for range {part.index}, which has {wanted}")
    return tuple(index for index in range(part.num_ranges) if not segment_name(folder, format, index).is_file())


def join_ranges(video: Path, format: Format, part: VideoRange, metadata: Metadata | None = None) -> None:
    """Join all ranges to the video. Raises ValueError or OSError, also where a range is missing; the ranges stay."""
    folder = ranges_folder(video)
    segments = [segment_name(folder, format, index) for index in range(part.num_ranges)]
    join(segments, video, format, lengths=_new_pictures(part), metadata=metadata)


def _new_pictures(part: VideoRange) -> list[int]:
    """Number of new pictures of each range of the video."""
    parts = divide(part.num_frames, len(part.frames), part.overlap)
    stops = [_pictures(frames.stop, part.factor) for frames in parts]
    return [stop - before for before, stop in pairwise([0, *stops])]


def _claim(video: Path, format: Format, part: VideoRange, size: tuple[int, int]) -> Path:
    """The folder of the ranges, made where needed, with its record. Raises ValueError where it has another record."""
    folder, wanted = ranges_folder(video), _record(format, part, size)
    record = folder / RECORD
    check_own(folder)
    if any(".partial" not in path.suffixes for path in folder.glob("seg-*")):
        _check_same(folder, _read(record), wanted)
        return folder
    if os.path.lexists(video):
        raise ValueError(
            f"{video} is there already and was not made from ranges that are still here: choose another name"
        )
    check_space(folder.parent, format, size, part.num_pictures, copies=2)
    make_folder(folder)
    write_whole(record, json.dumps(wanted, indent=1).encode())
    return folder


def _record(format: Format, part: VideoRange, size: tuple[int, int]) -> dict:
    factor = {} if part.factor == 1 else {FACTOR: str(part.factor)}
    return {
        "version": VERSION,
        "video": part.source,
        "frames": part.num_frames,
        "frames of a range": len(part.frames),
        "overlap": part.overlap,
        "fps": part.fps,
        "size": "x".join(str(side) for side in size),
        "format": f"{format.name}, {format.depth} bits",
        **factor,
    }


def _read(record: Path) -> dict:
    try:
        found = parse_json(read_bytes(record, MAX_RECORD))
    except (OSError, ValueError) as error:
        raise ValueError(
            f"{record} cannot be read, so the ranges beside it are unknown: choose another name, or delete that folder"
        ) from error
    return found if isinstance(found, dict) else {}


def _check_same(folder: Path, found: dict, wanted: dict) -> None:
    found, wanted = {FACTOR: "1"} | found, {FACTOR: "1"} | wanted
    for key, value in wanted.items():
        if found.get(key) != value:
            other = printable(str(found.get(key))[:200])
            raise ValueError(
                f"{folder} holds ranges of something else ({key}: {other}, and here {value}): "
                "choose another name, or delete that folder"
            )
