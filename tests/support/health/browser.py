"""A real browser, driven by the DevTools protocol: Debian's Chromium, headless, with a profile of its own.

https://chromedevtools.github.io/devtools-protocol/
"""

from __future__ import annotations

import base64
import itertools
import queue
import re
import subprocess
import tempfile
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Self

import aiohttp

PROGRAM = "/usr/bin/chromium"
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--hide-scrollbars",
    "--remote-debugging-port=0",
)
START_TIMEOUT_SECONDS = 30.0


class Tab:
    """One page of the browser."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._socket = socket
        self._numbers = itertools.count(1)
        self.events: list[dict[str, Any]] = []

    async def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """One call of the protocol; what happened in the meantime is kept in `events`."""
        number = next(self._numbers)
        await self._socket.send_json({"id": number, "method": method, "params": parameters})
        while True:
            message = await self._socket.receive_json(timeout=30)
            if message.get("id") == number:
                assert "error" not in message, message
                result: dict[str, Any] = message["result"]
                return result
            self.events.append(message)

    async def open(self, url: str, *, width: int, dark: bool = False) -> None:
        """Open a page as wide as a device, in light or dark colours."""
        for domain in ("Page", "Runtime", "Log", "Accessibility"):
            await self.call(f"{domain}.enable")
        await self.resize(width, 900)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        await self.call("Emulation.setEmulatedMedia", features=[scheme])
        await self.call("Page.navigate", url=url)

    async def resize(self, width: int, height: int) -> None:
        await self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=2 if width < 600 else 1,
            mobile=width < 600,
        )

    async def evaluate(self, expression: str) -> Any:
        """The value of an expression, or of the promise that it gives."""
        answer = await self.call(
            "Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True, userGesture=True
        )
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    async def until(self, condition: str) -> None:
        """Return when an expression is true: the page itself looks after each change of its own."""
        await self.evaluate(
            f"""new Promise((found, missed) => {{
                const look = () => {{ try {{ return {condition}; }} catch {{ return false; }} }};
                const watch = new MutationObserver(() => {{ if (look()) {{ watch.disconnect(); found(); }} }});
                watch.observe(document, {{subtree: true, childList: true, attributes: true, characterData: true}});
                if (look()) found();
                setTimeout(() => missed(new Error("not within 20 s: " + document.body.innerText)), 20000);
            }})"""
        )

    async def drawn(self) -> None:
        """Return when the page has shown a status."""
        await self.until("document.body && document.body.dataset.drawn === 'yes'")

    async def screenshot(self, path: Path) -> None:
        """The whole page as a PNG, however long it is."""
        size = (await self.call("Page.getLayoutMetrics"))["cssContentSize"]
        clip = {"x": 0, "y": 0, "width": size["width"], "height": size["height"], "scale": 1}
        shot = await self.call("Page.captureScreenshot", format="png", captureBeyondViewport=True, clip=clip)
        path.write_bytes(base64.b64decode(shot["data"]))

    async def spoken(self) -> list[dict[str, Any]]:
        """What a screen reader is given: the nodes of the accessibility tree that are not ignored."""
        nodes = (await self.call("Accessibility.getFullAXTree"))["nodes"]
        return [node for node in nodes if not node["ignored"]]

    @property
    def complaints(self) -> list[str]:
        """What the browser had to complain about: errors of scripts, refused styles, requests that failed."""
        found = []
        for event in self.events:
            if event["method"] == "Runtime.exceptionThrown":
                found.append(str(event["params"]["exceptionDetails"]))
            if event["method"] == "Log.entryAdded" and event["params"]["entry"]["level"] in {"error", "warning"}:
                found.append(event["params"]["entry"]["text"])
        return found


class Chromium:
    """The browser's process: one for all tests, since it starts in seconds and a tab in none."""

    def __init__(self) -> None:
        self.port = 0
        self._ports: queue.SimpleQueue[int] = queue.SimpleQueue()

    def __enter__(self) -> Self:
        self._profile = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
        self._process = subprocess.Popen(
            [PROGRAM, *FLAGS, f"--user-data-dir={self._profile.name}", "about:blank"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        self.port = self._ports.get(timeout=START_TIMEOUT_SECONDS)
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.wait(10)
        self._reader.join(10)
        self._profile.cleanup()

    def _read(self) -> None:
        assert self._process.stderr is not None
        with self._process.stderr as lines:
            for line in lines:
                if match := re.search(rb"DevTools listening on ws://127\.0\.0\.1:(\d+)/", line):
                    self._ports.put(int(match[1]))


@asynccontextmanager
async def tab_of(browser: Chromium) -> AsyncIterator[Tab]:
    """A tab of its own, closed at the end."""
    root = f"http://127.0.0.1:{browser.port}/json"
    async with aiohttp.ClientSession() as session:
        async with session.put(f"{root}/new?about:blank") as answer:
            target = await answer.json(content_type=None)
        async with session.ws_connect(target["webSocketDebuggerUrl"], max_msg_size=0) as socket:
            yield Tab(socket)
        async with session.get(f"{root}/close/{target['id']}"):
            pass
