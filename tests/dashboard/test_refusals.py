"""A silo's refusals in words, out of a log that two write."""

from __future__ import annotations

from pathlib import Path

import pytest

from quire.clients.contract import WORDS, Code
from quire.dashboard.refusals import by_code, refused_in, shown


def found_in(folder: Path, *lines: str) -> list[tuple[str, str, str, str]]:
    (folder / "gate.log").write_text("".join(f"{line}\n" for line in lines))
    return [(one.time[11:], one.stage, one.code, str(one.words)) for one in refused_in(folder / "gate.log")]


def test_words_are_taken_from_the_code_and_the_time_from_the_gate(tmp_path: Path) -> None:
    assert found_in(
        tmp_path,
        "evaluate answered with POLICY_REFUSED: policy.modes (silo.yaml, line 9) allows record alone.",
        "Traceback (most recent call last):",
        "2026-01-31 12:00:01,123 gate INFO: Answered evaluate with POLICY_REFUSED",
        "2026-01-31 12:00:02,123 gate ERROR: Answered with CODE_REFUSED: nobody has approved it",
        "2026-01-31 12:00:02,124 gate INFO: Answered train with CODE_REFUSED",
        "2026-01-31 12:00:03,123 gate INFO: Answered train with CONTENT",
    ) == [
        ("12:00:02", "train", "code_refused", "nobody has approved it"),
        ("12:00:01", "evaluate", "policy_refused", "policy.modes (silo.yaml, line 9) allows record alone."),
    ]


def test_where_there_are_no_words_the_fixed_ones_of_the_code_stand(tmp_path: Path) -> None:
    told = found_in(tmp_path, "2026-01-31 12:00:01,123 gate INFO: Answered train with BUDGET_REFUSED")
    assert told == [("12:00:01", "train", "budget_refused", WORDS[Code.BUDGET_REFUSED])]


def test_words_of_another_refusal_are_not_taken_for_this_ones(tmp_path: Path) -> None:
    told = found_in(
        tmp_path,
        "train answered with POLICY_REFUSED: mine.",
        "2026-01-31 12:00:01,123 gate INFO: Answered train with BUDGET_REFUSED",
    )
    assert [row[2:] for row in told] == [("budget_refused", WORDS[Code.BUDGET_REFUSED])]


@pytest.mark.parametrize(
    "line",
    [
        "2026-01-31 12:00:01,123 gate INFO: Answered train with NOTHING_KNOWN",
        "2026-01-31 12:00:01,123 gate INFO: Answered <b> with BUDGET_REFUSED",
        "train answered with A_WORD: x",
        " train answered with BUDGET_REFUSED: x",
        "2026-01-31 12:00:01,123 gate INFO: Admitted by x",
    ],
)
def test_any_other_line_is_passed_over(tmp_path: Path, line: str) -> None:
    assert found_in(tmp_path, line) == []


def test_a_log_that_is_missing_or_torn_tells_of_nothing_more(tmp_path: Path) -> None:
    assert refused_in(tmp_path / "gate.log") == []
    (tmp_path / "gate.log").write_text("train answered with BUDGET_REFUSED: torn")
    assert refused_in(tmp_path / "gate.log") == []


def test_many_are_counted_and_the_latest_shown(tmp_path: Path) -> None:
    lines = [f"2026-01-31 12:00:{place % 60:02},123 gate INFO: Answered train with REJECTED" for place in range(70)]
    (tmp_path / "gate.log").write_text("".join(f"{line}\n" for line in lines))
    rows, more = shown(refused_in(tmp_path / "gate.log"))
    assert (len(rows), more) == (50, 20)
    assert by_code(refused_in(tmp_path / "gate.log")) == [("rejected", WORDS[Code.REJECTED], 70)]
