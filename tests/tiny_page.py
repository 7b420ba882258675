"""A page of a live stream and a client of it, for the tests of the page."""

import asyncio
import json
from contextlib import asynccontextmanager, contextmanager

import aiohttp
import numpy as np
from tiny_live import FakeClock

from histream_core.live.feed import Feed
from histream_core.live.intake import EVEN, Intake
from histream_core.live.page import Page, PageSource, jpeg_of


class Session:
    """The object that a page speaks to."""

    def __init__(self):
        self.heard = []

    def say(self, words, text):
        self.heard.append((words, text))

    def cue(self, index):
        if index > 1:
            raise ValueError(f"there is no cue {index}: there are 2")
        self.heard.append(("cue", index))

    def adjust(self, **wanted):
        self.heard.append(wanted)

    def record(self, on):
        if on and {"record": True} in self.heard:
            raise OSError(28, "No space left on device", "/secret/live.mp4")
        self.heard.append({"record": on})

    def pause(self, paused):
        self.heard.append(paused)

    def stop(self):
        self.heard.append("stop")

    def report(self):
        return {"frames": len(self.heard), "prompt": "a cat"}


class Served:
    """A page, by default the source of its stream, and its address in parts."""

    def __init__(self, *, source=True, lan=None, speak=len):
        clock = FakeClock()
        self.session, self.source = Session(), PageSource(16, (32, 24)) if source else None
        self.feed = Feed(Intake(8, EVEN), clock)
        if source:
            self.source._feed, self.source._clock = self.feed, clock
        self.clock = clock
        self.page = Page(self.session, speak, self.source, lan)
        self.address, self.token = self.page.start().split("/#")
        self.origin = {"Origin": self.address}


@contextmanager
def serving(**wanted):
    found = Served(**wanted)
    try:
        yield found
    finally:
        found.page.close()


def ask(served, work, **connector):
    """Do some work with a client that keeps cookies, also of an address that is a number."""

    async def main():
        jar, ways = aiohttp.CookieJar(unsafe=True), aiohttp.TCPConnector(**connector)
        async with aiohttp.ClientSession(cookie_jar=jar, connector=ways) as client:
            return await asyncio.wait_for(work(client), 20)

    return asyncio.run(main())


async def enter(served, client, token=None):
    async with client.post(f"{served.address}/enter", data=token or served.token, headers=served.origin) as answer:
        return answer


@asynccontextmanager
async def talk(served, client, **headers):
    await enter(served, client)
    async with client.ws_connect(f"{served.address}/ws", headers=served.origin | headers, max_msg_size=0) as socket:
        yield socket


async def said(socket):
    """The next sentence of the server."""
    while True:
        message = await socket.receive()
        if message.type == aiohttp.WSMsgType.TEXT and "said" in (found := json.loads(message.data)):
            return found["said"]
        assert message.type in (aiohttp.WSMsgType.TEXT, aiohttp.WSMsgType.BINARY), message


def jpeg(width, height):
    return jpeg_of(np.full((height, width, 3), 77, np.uint8))


async def status(client, method, address, **options):
    async with client.request(method, address, **options) as answer:
        return answer.status


async def until(holds):
    """Wait until something holds."""
    while not holds():
        await asyncio.sleep(0.01)
