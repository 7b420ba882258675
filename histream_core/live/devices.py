"""Sources of a live stream: a file that plays as a camera would, a camera, or an address. Each works in its own thread.

Frames are [H, W, 3], uint8.
"""

from __future__ import annotations

import contextlib
import re
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from ..runs.restyle import SourceVideo
from ..video.frames import aspect_of, unit_frame
from ..video.media import check_picture, open_device, video_stream
from ..video.pixels import to_uint8
from .clock import Clock
from .feed import LOOK_SECONDS, Feed

USUAL_FPS = 30.0
"""Frames per second of a camera that does not say."""

BEHIND = 0.5
"""A file that is read so many seconds too late goes on from there, without a hurry."""

AGAIN = 1.0
"""Seconds until a device that is away is opened again."""

SCHEMES = ("rtsp", "rtsps", "srt", "udp", "http", "https")
"""How an address may begin."""

CAMERAS = {"linux": ("v4l2", "/dev/video{}"), "darwin": ("avfoundation", "{}"), "win32": ("dshow", "video={}")}
"""FFmpeg's format of cameras by platform, and the name of one."""


class Thinner:
    """Which pictures of a source are taken that may give more than `fps` in a second.

    Of a source of that rate all, also where its clock trembles.
    """

    def __init__(self, fps: float):
        self._interval = 1 / fps
        self._due: float | None = None

    def takes(self, time: float) -> bool:
        """Whether a picture of that time is taken."""
        due, half = self._due, self._interval / 2
        if due is not None and time < due - half:
            return False
        self._due = time + self._interval if due is None else max(due + self._interval, time + half)
        return True


class Address(NamedTuple):
    """A device as FFmpeg opens it: its name, its format, and options."""

    device: str
    format: str | None
    options: dict[str, str]


class Device(Protocol):
    """A source of frames."""

    @property
    def fps(self) -> float:
        """Frames per second."""
        ...

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of the picture."""
        ...

    def play(self, feed: Feed, clock: Clock) -> None:
        """Give frames to the feed until it or the source ends; the work of a thread."""
        ...


def find_device(
    source: str, *, fps: float | None = None, size: tuple[int, int] | None = None, again: bool = False
) -> Device:
    """The source of that name: camera:0, an address, or a file. Raises ValueError or OSError for one that is not there.

    `fps` and `size` are those of the source where they are not given. `again`: a file begins again at its end.
    """
    if source.startswith("camera:"):
        return Opened.at(source, name_camera(source.removeprefix("camera:"), fps, size), fps=fps, size=size)
    scheme = source.partition("://")[0].lower() if "://" in source else ""
    if scheme in SCHEMES:
        options = {"rtsp_transport": "tcp"} if scheme.startswith("rtsp") else {}
        return Opened.at(source, Address(source, None, options), fps=fps, size=size)
    if scheme:
        raise ValueError(f'an address cannot begin with "{scheme[:20]}": use {", ".join(SCHEMES)}, or give a file')
    return PlayedFile.at(Path(source), fps=fps, size=size, again=again)


def name_camera(name: str, fps: float | None, size: tuple[int, int] | None, platform: str = sys.platform) -> Address:
    """The camera of that name or number. Raises ValueError for a name that is none."""
    if platform not in CAMERAS:
        raise ValueError(f"cameras are not known on {platform}: give a file or an address")
    if platform == "win32" and name.isdigit():
        raise ValueError('on Windows a camera has a name and no number: write camera:"Integrated Webcam"')
    if platform == "linux" and not re.fullmatch(r"[0-9]{1,3}", name):
        raise ValueError(f"camera:{name[:40]} is no camera: write camera:0 for /dev/video0")
    format, pattern = CAMERAS[platform]
    options = {} if fps is None else {"framerate": f"{fps:g}"}
    if size:
        options["video_size"] = f"{size[0]}x{size[1]}"
    return Address(pattern.format(name), format, options)


@dataclass(frozen=True)
class PlayedFile:
    """A video file that plays as a camera would: its frames come at their times, at any rate."""

    video: SourceVideo
    fps: float
    size: tuple[int, int]
    again: bool = False

    @classmethod
    def at(cls, path: Path, *, fps: float | None, size: tuple[int, int] | None, again: bool) -> PlayedFile:
        """Look at a file. Raises ValueError or OSError for one that is no video."""
        video = SourceVideo.at(path)
        return cls(video, fps or video.fps, size or video.size, again)

    def play(self, feed: Feed, clock: Clock) -> None:
        """Give the frames of the file at their times."""
        start = clock()
        try:
            for index, frame in enumerate(self._frames()):
                _wait_until(start + index / self.fps, feed, clock)
                if clock() - start - index / self.fps > BEHIND:
                    start = clock() - index / self.fps
                if not feed.put(frame, start + index / self.fps):
                    return
        except (ValueError, OSError) as error:
            feed.end(str(error))
        feed.end(f"{self.video.path} has ended")

    def _frames(self) -> Iterator[Tensor]:
        """Frames at the stream's rate: each is the one that the file shows then."""
        rate = self.video.fps / self.fps
        while True:
            count = 0
            for index, frame in enumerate(self.video.frames()):
                picture = None
                while int(count * rate + 1e-6) == index:
                    picture = fitted(frame, self.size) if picture is None else picture
                    yield picture
                    count += 1
            if not self.again:
                return


