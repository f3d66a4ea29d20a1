"""Headless Chromium, driven over its own protocol: what a browser really does with a page."""

from __future__ import annotations

import base64
import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from websockets.sync.client import ClientConnection, connect

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


def program() -> str | None:
    """Return a Chromium on the path; None where there is none."""
    return next((found for name in NAMES if (found := shutil.which(name))), None)


class Page:
    """One tab, and every event that it told of."""

    def __init__(self, socket: ClientConnection) -> None:
        self._socket, self._number = socket, 0
        self.events: list[dict[str, Any]] = []
        for domain in ("Page", "Network", "Log", "Runtime", "Audits"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        self._number += 1
        self._socket.send(json.dumps({"id": self._number, "method": method, "params": params}))
        while (told := json.loads(self._socket.recv(60))).get("id") != self._number:
            self.events.append(told)
        assert "error" not in told, told
        return dict(told["result"])

    def value(self, expression: str) -> Any:
        """Return what an expression comes to in the page."""
        return self.call("Runtime.evaluate", expression=expression, returnByValue=True)["result"].get("value")

    def go(self, action: str | None = None, url: str = "") -> None:
        """Open an address, or do what leads to another page; return once it has loaded."""
        done = len(self.events)
        if action is None:
            self.call("Page.navigate", url=url)
        else:
            self.value(action)
        deadline = time.monotonic() + 60
        while not any(event.get("method") == "Page.loadEventFired" for event in self.events[done:]):
            assert time.monotonic() < deadline, "the page did not load"
            self.events.append(json.loads(self._socket.recv(60)))

    def told(self, method: str) -> list[dict[str, Any]]:
        return [event["params"] for event in self.events if event.get("method") == method]

    def picture(self, path: Path) -> None:
        path.write_bytes(base64.b64decode(self.call("Page.captureScreenshot", format="png")["data"]))


@contextmanager
def opened(folder: Path) -> Iterator[Page]:
    """Start a Chromium with a profile of its own, with one empty tab; its whole process group is ended."""
    command = [
        *(str(program()), "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--remote-debugging-port=0"),
        *("--disable-dev-shm-usage", "--disable-background-networking", "--disable-component-update", "--disable-sync"),
        *(f"--user-data-dir={folder}", "--window-size=1100,1200", "about:blank"),
    ]
    process = subprocess.Popen(
        command, start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    try:
        assert process.stderr is not None
        address = ""
        while "/devtools/browser/" not in address:
            address = process.stderr.readline()
            assert address, "Chromium has ended"
        port = address.split("://")[1].split("/")[0]
        with connect(f"ws://{port}/devtools/browser/{address.strip().rsplit('/', 1)[1]}", proxy=None) as browser:
            browser.send(json.dumps({"id": 1, "method": "Target.getTargets"}))
            while (told := json.loads(browser.recv(60))).get("id") != 1:
                pass
            (tab,) = [one["targetId"] for one in told["result"]["targetInfos"] if one["type"] == "page"]
            with connect(f"ws://{port}/devtools/page/{tab}", proxy=None, max_size=2**26) as socket:
                yield Page(socket)
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
