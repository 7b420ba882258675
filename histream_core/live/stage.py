"""A live stream with its device, page and recording, set up from its settings.

The command and the node both play this one.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from ..plan.chunks import Plan
from ..plan.histories import check_recache
from ..plan.sizes import FPS
from ..stream.noise import SeededNoise
from ..stream.prompts import Prompt
from ..video.writers import Writer
from ..video.writing import BackgroundWriter
from .budget import BUDGET, Target
from .clock import Clock
from .devices import Device, find_device
from .feed import Feed
from .intake import ALL, EVEN, Intake
from .lan import Lan
from .pacer import Pacer
from .page import Page, PageSource, Speak
from .player import Player, Recorder
from .session import NO_JUMP, Cue, Engine, LiveSession, Wanted

PAGE = "page"
"""The source whose pictures a page sends."""

PAGE_SIZE = 512, 512
"""Width and height of the pictures of a page, where nothing else is chosen."""

LONGEST_MEASURED = 301
"""Latent frames of a plan whose memory stands for that of one without an end."""

LAST_WAIT = 2.0
"""Longest wait for the source's thread at the end, in seconds: a camera that hangs does not give it back."""


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
    cues: tuple[Cue, ...] = ()

    def __post_init__(self):
        if self.plan.guidance.is_on:
            raise ValueError(
                f"{self.plan.guidance} needs a negative prompt, and a live stream has none: set CFG and NAG to 1"
            )
        if self.plan.jumps or any(cue.change.kind == "jump" for cue in self.cues):
            raise ValueError(NO_JUMP)
        if any(cue.change.kind == "recache" for cue in self.cues[1:]):  # with the first one the stream begins
            check_recache(self.plan)


@dataclass(frozen=True)
class Recordings:
    """Where a stream is recorded."""

    open_next: Callable[[], tuple[Path, Writer]]
    """Opens the next new file."""
    at_once: bool
    """Whether the stream is recorded from its beginning; else when a page asks for it."""


@dataclass(frozen=True)
class Served:
    """A page of the stream."""

    speak: Speak | str
    """Encodes the prompts of the page; a text says why there are none."""
    tell: Callable[[str], None]
    """Is given the address."""
    lan: Lan | None = None
    """Where other computers reach it; None: it is for this computer alone."""


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
        noise = SeededNoise(settings.seed)
        wanted = Wanted(plan, settings.prompt, noise, target, device.size, drops, settings.cues)
        return cls(settings, LiveSession(engine, wanted, feed, player, clock), player, feed, clock)

    def play(self, *, served: Served | None = None, recordings: Recordings | None = None) -> None:
        """Let the stream run to its end. Whatever is raised, what was recorded until then is whole."""
        session, device = self.session, self.settings.device
        if recordings:
            session.open_recorder = partial(self._open_recorder, recordings)
        play = partial(device.play, self.feed, self.clock)
        source = threading.Thread(target=session.guarded, args=(play,), daemon=True)
        with self._served(served):
            if recordings and recordings.at_once:
                session.record(True)
            source.start()
            session.run()
        source.join(LAST_WAIT)

    def _open_recorder(self, recordings: Recordings) -> Recorder:
        path, writer = recordings.open_next()
        return Recorder(BackgroundWriter(writer), self.settings.device.fps, path.name)

    @contextlib.contextmanager
    def _served(self, served: Served | None) -> Iterator[None]:
        """Serve the page in the block."""
        if served is None:
            yield
            return
        device = self.settings.device
        page = Page(self.session, served.speak, device if isinstance(device, PageSource) else None, served.lan)
        try:
            served.tell(page.start())
            self.player.viewers.append(page)
            self.feed.viewers.append(page.given)
            yield
        finally:
            page.close()


def countable(plan: Plan) -> Plan:
    """A plan with an end whose memory is that of a plan without one."""
    return replace(plan, num_latent_frames=LONGEST_MEASURED)


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
