"""Writers of video: one file, a folder of pictures, or a series of closed segments.

They take frames [F, H, W, 3], RGB, float in [0, 1] (torch) or uint8 (torch or numpy), and crop larger ones at the
centre (1088 rows to 1080). The same frames give the same bytes. `av` is imported where it is used.
"""

from __future__ import annotations

import contextlib
import os
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from torch import Tensor

from ..files.disk import (
    File,
    NewName,
    TakenError,
    check_empty,
    check_folder,
    check_length,
    check_not_read,
    make_folder,
    partial_name,
    path_of,
    write_whole,
)
from .container import Output, Record, tag
from .exr import encode_exr
from .formats import MOST_FPS, NTSC, THREADS, Format
from .media import Source
from .pictures import encode_png
from .pixels import Form, Leaving, Metadata, pictures_of, planes_of
from .sound import check_sound

Frames = Tensor | np.ndarray | Leaving
"""Frames that are written."""


class Writer(ABC):
    """A context manager that frames are written to and that makes files of them.

    The end of the `with` block closes it; an exception discards, except those of `keep_on` (the user stopped the run),
    which call `keep` and store the path in `kept`.
    """

    num_frames: int
    finished: tuple[Path, ...]
    """Complete files, in order."""

    keep_on: tuple[type[BaseException], ...] = (KeyboardInterrupt,)
    kept: Path | None = None

    def keeping_on(self, stops: tuple[type[BaseException], ...]):
        """Set the exceptions by which the user stops the run; returns the writer."""
        self.keep_on = stops
        return self

    @property
    def form(self) -> Form | None:
        """The form in which `write` takes frames that leave a device; None: it takes frames alone."""
        return None

    @abstractmethod
    def write(self, frames: Frames) -> None:
        """Append frames."""

    @abstractmethod
    def close(self) -> None:
        """Finish all files. Raises OSError, or ValueError when nothing was written."""

    @abstractmethod
    def keep(self) -> Path | None:
        """End early: leave a playable file of the frames so far, and return its path."""

    @abstractmethod
    def discard(self) -> None:
        """Remove unfinished files; complete ones stay."""

    def leave_unfinished(self) -> Path | None:
        """Let `discard` and errors leave the unfinished file, which plays up to there.

        Returns its path; None where there is none to leave.
        """
        return None

    def __enter__(self):
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        if kind is None:
            self.close()
        elif issubclass(kind, self.keep_on):
            self.kept = self.keep()
        else:
            self.discard()


def form_of(format: Format, size: tuple[int, int]) -> Form | None:
    """The form in which frames leave a device for a file of that format; None for linear light.

    Its powers have other last bits on other devices.
    """
    return None if format.linear else Form(size, format.pixels, format.depth)


def frame_rate(fps: float, format: Format | None = None) -> Fraction:
    """Frames per second as a fraction; 23.976 becomes 24000/1001 and 29.97 30000/1001.

    Raises ValueError below 1, and above what a player or the format can do.
    """
    most = format.most_fps if format else MOST_FPS
    if not 1 <= fps <= most:
        what = f"{format.name} cannot be played at {fps:g}" if format else f"no video is played at {fps:g}"
        raise ValueError(f"{what} frames per second: use 16, or 1 to {most}")
    whole = round(fps / NTSC)
    if fps != round(fps) and abs(fps - whole * NTSC) < 0.005:
        return whole * NTSC
    return Fraction(fps).limit_denominator(1001)


def open_writer(
    path: str | Path | NewName,
    format: Format,
    *,
    size: tuple[int, int],
    fps: float = 16,
    metadata: Metadata | None = None,
    sound: Source | None = None,
) -> VideoFile | PictureFolder:
    """Open a writer of `format`, to be used in a `with` block: `path` is a file, or a folder for a sequence.

    `size`: width and height. `metadata`: text stored in the file ("prompt", "workflow"). `sound`: a file whose sound is
    copied in, up to the end of the frames. A `NewName` is refused with TakenError where the file exists, or the folder
    holds something. Raises ValueError and OSError before anything is encoded.
    """
    format.check_size(size)
    if not format.is_sequence:
        return VideoFile(path, format, size=size, fps=fps, metadata=metadata, sound=sound)
    if sound is not None:
        check_sound(sound, format)
    return PictureFolder(path, format, size=size, fps=fps, metadata=metadata)


