"""Media containers: written so that a file under its final name is complete, and joined by copying packets."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

from ..files.disk import File, check_folder, check_in_place, claim, disk_errors, rename_whole
from .formats import THREADS, Format
from .media import Source, damaged, media_errors, open_muxer, video_stream
from .pixels import Metadata
from .reading import open_video
from .sound import SoundCopy, check_sound

Record = Callable[[Path], None]
"""Function that is called with a complete file before it gets its final name, to write what belongs to it."""

BT709 = 1
"""FFmpeg's code of ITU-R BT.709, for primaries, transfer characteristics and matrix."""

REPACKED = ("libx264", "libx265")
"""Encoders whose packets a muxer rewrites (start codes to lengths), so that a copy needs the header of the source."""

GREEDY = "libsvtav1"
"""The encoder that gives itself and the thread that opens it a real-time priority, where the user is root."""

FRAGMENT_SECONDS = 0.25
"""Length of a fragment of a file that is being written: at most this much is lost when the process is killed."""


@contextlib.contextmanager
def kept_priorities() -> Iterator[None]:
    """Give the threads of this process their priorities back, and those that begin meanwhile that of this thread.

    Policies alone are looked at; where they cannot be told, as on other systems than Linux, nothing is done.
    """
    if not hasattr(os, "sched_setscheduler"):
        yield
        return
    had, own = _policies(), (os.sched_getscheduler(0), os.sched_getparam(0))
    try:
        yield
    finally:
        for thread, (policy, _) in _policies().items():
            wanted, priority = had.get(thread, own)
            if policy != wanted:
                with contextlib.suppress(ProcessLookupError):  # a thread may end at any time
                    os.sched_setscheduler(thread, wanted, priority)


def _policies() -> dict[int, tuple[int, os.sched_param]]:
    """Policy and priority of each thread of this process, by its number."""
    found = {}
    for thread in map(int, os.listdir("/proc/self/task")):
        with contextlib.suppress(ProcessLookupError):
            found[thread] = os.sched_getscheduler(thread), os.sched_getparam(thread)
    return found


