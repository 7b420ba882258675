"""The doors of the page of a live stream: who may enter, from where, and by which address."""

import re
import ssl
from pathlib import Path

import aiohttp
import pytest
from tiny_page import Session, ask, enter, serving, status

from histream_core.live.lan import Lan, how_to_certify
from histream_core.live.page import Page

PEM = Path(__file__).with_name("loopback.pem")
"""A certificate for 127.0.0.1 and its key, for these tests alone; it protects nothing."""


def test_the_page_is_there_with_its_walls(served):
    async def look(client):
        async with client.get(f"{served.address}/") as answer:
            return answer.status, answer.headers, await answer.text()

    found, headers, text = ask(served, look)
    assert found == 200 and "<title>HiStream Live</title>" in text
    assert "default-src 'none'" in headers["Content-Security-Policy"] and headers["Cache-Control"] == "no-store"
    assert "Access-Control-Allow-Origin" not in headers
    assert served.address.startswith("http://127.0.0.1:") and served.token not in text
    assert not re.search(r"https?://|url\(|@import|(src|href)=", text), "a resource from elsewhere"


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


@pytest.mark.parametrize("path", ["/etc/passwd", "/page.py", "/../page.py", "/%2e%2e/page.py", "/static/x"])
def test_a_path_leads_nowhere(served, path):
    async def knock(client):
        await enter(served, client)
        from yarl import URL

        return await status(client, "GET", URL(served.address + path, encoded=True))

    assert ask(served, knock) == 404


def test_a_page_that_comes_back_needs_no_token(served):
    async def come_back(client):
        first = await enter(served, client)
        async with client.post(f"{served.address}/enter", data="", headers=served.origin) as answer:
            return first.status, answer.status

    async def stranger(client):
        return await status(client, "POST", f"{served.address}/enter", data="", headers=served.origin)

    assert ask(served, come_back) == (204, 204) and ask(served, stranger) == 403


def test_two_streams_of_one_computer_do_not_lock_each_other_out(served):
    """A browser sends cookies to every port of a host. Seen to fail where both cookies have one name."""
    with serving() as other:

        async def both(client):
            await enter(served, client)
            await enter(other, client)
            async with client.ws_connect(f"{served.address}/ws", headers=served.origin) as socket:
                return (await socket.receive()).type

        assert ask(served, both) == aiohttp.WSMsgType.TEXT


def test_another_computer_needs_tls_and_the_very_address():
    """Also the loopback's other name is refused then."""
    trusted = ssl.create_default_context(cafile=PEM)
    with serving(lan=Lan.of("127.0.0.1", PEM, PEM)) as served:

        async def knock(client):
            first = await enter(served, client)
            async with client.ws_connect(f"{served.address}/ws", headers=served.origin) as socket:
                kind = (await socket.receive()).type
            strange = [{"Host": served.address.replace("https://127.0.0.1", "localhost")}, {"Host": "evil.test"}]
            strange += [{"Origin": served.address.replace("https", "http")}]
            found = [await status(client, "GET", f"{served.address}/", headers=headers) for headers in strange]
            return first.headers["Set-Cookie"], kind, found

        cookie, kind, found = ask(served, knock, ssl=trusted)
        assert served.address.startswith("https://127.0.0.1:") and "; Secure" in cookie
        assert kind == aiohttp.WSMsgType.TEXT and found == [403, 403, 403]
        with pytest.raises(aiohttp.ClientError):
            ask(served, lambda client: status(client, "GET", served.address.replace("https", "http")))


def test_an_address_of_another_computer_is_refused():
    page = Page(Session(), len, None, Lan.of("203.0.113.1", PEM, PEM))
    with pytest.raises(OSError, match=r"cannot be served at 203\.0\.113\.1: .*; use an address of this computer"):
        page.start()
    page.close()


@pytest.mark.parametrize("address", ["0.0.0.0", "::", "192.168.1.5:80", "http://here", "", "a b", "-x"])
def test_an_address_that_is_none_is_refused(address):
    with pytest.raises(ValueError, match="address"):
        Lan.of(address, PEM, PEM)


def test_a_certificate_that_is_none_is_refused(tmp_path):
    (tmp_path / "text.pem").write_text("no certificate")
    with pytest.raises(ValueError, match="no certificate and its key"):
        Lan.of("127.0.0.1", tmp_path / "text.pem", PEM)
    with pytest.raises(OSError, match="no file"):
        Lan.of("127.0.0.1", PEM, tmp_path / "none.pem")


def test_the_address_in_a_browser():
    assert Lan.of("fe80::1", PEM, PEM).address == "[fe80::1]"
    assert Lan.of("FE80:0::0001", PEM, PEM).address == "[fe80::1]"  # as browsers write it
    assert Lan.of("Stage.local", PEM, PEM).address == "stage.local"
    assert how_to_certify("192.168.1.5").endswith("subjectAltName=IP:192.168.1.5")
    assert how_to_certify("stage.local").endswith("subjectAltName=DNS:stage.local")
