"""The screen in a browser, as a browser speaks to it: a real server, a real app behind it."""

from __future__ import annotations

import asyncio
import socket
import subprocess
import sys
from collections.abc import Iterator

import pytest

from testbed.run.directory import RunDirectory

aiohttp = pytest.importorskip("aiohttp")
pytest.importorskip("textual_serve")

from tests.tui import browser  # noqa: E402  which needs aiohttp

PATIENCE = 90.0


@pytest.fixture
def address(recorded: RunDirectory) -> Iterator[str]:
    """The address, token and all, of a server for the recorded run; the server is gone afterwards."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "testbed", "tui", recorded.run, "--web", str(port)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        yield server.stdout.readline().strip()
        server.terminate()
        server.wait(PATIENCE)


def test_the_page_shows_the_nodes_and_obeys_a_key(address: str) -> None:
    """Whoever has the token sees the run's nodes, and a key pressed in the page changes the screen."""

    async def until(socket: aiohttp.ClientWebSocketResponse, text: bytes) -> None:
        seen = b""
        while text not in seen:
            message = await socket.receive()
            assert message.type in (aiohttp.WSMsgType.BINARY, aiohttp.WSMsgType.TEXT), seen
            seen += message.data if isinstance(message.data, bytes) else message.data.encode()

    async def main() -> None:
        base = address.partition("/?")[0]
        async with aiohttp.ClientSession(cookie_jar=aiohttp.CookieJar(unsafe=True)) as browser:
            with pytest.raises(aiohttp.WSServerHandshakeError):
                await browser.ws_connect(f"{base}/ws")
            page = await browser.get(address)
            assert "terminal" in await page.text()
            async with browser.ws_connect(f"{base}/ws?width=120&height=32", origin=base) as socket:
                await until(socket, b"modality-2")
                await socket.send_json(["stdin", "4"])
                await until(socket, b"Timeline")

    asyncio.run(asyncio.wait_for(main(), PATIENCE))


@pytest.mark.skipif(not browser.find(), reason="no Chromium is here: apt-get install chromium")
def test_a_browser_shows_the_nodes_and_reacts_to_a_key(address: str) -> None:
    """In a real browser the page shows the nodes, changes when a key is pressed, and loads nothing from others."""

    async def main() -> None:
        async with browser.page(browser.find()) as page:
            await page.open(address)
            shown = await page.until("modality-2")
            assert "1 Runs" in shown
            assert "✗ failed" in shown
            before = await page.picture()
            await page.press("4")
            assert "critical path" in await page.until("Timeline")
            assert await page.picture() != before
            base = address.partition("/?")[0]
            await page.press("1")
            await page.until("newest first")
            assert {loaded for loaded in page.loaded if not loaded.startswith((base, "data:"))} == set()

    asyncio.run(asyncio.wait_for(main(), PATIENCE))
