"""The application: nobody passes without a session, whatever they ask for; everything but logging in and out is read.

The guard stands before the router, so that a path which does not exist asks for a login as well. Requests come from
anywhere that a browser can be lured from: ``Host`` is held against the names that this server has (DNS rebinding), and
the two forms against ``Origin`` and, to log out, against a secret of the session.
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
from collections.abc import Collection, Mapping
from typing import Any
from urllib.parse import parse_qs, urlsplit

import anyio
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from quire.dashboard.errors import DashboardError
from quire.dashboard.page import render, style_hash
from quire.dashboard.sessions import Session, Sessions, Throttle
from quire.dashboard.users import User, check, read_users
from quire.dashboard.views import Folder, overview, run_page

LOG = logging.getLogger("quire.dashboard")

#: The only path that answers without a session.
LOGIN = "/login"
_MOST_BODY = 8 * 1024
_METHODS = ("GET", "HEAD", "POST")
# Seconds for a form to arrive; passwords that wait to be hashed, which goes one at a time.
_PATIENCE, _MOST_WAITING = 10.0, 8


class Web:
    """The dashboard of one folder.

    Parameters
    ----------
    folder : Folder
    hosts : collection of str
        Names and addresses, without a port, by which browsers may call this server.
    secure : bool
        Whether it is served over TLS.
    port : int
        It names the cookie: two dashboards on one machine share cookies otherwise.
    sessions : Sessions or None
    """

    def __init__(
        self, folder: Folder, hosts: Collection[str], secure: bool, port: int, sessions: Sessions | None = None
    ) -> None:
        self.folder, self.hosts, self.secure = folder, frozenset(hosts), secure
        self.sessions = Sessions() if sessions is None else sessions
        self.cookie = f"__Host-quire-{port}" if secure else f"quire-{port}"
        self._names, self._addresses = Throttle(5), Throttle(30)
        # A thread of its own: whoever tries passwords is not to take those that make pages.
        self._hashing, self._waiting = anyio.CapacityLimiter(1), 0
        self.routes = [
            Route(LOGIN, self._login_form, methods=["GET"]),
            Route(LOGIN, self._login, methods=["POST"]),
            Route("/logout", self._logout, methods=["POST"]),
            Route("/", self._overview, methods=["GET"]),
            Route("/run/{key}", self._run, methods=["GET"]),
            Route("/run/{key}/card", self._card, methods=["GET"]),
            Route("/run/{key}/log", self._log, methods=["GET"]),
        ]

    def app(self) -> ASGIApp:
        """Return the application."""
        inner = Starlette(routes=self.routes, exception_handlers={HTTPException: _refused, Exception: _refused})
        return Guard(inner, self)

    def is_called(self, name: str) -> bool:
        """Whether a browser may call this server so; a certificate may stand for all names of a domain."""
        return name in self.hosts or f"*.{name.partition('.')[2]}" in self.hosts

    def session_of(self, token: str) -> Session | None:
        """Return the session of a token, if its user still is who they were when they logged in."""
        session = self.sessions.find(token)
        if session is None:
            return None
        try:
            same = read_users(self.folder.root).get(session.user.name) == session.user
        except DashboardError as error:  # it may be readable again
            LOG.error("%s", error)
            return None
        if not same:
            self.sessions.close(token)
        return session if same else None

    def _login_form(self, request: Request) -> Response:
        if request.scope["state"].get("session") is not None:
            return RedirectResponse("/", 303)
        return self._ask("")

    def _ask(self, trouble: str, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
        return HTMLResponse(render("login.html.j2", {"trouble": trouble}), status, headers)

    async def _login(self, request: Request) -> Response:
        told = await _form(request)
        name, password = told.get("name", ""), told.get("password", "")
        address = request.client.host if request.client is not None else ""
        where = _network(address)
        if self._waiting >= _MOST_WAITING:
            return self._ask("Many log in at the moment: try again in 10 seconds.", 503, {"Retry-After": "10"})
        wait = self._addresses.wait([where]) or self._names.wait([name[:64]])
        if wait:
            words = f"Too many attempts: try again in {wait:.0f} seconds."
            return self._ask(words, 429, {"Retry-After": f"{wait:.0f}"})
        try:
            users = await run_in_threadpool(read_users, self.folder.root)
        except DashboardError as error:
            LOG.error("%s", error)
            return self._ask("Nobody can log in at the moment: whoever runs this dashboard finds why in its log.", 503)
        self._waiting += 1
        try:
            user: User | None = await anyio.to_thread.run_sync(check, users, name, password, limiter=self._hashing)
        finally:
            self._waiting -= 1
        if user is None:
            LOG.warning("A login failed, from %s", address)
            return self._ask("Name or password is wrong.", 403)
        self._names.passed([name[:64]])
        self._addresses.passed([where])
        response = RedirectResponse("/", 303)
        response.set_cookie(
            self.cookie, self.sessions.open(user), path="/", secure=self.secure, httponly=True, samesite="strict"
        )
        return response

    async def _logout(self, request: Request) -> Response:
        told = await _form(request)
        session: Session = request.scope["state"]["session"]
        if not session.owns(told.get("form", "")):
            raise HTTPException(403)
        self.sessions.close(request.scope["state"]["token"])
        response = RedirectResponse(LOGIN, 303)
        response.delete_cookie(self.cookie, path="/", secure=self.secure, httponly=True, samesite="strict")
        return response

    def _overview(self, request: Request) -> Response:
        user = self._user(request)
        template = "silo.html.j2" if self.folder.place == "silo" else "overview.html.j2"
        return self._page(request, template, overview(self.folder, user.role))

    def _run(self, request: Request) -> Response:
        return self._of_run(request, "run.html.j2")

    def _card(self, request: Request) -> Response:
        return self._of_run(request, "card.html.j2", "card")

    def _log(self, request: Request) -> Response:
        return self._of_run(request, "log.html.j2", "log")

    def _of_run(self, request: Request, template: str, only: str | None = None) -> Response:
        found = run_page(self.folder, self._user(request).role, request.path_params["key"], only)
        if found is None or (only is not None and found[only] is None):
            raise HTTPException(404)
        return self._page(request, template, found)

    def _user(self, request: Request) -> User:
        session: Session = request.scope["state"]["session"]
        return session.user

    def _page(self, request: Request, template: str, found: dict[str, Any]) -> Response:
        session: Session = request.scope["state"]["session"]
        about = {"user": session.user.name, "role": str(session.user.role), "form": session.form}
        return HTMLResponse(render(template, {**about, "place": str(self.folder.place), **found}))


class Guard:
    """What every request goes through, and every answer.

    Parameters
    ----------
    app : ASGI application
        Called only for who is logged in, or logs in.
    web : Web
    """

    def __init__(self, app: ASGIApp, web: Web) -> None:
        self._app, self._web = app, web
        self._headers = [
            (b"content-security-policy", _policy().encode()),
            (b"x-content-type-options", b"nosniff"),
            (b"x-frame-options", b"DENY"),
            # Not "no-referrer": browsers would then send "Origin: null" with the forms.
            (b"referrer-policy", b"same-origin"),
            (b"cache-control", b"no-store"),
            (b"cross-origin-opener-policy", b"same-origin"),
            (b"cross-origin-resource-policy", b"same-origin"),
            (b"permissions-policy", b"camera=(), geolocation=(), microphone=()"),
        ]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request; anything but HTTP is not answered."""
        if scope["type"] != "http":
            return
        begun = False

        async def guarded(message: Message) -> None:
            nonlocal begun
            if message["type"] == "http.response.start":
                begun = True
                message["headers"] = [*message.get("headers", []), *self._headers]
            await send(message)

        try:
            answer = await self._refusal(scope)
            await (self._app if answer is None else answer)(scope, receive, guarded)
        except Exception as error:
            LOG.error("A page could not be shown: %s", type(error).__name__)
            if not begun:
                words = "This page cannot be shown at the moment."
                await _words(503, words)(scope, receive, guarded)

    async def _refusal(self, scope: Scope) -> Response | None:
        """Return what is answered instead of the page; None for who may have it."""
        request, web = Request(scope), self._web
        scope["state"] = {"session": None, "token": ""}
        if scope["method"] not in _METHODS:
            return _words(405, "This page is for reading.")
        host = request.headers.get("host", "")
        if not web.is_called(_name_of(host)):
            return _words(421, "This server is not called so: use the address that `quire dashboard` printed.")
        if (
            scope["method"] == "POST"
            and request.headers.get("origin") != f"{'https' if web.secure else 'http'}://{host}"
        ):
            return _words(403, "This form was not sent from this server's own page.")
        token = _cookie(request.headers.get("cookie", ""), web.cookie)
        session = await run_in_threadpool(web.session_of, token) if token else None
        scope["state"].update(session=session, token=token)
        if session is None and scope["path"] != LOGIN:
            if scope["method"] == "POST":
                return _words(403, "Log in first.")
            return RedirectResponse(LOGIN, 303)
        return None


