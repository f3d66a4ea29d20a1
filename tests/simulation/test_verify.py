"""`quire verify`: whatever is changed in a run folder, it says so; and nothing makes it fall over."""

from __future__ import annotations

import copy
import json
import shutil

import pytest

from quire.clients.arrays import fingerprint
from quire.errors import SettingsError
from quire.privacy.identity.keys import PrivateIdentity
from quire.privacy.receipts import Receipt
from quire.simulation.verify import verify_run
from quire.strategies.card import run_card, write_card
from quire.strategies.material import read_material
from tests.support.private_runs import (
    OVERRIDES,
    SILOS,
    Consortium,
    bodies,
    canonical,
    changed,
    forge,
    journal,
    leaves,
    model_of,
    put,
    rewrite,
    write_run,
)

CONSORTIUM = Consortium()


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    return write_run(tmp_path_factory.mktemp("runs") / "run", CONSORTIUM)


@pytest.fixture
def run(original, tmp_path):
    return shutil.copytree(original, tmp_path / "run")


def wrong(run, **options):
    return "\n".join(verify_run(run, **options).wrong)


def test_an_honest_run_verifies_and_says_whose_roster_it_trusted(run):
    found = verify_run(run)
    assert found.wrong == []
    assert found.notes[0].startswith("Every record has epsilon ")
    assert "at delta 1e-05" in found.notes[0]
    told = " ".join(found.notes)
    assert CONSORTIUM.signed.roster.hash in told
    assert "compare" in told


def test_a_card_reads_as_what_the_silos_did(run):
    card = json.loads((run / "privacy_card.json").read_text())
    assert card["standing"] == "stated"
    assert card["coverage"] == "It covers 4 of 4 planned rounds."
    for silo in card["silos"]:
        assert silo["statement"]["records"] == SILOS[silo["statement"]["silo"]]
        assert 2.9 < silo["figures"]["rdp"] <= 3.0
        assert silo["figures"]["pld"] < silo["figures"]["rdp"]
        assert silo["ledger"]["entries"] == 14
    assert card["worst"]["rdp"] == max(silo["figures"]["rdp"] for silo in card["silos"])


def test_every_field_of_the_card_tampered_once_is_found(run):
    genuine = json.loads((run / "privacy_card.json").read_text())
    for path, value in leaves(genuine):
        card = copy.deepcopy(genuine)
        put(card, path, changed(value))
        (run / "privacy_card.json").write_text(json.dumps(card))
        assert "The card:" in wrong(run), path
    for key in genuine:
        (run / "privacy_card.json").write_text(json.dumps({k: v for k, v in genuine.items() if k != key}))
        assert "The card:" in wrong(run), key
    (run / "privacy_card.json").write_text(json.dumps({**genuine, "more": 1}))
    assert "The card:" in wrong(run)


def test_every_field_of_a_receipt_tampered_once_is_found_even_if_the_card_is_made_to_fit(run):
    number, silo, document = next(bodies(run))
    for path, value in leaves(document):
        forged = copy.deepcopy(document)
        put(forged, path, changed(value))
        forge(run, number, silo, forged)
        write_card(run)
        assert wrong(run), path
        forge(run, number, silo, document)
    write_card(run)
    assert wrong(run) == ""


def test_card_and_events_changed_together_are_caught_by_the_signatures_alone(run):
    """Less noise than there was, in every receipt and so on the card: all figures fit, and nobody signed it."""
    easier = OVERRIDES.replace("epsilon=3", "epsilon=1")
    settings_text = (run / "settings.yaml").read_text()
    thief = Consortium({name: PrivateIdentity.from_seed(bytes(31) + bytes([i])) for i, name in enumerate(SILOS, 1)})
    for number, silo, document in list(bodies(run)):
        before = fingerprint(model_of(number - 1))
        forged = json.loads(thief.receipt(silo, number, before, easier))
        forged["signature"], forged["signer"] = document["signature"], document["signer"]
        forge(run, number, silo, forged)
    (run / "settings.yaml").write_text(
        settings_text.replace("epsilon=3", "epsilon=1").replace("epsilon: 3", "epsilon: 1")
    )
    assert write_card(run)
    found = verify_run(run).wrong
    assert len(found) == 12
    assert all("signature does not verify" in sentence for sentence in found)


