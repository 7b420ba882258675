"""A video out to another program in ranges, and the ranges back into one video.

Each range that comes back is a closed file in NAME.ranges beside the video NAME, with a record of what the ranges are
of, so that two videos are never mixed; when all are there they are joined without encoding again. The files stay: a
range that is written again replaces its file, and the video is joined anew.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from ...files.disk import disk_errors, write_whole
from ..container import join
from ..formats import Format
from ..pixels import Metadata
from ..reading import ranges
from ..space import check_space
from ..writers import VideoFile, segment_name

RECORD = "ranges.json"
VERSION = 1


@dataclass(frozen=True)
class VideoRange:
    """One of the ranges that a video was cut into."""

    index: int
    num_ranges: int
    frames: range
    """Which of the video's frames these are."""
    new_from: int
    """How many of them, at the beginning, the range before has too."""
    overlap: int
    """How many were asked for; the last range may have more."""
    num_frames: int
    """Of the whole video."""
    fps: float
    source: str
    """Which video: the same for the same frames only."""


def range_at(index: int, *, num_frames: int, size: int, overlap: int, fps: float, source: str) -> VideoRange:
    """Range `index` of a video, of at most `size` frames; see `reading.ranges`. Raises ValueError past the last."""
    parts = ranges(num_frames, size, overlap)
    if not 0 <= index < len(parts):
        raise ValueError(
            f"there is no range {index}: the video has {len(parts)}, 0 to {len(parts) - 1}; begin again with 0"
        )
    frames = parts[index]
    new_from = parts[index - 1].stop - frames.start if index else 0
    return VideoRange(index, len(parts), frames, new_from, overlap, num_frames, fps, source)


def ranges_folder(video: Path) -> Path:
    """Where the ranges of that video are kept."""
    return video.with_name(f"{video.stem}.ranges")


def write_range(
    video: Path, format: Format, part: VideoRange, size: tuple[int, int], frames: Iterable[Tensor]
) -> tuple[int, ...]:
    """Write the frames [F, H, W, 3] of a range from `new_from` on; return the ranges that are still missing.

    `size` is width and height. Raises ValueError where `video` or its folder holds something else, or the number of
    frames is not the range's, and ValueError or OSError as a writer does; the ranges that were there stay as they are.
    """
    if format.is_sequence:
        raise ValueError(f"{format.name} is a folder of pictures and cannot be joined: use a format that is one file")
    format.check_size(size)
    folder = _claim(video, format, part, size)
    with VideoFile(segment_name(folder, format, part.index), format, size=size, fps=part.fps) as writer:
        for some in frames:
            writer.write(some)
        wanted = len(part.frames) - part.new_from
        if writer.num_frames != wanted:
            raise ValueError(f"{writer.num_frames} new frames came for range {part.index}, which has {wanted}")
    return tuple(index for index in range(part.num_ranges) if not segment_name(folder, format, index).is_file())


def join_ranges(video: Path, format: Format, part: VideoRange, metadata: Metadata | None = None) -> None:
    """Make the video of the ranges, of which none may be missing. Raises ValueError or OSError; the ranges stay."""
    folder = ranges_folder(video)
    segments = [segment_name(folder, format, index) for index in range(part.num_ranges)]
    joined = join(segments, video, format, metadata=metadata)
    if joined != part.num_frames:
        video.unlink()
        raise ValueError(f"{folder} holds {joined} frames of {part.num_frames}: delete it and write all ranges again")


def _claim(video: Path, format: Format, part: VideoRange, size: tuple[int, int]) -> Path:
    """The folder of the ranges: empty, or with ranges of the same record. Raises ValueError for others."""
    folder, wanted = ranges_folder(video), _record(format, part, size)
    record = folder / RECORD
    if any(".partial" not in path.suffixes for path in folder.glob("seg-*")):
        _check_same(folder, _read(record), wanted)
        return folder
    if video.exists():
        raise ValueError(
            f"{video} is there already and was not made from ranges that are still here: choose another name"
        )
    check_space(folder.parent, format, size, part.num_frames, copies=2)
    with disk_errors(folder):
        folder.mkdir(exist_ok=True)
    write_whole(record, json.dumps(wanted, indent=1).encode())
    return folder


def _record(format: Format, part: VideoRange, size: tuple[int, int]) -> dict:
    return {
        "version": VERSION,
        "video": part.source,
        "frames": part.num_frames,
        "frames of a range": len(part.frames),
        "overlap": part.overlap,
        "fps": part.fps,
        "size": "x".join(str(side) for side in size),
        "format": f"{format.name}, {format.depth} bits",
    }


def _read(record: Path) -> dict:
    try:
        found = json.loads(record.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(
            f"{record} cannot be read, so the ranges beside it are unknown: choose another name, or delete that folder"
        ) from error
    return found if isinstance(found, dict) else {}


def _check_same(folder: Path, found: dict, wanted: dict) -> None:
    for key, value in wanted.items():
        if found.get(key) != value:
            raise ValueError(
                f"{folder} holds ranges of something else ({key}: {found.get(key)}, and here {value}): "
                "choose another name, or delete that folder"
            )