class Output:
    """A container that is written as NAME.partial.SUFFIX, in fragments, and finished as an ordinary file `path`.

    It holds no creation time and no version of an encoder, so the same packets give the same bytes. Raises ValueError
    and OSError for names and folders that cannot work. Without `overwrite` it must be a new name, which is this
    output's alone from then on. Raises TakenError otherwise.
    """

    def __init__(self, path: Path, format: Format, metadata: Metadata | None = None, *, overwrite: bool = True) -> None:
        check_name(path, format)
        self.path, self.format, self.overwrite = path, format, overwrite
        self._sound: SoundCopy | None = None
        self.container: Any = None
        self._closed = self.stays = False
        with disk_errors(path):
            self._file = claim(path, overwrite=overwrite)
        with self.or_drop():
            self.container = _open(self._file, format.muxer)
            self.container.metadata.update(metadata or {})

    @property
    def partial(self) -> Path:
        """The path of the file until it is complete."""
        return self._file.path

    def add_pictures(self, size: tuple[int, int], rate: Fraction) -> Any:
        """Add a video stream with its encoder, and return it."""
        from av.codec.context import Flags

        os.environ.setdefault("SVT_LOG", "1")  # errors only; the AV1 encoder has no other option for it
        stream = self.container.add_stream(self.format.codec, rate=rate)
        stream.width, stream.height = size
        stream.pix_fmt = self.format.pixels
        stream.options = {"threads": str(THREADS), "field_order": "progressive", **dict(self.format.options)}
        context = stream.codec_context
        context.gop_size = 1 if self.format.intra else max(1, round(rate))
        context.flags |= Flags.bitexact
        tag(context, self.format)
        if self.format.codec == GREEDY:
            with kept_priorities():
                context.open()
        return stream

    def add_copy(self, segment: Segment) -> Any:
        """Add a video stream for packets copied from segments, and return it."""
        if self.format.codec not in REPACKED:
            return self.add_pictures(segment.size, segment.rate)  # the same header as in a file without segments
        stream = self.container.add_stream_from_template(segment.stream, opaque=True)
        stream.codec_context.framerate, stream.time_base = segment.rate, 1 / segment.rate
        return stream

    def add_sound(self, source: Source | None) -> None:
        """Prepare a copy of the sound of `source`, if there is one. Call it after the video stream was added."""
        if source is not None:
            check_sound(source, self.format)
            self._sound = SoundCopy(source, self.container)

    def mux(self, packets: Iterable[Any], until: Fraction) -> None:
        """Write video packets, and the sound packets that begin before `until` (seconds)."""
        with (
            disk_errors(self.path),
            media_errors(f"these frames or this sound do not fit into {self.path}: convert them"),
        ):
            for packet in packets:
                self.container.mux_one(packet)
            if self._sound:
                self.container.mux(list(self._sound.packets(until)))

    def sync(self) -> None:
        """Wait until everything written is on the disk."""
        with disk_errors(self.path):
            self._file.sync()

    def close(self) -> None:
        """Write the end of the container and wait for the disk; the file keeps its partial name."""
        with disk_errors(self.path), media_errors(f"{self.path} cannot be finished: write it again"):
            self.container.close()
            self._file.sync()
        in_place = self._file.is_in_place()
        self._release()
        check_in_place(self._file, in_place)

    def finish(self, path: Path, record: Record | None = None) -> None:
        """Close the file and rename it to `path`. Raises MeanwhileError where another program took the name.

        `record` is called in between; where it raises, the file is removed.
        """
        self.close()
        if record:
            try:
                record(self.partial)
            except BaseException:
                self.partial.unlink(missing_ok=True)
                raise
        rename_whole(self.partial, path, overwrite=self.overwrite)

    def drop(self) -> None:
        """Remove the file, unless it is closed; where it `stays` it is closed as it is, and plays up to there."""
        if self._closed:
            return
        import av.error

        self._file.dropping = True  # closing the muxer writes the end of the file
        if self.container is not None:
            with contextlib.suppress(av.error.FFmpegError, OSError):  # raised again for an earlier failed write
                self.container.close()
        in_place = self._file.is_in_place()
        self._release()
        if in_place and not self.stays:
            self.partial.unlink(missing_ok=True)

    def _release(self) -> None:
        self._file.close()
        if self._sound:
            self._sound.close()
        self.container = self._sound = None
        self._closed = True

    @contextlib.contextmanager
    def or_drop(self) -> Iterator[None]:
        """Drop the file when an exception leaves the block."""
        try:
            yield
        except BaseException:
            self.drop()
            raise


def check_name(path: Path, format: Format) -> None:
    """Check that `path` can be a file of `format`. Raises ValueError or OSError."""
    if path.suffix.lower() != format.suffix:
        raise ValueError(f'"{path.name}" is not a name for {format.name}: use {path.stem or "video"}{format.suffix}')
    check_folder(path)
    if path.is_dir():
        raise ValueError(f"{path} is a folder: give the name of a file in it")


def tag(owner: Any, format: Format) -> None:
    """Set the colour tags of an encoder or of a frame; some encoders read the former, some the latter."""
    owner.color_primaries = owner.color_trc = BT709
    owner.colorspace, owner.color_range = (0, 2) if format.is_rgb else (BT709, 1)  # full range for RGB


def _open(file: File, muxer: str) -> Any:
    options = {"max_interleave_delta": str(int(FRAGMENT_SECONDS * 1e6))}
    if muxer == "matroska":
        options |= {"flush_packets": "1", "cluster_time_limit": str(int(FRAGMENT_SECONDS * 1e3))}
    else:
        options |= {
            "movflags": "hybrid_fragmented+use_metadata_tags",
            "frag_duration": str(int(FRAGMENT_SECONDS * 1e6)),
        }
    return open_muxer(file, muxer, options)


