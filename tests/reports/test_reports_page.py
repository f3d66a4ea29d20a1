"""docs/reports.md shows what is really written: its excerpt, its words, its questions and its tables."""

from __future__ import annotations

import re

import pytest
from pages import ROOT, blocks
from report_runs import DAY, deployed, read

from quire.reports.details import MAX_LISTED, MAX_TEXT, Details
from quire.reports.document import Standing
from quire.reports.dpia import dpia
from quire.reports.markdown import markdown
from quire.reports.risks import EPSILONS

PAGE = "reports.md"
TEXT = (ROOT / "docs" / PAGE).read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def document(tmp_path_factory):
    run, inputs = read(deployed(tmp_path_factory.mktemp("deployed")))
    return dpia(run, None, Details(), None, inputs, DAY)


def test_the_excerpt_is_what_is_written(document):
    (excerpt,) = [text for language, _, text in blocks(PAGE) if language == "markdown"]
    written = iter(markdown(document).splitlines())
    for line in excerpt.splitlines():
        assert line in written, line  # in this order


def test_every_word_is_explained():
    assert re.findall(r"^\| `([a-z ]+)` \|", TEXT, re.MULTILINE) == [standing.value for standing in Standing]


def test_the_table_of_epsilons_is_the_one_of_the_code(document):
    rows = re.findall(r"^\| up to (\d+) \| (\w+) \|$", TEXT, re.MULTILINE)
    assert [(float(most), word.capitalize()) for most, word in rows] == list(EPSILONS)
    assert len(document.sections[5].items) == 13
    assert "Thirteen risks" in TEXT
    assert f"at most {MAX_TEXT} characters, or a list of at most {MAX_LISTED}." in TEXT
