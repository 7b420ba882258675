"""The page of a live stream: one HTML file, pictures as JPEG over a WebSocket, for this computer alone.

A token in the address's fragment, which no server and no log sees, is traded for a cookie. Requests must name this
server as their host and come from its own page. Nothing that comes from a page is a path.
"""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import io
import json
import secrets
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..files.reading import parse_json, read_text
from .clock import Clock
from .devices import Thinner, fitted
from .feed import LOOK_SECONDS, Feed
from .session import LiveSession

HOST = "127.0.0.1"
COOKIE = "histream"

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
"""Of the JPEG pictures."""

HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; "
    "img-src blob:; media-src blob: mediastream:; connect-src 'self'; frame-ancestors 'none'; base-uri 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}

Speak = Callable[[str], Tensor]
"""Function that encodes a prompt."""


class PageSource:
    """A `Device` whose pictures a page sends: a camera of the browser, or a file that was dropped on it."""

    def __init__(self, fps: float, size: tuple[int, int]):
        self.fps, self.size = fps, size
        self._feed: Feed | None = None
        self._thinner = Thinner(min(fps, MOST_FPS))

    def play(self, feed: Feed, clock: Clock) -> None:
        """Let pictures in until the feed ends."""
        self._clock, self._feed = clock, feed
        waiting = threading.Condition()
        while not feed.over:
            with waiting:
                clock.wait(waiting, LOOK_SECONDS)

    def put(self, data: bytes) -> None:
        """Give a picture to the feed; one that comes too soon after another is left out. Raises ValueError."""
        if self._feed is None or self._feed.over:
            return
        now = self._clock()
        if not self._thinner.takes(now):
            return
        self._feed.put(fitted(picture_in(data), self.size), now)


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


def jpeg_of(frame: np.ndarray) -> bytes:
    """A frame [H, W, 3], uint8, as a JPEG file."""
    from PIL import Image

    out = io.BytesIO()
    Image.fromarray(frame).save(out, "JPEG", quality=QUALITY)
    return out.getvalue()


