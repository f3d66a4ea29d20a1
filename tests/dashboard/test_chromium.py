"""The dashboard in a real browser: its policy holds and breaks nothing, the form logs in, the look is there."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import chromium
import pytest
import uvicorn
from dashboard_places import operators, silos
from dashboards import COST, PASSWORD

from quire.dashboard.roles import Role
from quire.dashboard.users import add_user
from quire.dashboard.views import Folder
from quire.dashboard.web import Web

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(chromium.program() is None, reason="there is no Chromium on this machine's path"),
]


@contextmanager
def served(root: Path) -> Iterator[str]:
    """Serve a folder on loopback, and return its address."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        web = Web(Folder.of(root), {"127.0.0.1"}, False, port)
        server = uvicorn.Server(uvicorn.Config(web.app(), log_config=None, lifespan="off", http="h11"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
        thread.start()
        while not server.started:
            time.sleep(0.01)
        yield f"http://127.0.0.1:{port}"
        server.should_exit = True
        thread.join(30)


@pytest.mark.parametrize(("make", "role"), [(operators, Role.OPERATOR), (silos, Role.MEMBER)])
def test_somebody_logs_in_looks_around_and_logs_out(
    tmp_path: Path, make: object, role: Role, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.fsync", lambda descriptor: None)
    root = make(tmp_path)  # type: ignore[operator]
    add_user(root, "anna", role, PASSWORD, COST)
    with served(root) as address, chromium.opened(tmp_path / "profile") as page:
        page.go(url=address)
        assert page.value("location.pathname") == "/login"
        for word in ("wrong password", PASSWORD):
            page.value("document.querySelector('[name=name]').value = 'anna'")
            page.value(f"document.querySelector('[name=password]').value = '{word}'")
            page.go("document.querySelector('button').click()")
        assert page.value("location.pathname") == "/"
        assert page.value("document.cookie") == ""
        assert "anna" in page.value("document.body.innerText")
        assert page.value("document.querySelectorAll('section').length") >= 3
        # The stylesheet counts, and so do the colours in the drawings, in the light and in the dark.
        colours = []
        for scheme in ("light", "dark"):
            page.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
            colours.append(page.value("getComputedStyle(document.body).backgroundColor"))
            if role is Role.OPERATOR:
                drawn = "getComputedStyle([...document.querySelectorAll('figure svg path')].at(-1)).stroke"
                colours.append(page.value(drawn))
        assert len(set(colours)) == len(colours)
        page.call("Emulation.setDeviceMetricsOverride", width=390, height=800, deviceScaleFactor=1, mobile=True)
        assert page.value("document.documentElement.scrollWidth") <= 390
        for path in page.value("[...document.querySelectorAll('a[href^=\"/run/\"]')].map(link => link.href)"):
            page.go(url=path)
            assert page.value("document.querySelectorAll('h1').length") == 1
            assert page.value("document.documentElement.scrollWidth") <= 390
        page.go("document.querySelector('form[action=\"/logout\"] button').click()")
        assert page.value("location.pathname") == "/login"
        page.go(url=address)
        assert page.value("location.pathname") == "/login"
        asked = {sent["request"]["url"] for sent in page.told("Network.requestWillBeSent")}
        assert all(url.startswith((address, "about:", "chrome:")) for url in asked), asked
        assert page.told("Runtime.exceptionThrown") == []
        blocked = [told["issue"] for told in page.told("Audits.issueAdded") if "Policy" in told["issue"]["code"]]
        assert blocked == []
        logged = [entry["entry"]["text"] for entry in page.told("Log.entryAdded")]
        assert all("403" in text or "favicon" in text for text in logged), logged
        # The policy that broke nothing is in force: a script that got into the page all the same would not run.
        planted = (
            "const it = document.createElement('script'); it.textContent = 'window.ran = 1'; document.body.append(it)"
        )
        page.value(planted)
        assert page.value("window.ran") is None
