"""Sound copied into a video without encoding, packet by packet, up to the end of the frames.

`av` is imported where it is used.
"""

from __future__ import annotations

import contextlib
import io
import re
from collections.abc import Iterator
from fractions import Fraction
from itertools import groupby, islice, pairwise
from pathlib import Path
from typing import Any

from ..files.reading import GIGABYTE
from .formats import Format
from .media import LATEST, Source, media_errors, open_media, open_muxer

LARGEST = GIGABYTE
"""Maximal size in bytes of a sound that is kept with a run; it passes through memory once."""

MAX_PACKETS = 2**21
"""Most packets of a sound: 12 hours of 20 ms each."""

LONGEST = 1_000_000
"""Latest time of a packet in seconds."""

TIMES = "PACKET_TIMES"
"""Metadata key of the exact packet times of a packed sound; Matroska rounds times to milliseconds."""

_TIMES = re.compile(r"([1-9]\d{0,8}(?:/[1-9]\d{0,8})?) (\d{1,18})(?: |$)")


class Track:
    """The first audio stream of a file, opened. Time 0 is the start of its video, or of the audio in a file without.

    Raises OSError, or ValueError for a file without sound.
    """

    def __init__(self, source: Source) -> None:
        self.name = Path(source).name if isinstance(source, (str, Path)) else "the file"
        with contextlib.ExitStack() as stack:
            said = f"{self.name} holds no sound that can be read"
            self._container = stack.enter_context(open_media(source, said))
            self.stream = self._first()
            self._opened = stack.pop_all()

    def _first(self) -> Any:
        """The first audio stream that can be decoded. Raises ValueError where there is none, or one without a clock."""
        sounds = [stream for stream in self._container.streams.audio if stream.codec_context is not None]
        if not sounds:
            read = " that can be read" if self._container.streams.audio else ""
            raise ValueError(f"{self.name} holds no sound{read}: choose another file")
        if not sounds[0].time_base or not sounds[0].codec_context.sample_rate:
            raise self._damaged()
        return sounds[0]

    def _damaged(self) -> ValueError:
        return ValueError(f"the sound of {self.name} is damaged: choose another file")

    @property
    def codec(self) -> str:
        """FFmpeg's name of the codec."""
        return self.stream.codec_context.codec.canonical_name

    def packets(self) -> Iterator[Any]:
        """Yield all packets in order with their exact times. Raises ValueError for a damaged file.

        Packets that begin before time 0 are dropped, such as the priming packet of AAC, which is not played: a
        container would shift the video to keep it, or hide the first frame in a file whose writer was killed.
        """
        packets = (packet for packet in self._demux() if packet.size and packet.pts is not None)
        if TIMES in self._container.metadata:
            yield from self._in_order(_timed(packets, self._container.metadata[TIMES]))
            return
        yield from self._in_order(self._from_zero(packets))

    def _from_zero(self, packets: Iterator[Any]) -> Iterator[Any]:
        zero = self._zero()
        for packet in packets:
            if abs(packet.pts) >= LATEST:
                raise self._damaged()
            packet.pts = packet.dts = packet.pts - zero
            if packet.pts >= 0:
                yield packet

    def _in_order(self, packets: Iterator[Any]) -> Iterator[Any]:
        """Yield packets whose times can be those of a sound. Raises ValueError for others, and for too many."""
        last = 0
        for number, packet in enumerate(packets, start=1):
            if number > MAX_PACKETS:
                raise ValueError(f"the sound of {self.name} has more than {MAX_PACKETS} packets: cut it")
            longest = LONGEST / packet.time_base
            if not last <= packet.pts <= longest or not 0 <= (packet.duration or 0) <= longest:
                raise ValueError(f"the sound of {self.name} is not in order: convert it to AAC")
            last = packet.pts
            yield packet

    def _demux(self) -> Iterator[Any]:
        with media_errors(str(self._damaged())):
            yield from self._container.demux(self.stream)

    def _zero(self) -> int:
        """Time 0 in units of the stream."""
        from av.stream import Disposition

        videos = [s for s in self._container.streams.video if not s.disposition & Disposition.attached_pic]
        first = videos[0] if videos else self.stream
        zero = round((first.start_time or 0) * (first.time_base or 0) / self.stream.time_base)
        if abs(zero) >= LATEST:
            raise self._damaged()
        return zero

    def close(self) -> None:
        self._opened.close()


