"""The charter as people meet it: docs/charter.md executed, and a run whose silos are under one."""

from __future__ import annotations

import json
import re
import time
from dataclasses import replace
from pathlib import Path

import pytest
from charters import amended, charter, member, signed, written
from command_line import command_line
from pages import ROOT
from real_silo import POLICY, SCHEMA

from quire.charter.chain import read_chain, read_charter
from quire.clients.identity import new_identity, read_key_file
from quire.errors import RunFailed
from quire.simulation.inline import run
from quire.strategies.run_log import LOG_FOLDER

PAGE = (ROOT / "docs" / "charter.md").read_text(encoding="utf-8")
NAMES = ("basel", "berlin", "bern")
HOUR = 3600


@pytest.fixture
def quire(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    monkeypatch.chdir(tmp_path)
    return command_line(monkeypatch, capsys)


@pytest.fixture
def draft(tmp_path: Path) -> str:
    """The YAML of the page, with the fingerprints of keys that are here."""
    (found,) = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
    for name in NAMES:
        new_identity(tmp_path / f"{name}.key", name)
        print_ = read_key_file(tmp_path / f"{name}.key.pub").fingerprint
        found = found.replace(f"FINGERPRINT OF {name.upper()}", print_)
    (tmp_path / "charter.yaml").write_text(found, encoding="utf-8")
    return found


def test_the_page_does_what_it_says(quire, draft: str, tmp_path: Path) -> None:
    first, second = (block.splitlines() for block in re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL))
    said = [quire(*line.split()[1:]) for line in first]
    assert [status for status, *_ in said] == [0] * 4
    assert "It needs the signatures of 2 of its 3 members" in said[0][1]
    assert "Purpose: Predict heart disease" in said[1][1]
    assert said[1][1].count("not signed") == 3
    assert "signed by 2 of its 3 members (basel, bern), needs 2" in said[3][1]
    later = draft.replace("version: 1", "version: 2").replace("not_before: 2090-01-01", "not_before: 2090-02-01")
    (tmp_path / "amended.yaml").write_text(later.replace("epsilon: 2.0", "epsilon: 3.0").replace("[secure]", "[plain]"))
    time.sleep(1.1)  # an amendment is proposed in a later second
    said = [quire(*line.split()[1:]) for line in second]
    assert [status for status, *_ in said] == [0] * 5 + [1]
    assert "Looser than before: aggregation plain is admitted; epsilon of berlin: 3 instead of 2." in said[0][1]
    assert said[1][1].splitlines() == [
        "looser    aggregation plain is admitted",
        "looser    epsilon of berlin: 3 instead of 2",
        "stricter  aggregation secure is no longer admitted",
        "changed   in force from 2090-02-01 00:00:00 UTC",
    ]
    assert "version 2" in said[5][1]
    assert said[5][2] == "quire: The charter heart is not in force yet.\n"
    assert read_chain(tmp_path / "charter-1.json").first.members[1].epsilon == 2.0


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("version: 1", "version: 1\nversion: 1", "'version' is there twice"),
        ("version: 1", "version: 2", "an amendment needs the version before it"),
        ("version: 1", "version: 1.5", "'version' must be a whole number"),
        ("purpose:", "purposes:", "the file has no key 'purposes'"),
        ("min_cohort: 3\n", "", "the file lacks the key 'min_cohort'"),
        ("epsilon: 2.0", "epsilon: .inf", "'epsilon' must be a number"),
        ("epsilon: 2.0", "epsilon: 2:0.0", "write it in plain decimal"),
        ("epsilon: 2.0", f"epsilon: 1{'0' * 400}", "write it in plain decimal"),
        ("min_cohort: 3", "min_cohort: 0b11", "'min_cohort' must be a whole number in plain decimal digits"),
        ("epsilon: 2.0", "epsilon: 1e-5", None),
        ("epsilon: 2.0", "epsilon: -2.0", "must be greater than 0"),
        ("purpose: ", "purpose: &a ", None),
        ("purpose: Predict heart disease from routine findings, for research only.", "purpose: *a", "not YAML"),
        ("[tabular]", "[tubular]", "'tubular' is no option of task"),
        ("[record]", "[none]", "no key 'epsilon'"),
        ("code: any", "code: all", "'code' must be 'any'"),
        ("code: any", "code: [{bundle: a, sources: b}]", "'bundle' must be a hash"),
        ("not_before: 2090-01-01", "not_before: 2001-01-01", "'not_before' is past"),
        ("not_before: 2090-01-01", "not_before: 2090-02-30", "must be a day"),
        ("not_after: 2090-12-31T12:00:00Z", "not_after: 2089-12-31", "must be later than 'not_before'"),
        ("this_version: 2", "this_version: 1", "more than half of the 3 members"),
        ("approval: none", "approval: sometimes", "none or each_run"),
        ("residency: eu", "residency: The EU", "The residency of berlin"),
    ],
)
def test_every_mistake_in_a_draft_is_one_sentence(quire, draft: str, tmp_path: Path, old, new, words) -> None:
    (tmp_path / "charter.yaml").write_text(draft.replace(old, new, 1), encoding="utf-8")
    keys = [item for name in NAMES for item in ("--key", f"{name}.key.pub")]
    status, out, err = quire("charter", "propose", "charter.yaml", "--out", "out.json", *keys)
    if words is None:  # an anchor that nobody refers to says nothing, and a number has its exponent
        assert status == 0
        return
    assert (status, out) == (2, "")
    assert words in err
    assert err.startswith("quire: ")
    assert err.count("\n") == 1
    assert not (tmp_path / "out.json").exists()


