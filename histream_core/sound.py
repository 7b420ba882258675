"""Sound copied into a video as it is, packet by packet, as far as the pictures go."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any


class SoundCopy:
    """The first sound of a file, for one container. Raises OSError or ValueError where that cannot be.

    `packets(seconds)` yields what begins before that time and was not yielded yet, ready to be muxed.
    """

    def __init__(self, source: Path, container: Any) -> None:
        import av

        try:
            self._source = av.open(str(source))
        except av.error.InvalidDataError as error:
            raise ValueError(f"{source} holds no sound that can be read") from error
        if not self._source.streams.audio:
            self.close()
            raise ValueError(f"{source} holds no sound: choose another file")
        self._in = self._source.streams.audio[0]
        codec = self._in.codec_context.name
        if codec not in container.supported_codecs:
            self.close()
            raise ValueError(f"{codec} sound does not fit into {container.format.name}: convert {source.name} to AAC")
        self._out = container.add_stream_from_template(self._in)
        self._waiting = (packet for packet in self._source.demux(self._in) if packet.pts is not None)
        self._next = next(self._waiting, None)

    def packets(self, seconds: Fraction) -> Iterator[Any]:
        while self._next is not None and self._next.pts * self._next.time_base < seconds:
            packet, self._next = self._next, next(self._waiting, None)
            packet.stream = self._out
            yield packet

    def close(self) -> None:
        self._source.close()
