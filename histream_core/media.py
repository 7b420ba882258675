"""Video files, frame by frame: one H.264 MP4 in fragments, and what it takes to read one back.

Frames are [F, H, W, 3], red green blue: float in [0, 1] (torch) or uint8. `av` is imported where it is used.
"""

from __future__ import annotations

import contextlib
import os
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import torch
from torch import Tensor

BT709 = 1  # the code of ITU-R BT.709 for primaries, transfer and matrix alike
FRAGMENT_SECONDS = 0.25
QUALITY = 17  # x264 constant rate factor; 18 is called visually lossless


class VideoWriter:
    """Writes frames to `path` (.mp4, H.264, yuv420p, BT.709) as they come; a context manager.

    Until the end the file is called NAME.partial.mp4, beside the target. It is made of fragments, so that a partial
    file plays up to its last quarter of a second, whatever ended the run. At the end it is renamed to `path`, which is
    thus always a whole video; an older file of either name is replaced. An exception in the `with` block removes the
    partial file, except those in `keep_on` (the user stopped the run): then it is closed in order and stays, and
    `kept` is its path.

    `size` is the picture's width and height; frames that are larger are cropped at the centre (1088 rows to 1080).
    Raises ValueError for a size, rate or name that cannot work and OSError for a folder that cannot be written, both
    before anything is encoded; OSError later when the disk is full.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        size: tuple[int, int],
        fps: float = 16,
        keep_on: tuple[type[BaseException], ...] = (KeyboardInterrupt,),
    ) -> None:
        self.path = Path(path)
        self.partial = self.path.with_name(f"{self.path.stem}.partial{self.path.suffix}")
        self.size = size
        self.num_frames = 0
        self.kept: Path | None = None
        self._keep_on = keep_on
        self._rate = Fraction(fps).limit_denominator(1001)
        check_target(self.path, size=size, fps=fps)
        self._file = _open_new(self.partial)
        try:
            self._container, self._stream = self._open_stream()
        except BaseException:
            self._discard()
            raise

    def _open_stream(self) -> tuple[Any, Any]:
        import av

        options = {
            "movflags": "frag_keyframe+empty_moov+default_base_moof",
            "frag_duration": str(int(FRAGMENT_SECONDS * 1e6)),
        }
        container = av.open(self._file, "w", format="mp4", options=options)
        stream = container.add_stream("libx264", rate=self._rate)
        stream.width, stream.height = self.size
        stream.pix_fmt = "yuv420p"
        # No look-ahead: a frame that went in comes out at once, and is on disk with its fragment.
        stream.options = {"crf": str(QUALITY), "tune": "zerolatency"}
        context = stream.codec_context
        context.gop_size = max(1, round(self._rate))
        context.color_primaries = context.color_trc = context.colorspace = BT709
        context.color_range = 1  # limited range, as video has it
        return container, stream

    def write(self, frames: Tensor | np.ndarray) -> None:
        """Append frames [F, H, W, 3]; when it returns they are on their way to the disk."""
        import av

        for picture in self._cropped(to_uint8(frames)):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
            frame = frame.reformat(format="yuv420p", dst_colorspace="ITU709", dst_color_range="MPEG")
            frame.pts = self.num_frames
            frame.time_base = 1 / self._rate
            with _disk_errors(self.path):
                self._container.mux(self._stream.encode(frame))
            self.num_frames += 1
        with _disk_errors(self.path):
            os.fsync(self._file.fileno())

    def _cropped(self, frames: np.ndarray) -> np.ndarray:
        width, height = self.size
        rows, columns = frames.shape[1:3]
        top, left = (rows - height) // 2, (columns - width) // 2
        if top < 0 or left < 0:
            raise ValueError(f"frames of {columns}x{rows} are smaller than the video of {width}x{height}")
        return frames[:, top : top + height, left : left + width]

    def __enter__(self) -> VideoWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        kept = kind is not None and issubclass(kind, self._keep_on) and self.num_frames > 0
        if kind is not None and not kept:
            self._discard()
            return
        try:
            self._finish()
        except BaseException:
            self._discard()
            raise
        if kept:
            self.kept = self.partial
        else:
            os.replace(self.partial, self.path)

    def _finish(self) -> None:
        if self.num_frames == 0:
            raise ValueError(f"no frame was written to {self.path}: nothing to keep")
        with _disk_errors(self.path):
            self._container.mux(self._stream.encode(None))
            self._container.close()
            os.fsync(self._file.fileno())
            self._file.close()

    def _discard(self) -> None:
        self._file.dropping = True  # the muxer still wants to write its end
        with contextlib.suppress(AttributeError):  # when opening the stream failed there is no container
            self._container.close()
        self._file.close()
        self.partial.unlink(missing_ok=True)


class _File:
    """An unbuffered file that writes all or raises, without seeking; it can be told to drop what comes."""

    def __init__(self, path: Path) -> None:
        self.dropping = False
        self._raw = open(path, "wb", buffering=0)  # noqa: SIM115 - closed by close()
        self.fileno, self.close = self._raw.fileno, self._raw.close

    def write(self, data: bytes) -> int:
        left = memoryview(b"" if self.dropping else data)
        while left:
            left = left[self._raw.write(left) :]
        return len(data)


def check_target(path: Path, *, size: tuple[int, int], fps: float) -> None:
    """Refuse what VideoWriter could not write, before any work is done. Raises ValueError or OSError."""
    if path.suffix.lower() != ".mp4":
        raise ValueError(f'"{path.name}" is not a name for an MP4 file: use {path.stem or "video"}.mp4')
    if path.is_dir():
        raise ValueError(f"{path} is a folder: give the name of a file in it")
    check_folder(path)
    for name, value in zip(("width", "height"), size, strict=True):
        if value < 2 or value % 2:
            raise ValueError(f"{name} {value} cannot be stored as yuv420p: use {max(2, value - 1)} or {value + 1}")
    if not 0 < fps <= 1000:
        raise ValueError(f"{fps} frames per second cannot be played: use 16")


def check_folder(path: Path) -> None:
    """Refuse a file in a folder that does not exist. Raises FileNotFoundError."""
    if not path.parent.is_dir():
        raise FileNotFoundError(f"the folder {path.parent} does not exist: create it or choose another one")


def _open_new(path: Path) -> _File:
    with _disk_errors(path):
        return _File(path)


@contextlib.contextmanager
def _disk_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        clear = type(error)(f"cannot write {path}: {error.strerror}; free space or choose another folder")
        clear.errno = error.errno
        raise clear from error


def to_uint8(frames: Tensor | np.ndarray) -> np.ndarray:
    """Frames [F, H, W, 3] as uint8; float ones are clamped to [0, 1] and rounded. ValueError for other shapes."""
    if frames.ndim != 4 or frames.shape[-1] != 3:
        raise ValueError(f"frames must be [F, H, W, 3], got {list(frames.shape)}")
    if isinstance(frames, np.ndarray):
        if frames.dtype != np.uint8:
            raise ValueError(f"frames in numpy must be uint8, got {frames.dtype}")
        return frames
    return (frames.clamp(0, 1) * 255 + 0.5).to(torch.uint8).cpu().numpy()


@dataclass(frozen=True)
class VideoInfo:
    """What is really in a file: frames are counted by decoding them."""

    num_frames: int
    width: int
    height: int
    fps: float
    codec: str
    pix_fmt: str

    @property
    def seconds(self) -> float:
        return self.num_frames / self.fps


def probe(path: str | Path) -> VideoInfo:
    """Decode a video and say what it holds. Raises OSError or ValueError where it is not one."""
    with _open_video(path) as container:
        stream = container.streams.video[0]
        count = sum(1 for _ in container.decode(stream))
        context = stream.codec_context
        return VideoInfo(
            count, context.width, context.height, float(stream.average_rate or 0), context.name, context.pix_fmt
        )


def read_frames(path: str | Path) -> Iterator[np.ndarray]:
    """Yield the frames [H, W, 3] of a video, uint8. Raises OSError or ValueError where it is not one."""
    with _open_video(path) as container:
        for frame in container.decode(container.streams.video[0]):
            yield frame.to_ndarray(format="rgb24")


@contextlib.contextmanager
def _open_video(path: str | Path) -> Iterator[Any]:
    import av

    try:
        container = av.open(str(path))
    except av.error.InvalidDataError as error:
        raise ValueError(f"{path} is not a video that can be read") from error
    with container:
        if not container.streams.video:
            raise ValueError(f"{path} has no picture in it")
        yield container


def write_png(path: str | Path, picture: np.ndarray) -> None:
    """Write a picture [H, W, 3], uint8, as PNG. The file appears whole or not at all."""
    height, width = picture.shape[:2]
    rows = np.zeros((height, 1 + 3 * width), np.uint8)  # a leading 0 in each row: no prediction
    rows[:, 1:] = picture.reshape(height, -1)
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)  # 8 bits, red green blue
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(rows.tobytes(), 9)), (b"IEND", b""))
    body = b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    )
    write_whole(Path(path), b"\x89PNG\r\n\x1a\n" + body)


def write_whole(path: Path, data: bytes) -> None:
    """Write a file so that it is there whole or not at all. Raises OSError that says what to change."""
    partial = path.with_name(f"{path.stem}.partial{path.suffix}")
    check_folder(path)
    try:
        with _disk_errors(path):
            partial.write_bytes(data)
            os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
