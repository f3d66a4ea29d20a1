"""What others write: escaped, bounded, nothing hidden; torn, huge or missing files end in words and never in a 500."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from dashboard_places import card_of
from dashboards import Browser, browser, leave_run, pages_of, snapshot
from hypothesis import example, given
from hypothesis import strategies as st

from quire.dashboard.journal import Journal, read_journal, refusals
from quire.dashboard.reading import lines_of
from quire.dashboard.refusals import refused_in
from quire.dashboard.roles import Role
from quire.text import NAME, visible

RTL = "\u202e"
HOSTILE = [
    "<script>alert('zz')</script>",
    "\"><img src=x onerror=alert('zz')>",
    "' onmouseover='alert(1)",
    "{{ 7 * 7 }}{% raw %}",
    "</style><style>*{display:none}",
    "<!--",
    "]]><svg onload=alert(1)>",
    "javascript:alert(1)",
    f"abc{RTL}gpj.exe\u2066\u2069\u200b\u200d\ufeff",
    "a\x00b\x1b[31mred\x07\r\nSet-Cookie: x=1",
    "Z" + "\u0300" * 500,
    "\ud800 lone",
    "$x_$ \\frac{1}{2}",
    "../../../../etc/passwd",
    "x" * 1_000_000,
    "",
]


class Tags(HTMLParser):
    """The tags, attributes and texts of a page, as a browser takes them apart."""

    def __init__(self, page: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: set[str] = set()
        self.attributes: set[str] = set()
        self.links: set[str] = set()
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}
        self.links |= {value or "" for name, value in attrs if name in ("href", "src", "action")}


def watched(root: Path) -> Browser:
    return browser(root, Role.OPERATOR)


def safe(page: str) -> None:
    """Nothing in a page runs, loads, hides or leads anywhere."""
    found = Tags(page)
    assert not found.tags & {"script", "img", "iframe", "object", "embed", "link", "base", "template", "foreignobject"}
    assert page.count("<style>") == 1
    assert not {name for name in found.attributes if name.startswith("on") or name in ("style", "srcdoc", "formaction")}
    assert all(re.fullmatch(r"/(run/[0-9a-f]{20}(/card|/log)?|logout|login)?|#[\w-]+", link) for link in found.links)
    hidden = {letter for letter in page if not letter.isprintable()} - {"\n", "\xa0"}
    assert not hidden, [hex(ord(letter)) for letter in hidden]
    assert len(page) < 600_000


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_hostile_texts_of_a_server_and_its_silos_are_only_texts(tmp_path: Path, text: str) -> None:
    planted: dict[str, Any] = dict.fromkeys(("task", "refuser", "code", "words", "overrides"), text)
    planted["rounds"] = 2 if text in (HOSTILE[1], HOSTILE[12]) else 0
    run = leave_run(tmp_path / "runs" / "7", error=text or "x", silos=[text, f"{text}2"], **planted)
    (run / "privacy_card.json").write_text(json.dumps(card_of(text)))
    (run / "log").mkdir()
    (run / "log" / "entries.jsonl").write_text(text, errors="surrogatepass")
    pages = pages_of(watched(tmp_path / "runs"))
    assert len(pages) == 4
    for page in pages.values():
        safe(page)


def test_a_hostile_name_of_a_folder_is_only_a_name(tmp_path: Path) -> None:
    for name in ("<b onclick=x>", f"7{RTL}8", "a'b\"c", "\n", "%2e%2e", "{{7*7}}", "\ud83d", "x" * 255):
        leave_run(tmp_path / "runs" / os.fsdecode(name.encode("utf-8", "replace")), rounds=0)
    leave_run(Path(os.fsdecode(bytes(tmp_path / "runs") + b"/\xff\xfe")), rounds=0)
    pages = pages_of(watched(tmp_path / "runs"))
    assert len(pages) == 10
    for page in pages.values():
        safe(page)
    assert "&lt;b onclick=x&gt;" in pages["/"]
    assert "\u27e8U+202E\u27e9" in pages["/"]


def _nested(depth: int) -> str:
    return "[" * depth + "]" * depth


DAMAGE: dict[str, Callable[[Path], object]] = {
    "no run.json": lambda run: (run / "run.json").unlink(),
    "an empty run.json": lambda run: (run / "run.json").write_text(""),
    "a torn run.json": lambda run: (run / "run.json").write_text('{"status": "runn'),
    "a run.json of another kind": lambda run: (run / "run.json").write_text("[1, 2]"),
    "a run.json of wrong types": lambda run: (run / "run.json").write_text(
        '{"status": {}, "error": [], "rounds": "x", "started": 7, "versions": 3, "finished": "9999999"}'
    ),
    "numbers beyond everything": lambda run: (run / "run.json").write_text('{"rounds": 1e999, "status": NaN}'),
    "a deep run.json": lambda run: (run / "run.json").write_text(f'{{"a": {_nested(100_000)}}}'),
    "a huge run.json": lambda run: (run / "run.json").write_text('{"error": "' + "x" * 5_000_000 + '"}'),
    "a run.json that is a pipe": lambda run: ((run / "run.json").unlink(), os.mkfifo(run / "run.json")),
    "a run.json that is a link": lambda run: (
        (run / "run.json").unlink(),
        (run / "run.json").symlink_to("/etc/passwd"),
    ),
    "a run.json that is a link to another": lambda run: (
        (run / "run.json").unlink(),
        (run.parent.parent / "linked.json").write_text('{"status": "failed", "error": "linked-zz"}'),
        (run / "run.json").symlink_to(run.parent.parent / "linked.json"),
    ),
    "a run.json that is a folder": lambda run: ((run / "run.json").unlink(), (run / "run.json").mkdir()),
    "no journal": lambda run: (run / "metrics.jsonl").unlink(),
    "a torn journal": lambda run: (run / "metrics.jsonl").write_text('{"event": "start", "rounds": 3}\n{"event": "rou'),
    "a journal of wrong types": lambda run: (run / "metrics.jsonl").write_text(
        "".join(
            json.dumps(line) + "\n"
            for line in (
                {"event": "start", "rounds": -1, "silos": "abc", "task": 5, "scored": []},
                {"event": "round", "round": "one"},
                {"event": "round", "round": 10**30},
                {"event": "round", "round": 1, "cohort": 3, "replied": {}, "failed": "x", "silos": [1], "train": 2},
                {
                    "event": "round",
                    "round": 2,
                    "failed": [3, {}, {"silo": None, "code": {}}],
                    "evaluate": {"loss": "x"},
                },
                {"event": "round", "round": 3, "evaluate": {"loss": 1e300, "accuracy": 1e11}, "seconds": {"train": -1}},
                {"event": "round", "round": 4, "evaluate": {"loss": 10**400}, "bytes_down": True, "secure": 3},
                {"event": {}, "round": 5},
                [],
                None,
            )
        )
        + _nested(100_000)
        + "\n"
    ),
    "a binary journal": lambda run: (run / "metrics.jsonl").write_bytes(bytes(range(256)) * 100),
    "a journal that is a link": lambda run: (
        (run / "metrics.jsonl").unlink(),
        (run / "metrics.jsonl").symlink_to("/etc/passwd"),
    ),
    "settings that are none": lambda run: (run / "settings.yaml").write_text("{[: -"),
    "settings of another kind": lambda run: (run / "settings.yaml").write_text("- 1"),
    "settings that make objects": lambda run: (run / "settings.yaml").write_text("!!python/object/apply:os.abort []"),
    "settings that unfold": lambda run: (run / "settings.yaml").write_text(
        "a0: &a0 {x: 1}\n"
        + "".join(f"a{n}: &a{n} {{<<: [{', '.join([f'*a{n - 1}'] * 10)}]}}\n" for n in range(1, 30))
        + "overrides: x\n"
    ),
    "a log behind a link": lambda run: (
        leave_run(run.parent / "7-log", rounds=0),
        (run / "log").symlink_to(run.parent / "7-log"),
        (run.parent / "7-log" / "entries.jsonl").write_text("x\n"),
    ),
    "no settings": lambda run: (run / "settings.yaml").unlink(),
    "a torn card": lambda run: (run / "privacy_card.json").write_text('{"verdict": "'),
    "a card of wrong types": lambda run: (run / "privacy_card.json").write_text(
        '{"verdict": "v", "words": {"sees": 3, "trusted": [4]}, "silos": [1, {}, {"statement": 3, "rounds": []}]}'
    ),
    "checkpoints that are a pipe": lambda run: (
        (run / "log").mkdir(),
        (run / "log" / "entries.jsonl").write_text("x\n"),
        os.mkfifo(run / "log" / "checkpoints.txt"),
    ),
    "an empty log": lambda run: ((run / "log").mkdir(), (run / "log" / "entries.jsonl").write_text("")),
    "a log of something else": lambda run: (
        (run / "log").mkdir(),
        (run / "log" / "entries.jsonl").write_text("x\n" * 9),
    ),
    "approvals that are none": lambda run: (run / "approvals.jsonl").write_text('x\n{"body": 1}\n\n'),
    "a roster that is none": lambda run: (
        (run / "log").mkdir(),
        (run / "log" / "entries.jsonl").write_text("x\n"),
        (run / "roster.json").write_text("{}"),
    ),
}


@pytest.mark.parametrize("what", DAMAGE)
def test_a_file_that_is_torn_huge_missing_or_another_is_said_and_no_more(tmp_path: Path, what: str) -> None:
    run = leave_run(tmp_path / "runs" / "7", rounds=0)
    leave_run(tmp_path / "runs" / "8", rounds=0)
    DAMAGE[what](run)
    user = watched(tmp_path / "runs")
    before = {name: told for name, told in snapshot(tmp_path).items() if "passwd" not in name}
    pages = pages_of(user)
    assert {answer.status for answer in user.seen} <= {200, 303}
    for page in pages.values():
        safe(page)
        assert "root:" not in page
        assert "linked-zz" not in page
        assert "Traceback" not in page
    assert snapshot(tmp_path) == before


def test_a_page_is_found_by_listing_and_not_by_what_is_asked_for(tmp_path: Path) -> None:
    leave_run(tmp_path / "runs" / "7", rounds=0)
    leave_run(tmp_path / "outside", rounds=0)
    (tmp_path / "runs" / "link").symlink_to(tmp_path / "outside")
    user = watched(tmp_path / "runs")
    assert len(pages_of(user)) == 2
    for key in ("7", "..", "link", "../outside", "%2e%2e%2foutside", "7\0", "x" * 10_000, "/", ".", "~", "*"):
        assert user.ask(f"/run/{key}").status == 404, key


def test_a_folder_that_goes_away_leaves_pages_that_say_so(tmp_path: Path) -> None:
    run = leave_run(tmp_path / "runs" / "7", rounds=0)
    user = watched(tmp_path / "runs")
    (link,) = [path for path in pages_of(user) if path != "/"]
    for path in run.iterdir():
        path.unlink()
    assert user.ask(link).status == 404
    assert "There is no run yet." in user.ask("/").text


def test_a_journal_too_long_to_be_read_is_read_at_both_ends(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    lines = [{"event": "start", "rounds": 5000, "silos": ["a"]}]
    lines += [{"event": "round", "round": place, "pad": "x" * 500} for place in range(1, 5001)]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines) + '{"event": "round", "round": 5001')
    found = read_journal(path, 400_000)
    assert found.cut
    assert (found.planned, found.silos, found.bad) == (5000, ("a",), 0)
    rounds = [event["round"] for event in found.rounds]
    assert (rounds[0], rounds[-1]) == (1, 5000)
    assert 100 < len(rounds) < 1000
    assert read_journal(path).rounds[-1]["round"] == 5000


def test_a_resumed_run_counts_the_later_line_of_a_round(tmp_path: Path) -> None:
    lines = [{"event": "round", "round": 1, "evaluate": {"loss": loss}} for loss in (3.0, 2.0)]
    (tmp_path / "j").write_text(
        "".join(json.dumps(line) + "\n" for line in [*lines[:1], {"event": "resume"}, lines[1]])
    )
    found = read_journal(tmp_path / "j")
    assert [event["evaluate"]["loss"] for event in found.rounds] == [2.0]
    assert found.resumed == 1


@given(st.binary(max_size=300))
@example(b'{"event": "round", "round": 1, "failed": [{"silo": 1}]}\n')
def test_whatever_a_journal_holds_it_is_read(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "any-journal"
    path.write_bytes(data)
    found = read_journal(path)
    assert isinstance(found, Journal)
    refusals(found, names=True)
    lines, cut = lines_of(path)
    assert not cut
    assert b"\n".join(lines) == data[: max(0, data.rfind(b"\n"))] or not lines
    assert refused_in(path) == []


@given(st.text(), st.integers(1, 50))
@example(RTL * 3, 2)
def test_a_text_is_shown_on_one_line_bounded_and_with_nothing_hidden(text: str, limit: int) -> None:
    found = visible(text, limit)
    assert all(letter.isprintable() or letter == "\xa0" for letter in found)
    assert len(found) <= 10 * limit + 1
    assert found.endswith("\u2026") or len(text) <= limit
    if text.isprintable() and text.isascii() and len(text) <= limit:
        assert found == text


def test_a_name_of_a_megabyte_is_bounded_before_anything_looks_at_it() -> None:
    assert len(visible(RTL * 1_000_000)) <= 10 * NAME + 1
