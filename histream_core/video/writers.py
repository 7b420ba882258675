"""Writers of video: one file, a folder of pictures, or a row of closed segments.

All take frames [F, H, W, 3], red green blue, float in [0, 1] (torch; uint8 in numpy too), larger ones cropped at the
centre (1088 rows to 1080). The same frames give the same bytes. `av` is imported where it is used.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

import numpy as np
from torch import Tensor

from ..files.disk import check_folder, disk_errors, write_whole
from .container import Output, tag
from .exr import exr
from .formats import THREADS, Format
from .pictures import encode_png
from .pixels import Metadata, pictures_of, planes_of, quantise
from .reading import Source
from .sound import check_sound

NTSC = Fraction(1000, 1001)


class Writer(Protocol):
    """What takes frames and makes files."""

    num_frames: int
    finished: tuple[Path, ...]
    """Files that are whole, in order."""

    def write(self, frames: Tensor | np.ndarray) -> None:
        """Append frames; when it returns they are on their way to the disk."""

    def close(self) -> None:
        """Finish all files. Raises OSError, or ValueError when nothing was written."""

    def keep(self) -> Path | None:
        """The user stopped the run: leave a playable file of what there is, and say where."""

    def discard(self) -> None:
        """Drop what is unfinished; files that are whole stay."""


class Closing:
    """The end of a `with` block: close in order, and after an exception discard.

    Exceptions of `keep_on` (the user stopped the run) keep what there is: `kept` is where.
    """

    keep_on: tuple[type[BaseException], ...] = (KeyboardInterrupt,)
    kept: Path | None = None

    def keeping_on(self, stops: tuple[type[BaseException], ...]):
        """The same writer, with other exceptions by which the user stops the run."""
        self.keep_on = stops
        return self

    def __enter__(self):
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        if kind is None:
            self.close()
        elif issubclass(kind, self.keep_on):
            self.kept = self.keep()
        else:
            self.discard()


def frame_rate(fps: float) -> Fraction:
    """Frames per second as a fraction: 23.976 and 29.97 are meant as 24000/1001 and 30000/1001. Raises ValueError."""
    if not 0 < fps <= 1000:
        raise ValueError(f"{fps} frames per second cannot be played: use 16")
    whole = round(fps / NTSC)
    if fps != round(fps) and abs(fps - whole * NTSC) < 0.005:
        return whole * NTSC
    return Fraction(fps).limit_denominator(1001)


def open_writer(
    path: str | Path,
    format: Format,
    *,
    size: tuple[int, int],
    fps: float = 16,
    metadata: Metadata | None = None,
    sound: Source | None = None,
    first_frame: int = 0,
) -> VideoFile | PictureFolder:
    """A writer of that format, to be used in a `with` block: `path` is a file, or a folder for a sequence.

    `size` is width and height; `metadata` is text stored in the file ("prompt", "workflow"); `sound` is a file whose
    sound is copied in, as far as the pictures go; `first_frame` numbers the pictures of a sequence. Raises ValueError
    and OSError for what cannot work, before anything is encoded.
    """
    format.check_size(size)
    if not format.is_sequence:
        return VideoFile(path, format, size=size, fps=fps, metadata=metadata, sound=sound)
    if sound is not None:
        check_sound(sound, format)
    return PictureFolder(path, format, size=size, fps=fps, metadata=metadata, first_frame=first_frame)


class VideoFile(Closing):
    """One video file.

    Until the end it is called NAME.partial.SUFFIX and made of fragments, so that it plays up to its last quarter of a
    second, whatever ended the run (AV1 and what waits in an encoder excepted); at the end it becomes an ordinary file
    and is renamed to `path`, which is thus always a whole video. Older files of either name are replaced.
    """

    def __init__(
        self,
        path: str | Path,
        format: Format,
        *,
        size: tuple[int, int],
        fps: float = 16,
        metadata: Metadata | None = None,
        sound: Source | None = None,
    ) -> None:
        self.path, self.format, self.size = Path(path), format, size
        self.num_frames = 0
        self.finished: tuple[Path, ...] = ()
        self._rate = frame_rate(fps)
        format.check_size(size)
        self._out = Output(self.path, format, metadata)
        with self._out.or_drop():
            self._stream = self._out.add_pictures(size, self._rate)
            self._out.add_sound(sound)

    @property
    def partial(self) -> Path:
        """What the file is called until it is whole."""
        return self._out.partial

    def write(self, frames: Tensor | np.ndarray) -> None:
        for picture in pictures_of(frames, self.size):
            frame = _frame(planes_of(picture, self.format.pixels, self.format.depth), self.format, self.size)
            frame.pts, frame.time_base = self.num_frames, 1 / self._rate
            self.num_frames += 1
            self._mux(self._stream.encode(frame))
        self._out.sync()

    def _mux(self, packets: Sequence[Any]) -> None:
        for packet in packets:
            packet.duration = round(1 / self._rate / packet.time_base)
        self._out.mux(packets, self.num_frames / self._rate)

    def close(self) -> None:
        self._finish(self.path)
        self.finished = (self.path,)

    def keep(self) -> Path | None:
        if self.num_frames == 0:
            self.discard()
            return None
        self._finish(self.partial)
        return self.partial

    def _finish(self, path: Path) -> None:
        with self._out.or_drop():
            if self.num_frames == 0:
                raise ValueError(f"no frame was written to {self.path}: nothing to keep")
            self._mux(self._stream.encode(None))
            self._out.finish(path)
        self._stream = None

    def discard(self) -> None:
        self._out.drop()
        self._stream = None


def _frame(planes: list[np.ndarray], format: Format, size: tuple[int, int]) -> Any:
    import av

    frame = av.VideoFrame(*size, format.pixels)
    for plane, values in zip(frame.planes, planes, strict=True):
        data = np.ascontiguousarray(values).view(np.uint8).reshape(len(values), -1)
        padded = np.zeros((plane.height, plane.line_size), np.uint8)
        padded[:, : data.shape[1]] = data
        plane.update(padded)
    if hasattr(frame, "color_primaries"):  # older versions of the library tag the stream only
        tag(frame, format)
    return frame


class PictureFolder(Closing):
    """A folder of pictures NAME.00000.png, NAME.00001.png, ... where NAME is the folder's. Each appears whole."""

    def __init__(
        self,
        folder: str | Path,
        format: Format,
        *,
        size: tuple[int, int],
        fps: float = 16,
        metadata: Metadata | None = None,
        first_frame: int = 0,
    ) -> None:
        self.folder, self.format, self.size = Path(folder), format, size
        self.num_frames = 0
        self.first_frame = first_frame
        self._rate = frame_rate(fps)
        self._metadata = dict(metadata or {})
        format.check_size(size)
        check_folder(self.folder)
        with disk_errors(self.folder):
            self.folder.mkdir(exist_ok=True)
        self._pool = ThreadPoolExecutor(THREADS, thread_name_prefix="pictures")

    @property
    def finished(self) -> tuple[Path, ...]:
        return tuple(self._name(index) for index in range(self.num_frames))

    def _name(self, index: int) -> Path:
        return self.folder / f"{self.folder.name}.{self.first_frame + index:05d}{self.format.suffix}"

    def write(self, frames: Tensor | np.ndarray) -> None:
        pictures = pictures_of(frames, self.size)
        names = (self._name(self.num_frames + index) for index in range(len(pictures)))
        for _ in self._pool.map(self._write_one, names, pictures):
            self.num_frames += 1

    def _write_one(self, path: Path, picture: np.ndarray) -> None:
        if self.format.codec == "png":
            data = encode_png(quantise(picture, self.format.depth), self._metadata)
        else:
            rate = self._rate.numerator, self._rate.denominator
            data = exr(picture, linear=self.format.linear, rate=rate, metadata=self._metadata)
        write_whole(path, data)

    def close(self) -> None:
        self.discard()
        if self.num_frames == 0:
            raise ValueError(f"no frame was written to {self.folder}: nothing to keep")

    def keep(self) -> Path | None:
        self.discard()
        return self.folder if self.num_frames else None

    def discard(self) -> None:
        self._pool.shutdown()


