"""Sound copied into a video without encoding, packet by packet, up to the end of the frames.

`av` is imported where it is used.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator
from fractions import Fraction
from itertools import groupby, islice, pairwise
from pathlib import Path
from typing import Any

from .formats import Format
from .reading import Source

LARGEST = 2**30
"""Maximal size in bytes of a sound that is kept with a run; it passes through memory once."""

TIMES = "PACKET_TIMES"
"""Metadata key of the exact packet times of a packed sound; Matroska rounds times to milliseconds."""


class Track:
    """The first audio stream of a file, opened. Time 0 is the start of its video, or of the audio in a file without.

    Raises OSError, or ValueError for a file without sound.
    """

    def __init__(self, source: Source) -> None:
        import av
        import av.error

        self.name = Path(source).name if isinstance(source, (str, Path)) else "the file"
        if not isinstance(source, (str, Path)):
            source.seek(0)
        try:
            self._container: Any = av.open(str(source) if isinstance(source, Path) else source)
        except av.error.InvalidDataError as error:
            raise ValueError(f"{self.name} holds no sound that can be read") from error
        sounds = [stream for stream in self._container.streams.audio if stream.codec_context is not None]
        if not sounds:
            self.close()
            raise ValueError(f"{self.name} holds no sound: choose another file")
        self.stream = sounds[0]

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
            yield from _timed(packets, self._container.metadata[TIMES])
            return
        zero = self._zero()
        for packet in packets:
            packet.pts = packet.dts = packet.pts - zero
            if packet.pts >= 0:
                yield packet

    def _demux(self) -> Iterator[Any]:
        import av.error

        try:
            yield from self._container.demux(self.stream)
        except av.error.FFmpegError as error:
            raise ValueError(f"the sound of {self.name} is damaged: choose another file") from error

    def _zero(self) -> int:
        """Time 0 in units of the stream."""
        from av.stream import Disposition

        videos = [s for s in self._container.streams.video if not s.disposition & Disposition.attached_pic]
        first = videos[0] if videos else self.stream
        return round((first.start_time or 0) * first.time_base / self.stream.time_base)

    def close(self) -> None:
        self._container.close()


class SoundCopy:
    """A copy of the sound of `source` into an output container. Raises the errors of `Track`."""

    def __init__(self, source: Source, container: Any) -> None:
        self._track = Track(source)
        self._out = container.add_stream_from_template(self._track.stream)
        self._waiting = self._track.packets()
        self._next = next(self._waiting, None)

    def packets(self, seconds: Fraction) -> Iterator[Any]:
        """Yield the packets, ready to mux, that begin before `seconds` and were not yielded yet."""
        while self._next is not None and self._next.pts * self._next.time_base < seconds:
            packet, self._next = self._next, next(self._waiting, None)
            packet.stream = self._out
            yield packet

    def close(self) -> None:
        self._track.close()


def check_sound(source: Source, format: Format) -> None:
    """Check by muxing a packet that a video of `format` can hold this sound. Raises ValueError or OSError."""
    import av.error

    if format.is_sequence:
        raise ValueError(f"{format.name} is a folder of pictures and holds no sound: leave it out")
    with contextlib.closing(Track(source)) as track:
        codec, name = track.codec, track.name
        fits = not (format.muxer == "mp4" and codec.startswith("pcm_"))  # accepted by FFmpeg, but few players play it
        try:
            if fits:
                _mux(track, list(islice(track.packets(), 1)), format.muxer)
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
    import av

    file = io.BytesIO()
    with av.open(file, "w", format=muxer, options={"fflags": "+bitexact"}) as container:
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
    unit, first, *runs = times.split()
    pts = int(first)
    steps = (int(step) for step, count in (run.split("x") for run in runs) for _ in range(int(count)))
    for packet, step in zip(packets, steps, strict=False):
        packet.time_base = Fraction(unit)
        packet.pts = packet.dts = pts
        packet.duration = step
        pts += step
        yield packet
