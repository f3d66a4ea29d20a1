"""A page is there whole, or the one before it is."""

from __future__ import annotations

from pathlib import Path

import pytest

from quire.simulation import page
from quire.simulation.page import write_page
from quire.simulation.report_data import ReportError


def test_a_page_is_replaced_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = write_page(tmp_path / "report.html", "the page before")
    assert target.stat().st_mode & 0o777 == 0o644

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(page.os, "replace", full)
    with pytest.raises(ReportError, match=r"report\.html cannot be written: No space left on device\."):
        write_page(target, "the page after")
    assert target.read_text(encoding="utf-8") == "the page before"
    assert not list(tmp_path.glob(".report-*"))
