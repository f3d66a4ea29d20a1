"""Who is let in: nobody without a session that is theirs, and no form but the page's own."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import pytest
from dashboards import COST, HOST, ORIGIN, PASSWORD, Browser, leave_run, served
from starlette.routing import Route

from quire.dashboard.errors import DashboardError
from quire.dashboard.roles import Role
from quire.dashboard.runs import key_of
from quire.dashboard.sessions import LASTS, Sessions, Throttle
from quire.dashboard.users import add_user, read_users, remove_user, users_file


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    leave_run(tmp_path / "runs" / "secret-name", rounds=0)
    return tmp_path / "runs"


@pytest.fixture
def user(runs: Path) -> Browser:
    return Browser(served(runs, Role.OPERATOR))


def paths(browser: Browser, runs: Path) -> list[str]:
    """Every route there is, and paths that there are none for."""
    key = key_of(runs, runs / "secret-name")
    known = [route.path.replace("{key}", key) for route in browser.web.routes if isinstance(route, Route)]
    return [*known, "/nothing", "/run/../../etc/passwd", "/dashboard/users.json", "/run/secret-name", "/static/x", ""]


def test_nobody_sees_anything_without_a_session(user: Browser, runs: Path) -> None:
    for path in paths(user, runs):
        for method in ("GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "TRACE"):
            answer = user.ask(path, method)
            if path == "/login" and method in ("GET", "HEAD"):
                assert answer.status == 200
            elif method in ("GET", "HEAD"):
                assert (answer.status, answer.header("location"), answer.text) == (303, "/login", "")
            else:
                assert answer.status == (403 if method == "POST" else 405), (path, method)
            assert "secret-name" not in answer.text
            assert not answer.header("set-cookie")


def test_who_logs_in_sees_the_runs_and_logs_out_again(user: Browser) -> None:
    answer = user.log_in("operator")
    assert (answer.status, answer.header("location")) == (303, "/")
    flags = {part.strip().lower() for part in answer.header("set-cookie").split(";")[1:]}
    assert flags == {"httponly", "samesite=strict", "path=/"}
    assert "secret-name" in user.ask("/").text
    assert user.ask("/login").status == 303
    kept = user.cookie
    assert user.ask("/logout", "POST", {"form": user.form()}).status == 303
    user.cookie = kept
    assert user.ask("/").status == 303


def test_under_tls_the_cookie_is_for_tls_and_this_host_alone(user: Browser) -> None:
    user.web.secure, user.web.cookie = True, "__Host-quire-8460"
    answer = user.ask(
        "/login", "POST", {"name": "operator", "password": PASSWORD}, {"origin": ORIGIN.replace("http", "https")}
    )
    assert answer.header("set-cookie").startswith("__Host-quire-8460=")
    assert "Secure" in answer.header("set-cookie")
    assert not answer.header("strict-transport-security")  # it would bind whatever else is served under this name


@pytest.mark.parametrize(
    ("name", "password"),
    [
        *(("operator", word) for word in ("", "three words her", PASSWORD + " ", PASSWORD.upper(), "x" * 5000, "\0")),
        *(("nobody", PASSWORD), ("", ""), ("operator\0", PASSWORD), ("OPERATOR", PASSWORD), ("../operator", PASSWORD)),
    ],
)
def test_a_wrong_name_or_password_is_told_no_more_than_that(user: Browser, name: str, password: str) -> None:
    answer = user.log_in(name, password)
    assert answer.status == 403
    assert "Name or password is wrong." in answer.text
    assert not answer.header("set-cookie")


def test_an_altered_cookie_is_no_session(user: Browser) -> None:
    user.log_in("operator")
    good = user.cookie
    name, _, token = good.partition("=")
    altered = [token[:-1], token + "A", token.swapcase(), token[::-1], "", "x" * 100_000, "é", '"', "a=b; c"]
    for value in altered:
        user.cookie = f"{name}={value}"
        assert user.ask("/").status == 303, value
    for header in (token, f"quire-1={token}", f"{name} {token}", "\x7f", f"; ; ={token}"):
        user.cookie = header
        assert user.ask("/").status == 303, header
    user.cookie = good
    assert user.ask("/").status == 200


def test_a_session_ends_by_the_clock_however_busy(runs: Path) -> None:
    now = [0.0]
    user = Browser(served(runs, Role.OPERATOR, sessions=Sessions(lambda: now[0])))
    user.log_in("operator")
    for _ in range(8):
        now[0] += LASTS / 8 - 1
        assert user.ask("/").status == 200
    now[0] += 8
    assert user.ask("/").status == 303


@pytest.mark.parametrize("change", ["password", "role", "removed", "unreadable", "gone"])
def test_a_user_who_is_changed_or_removed_is_out_at_once(user: Browser, runs: Path, change: str) -> None:
    add_user(runs, "other", Role.AUDITOR, PASSWORD, COST)
    user.log_in("operator")
    assert user.ask("/").status == 200
    match change:
        case "password":
            add_user(runs, "operator", Role.OPERATOR, "another password", COST)
        case "role":
            add_user(runs, "operator", Role.AUDITOR, PASSWORD, COST)
        case "removed":
            remove_user(runs, "operator")
        case "unreadable":
            users_file(runs).chmod(0o644)
        case "gone":
            users_file(runs).unlink()
    assert user.ask("/").status == 303


def test_a_form_of_another_page_is_refused(user: Browser) -> None:
    body = {"name": "operator", "password": PASSWORD}
    for origin in (
        "http://evil.example",
        "null",
        "http://127.0.0.1",
        "http://localhost:8460",
        "https://127.0.0.1:8460",
    ):
        assert user.ask("/login", "POST", body, {"origin": origin}).status == 403
    assert user.ask("/login", "POST", body, {"origin": ""}).status == 403
    user.log_in("operator")
    for form in ("", "x", "\udcff", user.form()[:-1]):
        data = f"form={form}".encode("utf-8", "replace")
        assert user.ask("/logout", "POST", data).status == 403
    assert user.ask("/").status == 200


def test_a_name_that_is_not_this_servers_is_refused(user: Browser) -> None:
    for host in (
        "evil.example",
        "evil.example:8460",
        "127.0.0.1.evil.example",
        "",
        "[::1",
        "[x]",
        "127.0.0.1@evil.example",
    ):
        told = {"host": host} if host else {"host": " "}
        assert user.ask("/", headers=told).status == 421, host
    assert user.ask("/", headers={"host": "localhost:9"}).status == 303


def test_who_tries_too_often_has_to_wait(user: Browser) -> None:
    for _ in range(5):
        assert user.log_in("operator", "wrong password").status == 403
    answer = user.log_in("operator")
    assert answer.status == 429
    assert 0 < int(answer.header("retry-after")) <= 300
    assert user.log_in("somebody", "else").status == 403


def test_an_address_that_tries_many_names_has_to_wait_as_well(user: Browser) -> None:
    codes = [user.log_in(f"name-{place}", "wrong password").status for place in range(31)]
    assert codes == [403] * 30 + [429]
    assert user.ask("/login", "POST", {"name": "operator", "password": PASSWORD}, client="192.0.2.7").status == 303


def test_attempts_are_forgotten_in_time_and_bounded_in_number() -> None:
    now = [0.0]
    throttle = Throttle(2, 10.0, lambda: now[0])
    assert [throttle.wait(["a"]) for _ in range(3)] == [0.0, 0.0, 10.0]
    now[0] = 10.5
    assert throttle.wait(["a"]) == 0.0
    for place in range(20_000):
        throttle.wait([str(place)])
    assert len(throttle._failed) <= 10_000


def test_a_form_has_a_few_short_fields(user: Browser) -> None:
    assert user.ask("/login", "POST", b"x" * 9000).status == 413
    for data in (b"\xff=\xff", b"&".join(b"a=1" for _ in range(100)), b"name=%ff&password=%ff"):
        assert user.ask("/login", "POST", data).status == 400


def test_every_answer_says_what_a_browser_may_do_with_it(user: Browser, runs: Path) -> None:
    user.log_in("operator")
    for path in paths(user, runs):
        for method in ("GET", "POST", "PUT"):
            user.ask(path, method, headers={"host": HOST})
    user.ask("/", headers={"host": "evil.example"})
    assert len({answer.status for answer in user.seen}) >= 6
    for answer in user.seen:
        assert answer.header("content-security-policy").startswith("default-src 'none'; style-src 'sha256-")
        assert "unsafe" not in answer.header("content-security-policy")
        assert "frame-ancestors 'none'" in answer.header("content-security-policy")
        assert answer.header("x-content-type-options") == "nosniff"
        assert answer.header("cache-control") == "no-store"
        assert answer.header("referrer-policy") == "same-origin"
        assert answer.status < 500
        assert "<script" not in answer.text
        assert " style=" not in answer.text


def test_what_nobody_foresaw_is_a_sentence_and_no_traceback(user: Browser, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*args: object) -> None:
        raise RuntimeError("inner-words-zz")

    user.log_in("operator")
    monkeypatch.setattr("quire.dashboard.web.overview", broken)
    answer = user.ask("/")
    assert answer.status == 503
    assert "inner-words-zz" not in answer.text
    assert answer.header("content-security-policy")
    monkeypatch.setattr("quire.dashboard.web.Web.session_of", broken)
    assert user.ask("/").status == 503


def test_the_file_of_users_is_its_owners_alone_and_has_no_password(runs: Path) -> None:
    add_user(runs, "anna", Role.OPERATOR, PASSWORD, COST)
    add_user(runs, "ben", Role.OPERATOR, PASSWORD, COST)
    path = users_file(runs)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert PASSWORD not in path.read_text()
    anna, ben = read_users(runs).values()
    assert anna.hash != ben.hash
    path.chmod(0o640)
    with pytest.raises(DashboardError, match="chmod 600"):
        read_users(runs)


@pytest.mark.parametrize(
    "change",
    [
        lambda told: told.update(format="other"),
        lambda told: told.update(more=1),
        lambda told: told["users"]["anna"].update(role="admin"),
        lambda told: told["users"]["anna"].update(cost=40),
        lambda told: told["users"]["anna"].update(cost=True),
        lambda told: told["users"]["anna"].update(hash="00"),
        lambda told: told["users"]["anna"].pop("salt"),
        lambda told: told["users"].update({"../x": told["users"]["anna"]}),
        lambda told: told.update(users=[]),
        lambda told: told.update(users={"anna": None}),
    ],
)
def test_a_file_of_users_that_was_changed_lets_nobody_in(runs: Path, change: object) -> None:
    add_user(runs, "anna", Role.OPERATOR, PASSWORD, COST)
    told = json.loads(users_file(runs).read_text())
    change(told)  # type: ignore[operator]
    users_file(runs).write_text(json.dumps(told))
    with pytest.raises(DashboardError, match="is not what was written"):
        read_users(runs)


@pytest.mark.parametrize(
    ("name", "password"), [("Anna", PASSWORD), ("", PASSWORD), ("a/b", PASSWORD), ("anna", "short")]
)
def test_a_name_or_password_that_can_be_none_is_refused(runs: Path, name: str, password: str) -> None:
    with pytest.raises(DashboardError):
        add_user(runs, name, Role.OPERATOR, password, COST)
    assert not users_file(runs).exists()


@pytest.mark.parametrize(
    "others",
    ['a={"x":1}; {own}', "a=b c; {own}", "{own}; a=b c", "lone; {own}", "path=/x; {own}", "x" * 5000 + "; {own}"],
)
def test_cookies_of_others_on_the_same_host_keep_nobody_out(user: Browser, others: str) -> None:
    user.log_in("operator")
    own, user.cookie = user.cookie, ""
    assert user.ask("/", headers={"cookie": others.replace("{own}", own)}).status == 200
    assert user.ask("/", headers={"cookie": others.replace("{own}", f"x{own}")}).status == 303


def test_a_certificate_for_a_whole_domain_stands_for_its_names_and_no_others(user: Browser) -> None:
    user.web.hosts = frozenset({"*.example.org"})
    asked = {name: user.ask("/login", headers={"host": name}).status for name in ("dash.example.org", "example.org")}
    asked |= {name: user.ask("/login", headers={"host": name}).status for name in ("a.b.example.org", "xexample.org")}
    assert asked == {"dash.example.org": 200, "example.org": 421, "a.b.example.org": 421, "xexample.org": 421}


def test_users_that_cannot_be_read_for_a_moment_end_no_session(user: Browser, runs: Path) -> None:
    user.log_in("operator")
    users_file(runs).chmod(0o644)
    assert user.ask("/").status == 303
    users_file(runs).chmod(0o600)
    assert user.ask("/").status == 200


def test_one_user_ends_no_other_users_sessions(runs: Path) -> None:
    sessions, users = Sessions(), {}
    for name in ("anna", "ben"):
        add_user(runs, name, Role.AUDITOR, PASSWORD, COST)
        users[name] = read_users(runs)[name]
    first = sessions.open(users["anna"])
    tokens = [sessions.open(users["ben"]) for _ in range(30)]
    assert sessions.find(first) is not None
    assert [sessions.find(token) is not None for token in tokens] == [False] * 20 + [True] * 10


@pytest.mark.parametrize(
    ("addresses", "counted"),
    [
        ([f"127.0.0.{number}" for number in range(1, 40)], True),
        ([f"2001:db8:0:1::{number:x}" for number in range(1, 40)], True),
        ([f"2001:db8:0:{number:x}::1" for number in range(1, 40)], False),
        ([f"192.0.2.{number}" for number in range(1, 40)], False),
    ],
)
def test_addresses_that_one_party_has_for_nothing_count_as_one(
    user: Browser, addresses: list[str], counted: bool
) -> None:
    told = [
        user.ask("/login", "POST", {"name": f"n{place}", "password": "x" * 5000}, client=address).status
        for place, address in enumerate(addresses)
    ]
    assert (429 in told) is counted


def test_logins_that_wait_leave_the_pages_alone(user: Browser) -> None:
    user.web._waiting = 8
    answer = user.ask("/login", "POST", {"name": "operator", "password": PASSWORD})
    assert (answer.status, answer.header("retry-after")) == (503, "10")
    assert user.ask("/login").status == 200
