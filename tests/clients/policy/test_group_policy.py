"""Policies and groups of silos: limits on a cohort are counted in each group, by `quire silo check` and by the silo."""

from __future__ import annotations

from pathlib import Path

import pytest
from group_silos import GROUPED, NAMES
from real_silo import code_of
from secure_place import Place
from typer.testing import CliRunner

from quire.cli import app
from quire.clients import contract
from quire.conf.compose import compose
from quire.errors import SettingsError

ONE_SUM = "modes: [none], aggregation: [secure], code: [], test_seed: true, "
POLICY = f"{ONE_SUM}groups: 3, "
FITS = "min_cohort: 3, colluders: 0"
#: What an operator lays down, and what is said to it.
REFUSED = {
    "min_cohort: 4, colluders: 0": (
        "policy.min_cohort (silo.yaml, line 5) is 4, and an update could be merged among 3 silos, as aggregation."
        "groups=3 counts strategy.min_silos in each group: set strategy.min_silos=4, with groups that are large enough"
    ),
    "min_cohort: 3, colluders: 1": (
        "policy.colluders (silo.yaml, line 5) is 1, and each of aggregation.groups=3 is to be safe from 0 that side "
        "with the server: set aggregation.colluders=1"
    ),
    "min_cohort: 3": "policy.colluders (silo.yaml, its default) is 1, and each of aggregation.groups=3 is to be safe",
    "colluders: 0": "policy.min_cohort (silo.yaml, its default) is 4, and an update could be merged among 3 silos",
}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    return Place(tmp_path_factory.mktemp("silos"), GROUPED, POLICY + FITS, silos=len(NAMES))


def write(place: Place, limits: str, policy: str = POLICY) -> Path:
    file = place.files["hospital-1"]
    kept = [line for line in file.read_text().splitlines() if not line.startswith("policy:")]
    file.write_text("\n".join([*kept, f"policy: {{{policy}{limits}}}\n"]))
    return file


def check(file: Path, overrides: str, monkeypatch: pytest.MonkeyPatch) -> tuple[int, str]:
    monkeypatch.setenv("COLUMNS", "400")
    done = CliRunner().invoke(app, ["silo", "check", str(file), *overrides.split()])
    return done.exit_code, " ".join(done.output.split())


def test_a_policy_that_fits_the_groups_takes_part(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    status, text = check(write(place, FITS), GROUPED, monkeypatch)
    assert (status, "Accepted: this silo would take part." in text) == (0, True), text
    assert "secure, in 3 groups that are summed apart" in text


@pytest.mark.parametrize(
    ("policy", "words"),
    [
        (
            ONE_SUM,
            "policy.groups (silo.yaml, its default) has no 'groups', and aggregation.groups=3 sums silos in that",
        ),
        (
            f"{ONE_SUM}groups: 4, ",
            "policy.groups (silo.yaml, line 5) says groups: 4, and aggregation.groups=3 sums silos",
        ),
    ],
)
def test_a_silo_is_summed_in_no_other_number_of_groups_than_its_policy_names(
    place: Place, policy: str, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who is grouped with whom depends on the number: the sums of runs in several would be equations for updates."""
    file = write(place, FITS, policy)
    status, text = check(file, GROUPED, monkeypatch)
    assert (status, words in text) == (1, True), text
    assert code_of(place.ask(contract.OPEN, GROUPED)) == "POLICY_REFUSED"
    one_sum = GROUPED.replace("aggregation.groups=3 ", "").replace("aggregation.colluders=0", "aggregation.colluders=1")
    assert "aggregation.groups" not in one_sum
    assert check(file, one_sum, monkeypatch)[0] == 0


@pytest.mark.parametrize("groups", ["2", "601", "three", "true"])
def test_a_number_of_groups_that_is_none_is_refused_where_it_stands(place: Place, groups: str) -> None:
    file = write(place, FITS, f"{ONE_SUM}groups: {groups}, ")
    done = CliRunner().invoke(app, ["silo", "check", str(file), *GROUPED.split()])
    assert done.exit_code == 1
    assert "must be a whole number from 3 to 600" in str(done.exception)


@pytest.mark.parametrize("limits", REFUSED)
def test_a_policy_that_asks_for_more_is_not_met_by_groups_of_three(
    place: Place, limits: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    file = write(place, limits)
    status, text = check(file, GROUPED, monkeypatch)
    assert (status, "Refused: this silo would not take part." in text) == (1, True), text
    assert REFUSED[limits] in text
    for stage in (contract.OPEN, contract.SHARES):
        assert code_of(place.ask(stage, GROUPED)) == "POLICY_REFUSED"
    assert REFUSED[limits] in caplog.text
    assert "Traceback" not in caplog.text + text


def test_what_the_advice_says_can_be_set_or_is_refused_in_words(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    file = write(place, "min_cohort: 3, colluders: 1")
    status, text = check(file, GROUPED.replace("colluders=0", "colluders=1"), monkeypatch)
    assert (status, "Accepted: this silo would take part." in text) == (0, True), text
    with pytest.raises(SettingsError, match="leaves 3 of 9 silos in the smallest group, and it takes 4 with strategy"):
        compose(GROUPED.replace("min_silos=3", "min_silos=4"))
