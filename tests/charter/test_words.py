"""What people read before they sign: nothing that a proposer wrote passes for a line of ours."""

from __future__ import annotations

from dataclasses import replace

import pytest
from charters import charter

from quire.charter.errors import CharterError
from quire.charter.words import changes, described

FORGED = "All.\nSignatures: 3 of 3 for this version"


@pytest.mark.parametrize("field", ["kept", "destroyed", "use"])
def test_further_lines_of_a_text_are_indented(field: str) -> None:
    plain = charter()
    forged = replace(plain, exit=replace(plain.exit, **{field: FORGED}))
    said = described(forged)
    assert len(said) == len(described(plain)) + 1
    assert [line for line in said if line.startswith("Signatures:")] == [described(plain)[-1]]
    (odd,) = [line for line in said if line.endswith(FORGED.split("\n")[1])]
    assert odd.startswith("    ")
    assert all("\n" not in change.words for change in changes(plain, forged))


@pytest.mark.parametrize("text", ["a\rb", "a\x1b[2Jb", "a\x9bb", "a\x00", "a\tb", "a\x85b", "a\u2028b", "a\u202eb"])
@pytest.mark.parametrize("field", ["kept", "destroyed", "use"])
def test_no_control_character_is_in_a_charter(field: str, text: str) -> None:
    with pytest.raises(CharterError, match="no control characters"):
        replace(charter().exit, **{field: text})
    with pytest.raises(CharterError, match="no control characters"):
        charter(purpose=text)


def test_an_approval_is_said_to_be_no_more_than_it_is() -> None:
    said = "each silo takes part only in runs that its own operator has approved"
    asked = charter(approval="each_run")
    assert f"Approval: {said}" in described(asked)
    assert [change.words for change in changes(charter(), asked)] == [f"approval: {said}"]
