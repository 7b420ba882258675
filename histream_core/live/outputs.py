"""Outputs of a live stream: viewers that send what is shown to another program, each in a thread of its own.

Frames are [H, W, 3], uint8. An output holds one frame, the newest, so that a slow receiver delays nothing. `av` is
imported where it is used.
"""

from __future__ import annotations

import contextlib
import re
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction
from functools import partial
from ipaddress import ip_address
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ..video.container import tag
from ..video.formats import FORMATS
from ..video.media import media_errors, open_output
from ..video.writers import frame_rate
from .clock import Clock
from .devices import AGAIN
from .feed import LOOK_SECONDS
from .lan import FORMS

TICKS = 90000
"""Units of a second in the time of a frame, those of MPEG-TS."""

KEY_SECONDS = 1.0
"""A receiver that joins sees a picture after so long at most."""

PACKET = 7 * 188
"""Bytes of a datagram: as many whole packets of MPEG-TS as fit into one of Ethernet."""

H264 = {"preset": "veryfast", "tune": "zerolatency", "crf": "20", "forced-idr": "1"}
"""Options of the encoder: each frame leaves at once, and none refers to a later one."""


class Picture(NamedTuple):
    """A frame and the time when it was shown."""

    frame: np.ndarray
    time: float


class Link:
    """A connection to a receiver, made and used by one thread. Frames carry the times when they were shown, from 0 on.

    All of its methods raise ValueError where the receiver is away.
    """

    def __init__(self, where: str, muxer: str, codec: str, size: tuple[int, int], fps: float):
        """`size` is cropped to even numbers, as chroma has half of them."""
        self._where, self._size = where, (size[0] & ~1, size[1] & ~1)
        with self._errors():
            self._container = open_output(where, muxer)
            options = H264 if codec == "libx264" else {}
            self._stream = self._container.add_stream(codec, rate=frame_rate(fps), options=options)
            self._stream.width, self._stream.height = self._size
            self._stream.pix_fmt = "yuv420p"
            self._stream.codec_context.gop_size = TICKS  # key frames are asked for by time
            tag(self._stream.codec_context, FORMATS[0])
        self._first: float | None = None
        self._pts, self._key = -1, -TICKS

    def send(self, picture: Picture) -> None:
        """Encode a picture and send it."""
        with self._errors():
            self._container.mux(self._stream.encode(self._frame(picture)))

    def close(self) -> None:
        """Let go of the receiver."""
        with self._errors():
            self._container.close()

    def _errors(self) -> contextlib.AbstractContextManager[None]:
        return media_errors(f"{self._where.partition('?')[0]} cannot be written to: is it there, and free?")

    def _frame(self, picture: Picture) -> Any:
        """A frame of PyAV with its time; one in each second is asked to be a key frame."""
        import av
        from av.video.frame import PictureType

        if self._first is None:
            self._first = picture.time
        width, height = self._size
        pixels = np.ascontiguousarray(picture.frame[:height, :width])
        frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
        frame = frame.reformat(format="yuv420p", dst_colorspace="ITU709")
        self._pts = max(self._pts + 1, round((picture.time - self._first) * TICKS))
        frame.pts, frame.time_base = self._pts, Fraction(1, TICKS)
        if self._pts - self._key >= KEY_SECONDS * TICKS:
            frame.pict_type, self._key = PictureType.I, self._pts
        return frame


Open = Callable[[], Link]
Tell = Callable[[str], None]
"""Function that is given a sentence for the user."""