def test_who_may_not_sign_is_told_so(quire, draft: str, tmp_path: Path) -> None:
    missing = quire("charter", "propose", "charter.yaml", "--out", "c.json", "--key", "basel.key.pub")
    assert missing[0] == 2
    assert "the public keys of berlin are not at hand" in missing[2]
    keys = [item for name in NAMES for item in ("--key", f"{name}.key.pub")]
    assert quire("charter", "propose", "charter.yaml", "--out", "c.json", *keys)[0] == 0
    new_identity(tmp_path / "paris.key")
    assert "belongs to no member" in quire("charter", "sign", "c.json", "--key", "paris.key")[2]
    copy = tmp_path / "copy.json"
    copy.write_bytes((tmp_path / "c.json").read_bytes())
    assert quire("charter", "sign", "c.json", "--key", "basel.key")[0] == 0
    status, _, err = quire("charter", "sign", "c.json", "--key", "basel.key")
    assert (status, "has signed" in err) == (2, True)
    assert quire("charter", "sign", "copy.json", "--key", "bern.key")[0] == 0
    assert "signed by 2 of its 3" in quire("charter", "merge", "c.json", "copy.json")[1]
    assert len(read_charter(tmp_path / "c.json").signatures) == 2
    (tmp_path / "c.json").write_text("{}")
    for command in (["show", "c.json"], ["verify", "c.json"], ["diff", "c.json", "copy.json"], ["show", "none.json"]):
        status, out, err = quire("charter", *command)
        assert (status, out, err.count("\n")) == (2, "", 1)


def test_who_proposes_is_shown_the_caps(quire, draft: str) -> None:
    keys = [item for name in NAMES for item in ("--key", f"{name}.key.pub")]
    said = quire("charter", "propose", "charter.yaml", "--out", "c.json", *keys)[1]
    assert "  berlin: epsilon 2 at delta 1e-05\n" in said
    assert "quire charter show c.json" in said


@pytest.mark.parametrize("spoilt", ["signed_at", "signature"])
def test_a_merge_takes_no_signature_that_is_not_good(quire, draft: str, tmp_path: Path, spoilt: str) -> None:
    keys = [item for name in NAMES for item in ("--key", f"{name}.key.pub")]
    quire("charter", "propose", "charter.yaml", "--out", "empty.json", *keys)
    good, bad = tmp_path / "c.json", tmp_path / "bad.json"
    good.write_bytes((tmp_path / "empty.json").read_bytes())
    assert quire("charter", "sign", "c.json", "--key", "basel.key")[0] == 0
    genuine = read_charter(good)
    (one,) = genuine.signatures
    forged = {"signed_at": one.signed_at - 1, "signature": bytes([one.signature[0] ^ 1]) + one.signature[1:]}
    other = replace(one, **{"signed_at": one.signed_at - 1, spoilt: forged[spoilt]})
    bad.write_bytes(replace(genuine, signatures=(other,)).encode())
    status, out, err = quire("charter", "merge", "c.json", "bad.json")
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert "bad.json: The signature of basel under the charter heart, version 1 is bad" in err
    assert read_charter(good) == genuine
    # The other way round the good one takes the place of the bad one; so does a new one by who is meant.
    assert quire("charter", "merge", "bad.json", "c.json")[0] == 0
    assert read_charter(bad) == genuine
    bad.write_bytes(replace(genuine, signatures=(other,)).encode())
    assert "c.json: The key" not in quire("charter", "merge", "empty.json", "c.json")[2]
    status, out, _ = quire("charter", "sign", "bad.json", "--key", "basel.key")
    assert (status, "A bad signature that stood there under this key was replaced." in out) == (0, True)
    assert "has signed" in quire("charter", "sign", "bad.json", "--key", "basel.key")[2]


