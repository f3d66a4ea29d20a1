"""What others write into a run folder: escaped, made visible, bounded; torn, huge, odd files become sentences."""

from __future__ import annotations

import json
import os
import re
import shutil
from html.parser import HTMLParser

import pytest
from hypothesis import given
from hypothesis import strategies as st
from private_runs import journal, rewrite
from report_runs import DAY, deployed, read

from quire.reports import inputs as inputs_of
from quire.reports.audit import audit
from quire.reports.details import Details, read_details
from quire.reports.document import Standing
from quire.reports.dpia import dpia
from quire.reports.journal import read_journal
from quire.reports.markdown import escaped, markdown
from quire.reports.page import page

HOSTILE = [
    "<script>alert('zz')</script>",
    "\"><img src=x onerror=alert('zz')>",
    "{{ 7 * 7 }}{% raw %}",
    "</style><style>*{display:none}",
    "<!--",
    "abc\u202egpj.exe\u2066\u200b",
    "a\x00b\x1b[31mred\r\nSet-Cookie: x=1",
    "Z" + "\u0300" * 500,
    "\ud800 lone",
    "| a | b |\n| --- | --- |",
    "# heading\n## 1. Fake section",
    "[click](https://evil.example)![x](https://evil.example/x.png)",
    "x" * 1_000_000,
]
TAGS = {
    *("html", "head", "meta", "title", "style", "body", "main", "div", "b", "span", "h1", "h2", "h3", "p", "strong"),
    *("section", "ol", "li", "dl", "dt", "dd", "table", "thead", "tbody", "tr", "th", "td", "footer"),
}


class Tags(HTMLParser):
    """The tags and attributes of a page."""

    def __init__(self, text):
        super().__init__(convert_charrefs=True)
        self.tags, self.attributes = set(), set()
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    return deployed(tmp_path_factory.mktemp("deployed"))


@pytest.fixture
def place(original, tmp_path):
    return shutil.copytree(original, tmp_path / "place")


def documents(place, details=None):
    run, inputs = read(place)
    return [
        dpia(run, None, details or Details(), None, inputs, DAY),
        audit([run], None, [], inputs, DAY),
    ]


def check(text):
    """Hold a page to what the template writes, and nothing else."""
    found = Tags(text)
    assert found.tags <= TAGS
    assert not {name for name in found.attributes if name.startswith("on")} | (found.attributes & {"href", "src"})
    assert len(text) < 1_000_000
    assert not re.search("[\u202a-\u202e\u2066-\u2069\u200b\x00\x1b]", text)


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_texts_are_shown_and_do_nothing(place, text):
    card_file, about_file = place / "run" / "privacy_card.json", place / "run" / "run.json"
    lines = journal(place / "run")
    lines[0]["silos"] = [text, *lines[0]["silos"]]
    lines[1]["failed"] = [{"silo": text, "stage": text, "code": text, "words": text}]
    rewrite(place / "run", lines)
    card = json.loads(card_file.read_text())
    card["verdict"] = card["coverage"] = text
    card["silos"][0]["statement"].update(silo=text, unit=text, clip=text)
    card["silos"][0]["signer"] = text
    card_file.write_text(json.dumps(card))
    about = json.loads(about_file.read_text())
    about.update(status=text, error=text, started=text, versions={text: text}, runtime="deployment")
    about_file.write_text(json.dumps(about))
    for document in documents(place, Details({"controller": (text,), "dpo": (text, text)})):
        assert document.failed
        check(page(document))
        shown = markdown(document)
        assert not re.search(r"(?m)^#+ (?:heading|1\. Fake)|(?<!\\)<(?:script|img|style|!)|(?<!\\)\]\(http", shown)
        assert len(shown) < 1_000_000


def test_the_page_needs_nothing_and_runs_nothing(original):
    for document in documents(original):
        text = page(document)
        check(text)
        (policy,) = re.findall(r'http-equiv="Content-Security-Policy" content="([^"]*)"', text)
        assert re.fullmatch(
            r"default-src 'none'; style-src 'sha256-[\w+/]+=*'; base-uri 'none'; form-action 'none'", policy
        )
        assert not re.search(r"https?://|url\(|@import", text)
        assert "@media print" in text


def test_the_style_is_the_one_that_the_policy_names(original):
    import base64
    import hashlib

    text = page(documents(original)[0])
    (style,) = re.findall(r"<style>(.*?)</style>", text, re.DOTALL)
    assert base64.b64encode(hashlib.sha256(style.encode()).digest()).decode() in text


def _pipe(path):
    path.unlink()
    os.mkfifo(path)