class Sender:
    """A viewer that sends frames in a thread of its own, between `start` and `close`; where that fails, again later."""

    def __init__(self, address: str, open_link: Open, clock: Clock, tell: Tell):
        self.address, self._open, self._clock, self._tell = address, open_link, clock, tell
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._changed = threading.Condition()
        self._waiting: Picture | None = None
        self._closed = self._away = False
        self._again = 0.0
        self._link: Link | None = None
        self._sent = self._dropped = 0

    def start(self) -> None:
        """Begin to send."""
        self._thread.start()

    def __call__(self, frame: np.ndarray, _: float) -> None:
        """Send a frame as soon as the one before it is sent; of several until then the newest."""
        with self._changed:
            self._dropped += self._waiting is not None
            self._waiting = Picture(frame, self._clock())
            self._changed.notify_all()

    def close(self) -> None:
        """Send the frame that waits, and end."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self._thread.join()

    def report(self) -> dict:
        """The frames so far in numbers, as plain values."""
        with self._changed:
            return {"address": self.address, "sent": self._sent, "dropped": self._dropped, "away": self._away}

    def _run(self) -> None:
        try:
            while picture := self._next():
                sent = picture.time >= self._again and self._send(picture)
                with self._changed:
                    self._sent += sent
                    self._dropped += not sent
        finally:
            self._hang_up()

    def _next(self) -> Picture | None:
        """Wait for a picture; None where there is none any more."""
        with self._changed:
            while self._waiting is None and not self._closed:
                self._clock.wait(self._changed, LOOK_SECONDS)
            picture, self._waiting = self._waiting, None
            return picture

    def _send(self, picture: Picture) -> bool:
        """Send a picture, and say whether that worked; where it did not it is tried again a second later."""
        try:
            self._link = self._link or self._open()
            self._link.send(picture)
        except (ValueError, OSError) as error:
            self._hang_up()
            self._again = picture.time + AGAIN
            if not self._away:
                self._tell(f"{self.address} takes no picture, and is tried again each second: {error}")
            self._away = True
            return False
        self._away = False
        return True

    def _hang_up(self) -> None:
        link, self._link = self._link, None
        if link is not None:
            with contextlib.suppress(ValueError, OSError):  # it is away already
                link.close()


def find_output(address: str, size: tuple[int, int], fps: float) -> Open:
    """Check an address that pictures of `size` are to be sent to; nothing is sent yet.

    Raises ValueError with the forms that work.
    """
    if address.startswith("v4l2:"):
        device = check_camera(address.removeprefix("v4l2:"))
        return partial(Link, device, "v4l2", "rawvideo", size, fps)
    if address.startswith("udp://"):
        return partial(Link, check_receiver(address), "mpegts", "libx264", size, fps)
    raise ValueError(f"{address[:60]} is nothing to send to: use {FORMS}; docs/live.md has recipes for others")


def check_camera(device: str, platform: str = sys.platform) -> str:
    """A virtual camera by its path. Raises ValueError for one that is none, or is not there."""
    if platform != "linux":
        raise ValueError(f"virtual cameras are not known on {platform}: send to udp://127.0.0.1:5000")
    if not re.fullmatch(r"/dev/video[0-9]{1,3}", device):
        raise ValueError(f"v4l2:{device[:40]} is no virtual camera: write v4l2:/dev/video9")
    if not Path(device).exists():
        raise ValueError(f"{device} is not there: make it with `modprobe v4l2loopback video_nr={device[10:]}`")
    return device


def check_receiver(address: str) -> str:
    """An address of UDP as FFmpeg opens it. Raises ValueError.

    A host is a number: PyAV would hold all threads while it asks for that of a name.
    """
    found = re.fullmatch(r"udp://(\[[0-9a-fA-F:.]+\]|[0-9.]+|localhost):([0-9]{1,5})", address)
    try:
        host = ip_address(found[1].strip("[]").replace("localhost", "127.0.0.1")) if found else None
    except ValueError:
        host = None
    if found is None or host is None or not 0 < int(found[2]) < 65536:
        raise ValueError(
            f"{address[:60]} is no address to send to: write udp://, the receiver's number, a colon and a port, as "
            "udp://127.0.0.1:5000"
        )
    return f"udp://{host if host.version == 4 else f'[{host}]'}:{found[2]}?pkt_size={PACKET}"


@contextlib.contextmanager
def sending(addresses: Sequence[tuple[str, Open]], viewers: list, clock: Clock, tell: Tell) -> Iterator[list[Sender]]:
    """Send to addresses in the block, as viewers of a player."""
    senders = [Sender(address, open_link, clock, tell) for address, open_link in addresses]
    with contextlib.ExitStack() as stack:
        for sender in senders:
            sender.start()
            stack.callback(sender.close)
            viewers.append(sender)
        yield senders
