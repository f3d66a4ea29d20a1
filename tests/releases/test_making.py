"""From a run to a release: it verifies or is refused, the charter is the run's, and the card goes along."""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from dataclasses import replace

import numpy as np
import pytest
from charters import NAMES, amended, charter, signed, written
from private_runs import OVERRIDES, Consortium, write_run
from released import RELEASER, STRANGER, key_file, key_of

from quire.clients.arrays import fingerprint
from quire.clients.identity import IdentityFileError
from quire.errors import QuireError
from quire.releases.errors import ReleaseError
from quire.releases.header import CARD, FOLDER, GIVEN, MODEL, NOT_VERIFIED, PARTS
from quire.releases.making import Terms, last_day, release
from quire.releases.marks import MarkKey, committed
from quire.releases.opening import Trust, open_envelope
from quire.releases.recipients import new_recipient, read_recipient, read_recipient_key
from quire.releases.registry import BOOK, read_registry
from quire.releases.watermark import read_mark
from quire.strategies.checkpoint import safetensors

CONSORTIUM = Consortium()
NOW = int(time.time())
YEAR = 365 * 24 * 3600
TIMES = {"issued": NOW - 9000, "not_before": NOW - 5000, "not_after": NOW + 9 * YEAR}
FIRST = charter(**TIMES, exit=replace(charter().exit, use_until=NOW + 2 * YEAR))
SECOND = amended(FIRST, issued=NOW - 4000, not_before=NOW - 3000)


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    place = tmp_path_factory.mktemp("releases")
    write_run(place / "run", CONSORTIUM)
    written(place / "charter", signed(FIRST), signed(SECOND, *NAMES, previous=FIRST))
    write_run(place / "under", CONSORTIUM, f"{OVERRIDES} charter={SECOND.hash}", charter=SECOND)
    (place / "roster.json").write_bytes(CONSORTIUM.signed.encode())
    new_recipient(place, "berlin")
    new_recipient(place, "hospital-1", CONSORTIUM.keys["hospital-1"])
    new_recipient(place, "stranger", STRANGER)
    return place


@pytest.fixture
def place(original, tmp_path):
    return shutil.copytree(original, tmp_path / "place")


def made(place, run="run", name="heart", to=("berlin",), identity=RELEASER, **terms):
    keys = tuple(place / f"{one}.recipient.pub" for one in to)
    told = Terms(name, "Research.", terms.pop("expires", NOW + YEAR), keys, **terms)
    return release(place / run, place / "registry", told, identity, NOW)


def opened(place, found, name="berlin"):
    return open_envelope(
        found.path, place / f"{name}.recipient", Trust(RELEASER.public.fingerprint), place / "registry", NOW
    )


def refused(place, words, *args, **kwargs):
    before = (place / "registry" / BOOK).read_bytes() if (place / "registry").exists() else None
    with pytest.raises(QuireError, match=words):
        made(place, *args, **kwargs)
    assert ((place / "registry" / BOOK).read_bytes() if (place / "registry").exists() else None) == before


def test_a_run_that_verifies_is_released_with_its_card(place):
    found = made(place)
    inside = opened(place, found)
    assert list(inside.parts) == list(PARTS[:-1])
    for name, data in inside.parts.items():
        assert data == (place / "run" / name).read_bytes()
    origin = found.header.origin
    assert (origin.verified, origin.roster, origin.simulated) == (FOLDER, CONSORTIUM.signed.roster.hash, False)
    assert origin.model == found.header.model
    card = next(part for part in found.header.parts if part.name == CARD)
    assert card.sha256 == hashlib.sha256((place / "run" / CARD).read_bytes()).hexdigest()
    assert any("lies in the run folder itself" in note for note in found.notes)


