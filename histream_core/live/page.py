"""The page of a live stream: one HTML file, pictures as JPEG over a WebSocket, for this computer or by TLS for others.

A token in the address's fragment, which is sent to no server, is traded for a cookie. Requests must name this
server as their host and come from its own page. Nothing that comes from a page is a path.
"""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import io
import json
import logging
import secrets
import threading
from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..files.reading import parse_json, read_text
from .clock import Clock
from .devices import Thinner, fitted
from .feed import LOOK_SECONDS, Feed
from .lan import Lan
from .session import LiveSession

HOST = "127.0.0.1"

MAX_MESSAGE = 2 * 2**20
"""Longest message in bytes."""

MAX_SIDE = 4096
"""Widest and highest picture that a page may send."""

MOST_VIEWERS = 4
MOST_FPS = 60
MAX_PROMPT = 2000
"""Longest prompt in letters."""

REPORT_SECONDS = 0.5
"""Seconds between two reports to a viewer."""

QUALITY = 85
"""JPEG quality of the pictures."""

RESTYLED, SOURCE = 0, 1
"""First byte of a picture that goes to a viewer."""

SOURCE_FPS, SOURCE_SIDE = 15, 384
"""Most pictures of the source in a second, and their longer side, for viewers."""

MOST_WAITING = 4
"""Pictures of one page that wait until one before them is taken; of more the oldest are left out."""

QUIET_SECONDS = 2.0
"""A page that has sent no picture for so long leaves the place to another one."""

HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; "
    "img-src blob:; media-src blob: mediastream:; connect-src 'self'; frame-ancestors 'none'; base-uri 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}

_log = logging.getLogger(__name__)

Speak = Callable[[str], Tensor]
"""Function that encodes a prompt."""


def _whole(value: object, least: int) -> bool:
    return type(value) is int and least <= value < 1000


def _share(value: object) -> bool:
    return type(value) in (int, float) and 0 <= value <= 1  # type: ignore[operator]


def _words(value: object) -> bool:
    return isinstance(value, str) and 0 < len(value.strip()) <= MAX_PROMPT


def _switch(value: object) -> bool:
    return isinstance(value, bool)


MESSAGES: dict[str, tuple[Callable[[object], bool], str]] = {
    "prompt": (_words, f"a prompt is a text of at most {MAX_PROMPT} letters"),
    "cue": (lambda value: _whole(value, 0), "a cue is given by its number, from 0 on"),
    "strength": (_share, "the strength is a number from 0 to 1"),
    "steps": (lambda value: _whole(value, 1), "steps are a whole number from 1 on"),
    "record": (_switch, "record is true or false"),
    "pause": (_switch, "pause is true or false"),
    "stop": (lambda value: value is True, "stop is true"),
}
"""Messages of a page: whether a value is one, and a sentence for one that is not."""


def message_in(text: str | bytes) -> tuple[str, Any]:
    """The name and the value of a page's message. Raises ValueError for one that is none."""
    asked = parse_json(text)
    if not isinstance(asked, dict) or len(asked) != 1 or (name := next(iter(asked))) not in MESSAGES:
        raise ValueError(f"a message is one of {', '.join(MESSAGES)}")
    fits, sentence = MESSAGES[name]
    if not fits(asked[name]):
        raise ValueError(sentence)
    return name, asked[name]


class PageSource:
    """A `Device` whose pictures a page sends: a camera of the browser, or a file that was dropped on it."""

    def __init__(self, fps: float, size: tuple[int, int]):
        self.fps, self.size = fps, size
        self._feed: Feed | None = None
        self._thinner = Thinner(min(fps, MOST_FPS))
        self._sender: object = None
        self._heard = 0.0

    def play(self, feed: Feed, clock: Clock) -> None:
        """Let pictures in until the feed ends."""
        self._clock, self._feed = clock, feed
        waiting = threading.Condition()
        while not feed.over:
            with waiting:
                clock.wait(waiting, LOOK_SECONDS)

    def put(self, data: bytes, sender: object = None) -> None:
        """Give a picture to the feed; one that comes too soon after another is left out.

        Raises ValueError for one that is none, and while another sender gives pictures.
        """
        if self._feed is None or self._feed.over:
            return
        now = self._clock()
        if self._sender not in (None, sender) and now - self._heard < QUIET_SECONDS:
            raise ValueError("another page sends its pictures already: close it first")
        self._sender, self._heard = sender, now
        if not self._thinner.takes(now):
            return
        self._feed.put(fitted(picture_in(data), self.size), now)

    def leave(self, sender: object) -> None:
        """Take note that a sender is gone."""
        if self._sender is sender:
            self._sender = None


