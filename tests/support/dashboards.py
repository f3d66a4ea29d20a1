"""The dashboard's application called as a server calls it, without one; and folders with everything that pages show."""

from __future__ import annotations

import asyncio
import hashlib
import json
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from quire.dashboard.roles import Role
from quire.dashboard.sessions import Sessions
from quire.dashboard.users import add_user
from quire.dashboard.views import Folder
from quire.dashboard.web import Web

HOST = "127.0.0.1:8460"
ORIGIN = f"http://{HOST}"
PASSWORD = "three words here"
COST = 12  # scrypt's least: a test logs in often


@dataclass
class Answer:
    """What came back."""

    status: int
    headers: list[tuple[str, str]]
    text: str

    def header(self, name: str) -> str:
        return next((value for key, value in self.headers if key == name), "")


@dataclass
class Browser:
    """Asks the application, and remembers one cookie."""

    web: Web
    cookie: str = ""
    seen: list[Answer] = field(default_factory=list)

    def ask(
        self,
        path: str,
        method: str = "GET",
        body: dict[str, str] | bytes | None = None,
        headers: dict[str, str] | None = None,
        client: str = "127.0.0.1",
    ) -> Answer:
        data = body if isinstance(body, bytes) else urlencode(body or {}).encode()
        told = {"host": HOST, "cookie": self.cookie, **({"origin": ORIGIN} if method == "POST" else {})}
        told |= headers or {}
        scope = {
            **{"type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "scheme": "http", "root_path": ""},
            **{"method": method, "path": path, "raw_path": path.encode(), "query_string": b""},
            **{"client": (client, 50000), "server": ("127.0.0.1", 8460)},
            "headers": [(key.encode(), value.encode()) for key, value in told.items() if value],
        }
        sent: list[dict[str, Any]] = []

        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": data, "more_body": False}

        async def send(message: Any) -> None:
            sent.append(message)

        asyncio.run(self.web.app()(scope, receive, send))  # type: ignore[arg-type]
        found = [(key.decode(), value.decode()) for key, value in sent[0]["headers"]]
        text = b"".join(part.get("body", b"") for part in sent[1:]).decode()
        answer = Answer(sent[0]["status"], found, text)
        if answer.header("set-cookie"):
            self.cookie = answer.header("set-cookie").split(";")[0]
        self.seen.append(answer)
        return answer

    def log_in(self, name: str, password: str = PASSWORD) -> Answer:
        return self.ask("/login", "POST", {"name": name, "password": password})

    def form(self) -> str:
        """Return the secret of the form that logs out."""
        found = re.search(r'name="form" value="([^"]+)"', self.ask("/").text)
        assert found is not None
        return found[1]


def served(root: Path, *roles: Role, sessions: Sessions | None = None) -> Web:
    """Return the application for a folder, with a user for each role who is called like it."""
    for role in roles or tuple(Role):
        add_user(root, str(role), role, PASSWORD, COST)
    return Web(Folder.of(root), {"127.0.0.1", "localhost"}, False, 8460, sessions)


def browser(root: Path, role: Role) -> Browser:
    """Return a browser that is logged in."""
    made = Browser(served(root, role))
    assert made.log_in(str(role)).status == 303
    return made


def pages_of(browser: Browser, *first: str) -> dict[str, str]:
    """Follow every link from the first page, and return the text of every page by its path."""
    found: dict[str, str] = {}
    waiting = ["/", *first]
    while waiting:
        path = waiting.pop()
        if path in found:
            continue
        answer = browser.ask(path)
        found[path] = answer.text
        assert answer.status in (200, 404), (path, answer.status)
        waiting += re.findall(r'href="(/[^"]*)"', answer.text)
    return found


def leave_run(folder: Path, error: str | None = None, **planted: Any) -> Path:
    """Leave the folder of a run whose journal has been planted with what a page might show, or must not."""
    folder.mkdir(parents=True)
    about = {"status": "failed" if error else "completed", "error": error, "rounds": 2, "runtime": "deployment"}
    about |= {"started": "2026-01-31T12:00:00+00:00", "finished": "2026-01-31T12:09:00+00:00", "code": "c0de" * 16}
    (folder / "run.json").write_text(json.dumps(about))
    silos = planted.get("silos", ["hospital-1", "hospital-2"])
    failed = [
        {"silo": planted.get("refuser", silos[0]), "stage": "train", "code": planted.get("code", "policy_refused")}
        | {"words": planted.get("words", "")}
    ]
    start = {"event": "start", "rounds": 3, "silos": silos, "task": planted.get("task", "heart"), "strategy": "fedavg"}
    lines: list[dict[str, Any]] = [start]
    if not planted.get("rounds", 2):  # nothing to draw, which takes most of a page's time
        lines.append({"event": "enrolment", "failed": failed})
    for number in range(1, planted.get("rounds", 2) + 1):
        scores = {"loss": 0.5 / number, "accuracy": 0.7 + number / 20}
        own = {silo: {"rows": planted.get("rows", 101 + place), **scores} for place, silo in enumerate(silos)}
        lines.append(
            {"event": "round", "round": number, "cohort": silos, "replied": silos[1:], "failed": failed}
            | {"train": {"loss": 0.4}, "evaluate": scores, "silos": own, "bytes_down": 4000, "bytes_up": 3000}
            | {"seconds": {"train": 1.0, "aggregate": 0.1, "evaluate": 0.2}, "model": "ab" * 32}
        )
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (folder / "settings.yaml").write_text(json.dumps({"overrides": planted.get("overrides", "task=tabular")}))
    return folder


def snapshot(root: Path) -> dict[str, tuple[str, int, int]]:
    """Return what there is below a folder: contents, modes and times of change."""
    found = {}
    for path in sorted(root.rglob("*")):
        about = path.lstat()
        digest = hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""
        found[str(path.relative_to(root))] = (digest, about.st_mode, about.st_mtime_ns)
    return found