class SoundCopy:
    """A copy of the sound of `source` into an output container. Raises the errors of `Track`."""

    def __init__(self, source: Source, container: Any) -> None:
        self._track = Track(source)
        try:
            with media_errors(f"the sound of {self._track.name} does not fit into the video: convert it to AAC"):
                self._out = container.add_stream_from_template(self._track.stream)
            self._waiting = self._track.packets()
            self._next = next(self._waiting, None)
        except BaseException:
            self._track.close()
            raise

    def packets(self, seconds: Fraction) -> Iterator[Any]:
        """Yield the packets, ready to mux, that begin before `seconds` and were not yielded yet."""
        while self._next is not None and self._next.pts * self._next.time_base < seconds:
            packet, self._next = self._next, next(self._waiting, None)
            packet.stream = self._out
            yield packet

    def close(self) -> None:
        self._track.close()


def has_sound(source: Source) -> bool:
    """Whether a file holds sound, readable or not. Raises ValueError or OSError for one that cannot be opened."""
    with open_media(source, "that file cannot be read: choose another file") as container:
        return len(container.streams.audio) > 0


def check_sound(source: Source, format: Format) -> None:
    """Check by muxing a packet that a video of `format` can hold this sound. Raises ValueError or OSError."""
    import av.error

    if format.is_sequence:
        raise ValueError(f"{format.name} is a folder of pictures and holds no sound: leave it out")
    with contextlib.closing(Track(source)) as track:
        codec, name = track.codec, track.name
        fits = not (format.muxer == "mp4" and codec.startswith("pcm_"))  # accepted by FFmpeg, but few players play it
        try:
            packets = list(islice(track.packets(), 1))
            if not packets:
                raise ValueError(f"{name} holds no sound: choose another file")
            if fits:
                _mux(track, packets, format.muxer)
        except av.error.FFmpegError:
            fits = False
    if not fits:
        raise ValueError(f"{codec} sound does not fit into {format.name}: convert {name} to AAC, which fits into all")


def pack_sound(source: Source, *, start: float = 0, duration: float = 0) -> bytes:
    """The sound of a file as the bytes of a Matroska file: equal bytes for equal sound.

    `start` and `duration` (seconds; 0: to the end) select a part, which then begins at 0. Raises the errors of `Track`,
    and ValueError for sound of more than 1 GiB.
    """
    import av.error

    with contextlib.closing(Track(source)) as track:
        packets, num_bytes = [], 0
        for packet in track.packets():
            packet.pts = packet.dts = packet.pts - round(start / packet.time_base)
            if duration and packet.pts * packet.time_base >= duration:
                break
            if packet.pts < 0:
                continue
            packets.append(packet)
            num_bytes += packet.size
            if num_bytes > LARGEST:
                raise ValueError(f"the sound of {track.name} is larger than 1 GiB: convert it to AAC, or cut it")
        if not packets:
            raise ValueError(f"{track.name} holds no sound between its start and its end: choose another file or trim")
        try:
            return _mux(track, packets, "matroska", {TIMES: _times(packets)})
        except av.error.FFmpegError as error:
            raise ValueError(f"{track.codec} sound cannot be kept: convert {track.name} to AAC") from error


def _mux(track: Track, packets: list[Any], muxer: str, metadata: dict[str, str] | None = None) -> bytes:
    """The bytes of a file with these packets alone, without a creation time."""
    file = io.BytesIO()
    with open_muxer(file, muxer) as container:
        container.metadata.update(metadata or {})
        stream = container.add_stream_from_template(track.stream)
        for packet in packets:
            packet.stream = stream
            container.mux_one(packet)
    return file.getvalue()


def _times(packets: list[Any]) -> str:
    """Packet times as text: the unit in seconds, the first time, and run-length coded steps (1024x99: 99 of 1024)."""
    steps = [later.pts - packet.pts for packet, later in pairwise(packets)] + [packets[-1].duration or 0]
    runs = (f"{step}x{sum(1 for _ in same)}" for step, same in groupby(steps))
    return " ".join([str(packets[0].time_base), str(packets[0].pts), *runs])


def _timed(packets: Iterator[Any], times: str) -> Iterator[Any]:
    """Set the packet times that `_times` wrote."""
    header, runs = _TIMES.match(times), re.finditer(r"\b(\d{1,18})x(\d{1,18})\b", times)
    if not header:
        raise ValueError("the times of a packed sound are damaged: pack it again")
    unit, pts = Fraction(header[1]), int(header[2])
    steps = (int(run[1]) for run in runs for _ in range(int(run[2])))
    for packet, step in zip(packets, steps, strict=False):
        packet.time_base = unit
        packet.pts = packet.dts = pts
        packet.duration = step
        pts += step
        yield packet
