"""The page of a live stream: who may enter, what may be sent, and what goes wrong without harm."""

import asyncio
import io
import json
import random
from contextlib import asynccontextmanager

import aiohttp
import numpy as np
import pytest
from PIL import Image
from tiny_live import FakeClock

from histream_core.live.feed import Feed
from histream_core.live.intake import EVEN, Intake
from histream_core.live.page import MAX_MESSAGE, MOST_VIEWERS, Page, PageSource, jpeg_of, picture_in


class Session:
    """What a page speaks to."""

    def __init__(self):
        self.heard = []

    def say(self, words, text):
        self.heard.append((words, text))

    def pause(self, paused):
        self.heard.append(paused)

    def stop(self):
        self.heard.append("stop")

    def report(self):
        return {"frames": len(self.heard), "prompt": "a cat"}


class Served:
    """A page with a source, and its address in parts."""

    def __init__(self):
        clock = FakeClock()
        self.session, self.source = Session(), PageSource(16, (32, 24))
        self.feed = Feed(Intake(8, EVEN), clock)
        self.source._feed, self.source._clock = self.feed, clock
        self.clock = clock
        self.page = Page(self.session, len, self.source)
        self.address, self.token = self.page.start().split("/#")
        self.origin = {"Origin": self.address}


@pytest.fixture
def served():
    found = Served()
    yield found
    found.page.close()


def ask(served, work):
    """Do some work with a client that keeps cookies, also of an address that is a number."""

    async def main():
        async with aiohttp.ClientSession(cookie_jar=aiohttp.CookieJar(unsafe=True)) as client:
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


def test_the_page_is_there_with_its_walls(served):
    async def look(client):
        async with client.get(f"{served.address}/") as answer:
            return answer.status, answer.headers, await answer.text()

    found, headers, text = ask(served, look)
    assert found == 200 and "<title>HiStream Live</title>" in text
    assert "default-src 'none'" in headers["Content-Security-Policy"] and headers["Cache-Control"] == "no-store"
    assert "Access-Control-Allow-Origin" not in headers
    assert served.address.startswith("http://127.0.0.1:") and served.token not in text


def test_a_cookie_is_kept_from_scripts_and_other_sites(served):
    async def look(client):
        return (await enter(served, client)).headers["Set-Cookie"]

    cookie = ask(served, look)
    assert "HttpOnly" in cookie and "SameSite=Strict" in cookie and served.token not in cookie


def test_a_wrong_token_is_refused(served):
    async def knock(client):
        return (await enter(served, client, "x" * 22)).status, await status(
            client, "GET", f"{served.address}/ws", headers=served.origin
        )

    assert ask(served, knock) == (403, 403)


@pytest.mark.parametrize("path", ["/", "/enter", "/ws"])
@pytest.mark.parametrize(
    "headers", [{"Host": "evil.test"}, {"Host": "127.0.0.1:1"}, {"Origin": "http://evil.test"}, {"Origin": "null"}]
)
def test_another_host_or_origin_is_refused(served, path, headers):
    async def knock(client):
        await enter(served, client)
        method, data = ("POST", served.token) if path == "/enter" else ("GET", None)
        return await status(client, method, served.address + path, headers=headers, data=data)

    assert ask(served, knock) == 403


def test_a_socket_without_an_origin_is_refused(served):
    async def knock(client):
        await enter(served, client)
        return await status(client, "GET", f"{served.address}/ws")

    assert ask(served, knock) == 403


def test_a_message_that_is_too_long_closes_the_socket(served):
    async def send(client):
        async with talk(served, client) as socket:
            await socket.send_bytes(bytes(3 * 2**20))
            async for _ in socket:
                pass
            return socket.close_code

    assert MAX_MESSAGE < 3 * 2**20
    assert ask(served, send) == aiohttp.WSCloseCode.MESSAGE_TOO_BIG
    assert served.feed.report()["arrived"] == 0


def test_a_picture_that_is_too_large_is_refused_before_it_is_decoded(served, monkeypatch):
    data = jpeg(5000, 5000)
    monkeypatch.setattr(Image.Image, "load", lambda _: pytest.fail("it is decoded"))

    async def send(client):
        async with talk(served, client) as socket:
            await socket.send_bytes(data)
            return await said(socket)

    assert "5000x5000 is too large" in ask(served, send)


@pytest.mark.parametrize("path", ["/etc/passwd", "/page.py", "/../page.py", "/%2e%2e/page.py", "/static/x"])
def test_a_path_leads_nowhere(served, path):
    async def knock(client):
        await enter(served, client)
        from yarl import URL

        return await status(client, "GET", URL(served.address + path, encoded=True))

    assert ask(served, knock) == 404