class VideoFile(Writer):
    """A writer of one video file.

    While it is written the file is called NAME.partial.SUFFIX and consists of fragments, so that it plays up to its
    last quarter of a second, however the process ended (except AV1, and frames still inside an encoder). `close` makes
    it an ordinary file and renames it to `path`, which is therefore always complete. Older files of either name are
    replaced, or where `path` is a `NewName` refused with TakenError.
    """

    def __init__(
        self,
        path: str | Path | NewName,
        format: Format,
        *,
        size: tuple[int, int],
        fps: float = 16,
        metadata: Metadata | None = None,
        sound: Source | None = None,
    ) -> None:
        self.path, self.format, self.size = path_of(path), format, size
        self.num_frames = 0
        self.finished: tuple[Path, ...] = ()
        self._rate = frame_rate(fps, format)
        format.check_size(size)
        if isinstance(sound, (str, Path)):
            check_not_read(self.path, [Path(sound)])
        self._out = Output(self.path, format, metadata, overwrite=not isinstance(path, NewName))
        with self._out.or_drop():
            self._stream: Any = self._out.add_pictures(size, self._rate)
            self._out.add_sound(sound)

    @property
    def partial(self) -> Path:
        """The path of the file until it is complete."""
        return self._out.partial

    @property
    def form(self) -> Form | None:
        return form_of(self.format, self.size)

    def write(self, frames: Frames) -> None:
        for planes in self._planes(frames):
            frame = _frame(planes, self.format, self.size)
            frame.pts, frame.time_base = self.num_frames, 1 / self._rate
            self.num_frames += 1
            self._mux(self._stream.encode(frame))
        self._out.sync()

    def _planes(self, frames: Frames) -> Iterator[list[np.ndarray]]:
        """The planes of each frame."""
        if isinstance(frames, Leaving):
            yield from frames
            return
        for picture in pictures_of(frames, self.size):
            yield planes_of(picture, self.format.pixels, self.format.depth)

    def _mux(self, packets: Sequence[Any]) -> None:
        for packet in packets:
            packet.duration = round(1 / self._rate / packet.time_base)
        self._out.mux(packets, self.num_frames / self._rate)

    def close(self, record: Record | None = None) -> None:
        """Finish the file; `record` is called with it before it gets its final name."""
        self._finish(self.path, record)
        self.finished = (self.path,)

    def keep(self) -> Path | None:
        if self.num_frames == 0:
            self.discard()
            return None
        self._finish(self.partial)
        return self.partial

    def _finish(self, path: Path, record: Record | None = None) -> None:
        with self._out.or_drop():
            if self.num_frames == 0:
                raise ValueError(f"no frame was written to {self.path}: nothing to keep")
            self._mux(self._stream.encode(None))
            self._out.finish(path, record)
        self._stream = None

    def discard(self) -> None:
        self._out.drop()
        self._stream = None

    def leave_unfinished(self) -> Path:
        self._out.stays = True
        return self.partial


def _frame(planes: list[np.ndarray], format: Format, size: tuple[int, int]) -> Any:
    """A frame of PyAV with the values of `planes`, whose lines it pads."""
    import av

    frame: Any = av.VideoFrame(*size, format.pixels)
    for plane, values in zip(frame.planes, planes, strict=True):
        data = np.ascontiguousarray(values).view(np.uint8).reshape(len(values), -1)
        padded = np.zeros((plane.height, plane.line_size), np.uint8)
        padded[:, : data.shape[1]] = data
        plane.update(padded)
    if hasattr(frame, "color_primaries"):  # older versions of PyAV tag the stream only
        tag(frame, format)
    return frame