def test_a_roster_that_was_replaced_is_caught_with_a_pin_or_the_real_roster_and_named_without(run, tmp_path):
    genuine = CONSORTIUM.signed
    thief = Consortium({name: PrivateIdentity.from_seed(bytes(31) + bytes([i])) for i, name in enumerate(SILOS, 1)})
    forged = write_run(tmp_path / "forged", thief)
    assert wrong(forged) == ""
    assert thief.signed.roster.hash in " ".join(verify_run(forged).notes)
    assert "the pin is" in wrong(forged, pin=genuine.roster.hash)
    real = tmp_path / "roster.json"
    real.write_bytes(genuine.encode())
    assert "signed by" in wrong(forged, roster=real)
    assert "not the given" in wrong(forged, roster=real)
    assert wrong(run, roster=real, pin=genuine.roster.hash) == ""
    shutil.copy(forged / "roster.json", run / "roster.json")
    write_card(run)
    assert "signed by" in wrong(run)


def test_a_roster_that_no_admin_signed_does_not_hold(run):
    unsigned = json.loads((run / "roster.json").read_text())
    unsigned["signatures"] = []
    (run / "roster.json").write_bytes(canonical(unsigned) + b"\n")
    assert "signed by 0 of its own admins" in wrong(run)
    (run / "roster.json").unlink()
    write_card(run)
    assert "No signature was checked" in wrong(run)


def test_a_receipt_that_was_removed_is_missed(run):
    lines = journal(run)
    del lines[2]["receipts"]["hospital-2"]
    rewrite(run, lines)
    write_card(run)
    assert "Round 2: the silos that replied are not those with a receipt" in wrong(run)
    lines[2]["replied"].remove("hospital-2")
    rewrite(run, lines)
    write_card(run)
    assert "Round 2: the silos that were asked are not those that replied or failed" in wrong(run)


def test_a_receipt_that_is_used_twice_is_found(run):
    first = {silo: document for number, silo, document in bodies(run) if number == 1}
    forge(run, 2, "hospital-1", first["hospital-1"])
    write_card(run)
    assert "round is 1, not 2" in wrong(run)
    assert "did not grow" in wrong(run)


def test_receipts_swapped_between_silos_or_rounds_are_found(run):
    documents = {(number, silo): document for number, silo, document in bodies(run)}
    forge(run, 1, "hospital-1", documents[1, "hospital-2"])
    forge(run, 1, "hospital-2", documents[1, "hospital-1"])
    write_card(run)
    assert "the receipt is that of hospital-2" in wrong(run)
    for silo in ("hospital-1", "hospital-2"):
        forge(run, 1, silo, documents[1, silo])
    forge(run, 3, "hospital-3", documents[4, "hospital-3"])
    forge(run, 4, "hospital-3", documents[3, "hospital-3"])
    write_card(run)
    assert "round is 4, not 3" in wrong(run)
    assert "round is 3, not 4" in wrong(run)


def test_a_receipt_of_another_run_of_the_same_settings_is_found(run):
    other = CONSORTIUM.receipt("hospital-1", 2, fingerprint(model_of(1)), run=8)
    forge(run, 2, "hospital-1", other)
    write_card(run)
    assert "receipts come from several runs" in wrong(run)
    assert "from another run" in wrong(run)


@pytest.mark.parametrize("gone", [1, 2, 4])
def test_a_round_that_was_cut_out_is_missed(run, gone):
    rewrite(run, [line for line in journal(run) if line.get("round") != gone or line["event"] != "round"])
    write_card(run)
    assert wrong(run)


def test_the_chain_of_models_is_followed(run):
    lines = journal(run)
    lines[2]["model"] = "0" * 64
    rewrite(run, lines)
    write_card(run)
    assert "model is" in wrong(run)
    lines[0]["model"] = "1" * 64
    rewrite(run, lines)
    assert "Round 1" in wrong(run)


def test_another_final_model_is_found(run):
    (run / "model.safetensors").write_bytes((run / "model.safetensors").read_bytes()[:-1] + b"\x01")
    assert "model.safetensors is not the model of the last round" in wrong(run)


@pytest.mark.parametrize(
    ("old", "new"),
    [("lr: ", "lr: 9"), ("epsilon: 3.0", "epsilon: 2.0"), ("epsilon=3", "epsilon=2"), ("seed: ", "seed: 9")],
)
def test_changed_settings_are_found(run, old, new):
    text = (run / "settings.yaml").read_text()
    assert old in text
    (run / "settings.yaml").write_text(text.replace(old, new))
    write_card(run)
    assert wrong(run)


