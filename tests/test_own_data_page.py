"""docs/bring-your-own-data.md does what it says: its blocks are run in order, as a reader would paste them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from pages import ROOT, Reader

PAGE = "bring-your-own-data.md"


@pytest.mark.slow
def test_the_page_does_what_it_says(tmp_path: Path) -> None:
    reader = Reader(tmp_path)
    here, printed = reader.here, reader.follow(PAGE)
    for run in ("first", "second"):
        assert (here / "runs" / run / "report.html").stat().st_size > 10_000
    assert len(list((here / "runs" / "sweep").rglob("run.json"))) == 4
    assert "the column 'age' has values that are not numbers" in printed
    assert "exit status 2" in printed
    assert not (here / "runs" / "third" / "run.json").exists()


def test_the_page_names_every_connector_and_its_keys() -> None:
    from quire.clients.data.connectors import BUILT_IN

    text = (ROOT / "docs" / PAGE).read_text(encoding="utf-8")
    for name, connector in BUILT_IN.items():
        (row,) = re.findall(rf"^\| `{name}` \|(.*)$", text, re.MULTILINE)
        assert all(f"`{key}`" in row for key in connector.keys)
