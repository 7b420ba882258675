"""The page of a live stream: what may be sent, what is shown, and what goes wrong without harm."""

import asyncio
import io
import json
import random
import threading
from contextlib import suppress
from socket import create_server

import aiohttp
import numpy as np
import pytest
from PIL import Image
from tiny_live import FakeClock
from tiny_page import Served, ask, jpeg, said, serving, status, talk, until

from histream_core.live.clock import Clock
from histream_core.live.feed import Feed
from histream_core.live.intake import ALL, EVEN, Intake
from histream_core.live.page import (
    MAX_MESSAGE,
    MESSAGES,
    MOST_VIEWERS,
    QUIET_SECONDS,
    SOURCE_SIDE,
    PageSource,
    picture_in,
)


def test_a_message_that_is_too_long_closes_the_socket(served):
    async def send(client):
        async with talk(served, client) as socket:
            with suppress(ConnectionError):  # the server may hang up before all of it is sent
                await socket.send_bytes(bytes(3 * 2**20))
            async for _ in socket:
                pass
            return socket.closed

    assert MAX_MESSAGE < 3 * 2**20
    assert ask(served, send)
    assert served.feed.report()["arrived"] == 0


def test_a_picture_that_is_too_large_is_refused_before_it_is_decoded(served, monkeypatch):
    data = jpeg(5000, 5000)
    monkeypatch.setattr(Image.Image, "load", lambda _: pytest.fail("it is decoded"))

    async def send(client):
        async with talk(served, client) as socket:
            await socket.send_bytes(data)
            return await said(socket)

    assert "5000x5000 is too large" in ask(served, send)


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
    report, pictures = ask(served, looks(served, 1))
    assert report["prompt"] == "a cat" and report["publishes"] is True and report["mute"] == ""
    assert report["sends"] == {"width": 32, "height": 24, "fps": 16}
    assert pictures[0].format == "JPEG" and pictures[0].size == (32, 24)


def looks(served, count):
    """Work that returns a report and the first pictures by their kind, of which there are `count`."""

    async def look(client):
        async with talk(served, client) as socket:
            served.page(np.full((24, 32, 3), 200, np.uint8), 0.0)
            served.page.given(np.full((600, 800, 3), 50, np.uint8), 0.0)
            report, pictures = None, {}
            async for message in socket:
                if message.type == aiohttp.WSMsgType.BINARY:
                    pictures[message.data[0]] = Image.open(io.BytesIO(message.data[1:]))
                else:
                    report = json.loads(message.data)["report"]
                if report and len(pictures) == count:
                    return report, pictures

    return look