def _link(path):
    shutil.move(path, path.with_name("elsewhere"))
    path.symlink_to("elsewhere")


def _folder(path):
    path.unlink()
    path.mkdir()


@pytest.mark.parametrize("spoil", [_pipe, _link, _folder])
@pytest.mark.parametrize("name", ["run.json", "log/entries.jsonl"])
def test_what_is_no_file_is_not_opened(place, spoil, name):
    spoil(place / "run" / name)
    for document in documents(place):
        assert document.failed
        text = page(document)
        assert f"{name} is not a file." in text or f"{name} cannot be read" in text
        assert str(place) not in text


@pytest.mark.parametrize("name", ["run.json", "metrics.jsonl", "privacy_card.json", "settings.yaml"])
@pytest.mark.parametrize(
    "content",
    [
        *(b"", b"{", b"\xff\xfe", b"[" * 100_000, b"- " * 2_000),
        *(b"!!bool maybe", b"a: !!timestamp then", b"a: 2026-99-99", b'a: !!int ""'),
    ],
)
def test_torn_and_foreign_files_become_sentences(place, name, content):
    (place / "run" / name).write_bytes(content)
    for document in documents(place):
        assert document.failed
        check(page(document))
        assert markdown(document)


@pytest.mark.parametrize("told", [-1e10, 1e10, -0.0, "inf", "-inf", True, [1]])
def test_odd_numbers_of_a_card_become_sentences(place, told):
    file = place / "run" / "privacy_card.json"
    card = json.loads(file.read_text())
    card["worst"]["rdp"] = card["silos"][0]["statement"]["delta"] = told
    file.write_text(json.dumps(card))
    for document in documents(place):
        assert document.failed
        check(page(document))


@pytest.mark.parametrize("told", [".inf", "-.inf", ".nan", "1.0e+300", "[1]"])
def test_odd_numbers_of_colluders_become_sentences(place, told):
    file = place / "run" / "settings.yaml"
    text = re.sub(
        r"(?m)^aggregation:\n  name: plain$", f"aggregation:\n  name: secure\n  colluders: {told}", file.read_text()
    )
    assert told in text
    file.write_text(text)
    for document in documents(place):
        assert document.failed
        check(page(document))


def test_a_file_that_is_too_large_becomes_a_sentence(place, monkeypatch):
    monkeypatch.setitem(inputs_of.RUN_FILES, "metrics.jsonl", 1000)
    for document in documents(place):
        assert document.failed
        assert "metrics.jsonl has more than 1000 bytes" in page(document)


def test_settings_with_an_alias_are_not_walked_through(place):
    levels = ["a0: &a0 [x, x]"] + [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 12)]
    (place / "run" / "settings.yaml").write_text("\n".join([*levels, "overrides: *a11"]))
    for document in documents(place):
        assert document.failed
        assert "settings.yaml has an alias" in page(document)


def test_transcripts_are_hashed_as_one_and_have_to_be_files(place):
    folder = place / "run" / "transcripts"
    folder.mkdir()
    (folder / "round-0001-1.bin").write_bytes(b"x")
    _, inputs = read(place)
    (one,) = [one for one in inputs.found if one.name.startswith("transcripts")]
    assert (one.size, one.trouble) == (1, None)
    os.mkfifo(folder / "round-0002-1.bin")
    run, _ = read(place)
    assert run.checks["files"].standing is Standing.FAILED


@given(st.text())
def test_markdown_of_a_text_has_no_mark_of_its_own(text):
    shown = escaped(text)
    assert "\n" not in shown
    assert not re.search(r"(?<!\\)(?:\\\\)*[`*_{}\[\]<>|#~$@!]", shown)
    assert not re.match(r"\s*(?:[-+=:]|\d+[.)])", shown)
    assert "://" not in shown


@given(st.lists(st.binary(max_size=200) | st.just(b'{"event": "round", "round": 1, "cohort": 5}'), max_size=8))
def test_any_journal_can_be_read(tmp_path_factory, lines):
    file = tmp_path_factory.getbasetemp() / "any.jsonl"
    file.write_bytes(b"\n".join(lines))
    found = read_journal(file)
    assert found.there
    assert len(found.rounds) <= len(lines)


@given(st.binary(max_size=300))
def test_any_answers_are_read_or_refused_in_a_sentence(tmp_path_factory, data):
    from quire.reports.errors import ReportInput

    file = tmp_path_factory.getbasetemp() / "any.yaml"
    file.write_bytes(data)
    try:
        assert isinstance(read_details(file), Details)
    except ReportInput as error:
        told = str(error)
    else:
        told = ""
    assert "\n" not in told
