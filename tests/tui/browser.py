"""A headless Chromium with one page, spoken to through its DevTools."""

from __future__ import annotations

import asyncio
import base64
import itertools
import json
import os
import signal
import subprocess
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Self

import aiohttp

# The page keeps its terminal to itself; whoever gets a fit add-on is it.
_CATCH = """
window.caught = new Promise(done => Object.defineProperty(Object.prototype, 'fitAddon', {
  configurable: true,
  set(value) {
    Object.defineProperty(this, 'fitAddon', {value, writable: true});
    done(this.terminal);
  },
}));
"""

_SHOWN = """
(async () => {
  const terminal = await window.caught, wanted = %s;
  const text = () => Array.from({length: terminal.rows}, (_, y) =>
    terminal.buffer.active.getLine(y)?.translateToString(true) ?? '').join('\\n');
  return await new Promise(done => {
    const look = () => text().includes(wanted) && done(text());
    terminal.onRender(look);
    look();
  });
})()
"""


class Page:
    """The page: goes to addresses, presses keys, waits for what its terminal shows."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self.loaded: list[str] = []  # the addresses of which something was loaded
        self._socket = socket
        self._numbers = itertools.count(1)
        self._answers: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._there: set[str] = set()  # what was navigated to and is loaded
        self._arrived = asyncio.Event()
        self._reader = asyncio.create_task(self._read())

    async def _read(self) -> None:
        async for message in self._socket:
            told = json.loads(message.data)
            if told.get("method") == "Network.responseReceived":
                self.loaded.append(told["params"]["response"]["url"])
            if told.get("method") == "Page.lifecycleEvent" and told["params"]["name"] == "load":
                self._there.add(told["params"]["loaderId"])
                self._arrived.set()
            answer = self._answers.pop(told.get("id", 0), None)
            if answer is not None:
                answer.set_result(told)

    async def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Call a method of the DevTools."""
        number = next(self._numbers)
        self._answers[number] = answer = asyncio.get_running_loop().create_future()
        await self._socket.send_json({"id": number, "method": method, "params": parameters})
        told = await answer
        assert "result" in told, told
        return dict(told["result"])

    async def open(self, address: str) -> Self:
        """Go there."""
        for domain in ("Page", "Runtime", "Network"):
            await self.call(f"{domain}.enable")
        await self.call("Page.addScriptToEvaluateOnNewDocument", source=_CATCH)
        await self.call("Page.setLifecycleEventsEnabled", enabled=True)
        await self.call("Emulation.setFocusEmulationEnabled", enabled=True)
        gone = await self.call("Page.navigate", url=address)
        while gone["loaderId"] not in self._there:
            await self._arrived.wait()
            self._arrived.clear()
        return self

    async def until(self, text: str) -> str:
        """Wait until the terminal shows that text; all that it shows."""
        script = _SHOWN % json.dumps(text)
        told = await self.call("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in told, told
        return str(told["result"]["value"])

    async def press(self, key: str) -> None:
        """Press a key that writes a character."""
        await self.call("Input.dispatchKeyEvent", type="keyDown", text=key, key=key)
        await self.call("Input.dispatchKeyEvent", type="keyUp", key=key)

    async def picture(self) -> bytes:
        """The page as a PNG."""
        return base64.b64decode((await self.call("Page.captureScreenshot"))["data"])

    async def close(self) -> None:
        """Speak to it no more."""
        await self._socket.close()
        await self._reader


@asynccontextmanager
async def page(chromium: str) -> AsyncIterator[Page]:
    """A page of a Chromium of its own, which is gone afterwards with all that it wrote."""
    with tempfile.TemporaryDirectory(prefix="testbed-chromium-", ignore_cleanup_errors=True) as home:
        command = [
            chromium, "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
            "--disable-background-networking", "--window-size=1200,800", "--remote-debugging-port=0",
            f"--user-data-dir={home}", "about:blank",
        ]  # fmt: skip
        with subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, start_new_session=True,
            env={**os.environ, "HOME": home},
        ) as process:  # fmt: skip
            try:
                assert process.stderr is not None
                address = await asyncio.to_thread(_address, process)
                async with aiohttp.ClientSession() as session, session.put(f"http://{address}/json/new") as made:
                    target = await made.json()
                    async with session.ws_connect(target["webSocketDebuggerUrl"], max_msg_size=0) as socket:
                        opened = Page(socket)
                        yield opened
                        await opened.close()
            finally:
                os.killpg(process.pid, signal.SIGKILL)  # its helpers too
                process.wait()


def _address(process: subprocess.Popen[str]) -> str:
    assert process.stderr is not None
    for line in process.stderr:
        if "DevTools listening on ws://" in line:
            return line.partition("ws://")[2].partition("/")[0]
    raise AssertionError(f"Chromium ended with {process.wait()}")


def find() -> str:
    """Where Chromium is; empty where it is not."""
    folders = [Path(folder) for folder in os.environ.get("PATH", "").split(os.pathsep)]
    names = ("chromium", "chromium-browser", "google-chrome")
    return next((str(f / name) for name in names for f in folders if (f / name).is_file()), "")