class Page:
    """A server in a thread of its own, between `start` and `close`. It is a viewer of its stream."""

    def __init__(self, session: LiveSession, speak: Speak | None, source: PageSource | None):
        self._session, self._speak, self._source = session, speak, source
        self._token, self._cookie = secrets.token_urlsafe(16), secrets.token_urlsafe(16)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._sockets: set[Any] = set()
        self._publisher: object | None = None
        self._frame: np.ndarray | None = None
        self._number = 0
        self._origin = ""
        self._runner: Any = None

    def start(self, port: int = 0) -> str:
        """Serve, and return the address to open. Raises OSError for a port that is taken."""
        self._thread.start()
        self._origin = f"http://{HOST}:{self._await(self._serve(port))}"
        return f"{self._origin}/#{self._token}"

    def close(self) -> None:
        """Stop serving."""
        if self._runner is not None:
            self._await(self._end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def __call__(self, frame: np.ndarray, _: float) -> None:
        """Show a frame: viewers take the newest when they can."""
        self._frame = frame
        self._number += 1

    def _await(self, work: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    async def _serve(self, port: int) -> int:
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
        await web.TCPSite(self._runner, HOST, port).start()
        return self._runner.addresses[0][1]

    async def _end(self) -> None:
        for socket in list(self._sockets):
            with contextlib.suppress(ConnectionError, asyncio.TimeoutError):
                await asyncio.wait_for(socket.close(), 1)
        await self._runner.cleanup()

    async def _guard(self, request: Any, handler: Any) -> Any:
        """Refuse what is not from this computer's own page, before anything is done."""
        from aiohttp import web

        port = self._origin.rpartition(":")[2]
        own = {f"{name}:{port}" for name in (HOST, "localhost")}
        origin = request.headers.get("Origin")
        if request.host not in own or (origin is not None and origin not in {f"http://{name}" for name in own}):
            raise web.HTTPForbidden(text="this page is for this computer alone")
        response = await handler(request)
        if not response.prepared:
            response.headers.update(HEADERS)
        return response

    async def _index(self, _: Any) -> Any:
        from aiohttp import web

        text = read_text(Path(__file__).with_name("page.html"))
        return web.Response(text=text, content_type="text/html")

    async def _enter(self, request: Any) -> Any:
        """Trade the token for a cookie."""
        from aiohttp import web

        if not _same(await request.text(), self._token):
            raise web.HTTPForbidden(text="the token is not that of this stream: open the address that was printed")
        response = web.Response(status=204)
        response.set_cookie(COOKIE, self._cookie, httponly=True, samesite="Strict", path="/")
        return response

    async def _talk(self, request: Any) -> Any:
        """Speak with a viewer."""
        from aiohttp import web

        if not _same(request.cookies.get(COOKIE, ""), self._cookie) or "Origin" not in request.headers:
            raise web.HTTPForbidden(text="open the address that was printed")
        if len(self._sockets) >= MOST_VIEWERS:
            raise web.HTTPServiceUnavailable(text=f"{MOST_VIEWERS} pages are open already: close one")
        socket = web.WebSocketResponse(max_msg_size=MAX_MESSAGE, heartbeat=10)
        await socket.prepare(request)
        self._sockets.add(socket)
        tasks = [asyncio.create_task(work(socket)) for work in (self._send_pictures, self._send_reports)]
        try:
            async for message in socket:
                said = await self._hear(socket, message)
                if said:
                    await socket.send_str(json.dumps({"said": said}))
        except ConnectionError:
            pass  # the page was closed
        finally:
            self._sockets.discard(socket)
            if self._publisher is socket:
                self._publisher = None
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        return socket

    async def _hear(self, socket: Any, message: Any) -> str:
        """Do what a page asks for; returns a sentence for it where that is impossible."""
        from aiohttp import WSMsgType

        try:
            if message.type == WSMsgType.BINARY:
                await self._publish(socket, message.data)
            elif message.type == WSMsgType.TEXT:
                await self._obey(parse_json(message.data))
        except ValueError as error:
            return str(error)
        return ""

    async def _publish(self, socket: Any, data: bytes) -> None:
        if self._source is None:
            raise ValueError("this stream has a source of its own: begin it with --source page")
        if self._publisher not in (None, socket):
            raise ValueError("another page sends its pictures already: close it first")
        self._publisher = socket
        await self._loop.run_in_executor(None, self._source.put, data)

    async def _obey(self, asked: object) -> None:
        """Do what a message asks for. Raises ValueError for one that is none."""
        if not isinstance(asked, dict) or len(asked) != 1:
            raise ValueError("a message is one of prompt, pause and stop")
        name, value = next(iter(asked.items()))
        if name == "prompt" and isinstance(value, str) and 0 < len(value.strip()) <= MAX_PROMPT:
            if self._speak is None:
                raise ValueError("the prompt stays: give --text-encoder in the place of --embeds to change it")
            text = await self._loop.run_in_executor(None, self._speak, value.strip())
            self._session.say(value.strip(), text)
        elif name == "pause" and isinstance(value, bool):
            self._session.pause(value)
        elif name == "stop" and value is True:
            self._session.stop()
        else:
            raise ValueError(
                f"a prompt is a text of at most {MAX_PROMPT} letters, pause is true or false, stop is true"
            )

    async def _send_pictures(self, socket: Any) -> None:
        seen = 0
        while not socket.closed:
            if self._number == seen or self._frame is None:
                await asyncio.sleep(0.005)
                continue
            seen = self._number
            await socket.send_bytes(await self._loop.run_in_executor(None, jpeg_of, self._frame))

    async def _send_reports(self, socket: Any) -> None:
        while not socket.closed:
            report = {**self._session.report(), "publishes": self._source is not None}
            await socket.send_str(json.dumps({"report": report}))
            await asyncio.sleep(REPORT_SECONDS)


def _same(given: str, wanted: str) -> bool:
    """Whether two secrets are the same, in a time that tells nothing of them."""
    return hmac.compare_digest(given.encode("utf-8", "replace"), wanted.encode())
