"""Silos that send what they should not, in groups: what one sum does not survive, most groups do."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from giant_silos import adds, backwards, giant
from secure_runs import rounds_of
from typer.testing import CliRunner

import quire
from quire.cli import app
from quire.errors import RunFailed
from quire.simulation import secure_section
from quire.simulation.participation import _in_vain
from quire.simulation.report import write_report
from quire.simulation.report_data import read_run
from quire.simulation.verify import examine_run
from quire.simulation.verify_transcripts import audit_run
from tests.simulation.test_report import page_of

QUIET = "output.report=false output.baselines=false"
PAGE = (Path(__file__).resolve().parents[2] / "docs" / "robust-aggregation.md").read_text(encoding="utf-8")
NINE = f"task=digits partition=iid partition.silos=9 aggregation=secure aggregation.norm_bound=0.5 {QUIET}"
GROUPED = f"{NINE} aggregation.groups=3 aggregation.colluders=0"


def groups(line: dict[str, Any]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = line["secure"].get("groups", [])
    return found


def test_who_is_below_the_alarm_ruins_one_sum_and_not_the_median_of_groups_as_the_page_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = PAGE.partition("## Groups of silos")[2]
    command = next(text for text in page.splitlines() if text.startswith("quire run"))
    grouped = f"{command.removeprefix('quire run ')} {QUIET} aggregation.simulate=exact_sum"
    one = grouped.replace("aggregation.groups=3 aggregation.colluders=0 ", "")
    found = []
    for name, overrides, others in (("honest", grouped, 0), ("grouped", grouped, 2), ("one", one, 8)):
        with monkeypatch.context() as patch:
            if others:
                adds(patch, "site-5", backwards(others), (1, 2, 3, 4, 5))
            quire.run(overrides, tmp_path / name)
        lines = rounds_of(tmp_path / name)
        assert all("lost" not in line for line in lines)
        assert all("rejected" not in told for line in lines for told in (line["secure"], *groups(line)))  # no alarm
        found.append(f"{lines[-1]['evaluate']['accuracy']:.2f}")
    assert re.findall(r"accuracy\s(0\.\d\d)", page) == found


@pytest.fixture(scope="module")
def alarmed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One silo of group 2 adds an eighth of the ring in the second round of three."""
    folder = tmp_path_factory.mktemp("runs") / "run"
    with pytest.MonkeyPatch.context() as patch:
        adds(patch, "site-5", giant, (2,))
        quire.run(f"{GROUPED} strategy.rounds=3 output.transcripts=true", folder)
    return folder


def test_an_alarm_costs_a_group_and_not_the_round(alarmed: Path) -> None:
    first, second, third = rounds_of(alarmed)
    assert all("lost" not in line for line in (first, second, third))
    assert len({first["model"], second["model"], third["model"]}) == 3
    (told,) = (one for one in second["secure"]["groups"] if "reach" not in one)
    assert (told["group"], told["rejected"], len(told["silos"])) == (2, True, 3)
    assert told["why"].startswith("its sum was opened and rejected, because the sum is")
    assert "rejected" not in second["secure"]
    assert len(second["replied"]) == 9
    assert _in_vain(second, set(second["replied"])) == dict.fromkeys(
        ("site-2", "site-5", "site-8"), "trained, for a sum that was rejected"
    )


def test_the_report_names_the_group_and_no_silo(alarmed: Path) -> None:
    found = secure_section.section(read_run(alarmed))
    assert found is not None
    (sentence,) = found["without"]
    assert sentence.startswith("Round 2, group 2: its sum was opened and rejected, because the sum is")
    assert [(row["used"], row["rejected"], row["lost"]) for row in found["groups"]] == [(3, 0, 0), (2, 1, 0), (3, 0, 0)]
    assert [row["outcome"] for row in found["rounds"]].count("opened, rejected") == 1
    assert found["alarm"].rejected == ()


def test_the_report_says_what_the_server_sees_of_groups_and_what_is_trusted(alarmed: Path) -> None:
    write_report(alarmed)
    text = " ".join(page_of(alarmed).text("section").split())
    assert "The server sees 3 sums of updates for each round, one for each group of 3 silos and over at least 3" in text
    assert "none of the members of any one group sides with a lying server" in text
    assert (
        "For the model: no more than one of all silos sends anything but what Quire's code makes of its rows." in text
    )
    assert "Round 2, group 2: its sum was opened and rejected" in text


def test_the_impact_assessment_knows_of_groups(alarmed: Path) -> None:
    assert CliRunner().invoke(app, ["report", "dpia", str(alarmed)]).exit_code == 0
    text = " ".join((alarmed / "dpia.html").read_text(encoding="utf-8").split())
    assert "the server opened a sum for each of 3 groups of silos for each round" in text
    assert "Up to 0 of the members of any one of 3 groups may side with a lying server" in text
    assert "Silos are summed in 3 groups, of whose means no coordinate goes further than good groups do" in text
    assert "No update is clipped" not in text


def test_its_transcripts_show_the_alarm_again(alarmed: Path) -> None:
    assert audit_run(alarmed).wrong == []
    assert examine_run(alarmed).wrong == []


def test_more_bad_groups_than_there_may_be_lose_the_round(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for silo in ("site-1", "site-2"):
        adds(monkeypatch, silo, giant, (2, 3))
    quire.run(f"{GROUPED} strategy.rounds=3 aggregation.simulate=exact_sum", tmp_path / "run")
    first, second, third = rounds_of(tmp_path / "run")
    assert first["model"] == second["model"] == third["model"]
    assert second["lost"].startswith(
        "the sums of 2 groups are none of honest silos, so that more than the 1 of aggregation.byzantine send what"
    )
    assert examine_run(tmp_path / "run").wrong == []


def test_if_that_goes_on_the_run_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for silo in ("site-1", "site-2"):
        adds(monkeypatch, silo, giant, (2, 3, 4))
    with pytest.raises(RunFailed, match=r"^Round 4 failed: the sums of 2 groups .*; 3 rounds in a row were lost"):
        quire.run(f"{GROUPED} strategy.rounds=6 aggregation.simulate=exact_sum", tmp_path / "run")
