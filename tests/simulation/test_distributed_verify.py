"""`quire verify` on distributed noise: whatever is changed in the folder of a run, it says so."""

from __future__ import annotations

import base64
import copy
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from shared_runs import RECORD, SILO, card_of

import quire
from quire.conf.compose import compose
from quire.privacy.receipts import FORMAT, SHARED, SHARED_FORMAT, Receipt, simulated_identity
from quire.simulation.verify import verify_run
from quire.strategies.card import write_card
from tests.support.private_runs import changed, leaves, put

SEED = compose(RECORD).seed


@pytest.fixture(scope="module", params=[RECORD, SILO], ids=["record", "silo"])
def original(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "run"
    quire.run(f"{request.param} strategy.rounds=2 runtime.faults=[drop:mask:2:hospital-5]", folder)
    return folder


@pytest.fixture
def run(original: Path, tmp_path: Path) -> Path:
    return shutil.copytree(original, tmp_path / "run")


def wrong(run: Path) -> str:
    return "\n".join(verify_run(run).wrong)


def journal(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def rewritten(run: Path, lines: list[dict[str, Any]]) -> str:
    """What is found once the journal is another, and the card made to suit it, as its forger would."""
    (run / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    write_card(run)
    return wrong(run)


def test_an_honest_run_verifies(run: Path) -> None:
    assert wrong(run) == ""


def test_every_number_of_the_noise_in_the_card_changed_once_is_found(run: Path) -> None:
    genuine = card_of(run)
    places = [(path, value) for path, value in leaves(genuine) if "distributed" in path or "if_alone" in path]
    assert len(places) > 30
    for path, value in places:
        card = copy.deepcopy(genuine)
        put(card, path, changed(value))
        (run / "privacy_card.json").write_text(json.dumps(card))
        assert "The card:" in wrong(run), path


def test_every_number_of_the_noise_in_the_journal_changed_once_is_found(run: Path) -> None:
    genuine = journal(run)
    places = [(path, value) for path, value in leaves(genuine[0]["distributed"]) if value is not None]
    assert len(places) > 25
    for path, value in places:
        lines = copy.deepcopy(genuine)
        put(lines[0]["distributed"], path, changed(value))
        assert rewritten(run, lines), path


@pytest.mark.parametrize("name", ["probes", "probe_statistic", "probe_p", "probe_alarm"])
def test_every_number_of_the_probes_changed_once_is_found(name: str, run: Path) -> None:
    lines = journal(run)
    place = next(line for line in lines if line["event"] == "round")
    place["released"][name] = place["released"][name] * 1.5 + 1.0
    assert "noise probes" in rewritten(run, lines)
    del place["released"][name]
    assert "noise probes" in rewritten(run, lines)


@pytest.mark.parametrize("what", [None, [], "x", {"noise": {}, "encoding": {}, "forecast": {}}])
def test_numbers_that_are_none_are_refused_in_words(what: Any, run: Path) -> None:
    lines = journal(run)
    lines[0]["distributed"] = what
    assert rewritten(run, lines)
    del lines[0]["distributed"]
    assert rewritten(run, lines)


def test_a_model_of_another_size_is_found(run: Path) -> None:
    lines = journal(run)
    lines[0]["parameters"] = 32
    assert "number of parameters is not that of the model" in rewritten(run, lines)


def test_probes_that_show_too_little_noise_cannot_be_left_out_of_the_card(run: Path) -> None:
    from quire.privacy.dp.probes import p_value

    lines = journal(run)
    for line in lines:
        if line["event"] == "round":
            count = int(line["released"]["probes"])
            line["released"] |= {"probe_statistic": 0.5 * count, "probe_p": p_value(count, 0.5 * count)}
    assert "the alarm of the noise probes does not follow" in rewritten(run, lines)
    for line in lines:
        if line["event"] == "round":
            line["released"]["probe_alarm"] = 1.0
    assert rewritten(run, lines) == ""  # an honest account of a bad run
    assert card_of(run)["distributed"]["probes"]["too_little"] == 1
    assert "cannot be relied upon" in " ".join(card_of(run)["words"]["mechanism"])


def test_who_took_part_cannot_be_changed(run: Path) -> None:
    """Who was asked in vain is the server's word; whoever replied has signed for it, and was asked."""
    lines = journal(run)
    second = [line for line in lines if line["event"] == "round"][1]
    assert second["replied"] == ["hospital-1", "hospital-2", "hospital-3", "hospital-4"]
    second["cohort"].remove("hospital-4")
    assert "not those that replied or failed" in rewritten(run, lines)
    second["cohort"].append("hospital-4")
    second["replied"].append("hospital-5")
    assert "not those with a receipt" in rewritten(run, lines)


# ------------------------------------------------------------------------------------- what the silos have signed
def resigned(run: Path, change: dict[str, Any], silos: int = 5, without: tuple[str, ...] = ()) -> str:
    """What is found once silos have signed for other numbers in every round, which whoever knows the seed can do."""
    lines = journal(run)
    for line in lines:
        for silo, text in list(line.get("receipts", {}).items())[:silos]:
            body = {**Receipt.decode(base64.b64decode(text)).body, **change}
            for key in without:
                del body[key]
            receipt = Receipt.sign(body, simulated_identity(SEED, silo))
            line["receipts"][silo] = base64.b64encode(receipt.encode()).decode()
    return rewritten(run, lines)


def test_silos_sign_for_the_roster_the_colluders_and_the_survivors(run: Path) -> None:
    for line in journal(run):
        for text in line.get("receipts", {}).values():
            body = Receipt.decode(base64.b64decode(text)).body
            assert body["format"] == SHARED_FORMAT
            assert {key: body[key] for key in SHARED} == {"members": 5, "colluders": 1, "min_survivors": 4}
    assert resigned(run, {}) == ""  # the same once more


@pytest.mark.parametrize("silos", [1, 5])
@pytest.mark.parametrize("key", SHARED)
def test_a_receipt_that_is_signed_for_other_numbers_is_found(key: str, silos: int, run: Path) -> None:
    (place,) = {line["distributed"]["noise"][key] for line in journal(run) if line["event"] == "start"}
    found = resigned(run, {key: place + 1}, silos)
    assert f"the receipt's {key} is {place + 1}, not {place}." in found
    assert f"is signed for {key}={place + 1}, and the journal says {place}." in found  # so that there is no card


def test_no_journal_says_other_numbers_than_the_silos_have_signed(run: Path) -> None:
    """Whoever changes settings, journal and card alike is stopped by what the silos have signed."""
    lines = journal(run)
    lines[0]["distributed"]["noise"]["colluders"] = 0
    assert "is signed for colluders=1, and the journal says 0." in rewritten(run, lines)


def test_a_receipt_of_the_old_form_says_too_little(run: Path) -> None:
    found = resigned(run, {"format": FORMAT}, without=SHARED)
    assert f"the receipt's format is {FORMAT}, not {SHARED_FORMAT}." in found
    assert "the receipt's members is None, not 5." in found