class Segments(Closing):
    """A folder of closed video files seg-00000, seg-00001, ..., one for every `every` calls of `write`.

    `first` numbers the next segment, where a run is continued. `cut()` ends a segment early. What is closed is whole
    and stays, whatever happens later; `join` makes one file of it. Raises as VideoFile does; a folder of pictures
    needs no segments (ValueError).
    """

    def __init__(
        self,
        folder: str | Path,
        format: Format,
        *,
        size: tuple[int, int],
        fps: float = 16,
        every: int = 1,
        first: int = 0,
    ) -> None:
        if format.is_sequence:
            raise ValueError(f"{format.name} is a folder of pictures already: write it without segments")
        if every < 1:
            raise ValueError(f"a segment of {every} chunks holds nothing: use 1")
        self.folder, self.format, self.size = Path(folder), format, size
        self.fps, self.every, self.first = fps, every, first
        self.num_frames = 0
        self.finished: tuple[Path, ...] = ()
        self._open: VideoFile | None = None
        self._num_chunks = 0
        format.check_size(size)
        frame_rate(fps)
        check_folder(self.folder)
        with disk_errors(self.folder):
            self.folder.mkdir(exist_ok=True)

    def write(self, frames: Tensor | np.ndarray) -> None:
        if self._open is None:
            path = segment_name(self.folder, self.format, self.first + len(self.finished))
            self._open = VideoFile(path, self.format, size=self.size, fps=self.fps)
        self._open.write(frames)
        self.num_frames += len(frames)
        self._num_chunks += 1
        if self._num_chunks == self.every:
            self.cut()

    def cut(self) -> None:
        """Close the segment that is open, if one is."""
        if self._open is not None:
            self._open.close()
            self.finished += self._open.finished
        self._open, self._num_chunks = None, 0

    def close(self) -> None:
        self.cut()
        if not self.finished:
            raise ValueError(f"no frame was written to {self.folder}: nothing to keep")

    def keep(self) -> Path | None:
        self.cut()
        return self.folder if self.finished else None

    def discard(self) -> None:
        if self._open is not None:
            self._open.discard()
        self._open = None


def segment_name(folder: Path, format: Format, index: int) -> Path:
    """Where a segment lies."""
    return folder / f"seg-{index:05d}{format.suffix}"