def test_the_model_of_an_attacked_run_is_not_released_whoever_asks(place):
    run, words = place / "run", r"^[^\n]* was attacked on purpose.*: its model is no result, and is not released\.$"
    about, tree = (run / "run.json").read_text(), (run / "settings.yaml").read_text()
    (run / "run.json").write_text(json.dumps({**json.loads(about), "attacked": {"words": "", "name": "giant"}}))
    refused(place, words)
    refused(place, words, unverified=True)
    (run / "run.json").write_text(about)  # and where only the settings say so
    (run / "settings.yaml").write_text(tree.replace("attack:\n  name: none", "attack:\n  name: giant"))
    assert (run / "settings.yaml").read_text() != tree
    refused(place, r"was attacked on purpose \(attack=giant\)", unverified=True)
    (run / "settings.yaml").write_text("attack: [")
    refused(place, "does not verify")
    (run / "settings.yaml").unlink()
    refused(place, "does not verify")


def test_it_says_against_which_roster(place):
    found = made(place, to=("berlin", "hospital-1"), roster=place / "roster.json")
    assert found.header.origin.verified == GIVEN
    assert any("as you named it" in note for note in found.notes)
    assert any("signed by member hospital-1" in note for note in found.notes)
    assert any("which nobody has signed" in note for note in found.notes)
    assert opened(place, found, "hospital-1").parts == opened(place, found).parts
    refused(place, "no member of the roster", to=("stranger",), roster=place / "roster.json")


def test_versions_follow_each_other(place):
    first, second = made(place), made(place)
    assert (second.header.version, second.header.previous) == (
        2,
        read_registry(place / "registry").models["heart"].versions[0].envelope,
    )
    assert made(place, name="lung").header.version == 1
    assert first.path != second.path


def test_a_run_that_does_not_verify_needs_a_word_that_stays(place):
    lines = (place / "run" / "metrics.jsonl").read_text().splitlines()
    (place / "run" / "metrics.jsonl").write_text("\n".join(lines[:-2]) + "\n")
    refused(place, "does not verify.*--unverified")
    found = made(place, unverified=True)
    assert found.header.origin.verified == NOT_VERIFIED
    assert opened(place, found).header.origin.roster is None


def test_of_a_model_whose_layers_stayed_in_the_silos_it_says_so(place):
    write_run(place / "own", CONSORTIUM, "task=digits task.model=mlp training.local_layers=[head]", rounds=1)
    refused(place, "does not verify.*no privacy", run="own")
    found = made(place, run="own", unverified=True)
    said = [note for note in found.notes if "lacks the layers" in note]
    assert len(said) == 1
    assert "(training.local_layers=head)" in said[0]
    tree = (place / "own" / "settings.yaml").read_text()
    (place / "own" / "settings.yaml").write_text(tree.replace("- head", '- "head\\u202e2"'))
    assert "=head\u27e8U+202E\u27e92)" in "\n".join(made(place, run="own", unverified=True).notes)
    assert not any("lacks the layers" in note for note in made(place).notes)


def test_what_is_no_finished_run_is_refused_whatever_the_words(place):
    refused(place, "not the folder of a run", run="nothing")
    about = json.loads((place / "run" / "run.json").read_text())
    (place / "run" / "run.json").write_text(json.dumps({**about, "model": None}))
    refused(place, "no finished run", unverified=True)
    (place / "run" / "run.json").write_text(json.dumps({**about, "status": "running"}))
    refused(place, "does not")
    (place / "run" / "run.json").write_text(json.dumps(about))
    (place / "run" / MODEL).write_bytes(safetensors({"weight": np.ones(3, np.float32)}))
    refused(place, "changed since", unverified=True)
    (place / "run" / MODEL).write_bytes(b"x")
    refused(place, "no safetensors", unverified=True)
    (place / "run" / MODEL).unlink()
    refused(place, "no file", unverified=True)


def test_the_charter_is_the_one_that_the_run_was_under(place):
    bare = made(place, run="under").header.charter
    assert (bare.hash, bare.version, bare.checked) == (SECOND.hash, 2, False)
    assert made(place, run="under", charter=place / "charter").header.charter.checked
    refused(place, "under no charter", charter=place / "charter", unverified=True)
    other = charter(**{**TIMES, "charter_id": "lung"})
    written(place / "other", signed(other))
    refused(place, "does not verify", run="under", charter=place / "other")
    refused(place, "holds none with this hash", run="under", charter=place / "other", unverified=True)