def test_pictures_go_in_at_the_size_of_the_stream(served):
    async def send(client):
        async with talk(served, client) as socket:
            for index in range(3):
                served.clock.now = float(index)
                await socket.send_bytes(jpeg(64, 48))
                while served.feed.report()["arrived"] <= index:
                    await asyncio.sleep(0.01)

    ask(served, send)
    taken = served.feed.take(3)
    assert [stamped.time for stamped in taken] == [0.0, 1.0, 2.0]
    assert taken[0].frame.shape == (24, 32, 3) and abs(int(taken[0].frame[0, 0, 0]) - 77) < 3


def test_pictures_that_come_too_fast_are_left_out(served):
    """A camera of 60 pictures a second, for a stream of 16. Seen to fail where all are taken."""
    for index in range(120):
        served.clock.now = index / 60
        served.source.put(jpeg(8, 8))
    assert served.feed.report()["arrived"] in (32, 33)


def test_pictures_and_numbers_come_out(served):
    async def look(client):
        async with talk(served, client) as socket:
            served.page(np.full((24, 32, 3), 200, np.uint8), 0.0)
            report = picture = None
            async for message in socket:
                if message.type == aiohttp.WSMsgType.BINARY:
                    picture = Image.open(io.BytesIO(message.data))
                else:
                    report = json.loads(message.data)["report"]
                if report and picture:
                    return report, picture

    report, picture = ask(served, look)
    assert report["prompt"] == "a cat" and report["publishes"] is True
    assert picture.format == "JPEG" and picture.size == (32, 24)


def test_prompt_pause_and_stop(served):
    async def speak(client):
        async with talk(served, client) as socket:
            for message in ({"prompt": " a dog "}, {"pause": True}, {"pause": False}, {"stop": True}):
                await socket.send_json(message)
            while len(served.session.heard) < 4:
                await asyncio.sleep(0.01)

    ask(served, speak)
    assert served.session.heard == [("a dog", 5), True, False, "stop"]


def test_one_page_publishes_and_a_few_look(served):
    async def crowd(client):
        async with talk(served, client) as first, talk(served, client) as second:
            await first.send_bytes(jpeg(8, 8))
            await asyncio.sleep(0.1)
            await second.send_bytes(jpeg(8, 8))
            taken = await said(second)
            more = [await client.ws_connect(f"{served.address}/ws", headers=served.origin) for _ in range(2)]
            full = await status(client, "GET", f"{served.address}/ws", headers=served.origin)
            for socket in more:
                await socket.close()
            return taken, full

    assert MOST_VIEWERS == 4
    taken, full = ask(served, crowd)
    assert "another page" in taken and full == 503


def test_a_thousand_malformed_messages_do_no_harm(served, caplog):
    """No traceback, nothing heard, and the page still works. Messages are seeded."""
    chance = random.Random(0)
    texts = [
        "",
        "{",
        "[]",
        "1",
        "null",
        '{"prompt": 1}',
        '{"prompt": ""}',
        '{"stop": 1}',
        '{"a": 1, "b": 2}',
        "[" * 9999,
    ]
    texts += ['{"prompt": "' + "x" * 3000 + '"}', '{"pause": null}', '{"path": "/etc/passwd"}', "\ud7ff"]

    async def send(client):
        async with talk(served, client) as socket:
            for _ in range(1000):
                served.clock.now += 1
                if chance.random() < 0.5:
                    await socket.send_str(chance.choice(texts))
                else:
                    await socket.send_bytes(chance.randbytes(chance.randrange(200)))
                await said(socket)
            await socket.send_json({"prompt": "a dog"})
            while not served.session.heard:
                await asyncio.sleep(0.01)
        while served.page._sockets:  # the server notes the end of a page a moment later
            await asyncio.sleep(0.01)

    ask(served, send)
    assert served.session.heard == [("a dog", 5)] and served.feed.report()["arrived"] == 0
    assert not caplog.records


def test_damaged_pictures_are_refused():
    data = jpeg(64, 64)
    png = io.BytesIO()
    Image.new("RGB", (8, 8)).save(png, "PNG")
    for broken in (b"", data[:100], data[:-200], png.getvalue(), b"\xff\xd8" + bytes(100)):
        with pytest.raises(ValueError, match="no JPEG"):
            picture_in(broken)
    assert picture_in(data).shape == (64, 64, 3)
