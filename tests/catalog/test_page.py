"""docs/catalog.md does what it says and shows what is printed, but for keys, days and noise."""

from __future__ import annotations

import random
import re
import shlex
import time
from pathlib import Path

import pytest
from command_line import Call
from pages import blocks

_KEY, _DAY, _NOISY = (
    r"\b[0-9a-f]{16}(?:[0-9a-f]{48})?\b",
    r"\b\d{4}-\d\d-\d\d\b",
    r"about [\d,]+ rows|with [\d,]+ rows in all",
)


def still(text: str) -> str:
    """Return a text without what differs from one reader to the next."""
    for pattern, word in ((_KEY, "KEY"), (_DAY, "DAY"), (_NOISY, "NOISY")):
        text = re.sub(pattern, word, text)
    return text


def test_the_page_does_and_shows_what_it_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, quire: Call) -> None:
    monkeypatch.chdir(tmp_path)
    printed, compared = "", 0
    for language, file, text in blocks("catalog.md"):
        if language == "yaml":
            Path(file).write_text(text, encoding="utf-8")
        elif language == "python":
            exec(compile(text, "catalog.md", "exec"), {"random": random})
        elif language == "sh":
            printed = ""
            for line in text.splitlines():
                _, *args = shlex.split(line)
                if args[:2] == ["catalog", "offer"]:  # a reader does not make two offers in one second
                    time.sleep(1 - time.time() % 1)
                status, out, err = quire(*args)
                assert (status, err) == (0, ""), line
                printed += out
        else:
            assert language == "text"
            assert still(printed) == still(text)
            compared += 1
    assert compared == 6
    assert {path.name for path in (tmp_path / "partners").iterdir()} == {"clinic-1.offer.json", "clinic-2.offer.json"}