def test_a_merge_writes_nothing_while_a_bad_signature_stands_in_the_file(quire, tmp_path: Path) -> None:
    found = signed(charter(), "basel")
    (one,) = found.signatures
    (tmp_path / "good.json").write_bytes(signed(charter(), "bern").encode())
    whole = replace(found, signatures=(replace(one, signed_at=one.signed_at + 1),)).encode()
    (tmp_path / "c.json").write_bytes(whole)
    status, _, err = quire("charter", "merge", "c.json", "good.json")
    assert (status, "c.json: The signature of basel" in err) == (2, True)
    assert (tmp_path / "c.json").read_bytes() == whole


def test_a_merge_knows_the_members_before_where_they_are_named(quire, tmp_path: Path) -> None:
    first = charter()
    second = amended(first, members=tuple(member(name) for name in ("basel", "berlin", "paris")))
    (tmp_path / "1.json").write_bytes(signed(first).encode())
    (tmp_path / "2.json").write_bytes(signed(second, "basel", previous=first).encode())
    (tmp_path / "other.json").write_bytes(signed(second, "bern", previous=first).encode())
    status, _, err = quire("charter", "merge", "2.json", "other.json")
    assert (status, "(--previous)" in err) == (2, True)
    assert quire("charter", "merge", "2.json", "other.json", "--previous", "1.json")[0] == 0
    assert len(read_charter(tmp_path / "2.json").signatures) == 2


def test_a_run_under_a_charter_names_it_and_goes_on_without_who_refuses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Four simulated silos. One says that its records are elsewhere than the charter has them, and takes no part."""
    names = tuple(f"clinic-{number}" for number in (1, 2, 3, 4))
    began = int(time.time()) - HOUR
    found = charter(
        members=tuple(member(name, delta=1e-4) for name in names),
        **{"needed": 3, "amendments": 3, "issued": began - HOUR, "not_before": began, "not_after": began + 99 * HOUR},
    )
    folder = written(tmp_path / "charter", signed(found, *names[:3]))
    silos = tmp_path / "silos"
    silos.mkdir()
    (silos / "schema.yaml").write_text(SCHEMA)
    (tmp_path / "rows.csv").write_text("age,sick\n" + "".join(f"{age},{int(age > 50)}\n" for age in range(20, 80)))
    policy = {**POLICY, "min_cohort": "2", "colluders": "0", "rehearsal": "true"}
    for name in names:
        where = "us" if name == "clinic-4" else "eu"
        (silos / f"{name}.yaml").write_text(
            f"name: {name}\ndata: {{connector: csv, path: ../rows.csv}}\n"
            "population: {name: clinic, records: 60}\n"
            f'charter: {{file: ../charter, hash: "{found.hash}", residency: {where}}}\n'
            "policy:\n" + "".join(f"  {name}: {value}\n" for name, value in policy.items())
        )
    settings = (
        "task=tabular partition.silos=4 strategy.min_silos=3 strategy.rounds=1 training.batch_size=12 training.steps=1 "
        "strategy.fraction_evaluate=0 privacy=record privacy.epsilon=2 privacy.delta=1e-4 output.baselines=false"
    )
    new_identity(tmp_path / "log.key")
    monkeypatch.setenv("QUIRE_LOG_KEY", str(tmp_path / "log.key"))
    with pytest.raises(RunFailed, match="this server has none: set QUIRE_CHARTER"):
        run(f"{settings} charter={found.hash}", tmp_path / "none", silos)
    monkeypatch.setenv("QUIRE_CHARTER", str(folder))
    with pytest.raises(RunFailed, match=f"submit a new run with charter={found.hash}"):
        run(settings, tmp_path / "without", silos)
    run(f"{settings} charter={found.hash}", tmp_path / "run", silos)
    about = json.loads((tmp_path / "run" / "run.json").read_text())
    assert about["held_to"]["charter"] == {"charter": found.hash, "version": 1, "previous": None}
    journal = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    (absent,) = next(line["failed"] for line in journal if line["event"] == "enrolment")
    assert absent["code"] == "charter_refused"
    assert next(line["replied"] for line in journal if line["event"] == "round") == list(names[:3])
    card = json.loads((tmp_path / "run" / "privacy_card.json").read_text())
    assert card["run"]["charter"] == found.hash
    logged = b"".join(
        path.read_bytes() for path in sorted((tmp_path / "run" / LOG_FOLDER).rglob("*")) if path.is_file()
    )
    assert f'{{"body":{{"charter":"{found.hash}","previous":null,"version":1}},"kind":"charter"'.encode() in logged
