"""A live stream with its device, page and recording, set up from its settings.

The command and the node both play this one.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from ..files.disk import NewName
from ..plan.chunks import Plan
from ..plan.sizes import FPS
from ..stream.noise import SeededNoise
from ..stream.prompts import Prompt
from ..video.formats import Format
from ..video.writers import open_writer
from ..video.writing import BackgroundWriter
from .budget import Target
from .clock import Clock
from .devices import Device, find_device
from .feed import Feed
from .intake import ALL, EVEN, Intake
from .pacer import Pacer
from .page import Page, PageSource, Speak
from .player import Player, Recorder
from .session import Engine, LiveSession, Wanted

PAGE = "page"
"""The source whose pictures a page sends."""

PAGE_SIZE = 512, 512
"""Width and height of the pictures of a page, where nothing else is chosen."""

BUDGET = 1.0
"""Seconds from the last picture of a chunk until the chunk must be made, where nothing else is chosen."""


@dataclass(frozen=True)
class LiveSettings:
    """Everything that decides a live stream, except its weights."""

    plan: Plan
    """Without an end, and restyling the size of the device."""
    device: Device
    prompt: Prompt
    seed: int = 0
    budget: float = BUDGET
    policy: str = EVEN
    """One of POLICIES."""
    seconds: float | None = None
    """The stream ends after so long; None: with its source."""


@dataclass(frozen=True)
class Recording:
    """A new video file of every frame that is made."""

    path: Path | NewName
    format: Format
    tags: Mapping[str, str]


@dataclass(frozen=True)
class Served:
    """A page of the stream."""

    speak: Speak | None
    """Encodes the prompts of the page; None: there are none."""
    tell: Callable[[str], None]
    """Is given the address."""


@dataclass(frozen=True)
class Stage:
    """A live stream that is set up; `play` it once."""

    settings: LiveSettings
    session: LiveSession
    player: Player
    feed: Feed
    clock: Clock

    @classmethod
    def set(cls, engine: Engine, settings: LiveSettings) -> Stage:
        """Set a stream up. Raises ValueError for what cannot work."""
        device, plan, clock = settings.device, settings.plan, Clock()
        frames = plan.window.chunk_frames
        target = Target(device.fps, settings.budget, max(1, len(plan.chunks[1].steps)), frames)
        most = 2 * 4 * frames
        patient = isinstance(device, PageSource)
        feed = Feed(Intake(most, settings.policy), clock, seconds=settings.seconds, patient=patient)
        player = Player(Pacer(device.fps, settings.budget, clock), clock, [], room=most)
        drops = settings.policy != ALL
        wanted = Wanted(plan, settings.prompt, SeededNoise(settings.seed), target, device.size, drops=drops)
        return cls(settings, LiveSession(engine, wanted, feed, player, clock), player, feed, clock)

    def play(
        self,
        *,
        served: Served | None = None,
        recording: Recording | None = None,
        ends: tuple[type[BaseException], ...] = (KeyboardInterrupt,),
    ) -> dict:
        """Let the stream run to its end, and report it. `ends` are exceptions by which a user ends a stream as usual.

        Another exception ends it too, and the recording is kept under its partial name.
        """
        source = threading.Thread(target=self.settings.device.play, args=(self.feed, self.clock), daemon=True)
        with self._recorded(recording), self._served(served):
            source.start()
            with contextlib.suppress(*ends):
                self.session.run()
        source.join()
        return self.session.report()

    @contextlib.contextmanager
    def _served(self, served: Served | None) -> Iterator[None]:
        """Serve the page in the block."""
        if served is None:
            yield
            return
        device = self.settings.device
        page = Page(self.session, served.speak, device if isinstance(device, PageSource) else None)
        try:
            served.tell(page.start())
            self.player.viewers.append(page)
            yield
        finally:
            page.close()

    @contextlib.contextmanager
    def _recorded(self, recording: Recording | None) -> Iterator[None]:
        """Record the stream in the block; nothing is left of a stream without a frame."""
        if recording is None:
            yield
            return
        size, fps = self.settings.device.size, self.settings.device.fps
        file = open_writer(recording.path, recording.format, size=size, fps=fps, metadata=recording.tags)
        writer = BackgroundWriter(file)
        with writer.keeping_on((BaseException,)):  # what goes wrong takes no recording with it
            self.session.recorder = Recorder(writer, fps)
            yield


def open_source(
    name: str,
    *,
    fps: float | None = None,
    size: tuple[int, int] | None = None,
    again: bool = False,
    page_size: tuple[int, int] = PAGE_SIZE,
) -> Device:
    """The source of that name: page, camera:0, an address, or a file. Raises as `find_device` does.

    `fps` and `size` are those of the source where they are not given; a page has `page_size` then.
    """
    if name != PAGE:
        return find_device(name, fps=fps, size=size, again=again)
    return PageSource(fps or FPS, size or page_size)