def picture_in(data: bytes) -> Tensor:
    """The picture [H, W, 3] in [0, 1] of a JPEG file; its size is looked at before it is decoded. Raises ValueError."""
    from PIL import Image

    try:
        with Image.open(io.BytesIO(data), formats=["JPEG"]) as image:
            if max(image.size) > MAX_SIDE:
                raise ValueError(f"a picture of {image.width}x{image.height} is too large: send at most {MAX_SIDE}")
            values = np.asarray(image.convert("RGB"))
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise ValueError("this is no JPEG picture") from error
    return torch.from_numpy(values.copy()).float().div_(255)


def jpeg_of(frame: np.ndarray, most: int | None = None) -> bytes:
    """A frame [H, W, 3], uint8, as a JPEG file, at most `most` pixels a side."""
    from PIL import Image

    image, out = Image.fromarray(np.asarray(frame)), io.BytesIO()
    if most:
        image.thumbnail((most, most))
    image.save(out, "JPEG", quality=QUALITY)
    return out.getvalue()


class Newest:
    """A viewer that keeps the newest frame, and counts."""

    def __init__(self):
        self.frame: np.ndarray | None = None
        self.number = 0

    def __call__(self, frame: np.ndarray, _: float) -> None:
        """Keep a frame."""
        self.frame = frame
        self.number += 1


