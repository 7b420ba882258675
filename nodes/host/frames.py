"""A VIDEO of the host out in ranges of pictures, and such ranges back into a video in the host's output folder."""

import functools
import hashlib
import itertools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import comfy.model_management
import comfy.utils
from torch import Tensor

from ...histream_core.video.edit.ranges import (
    VideoRange,
    join_ranges,
    longest_range,
    range_at,
    write_range,
)
from ...histream_core.video.formats import Format, find_format
from ...histream_core.video.media import Source
from ...histream_core.video.reading import VideoIndex, frames_of, index_video
from .api import InputImpl
from .decode import SavedVideo
from .images import empty_images, image_gib
from .run_folders import check_inside, new_file

WRITTEN_AT_ONCE = 4
DIGEST_STEP = 16


@dataclass(frozen=True)
class Clip:
    """A VIDEO within its trim: its properties, and a way to read its frames."""

    num_frames: int
    fps: float
    source: str
    """Identifies the content: equal only for equal frames."""
    read: Callable[[range], Iterator[Tensor]]


def clip_of(video) -> Clip:
    """The clip of a VIDEO. Raises ValueError or OSError if its frames cannot be indexed, or would be changed."""
    if isinstance(video, InputImpl.VideoFromComponents):
        return _clip_in_memory(video.get_components())
    source = video.get_stream_source()
    index = _index(source)
    window = index.within(*video.get_active_trim_window())
    if not window:
        raise ValueError("the trim of the video leaves no frame: move its start or its end")
    name = Path(source).name if isinstance(source, str) else "a video in memory"
    trim = "" if len(window) == index.num_frames else f", frames {window.start} to {window.stop - 1}"
    return Clip(
        num_frames=len(window),
        fps=float(index.rate),
        source=f"{name} {index.digest}{trim}",
        read=lambda part: frames_of(source, window.start + part.start, len(part)),
    )


def _clip_in_memory(components) -> Clip:
    images = components.images[..., :3]
    few = images[:, ::DIGEST_STEP, ::DIGEST_STEP].cpu().contiguous()
    return Clip(
        num_frames=len(images),
        fps=float(components.frame_rate),
        source=f"pictures {hashlib.blake2b(few.numpy(), digest_size=8).hexdigest()}",
        read=lambda part: iter(images[part.start : part.stop]),
    )


def _index(source: Source) -> VideoIndex:
    if not isinstance(source, str):
        return index_video(source)
    about = Path(source).stat()
    return _index_of_file(source, about.st_size, about.st_mtime_ns)


@functools.lru_cache(maxsize=4)
def _index_of_file(path: str, _size: int, _changed: int) -> VideoIndex:
    """The index of a file, cached because it reads all packets and every range of the file needs it."""
    return index_video(path)


def read_range(video, index: int, *, size: int, overlap: int, limit_gib: float) -> tuple[Tensor, VideoRange]:
    """Read the pictures [F, H, W, 3] of one range of a VIDEO, and only these; return them and the range.

    Raises ValueError past the last range, and above the limit of memory before any is taken.
    """
    clip = clip_of(video)
    part = range_at(index, num_frames=clip.num_frames, size=size, overlap=overlap, fps=clip.fps, source=clip.source)
    frames = clip.read(part.frames)
    first = next(frames)
    images = empty_images((len(part.frames), *first.shape), limit_gib, _less_than(len(part.frames), first, limit_gib))
    progress = comfy.utils.ProgressBar(len(images))
    for position, frame in enumerate(itertools.chain([first], frames)):
        comfy.model_management.throw_exception_if_processing_interrupted()
        if frame.shape != first.shape:
            raise ValueError(f"frame {part.frames[position]} has another size than those before: cut the video there")
        images[position] = frame
        progress.update(1)
    return images, part


def _less_than(num_frames: int, frame: Tensor, limit_gib: float) -> str:
    """Advice for the error message when `num_frames` pictures do not fit into memory."""
    fitting = int(limit_gib / image_gib(frame.shape))
    if fitting < 1:
        return f"not even one of these {num_frames} pictures fits"
    return f"set range_frames to {longest_range(fitting)}"


def write_pictures(
    images: Tensor, part: VideoRange, name: str, format: Format, tags: Mapping[str, str]
) -> tuple[SavedVideo, tuple[int, ...]]:
    """Write the pictures [F, H, W, 3] of a range; when no range is missing any more, make the video of them.

    Gives the video, and the ranges that it still lacks. `part` is what `came_back` says of the pictures; `tags` are
    stored in the video. Raises ValueError or OSError, and then nothing of this range is kept.
    """
    path, subfolder = _place(name, format)
    size = images.shape[2], images.shape[1]
    new = images[part.new_pictures.start : part.new_pictures.stop, ..., :3]
    missing = write_range(path, format, part, size, _with_progress(new))
    if not missing:
        join_ranges(path, format, part, tags)
    return SavedVideo(path, subfolder, format), missing


def _with_progress(images: Tensor) -> Iterator[Tensor]:
    progress = comfy.utils.ProgressBar(len(images))
    for some in images.split(WRITTEN_AT_ONCE):
        comfy.model_management.throw_exception_if_processing_interrupted()
        yield some.float()
        progress.update(len(some))


def check_name(name: str, format: str) -> str:
    """The name of a video without its suffix. Raises ValueError for one that is none, or is outside."""
    if "%" in name:
        raise ValueError(f'the name "{name}" changes from run to run, and the ranges of a video need one: leave % out')
    name = name.removesuffix(find_format(format).suffix)
    if not name or name[-1] in "/\\.":
        raise ValueError(f'"{name}" has no name for the video in it: write one, such as video/upscaled')
    check_inside(name)
    return name


def _place(name: str, format: Format) -> tuple[Path, str]:
    """The video of that name in the host's output folder, and its subfolder there."""
    folder, stem, _, subfolder = new_file(check_name(name, format.name), (0, 0))
    return folder / f"{stem}{format.suffix}", subfolder


def progress_of(part: VideoRange, video: SavedVideo, missing: tuple[int, ...]) -> str:
    """The line under the node after a range was written."""
    text = f"range {part.index + 1} of {part.num_ranges} is written"
    if part.factor != 1:
        text += f", with {float(part.factor):g} times as many pictures: {part.picture_rate:g} a second"
    if missing:
        return f"{text}; {len(missing)} to go, the next has range_index {missing[0]}"
    return f"{text}; all are there: {Path(video.subfolder, video.path.name)}, {part.num_pictures} frames"