def test_the_charter_says_until_when(place):
    made(place, run="under", charter=place / "charter", expires=NOW + 2 * YEAR)
    refused(place, "be used until", run="under", charter=place / "charter", expires=NOW + 3 * YEAR)


def test_terms_that_cannot_be(place):
    refused(place, "name of a model", name="Heart/1")
    refused(place, "expired", expires=NOW)
    refused(place, "1 to", to=())
    refused(place, "named twice", to=("berlin", "berlin"))
    refused(place, "no file", to=("nobody",))
    refused(place, "schema", schema=place / "schema.yaml")
    with pytest.raises(QuireError, match="The purpose"):
        release(place / "run", place / "registry", Terms("heart", "\n", NOW + YEAR, ()), RELEASER, NOW)
    made(place)
    refused(place, "is that of", identity=STRANGER)


@pytest.mark.parametrize("text", ["", "2027", "2027-02-30", "tomorrow", "2027-06-30T00:00", "9999-12-31", "-1"])
def test_a_last_day_is_a_date(text):
    with pytest.raises(ReleaseError, match="--expires takes"):
        last_day(text)
    assert last_day("1970-01-01") == 24 * 3600


def grown(place):
    """Put a larger model into the run, which then does not verify."""
    arrays = {"weight": np.random.default_rng(1).standard_normal((64, 64)).astype(np.float32)}
    (place / "run" / MODEL).write_bytes(safetensors(arrays))
    about = json.loads((place / "run" / "run.json").read_text())
    (place / "run" / "run.json").write_text(json.dumps({**about, "model": fingerprint(arrays)}))


def test_a_watermark_goes_in_and_its_key_stays(place):
    grown(place)
    found = made(place, unverified=True, watermark=place / "heart.watermark")
    inside = opened(place, found)
    assert found.header.model != found.header.origin.model
    assert (place / "run" / MODEL).read_bytes() != inside.parts[MODEL]
    key = MarkKey.read(place / "heart.watermark")
    assert found.header.watermark.commitment == key.commitment
    from quire.releases.opening import arrays_of

    assert read_mark(arrays_of(inside.parts[MODEL], "m"), key.seed, key.layers).holds
    assert "heart version 1" in committed(found.path, key)
    assert key.seed.hex().encode() not in found.path.read_bytes()
    with pytest.raises(ReleaseError, match="to another key"):
        committed(made(place, unverified=True, watermark=place / "second").path, key)
    refused(place, "exists already", unverified=True, watermark=place / "heart.watermark")


def test_no_key_is_left_where_nothing_was_released(place):
    refused(place, "too small", watermark=place / "heart.watermark")
    grown(place)
    made(place, unverified=True)
    refused(place, "is that of", unverified=True, watermark=place / "heart.watermark", identity=STRANGER)
    assert not (place / "heart.watermark").exists()


def test_a_recipients_files(place):
    path, public = place / "berlin.recipient", read_recipient(place / "berlin.recipient.pub")
    assert path.stat().st_mode & 0o777 == 0o600
    assert read_recipient_key(path).id == public.id
    with pytest.raises(IdentityFileError, match="exists already"):
        new_recipient(place, "berlin")
    with pytest.raises(ReleaseError, match="name of a recipient"):
        new_recipient(place, "../berlin")
    with pytest.raises(ReleaseError, match="make it first"):
        new_recipient(place / "none", "berlin")
    assert read_recipient_key(key_file(place, "basel")).id == key_of("basel").id


def test_a_public_key_that_was_changed_is_none(place):
    path = place / "hospital-1.recipient.pub"
    data = path.read_bytes()
    body = json.loads(data)
    for changed in (
        data.replace(b"hospital-1", b"hospital-2"),
        data.replace(body["key"].encode(), ("00" + body["key"][2:]).encode()),
        data.replace(body["key"].encode(), body["key"][2:].encode()),
        data.replace(b'"signature":"', b'"signature":"00'),
        data.replace(b'"format":"quire-recipient-1"', b'"format":"quire-recipient-2"'),
        data[:-1],
        b"",
        b"[]\n",
    ):
        path.write_bytes(changed)
        with pytest.raises(ReleaseError, match="public key of a recipient"):
            read_recipient(path)