class Page:
    """A server in a thread of its own, between `start` and `close`. It is a viewer of its stream."""

    def __init__(self, session: LiveSession, speak: Speak | str, source: PageSource | None, lan: Lan | None = None):
        """`speak` as a text: why prompts stay as they are. `lan` None: for this computer alone."""
        self._session, self._speak, self._source, self._lan = session, speak, source, lan
        self._restyled = Newest()
        self.given = Newest()
        """Viewer of the source's frames; pages that do not send them themselves show them."""
        self._token, self._cookie = secrets.token_urlsafe(16), secrets.token_urlsafe(16)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._sockets: set[Any] = set()
        self._answers: set[asyncio.Task[None]] = set()
        self._turn, self._encoder = asyncio.Lock(), asyncio.Lock()
        self._newest = self._begun = 0
        """Number of the prompt or cue that was asked for last, and of the one that began last."""
        self._scheme = "https" if lan else "http"
        self._names = (lan.address,) if lan else (HOST, "localhost")
        self._port = 0
        self._runner: Any = None

    def start(self) -> str:
        """Serve, and return the address to open. Raises OSError for an address that cannot be used."""
        self._thread.start()
        try:
            self._port = self._await(self._serve())
        except OSError as error:
            where, why = self._names[0], error.strerror or error
            raise OSError(f"the page cannot be served at {where}: {why}; use an address of this computer") from error
        return f"{self._scheme}://{self._names[0]}:{self._port}/#{self._token}"

    def close(self) -> None:
        """Stop serving."""
        try:
            if self._runner is not None:
                self._await(self._end())
        finally:
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
            self._loop.close()

    def __call__(self, frame: np.ndarray, captured: float) -> None:
        """Show a frame: viewers take the newest when they can."""
        self._restyled(frame, captured)

    def _await(self, work: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    async def _serve(self) -> int:
        """Serve at a free port, and return it."""
        from aiohttp import web

        @web.middleware
        async def guard(request: Any, handler: Any) -> Any:
            return await self._guard(request, handler)

        app = web.Application(middlewares=[guard], client_max_size=1024)
        app.router.add_get("/", self._index)
        app.router.add_post("/enter", self._enter)
        app.router.add_get("/ws", self._talk)
        self._runner = web.AppRunner(app, access_log=None)
        await self._runner.setup()
        tls = self._lan.tls if self._lan else None
        await web.TCPSite(self._runner, self._names[0].strip("[]"), 0, ssl_context=tls).start()
        return self._runner.addresses[0][1]

    async def _end(self) -> None:
        """Tell every page how the stream has ended, and let it go. Nothing waits for a prompt that is encoded."""
        for answer in self._answers:
            answer.cancel()
        try:
            for socket in list(self._sockets):
                with contextlib.suppress(ConnectionError, asyncio.TimeoutError):
                    await asyncio.wait_for(self._report(socket), 1)
                    await asyncio.wait_for(socket.close(message=b"the stream is over"), 1)
        finally:
            await self._runner.cleanup()

    async def _guard(self, request: Any, handler: Any) -> Any:
        """Refuse what is not from the stream's own page, before anything is done."""
        from aiohttp import web

        own = {f"{name}:{self._port}" for name in self._names}
        origin = request.headers.get("Origin")
        if request.host not in own or (origin is not None and origin not in {f"{self._scheme}://{n}" for n in own}):
            raise web.HTTPForbidden(text=f"this page is at {' and '.join(sorted(own))} alone")
        response = await handler(request)
        if not response.prepared:
            response.headers.update(HEADERS)
        return response

    async def _index(self, _: Any) -> Any:
        from aiohttp import web

        text = read_text(Path(__file__).with_name("page.html"))
        return web.Response(text=text, content_type="text/html")

    async def _enter(self, request: Any) -> Any:
        """Trade the token for a cookie; a page that has the cookie, and comes back, is let in by it."""
        from aiohttp import web

        token = await request.text()
        if not (self._knows(request) if not token else _same(token, self._token)):
            raise web.HTTPForbidden(text="the token is not that of this stream: open the address that was printed")
        if len(self._sockets) >= MOST_VIEWERS:
            raise web.HTTPServiceUnavailable(text=f"{MOST_VIEWERS} pages are open already: close one")
        response = web.Response(status=204)
        safe = {"httponly": True, "samesite": "Strict", "secure": self._lan is not None}
        response.set_cookie(self._cookie_name, self._cookie, path="/", **safe)
        return response

    @property
    def _cookie_name(self) -> str:
        """The name of this stream's cookie: a browser sends the cookies of a host to each of its ports."""
        return f"histream-{self._port}"

    def _knows(self, request: Any) -> bool:
        return _same(request.cookies.get(self._cookie_name, ""), self._cookie)

    async def _talk(self, request: Any) -> Any:
        """Speak with a viewer."""
        from aiohttp import web

        if not self._knows(request) or "Origin" not in request.headers:
            raise web.HTTPForbidden(text="open the address that was printed")
        if len(self._sockets) >= MOST_VIEWERS:
            raise web.HTTPServiceUnavailable(text=f"{MOST_VIEWERS} pages are open already: close one")
        socket = web.WebSocketResponse(max_msg_size=MAX_MESSAGE, heartbeat=10)
        await socket.prepare(request)
        self._sockets.add(socket)
        pictures: asyncio.Queue[bytes] = asyncio.Queue()
        works = [self._send_reports(socket), self._publish(socket, pictures)]
        works.append(self._send_pictures(socket, RESTYLED, self._restyled))
        if self._source is None:
            works.append(self._send_pictures(socket, SOURCE, self.given))
        tasks = [asyncio.create_task(self._keep(socket, work)) for work in works]
        try:
            async for message in socket:
                self._hear(socket, message, pictures)
        except ConnectionError:
            pass  # the page was closed
        finally:
            self._sockets.discard(socket)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            if self._source:
                self._source.leave(socket)
        return socket

    def _hear(self, socket: Any, message: Any, pictures: asyncio.Queue[bytes]) -> None:
        """Begin what a page asks for, so that the next message is heard meanwhile; it goes on where the page leaves."""
        from aiohttp import WSMsgType

        if message.type == WSMsgType.TEXT:
            answer = asyncio.create_task(self._answer(socket, self._obey(message.data)))
            self._answers.add(answer)
            answer.add_done_callback(self._answers.discard)
        elif message.type == WSMsgType.BINARY:
            if pictures.qsize() == MOST_WAITING:
                pictures.get_nowait()
            pictures.put_nowait(message.data)

    async def _answer(self, socket: Any, work: Awaitable[None], *, report: bool = True) -> None:
        """Do what a page asks for, and send it a report, or a sentence where that is impossible."""
        said = ""
        try:
            await work
        except ValueError as error:
            said = str(error)
        except OSError as error:
            said = f"that did not work: {error.strerror or error}"
        except Exception as error:
            _log.exception("a page's message went wrong")
            said = f"that did not work ({type(error).__name__}): the log says more"
        with contextlib.suppress(ConnectionError):  # the page was closed
            if said:
                await socket.send_str(json.dumps({"said": said}))
            elif report:
                await self._report(socket)

    async def _publish(self, socket: Any, pictures: asyncio.Queue[bytes]) -> None:
        """Give the pictures of a page to the feed, which may let them wait."""
        while True:
            await self._answer(socket, self._give(socket, await pictures.get()), report=False)

    async def _give(self, socket: Any, data: bytes) -> None:
        if self._source is None:
            raise ValueError("this stream has a source of its own: begin it with --source page")
        await self._apart(self._source.put, data, socket)

    async def _obey(self, text: str) -> None:
        """Do what a message asks for: a stop at once, a prompt when it is encoded, all else in turn.

        Raises ValueError where that is impossible, and OSError.
        """
        (name, value), session = message_in(text), self._session
        if name == "stop":
            session.stop()
        elif name == "prompt":
            await self._say(value.strip())
        elif name == "cue":
            session.cue(value)
            self._newest = self._begun = self._newest + 1
        else:
            switches = {"record": session.record, "pause": session.pause}
            work = partial(switches[name], value) if name in switches else partial(session.adjust, **{name: value})
            async with self._turn:
                await self._apart(work)

    async def _say(self, words: str) -> None:
        """Encode a prompt and let it begin; one that a newer one has overtaken meanwhile is left out."""
        if isinstance(self._speak, str):
            raise ValueError(self._speak)
        mine = self._newest = self._newest + 1
        async with self._encoder:
            if mine < self._newest:
                return
            text = await asyncio.wrap_future(_begin(self._speak, words))
        if mine > self._begun:
            self._begun = mine
            self._session.say(words, text)

    async def _apart(self, work: Callable[..., Any], *given: Any) -> Any:
        """Do work that takes its time beside the answers to others."""
        return await self._loop.run_in_executor(None, work, *given)

    async def _keep(self, socket: Any, work: Awaitable[None]) -> None:
        """Do the work of a page for as long as it is open; where it goes wrong the page is let go, and comes again."""
        try:
            await work
        except ConnectionError:
            pass  # the page was closed
        except Exception:
            _log.exception("a page is let go")
            await socket.close(code=1011)

    async def _send_pictures(self, socket: Any, which: int, newest: Newest) -> None:
        """Send each picture that is the newest when the one before is gone; the source's less often, and smaller."""
        seen, most = 0, SOURCE_SIDE if which == SOURCE else None
        while not socket.closed:
            if newest.number == seen or newest.frame is None:
                await asyncio.sleep(0.005)
                continue
            seen = newest.number
            await socket.send_bytes(bytes([which]) + await self._apart(jpeg_of, newest.frame, most))
            if which == SOURCE:
                await asyncio.sleep(1 / SOURCE_FPS)

    async def _send_reports(self, socket: Any) -> None:
        while not socket.closed:
            await self._report(socket)
            await asyncio.sleep(REPORT_SECONDS)

    async def _report(self, socket: Any) -> None:
        page: dict[str, Any] = {"mute": self._speak if isinstance(self._speak, str) else "", "publishes": False}
        if self._source:
            width, height = self._source.size
            page |= {"publishes": True, "sends": {"width": width, "height": height, "fps": self._source.fps}}
        await socket.send_str(json.dumps({"report": {**self._session.report(), **page}}))


def _begin(work: Callable[[str], Tensor], words: str) -> Future[Tensor]:
    """Begin work in a thread that the end of the program does not wait for."""
    done: Future[Tensor] = Future()
    done.set_running_or_notify_cancel()

    def run() -> None:
        try:
            done.set_result(work(words))
        except Exception as error:
            done.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    return done


def _same(given: str, wanted: str) -> bool:
    """Whether two secrets are the same, in a time that tells nothing of them."""
    return hmac.compare_digest(given.encode("utf-8", "replace"), wanted.encode())