class Segment:
    """A closed video file without reordered frames, opened for joining. Raises ValueError or OSError."""

    def __init__(self, path: Path) -> None:
        self.path = path
        with contextlib.ExitStack() as stack:
            self._container = stack.enter_context(open_video(path))
            self.stream = video_stream(self._container, path)
            if not self.stream.guessed_rate:
                raise ValueError(f"{path} does not say how many frames it shows in a second: write it again")
            self.rate = Fraction(self.stream.guessed_rate)
            self._open = stack.pop_all()

    @property
    def size(self) -> tuple[int, int]:
        """Width and height."""
        return self.stream.codec_context.width, self.stream.codec_context.height

    @property
    def kind(self) -> tuple:
        """The properties that all segments of a video share."""
        context = self.stream.codec_context
        return context.name, context.codec_tag, self.size, context.pix_fmt, context.extradata

    def packets(self) -> Iterator[Any]:
        """Yield all packets. Raises ValueError where frames are missing, doubled or out of order."""
        with damaged(self.path):
            index = -1
            for index, packet in enumerate(packet for packet in self._container.demux(self.stream) if packet.size):
                shown = None if packet.pts is None else round(packet.pts * packet.time_base * self.rate)
                if shown != index:
                    raise ValueError(f"{self.path} holds frame {shown} where frame {index} should be: write it again")
                yield packet
        if index < 0:
            raise ValueError(f"{self.path} has no frame in it: write it again")

    def close(self) -> None:
        self._open.close()

    def __enter__(self) -> Segment:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def join(
    segments: Sequence[str | Path],
    path: str | Path,
    format: Format,
    *,
    lengths: Sequence[int] | None = None,
    metadata: Metadata | None = None,
    sound: Source | None = None,
) -> int:
    """Copy closed segments of a format into one file without encoding again; return its number of frames.

    The file is written atomically; the segments stay. Raises OSError, and ValueError for a file that is no such
    segment, differs from the first one (codec, size, rate, parameters) or has another number of frames than `lengths`.
    """
    if not segments:
        raise ValueError("there is no segment to join")
    out = Output(Path(path), format, metadata)
    with out.or_drop(), Segment(Path(segments[0])) as first:
        stream = out.add_copy(first)
        out.add_sound(sound)
        num_frames = 0
        for name, wanted in zip(segments, lengths or [None] * len(segments), strict=True):
            count = _append(out, stream, first, Path(name), num_frames)
            if wanted not in (None, count):
                raise ValueError(f"{name} has {count} frames where {wanted} should be: remove it and write it again")
            num_frames += count
        out.close()
        _check_joined(out, first)
    rename_whole(out.partial, out.path)
    return num_frames


def _check_joined(out: Output, first: Segment) -> None:
    """Check that the joined file has the header of its segments. Raises ValueError and removes the file otherwise."""
    try:
        with Segment(out.partial) as joined:
            same = joined.kind == first.kind
    except ValueError:
        same = False
    if same:
        return
    out.partial.unlink()
    raise ValueError(
        f"{first.path} was not written as {out.format.name}, {out.format.depth} bits, by this version of "
        f"{out.format.codec}: join the segments with the format and the version that they were written with"
    )


def _append(out: Output, stream: Any, first: Segment, path: Path, num_before: int) -> int:
    """Copy the packets of one segment behind `num_before` frames; return its number of frames."""
    with Segment(path) as segment:
        if (segment.kind, segment.rate) != (first.kind, first.rate):
            raise ValueError(f"{path} was not written with the settings of {first.path.name}: write it again")
        count = 0
        for packet in segment.packets():
            packet.stream, packet.time_base = stream, 1 / first.rate
            packet.pts = packet.dts = num_before + count
            packet.duration = 1
            count += 1
            out.mux([packet], (num_before + count) / first.rate)
        return count