@pytest.mark.parametrize("key", ["code", "model", "rounds"])
def test_a_changed_run_json_is_found(run, key):
    about = json.loads((run / "run.json").read_text())
    about[key] = changed(about[key])
    (run / "run.json").write_text(json.dumps(about))
    assert wrong(run)


def test_a_changed_page_is_found(run):
    page = (run / "privacy_card.html").read_text()
    (run / "privacy_card.html").write_text(page.replace("Differential privacy", "Perfect privacy", 1))
    assert wrong(run) == "privacy_card.html is not the page of the card."


def test_a_silo_that_did_not_answer_is_bounded_by_what_it_was_asked(tmp_path):
    run = write_run(tmp_path / "run", CONSORTIUM, silent=("hospital-2", 3))
    assert wrong(run) == ""
    card = {silo["statement"]["silo"]: silo for silo in json.loads((run / "privacy_card.json").read_text())["silos"]}
    silent, other = card["hospital-2"], card["hospital-1"]
    assert silent["rounds"] == {"asked": 4, "released": 3}
    assert silent["figures"]["rdp"] < silent["if_all_asked"]["rdp"] <= 3.0
    assert other["figures"]["rdp"] == other["if_all_asked"]["rdp"]


def test_a_killed_run_is_verified_as_far_as_its_card_goes(run):
    card = json.dumps(run_card(read_material(run).up_to(2)))
    (run / "privacy_card.json").write_text(card)
    assert "card.run.rounds.done" in wrong(run)
    about = json.loads((run / "run.json").read_text())
    (run / "run.json").write_text(json.dumps({**about, "status": "running", "rounds": 4}))
    found = verify_run(run)
    assert not found.wrong
    assert "its card covers 2 of the 4 rounds" in " ".join(found.notes)


def test_without_noise_there_is_no_guarantee_and_it_says_so(tmp_path):
    overrides = OVERRIDES.replace("epsilon=3", "epsilon=inf")
    run = write_run(tmp_path / "run", CONSORTIUM, overrides)
    found = verify_run(run)
    assert not found.wrong
    assert found.notes[0].startswith("No guarantee: privacy.epsilon=inf")
    card = json.loads((run / "privacy_card.json").read_text())
    assert card["standing"] == "none"
    assert card["worst"]["rdp"] == card["worst"]["pld"] == "inf"


def test_the_silo_unit_says_that_the_server_is_trusted(tmp_path):
    overrides = OVERRIDES.replace(
        "privacy=record privacy.epsilon=3", "privacy=silo privacy.epsilon=8 privacy.delta=1e-5"
    )
    run = write_run(tmp_path / "run", CONSORTIUM, overrides)
    assert wrong(run) == ""
    card = json.loads((run / "privacy_card.json").read_text())
    assert card["silos"][0]["statement"]["relation"] == "zero_out"
    assert card["words"]["trusted"][0].startswith("The server is trusted")


def test_what_is_no_private_run_is_refused_in_a_sentence(tmp_path, run):
    with pytest.raises(SettingsError, match="is not the folder of a run"):
        verify_run(tmp_path / "nothing")
    text = (run / "settings.yaml").read_text()
    (run / "settings.yaml").write_text(text.replace("name: record", "name: none"))
    with pytest.raises(SettingsError, match="had no privacy"):
        verify_run(run)


def test_receipts_are_decoded_strictly(run):
    _, _, document = next(bodies(run))
    assert Receipt.decode(canonical(document)).encode() == canonical(document)


def test_the_sentence_over_the_card_holds_for_silos_with_different_deltas(tmp_path):
    """Delta follows from the records: the sentence takes the largest epsilon and the largest delta, not one silo's."""
    few = Consortium()
    run = write_run(tmp_path / "run", few, records={"hospital-1": 150, "hospital-2": 152, "hospital-3": 40_000})
    card = json.loads((run / "privacy_card.json").read_text())
    assert [silo["statement"]["delta"] for silo in card["silos"]] == [1e-5, 1e-5, 2.5e-6]
    worst = max(silo["figures"]["rdp"] for silo in card["silos"])
    assert card["verdict"] == f"Every record has epsilon {worst:.3g} at delta 1e-05, or better."