def _policy() -> str:
    return (
        f"default-src 'none'; style-src '{style_hash()}'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    )


async def _form(request: Request) -> dict[str, str]:
    """Read a form of a few short fields.

    Raises
    ------
    HTTPException
        If it is longer, or none.
    """
    data = b""
    try:
        async with asyncio.timeout(_PATIENCE):
            async for part in request.stream():
                data += part
                if len(data) > _MOST_BODY:
                    raise HTTPException(413)
    except TimeoutError:
        raise HTTPException(408) from None
    try:
        found = parse_qs(data.decode(), keep_blank_values=True, max_num_fields=8, errors="strict")
    except ValueError:
        raise HTTPException(400) from None
    return {name: values[0] for name, values in found.items()}


def _cookie(header: str, name: str) -> str:
    """Return a cookie. Others on the same host are passed over, whatever they look like: they may be anybody's."""
    pairs = (part.strip().partition("=") for part in header.split(";"))
    return next((value for found, _, value in pairs if found == name), "")


def _network(address: str) -> str:
    """Return under what an address's attempts are counted: all that one party has without asking."""
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return address
    if found.is_loopback:
        return "loopback"
    return str(ipaddress.ip_network((found, 64), strict=False)) if found.version == 6 else address


def _name_of(host: str) -> str:
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""


def _refused(request: Request, error: Exception) -> Response:
    words = {
        400: "This form cannot be read.",
        404: "There is no such page.",
        408: "This form took too long.",
        413: "This form is too long.",
    }
    status = error.status_code if isinstance(error, HTTPException) else 503
    return _words(status, words.get(status, "This is not answered here."))


def _words(status: int, words: str) -> Response:
    return HTMLResponse(render("words.html.j2", {"words": words}), status)