@dataclass(frozen=True)
class Opened:
    """A camera or an address. Where it stops to give pictures it is opened again, until the feed ends."""

    name: str
    address: Address
    fps: float
    size: tuple[int, int]

    @classmethod
    def at(cls, name: str, address: Address, *, fps: float | None, size: tuple[int, int] | None) -> Opened:
        """Open a device and take a picture, to see that it is there and what it gives. Raises ValueError."""
        with open_device(*address) as container:
            stream = video_stream(container, name)
            found = float(stream.average_rate or stream.guessed_rate or USUAL_FPS)
            frame = next(container.decode(stream), None)
            if frame is None:
                raise ValueError(f"{name} has no picture in it that can be read")
            check_picture(frame, name)
            height, width = unit_frame(frame, aspect_of(stream)).shape[:2]
        return cls(name, address, fps or (found if 1 <= found <= 240 else USUAL_FPS), size or (width, height))

    def play(self, feed: Feed, clock: Clock) -> None:
        """Give the pictures of the device as they come, and open it again where it is away."""
        thinner = Thinner(self.fps)
        while not feed.over:
            with contextlib.suppress(ValueError, OSError), open_device(*self.address) as there:
                self._pass_on(there, feed, clock, thinner)
            _wait_until(clock() + AGAIN, feed, clock)

    def _pass_on(self, container: Any, feed: Feed, clock: Clock, thinner: Thinner) -> None:
        """Give pictures until there are none; of those that come faster than `fps`, as many as `fps` says."""
        stream = video_stream(container, self.name)
        for frame in container.decode(stream):
            now = clock()
            if not thinner.takes(now):
                continue
            check_picture(frame, self.name)
            if not feed.put(fitted(unit_frame(frame, aspect_of(stream)), self.size), now):
                return


def _wait_until(time: float, feed: Feed, clock: Clock) -> None:
    """Wait for a time, or for the end of the feed."""
    waiting = threading.Condition()
    while not feed.over and (left := time - clock()) > 0:
        with waiting:
            clock.wait(waiting, min(left, LOOK_SECONDS))


def fitted(picture: Tensor, size: tuple[int, int]) -> Tensor:
    """A picture [H, W, 3] in [0, 1] as uint8 of `size`: scaled, and cropped where its shape is another one."""
    (rows, columns), (width, height) = picture.shape[:2], size
    if (columns, rows) != size:
        scale = max(width / columns, height / rows)
        part = min(columns, round(width / scale)), min(rows, round(height / scale))
        left, top = (columns - part[0]) // 2, (rows - part[1]) // 2
        cut = picture[top : top + part[1], left : left + part[0]].movedim(-1, 0)[None]
        scaled = torch.nn.functional.interpolate(cut, (height, width), mode="bilinear", antialias=True)
        picture = scaled[0].movedim(0, -1)
    return torch.from_numpy(to_uint8(picture[None])[0])