class PictureFolder(Writer):
    """A writer of pictures NAME.00000.png, NAME.00001.png, ... in the folder NAME, each written atomically.

    `first_frame` is the number of the first picture. Where `folder` is a `NewName` it must be absent or empty, and is
    this writer's alone from then on; raises TakenError otherwise.
    """

    def __init__(
        self,
        folder: str | Path | NewName,
        format: Format,
        *,
        size: tuple[int, int],
        fps: float = 16,
        metadata: Metadata | None = None,
        first_frame: int = 0,
    ) -> None:
        self._new = isinstance(folder, NewName)
        self.folder, self.format, self.size = path_of(folder), format, size
        self.num_frames = 0
        self.first_frame = first_frame
        self._rate = frame_rate(fps, format)
        self._metadata = dict(metadata or {})
        format.check_size(size)
        check_length(self._name(0))
        check_folder(self.folder)
        self._made = not self.folder.is_dir()
        make_folder(self.folder)
        self._sign = self._claim() if self._new else None
        self._pool = ThreadPoolExecutor(THREADS, thread_name_prefix="pictures")

    def _claim(self) -> File:
        """Take the empty folder for this writer: the first picture, half-written from now on, is a sign to others."""
        check_empty(self.folder)
        sign, taken = partial_name(self._name(0)), f"another process writes into {self.folder}: choose another name"
        try:
            file = File(sign, exclusive=True)
        except FileExistsError as error:
            raise TakenError(taken) from error
        if os.listdir(self.folder) != [sign.name]:  # another writer has begun since the check
            file.remove()
            raise TakenError(taken)
        return file

    @property
    def finished(self) -> tuple[Path, ...]:
        return tuple(self._name(index) for index in range(self.num_frames))

    def _name(self, index: int) -> Path:
        return picture_name(self.folder, self.format, self.first_frame + index)

    @property
    def form(self) -> Form | None:
        return form_of(self.format, self.size)

    def write(self, frames: Frames) -> None:
        leaving = isinstance(frames, Leaving)
        pictures = [plane for (plane,) in frames] if leaving else pictures_of(frames, self.size)
        names = (self._name(self.num_frames + index) for index in range(len(pictures)))
        for _ in self._pool.map(self._write_one, names, pictures):
            self.num_frames += 1

    def _write_one(self, path: Path, picture: np.ndarray) -> None:
        if picture.dtype == np.float32 and not self.format.linear:
            (picture,) = planes_of(picture, self.format.pixels, self.format.depth)
        if self.format.codec == "png":
            data = encode_png(picture, self._metadata)
        else:
            rate = self._rate.numerator, self._rate.denominator
            data = encode_exr(picture, linear=self.format.linear, rate=rate, metadata=self._metadata)
        claimed = None
        if path == self._name(0):
            claimed, self._sign = self._sign, None
        write_whole(path, data, overwrite=not self._new, claimed=claimed)

    def close(self) -> None:
        self.discard()
        if self.num_frames == 0:
            raise ValueError(f"no frame was written to {self.folder}: nothing to keep")

    def keep(self) -> Path | None:
        self.discard()
        return self.folder if self.num_frames else None

    def discard(self) -> None:
        self._pool.shutdown()
        if self._sign is not None:
            self._sign.remove()
            self._sign = None
        if self._new and self._made:
            with contextlib.suppress(OSError):  # it holds pictures
                self.folder.rmdir()


def picture_name(folder: Path, format: Format, index: int) -> Path:
    """The path of picture `index` in a folder of pictures."""
    return folder / f"{folder.name}.{index:05d}{format.suffix}"


class Segments(Writer):
    """A writer of closed video files seg-00000, seg-00001, ... in a folder, one for every call of `write`.

    `first` is the number of the next segment in a run that is continued. A closed segment is complete and stays,
    whatever happens later; `container.join` makes one file of all. Raises the errors of `VideoFile`, and ValueError for
    a format that is a folder of pictures.
    """

    def __init__(
        self, folder: str | Path, format: Format, *, size: tuple[int, int], fps: float = 16, first: int = 0
    ) -> None:
        if format.is_sequence:
            raise ValueError(f"{format.name} is a folder of pictures already: write it without segments")
        self.folder, self.format, self.size = Path(folder), format, size
        self.fps, self.first = fps, first
        self.num_frames = 0
        self.finished: tuple[Path, ...] = ()
        format.check_size(size)
        frame_rate(fps)
        check_folder(self.folder)
        make_folder(self.folder)

    @property
    def form(self) -> Form | None:
        return form_of(self.format, self.size)

    def write(self, frames: Frames) -> None:
        path = segment_name(self.folder, self.format, self.first + len(self.finished))
        file = VideoFile(path, self.format, size=self.size, fps=self.fps)
        try:
            file.write(frames)
            file.close(self.record)
        except BaseException:
            file.discard()
            raise
        self.num_frames += len(frames)
        self.finished += file.finished

    def record(self, partial: Path) -> None:
        """Called with each complete segment before it gets its final name; does nothing here."""

    def close(self) -> None:
        if not self.finished:
            raise ValueError(f"no frame was written to {self.folder}: nothing to keep")

    def keep(self) -> Path | None:
        return self.folder if self.finished else None

    def discard(self) -> None:
        """Do nothing: a segment that fails is removed at once."""


def segment_name(folder: Path, format: Format, index: int) -> Path:
    """The path of segment `index`."""
    return folder / f"seg-{index:05d}{format.suffix}"