def test_the_source_is_shown_smaller_to_a_page_that_is_not_the_source():
    with serving(source=False) as served:
        report, pictures = ask(served, looks(served, 2))
    assert report["publishes"] is False and "sends" not in report and sorted(pictures) == [0, 1]
    assert pictures[0].size == (32, 24) and pictures[1].size == (SOURCE_SIDE, SOURCE_SIDE * 3 // 4)


def test_all_that_a_page_may_ask_for(served):
    asked = [
        {"prompt": " a dog "},
        {"cue": 1},
        {"strength": 0.5},
        {"strength": 1},
        {"steps": 3},
        {"record": True},
        {"record": False},
        {"pause": True},
        {"pause": False},
        {"stop": True},
    ]

    async def speak(client):
        async with talk(served, client) as socket:
            for count, message in enumerate(asked, 1):
                await socket.send_json(message)
                while len(served.session.heard) < count:
                    await asyncio.sleep(0.01)

    ask(served, speak)
    assert {name for message in asked for name in message} == set(MESSAGES)
    assert served.session.heard == [("a dog", 5), ("cue", 1), *asked[2:7], True, False, "stop"]


class Encoder:
    """Encodes a prompt when it is let go on, and not before."""

    def __init__(self):
        self.began, self.goes_on = [], threading.Event()

    def __call__(self, words):
        self.began.append(words)
        self.goes_on.wait()
        return len(words)


@pytest.fixture
def slow():
    """A page whose encoder waits."""
    encoder = Encoder()
    with serving(speak=encoder) as found:
        try:
            yield found, encoder
        finally:
            encoder.goes_on.set()


def test_a_prompt_that_is_encoded_holds_nothing_up(slow):
    served, encoder = slow
    heard = served.session.heard

    async def speak(client):
        async with talk(served, client) as socket:
            await socket.send_json({"prompt": "a dog"})
            await until(lambda: encoder.began)
            await socket.send_bytes(jpeg(8, 8))
            await until(lambda: served.feed.report()["arrived"])
            await socket.send_json({"record": True})
            await until(lambda: heard == [{"record": True}])
            await socket.send_json({"stop": True})
            await until(lambda: heard == [{"record": True}, "stop"])
        encoder.goes_on.set()
        await until(lambda: ("a dog", 5) in heard)

    ask(served, speak)


def test_the_newest_prompt_wins_however_long_one_is_encoded(slow):
    served, encoder = slow
    heard = served.session.heard

    async def speak(client):
        async with talk(served, client) as socket:
            for words in ("one", "two", "three"):
                await socket.send_json({"prompt": words})
            await socket.send_json({"pause": True})
            await until(lambda: encoder.began and heard == [True])
            encoder.goes_on.set()
            await until(lambda: len(heard) == 3)
            encoder.goes_on.clear()
            await socket.send_json({"prompt": "fourth"})
            await until(lambda: len(encoder.began) == 3)
            await socket.send_json({"cue": 1})
            await until(lambda: len(heard) == 4)
            await socket.send_json({"prompt": "the fifth"})
            encoder.goes_on.set()
            await until(lambda: len(heard) == 5)

    ask(served, speak)
    assert encoder.began == ["one", "three", "fourth", "the fifth"]
    assert heard == [True, ("one", 3), ("three", 5), ("cue", 1), ("the fifth", 9)]


def test_the_end_does_not_wait_for_a_prompt():
    encoder = Encoder()
    served = Served(speak=encoder)

    async def speak(client):
        async with talk(served, client) as socket:
            await socket.send_json({"prompt": "a dog"})
            await until(lambda: encoder.began)
            closing.start()
            await until(lambda: not closing.is_alive())

    closing = threading.Thread(target=served.page.close, daemon=True)
    try:
        ask(served, speak)
    finally:
        encoder.goes_on.set()
    closing.join()
    assert not served.session.heard


def test_pictures_that_wait_for_room_hold_nothing_up(served):
    """The policy leaves no frame out."""
    served.source._feed = feed = Feed(Intake(1, ALL), Clock())

    async def send(client):
        async with talk(served, client) as socket:
            for index in range(9):
                served.clock.now = float(index)
                await socket.send_bytes(jpeg(8, 8))
            await socket.send_json({"stop": True})
            await until(lambda: served.session.heard == ["stop"])

    try:
        ask(served, send)
    finally:
        feed.end("the test is over", drop=True)


def test_what_a_session_refuses_is_said_without_a_path(served):
    async def speak(client):
        async with talk(served, client) as socket:
            await socket.send_json({"cue": 7})
            first = await said(socket)
            await socket.send_json({"record": True})
            await socket.send_json({"record": True})
            return first, await said(socket)

    assert ask(served, speak) == ("there is no cue 7: there are 2", "that did not work: No space left on device")


def test_an_error_of_any_kind_is_said_and_the_page_goes_on(caplog):
    def speak(words):
        if words == "a dog":
            raise RuntimeError("no room in /secret/model")
        return len(words)

    async def ask_twice(client):
        async with talk(served, client) as socket:
            await socket.send_json({"prompt": "a dog"})
            found = await said(socket)
            await socket.send_json({"prompt": "a cat"})
            await until(lambda: served.session.heard == [("a cat", 5)])
            return found

    with serving(speak=speak) as served:
        assert ask(served, ask_twice) == "that did not work (RuntimeError): the log says more"
    assert [record.exc_text and "no room" in record.exc_text for record in caplog.records] == [True]


def test_a_page_that_can_be_shown_nothing_is_let_go_to_come_again(served, monkeypatch, caplog):
    """It would stand still for ever. Seen to fail where the error is kept."""
    monkeypatch.setattr("histream_core.live.page.jpeg_of", lambda *_: 1 / 0)

    async def look(client):
        async with talk(served, client) as socket:
            served.page(np.zeros((8, 8, 3), np.uint8), 0.0)
            async for _ in socket:
                pass
            return socket.close_code

    assert ask(served, look) == 1011
    assert [record.message for record in caplog.records] == ["a page is let go"]


def test_the_end_gives_the_port_back_whatever_goes_wrong(served):
    other = Served()

    async def end(client):
        async with talk(other, client) as socket:
            await socket.receive()
            other.session.report = lambda: 1 / 0
            with pytest.raises(ZeroDivisionError):
                await asyncio.get_running_loop().run_in_executor(None, other.page.close)

    ask(other, end)
    assert not other.page._thread.is_alive() and other.page._loop.is_closed()
    create_server(("127.0.0.1", other.page._port)).close()


def test_the_end_of_a_stream_is_told(served):
    async def wait(client):
        async with talk(served, client) as socket:
            await socket.receive()
            ending = asyncio.get_running_loop().run_in_executor(None, served.page._await, served.page._end())
            message = await socket.receive()
            while message.type in (aiohttp.WSMsgType.TEXT, aiohttp.WSMsgType.BINARY):
                message = await socket.receive()
            await ending
            return socket.close_code, message.extra or message.data

    assert ask(served, wait) == (1000, "the stream is over")


def test_the_place_of_a_page_that_fell_silent_is_free():
    source, clock = PageSource(16, (8, 8)), FakeClock()
    source._feed, source._clock = Feed(Intake(8, EVEN), clock), clock
    source.put(jpeg(8, 8), "one")
    with pytest.raises(ValueError, match="another page"):
        source.put(jpeg(8, 8), "two")
    clock.now += QUIET_SECONDS
    source.put(jpeg(8, 8), "two")
    with pytest.raises(ValueError, match="another page"):
        source.put(jpeg(8, 8), "one")


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
    wrong = ["true", "null", "[]", "{}", '""', '"1"', "NaN", "1e999", "-1", "1.5", "1" * 400]
    texts += [f'{{"{name}": {value}}}' for name in ("cue", "strength", "steps") for value in wrong]
    texts += [f'{{"record": {value}}}' for value in (*wrong[1:], "0")]
    texts += ['{"cue": 2}', '{"steps": 0}', '{"cue": 0, "record": true}', '{"record": "/tmp/live.mp4"}']
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
