"""Enrolment end to end: keys made inside, quotes, a charter that demands them, a roster that records them, a round.

Only the processor is not real: what stands for it signs reports under a root of our own. Everything else is as in
use, with the commands that people give.
"""

from __future__ import annotations

import hashlib
import json
import logging
import time
from dataclasses import replace
from pathlib import Path

import pytest
from charters import charter, member, written
from secure_place import RECORD, InProcess
from secure_runs import PRIVATE
from secure_silos import overrides_of, serve
from sgx_chain import MEASUREMENT, NOW, SIGNER, authority
from typer.testing import CliRunner

pytest.importorskip("dcap_qvl", reason="dcap-qvl, of the extra `enclave`, is not installed")

from quire.charter.attestation import MAX_DAYS, Attestation
from quire.charter.signed import SignedCharter
from quire.cli import app as command
from quire.clients.gate.mark import BANNER
from quire.clients.identity import load_identity, new_identity
from quire.clients.identity.rosters import read_roster
from quire.enclave import inside, record
from quire.enclave.verify import Challenge
from quire.simulation.report import ReportError, write_report

NAMES = ("hospital-1", "hospital-2", "hospital-3")
RUN = overrides_of(3, 1, PRIVATE)
HOUR = 3600


def call(*arguments: object, code: int = 0) -> str:
    done = CliRunner().invoke(command, list(map(str, arguments)))
    text = done.output + (str(done.exception) if done.exception and not isinstance(done.exception, SystemExit) else "")
    assert (done.exit_code == 0) == (code == 0), text
    return text


class Site:
    """Three hospitals, each with keys made inside an enclave; a charter that demands attestation."""

    def __init__(self, folder: Path, of: frozenset[str] = frozenset({"silos"}), **demand: object) -> None:
        self.folder = folder
        self.root = folder / "root.der"
        self.root.write_bytes(authority().root_der)
        (folder / "collateral.json").write_bytes(authority().collateral())
        new_identity(folder / "admin.key")
        new_identity(folder / "log.key")
        self.publics = {name: inside.answer(Challenge.new(bytes(32), NOW), self.keys(name)).identity for name in NAMES}
        told = {"measurements": frozenset({MEASUREMENT.hex()}), "days": MAX_DAYS, **demand}
        self.demand = Attestation(of, root=hashlib.sha256(authority().root_der).hexdigest(), **told)
        began = int(time.time()) - HOUR
        members = tuple(member(n, identity=self.publics[n], residency=None, epsilon=40.0, delta=1e-4) for n in NAMES)
        self.charter = charter(
            **{"members": members, "needed": 2, "amendments": 2, "min_cohort": 2, "colluders": 0},
            **{"tasks": frozenset({"breast_cancer"}), "privacy": frozenset({"record"}), "attestation": self.demand},
            **{"aggregation": frozenset({"secure", "plain"}), "issued": began - HOUR, "not_before": began},
        )
        made = SignedCharter(self.charter)
        for name in NAMES[:2]:
            made = made.sign(load_identity(self.keys(name) / "identity.key"), began - HOUR)
        written(folder / "charter", made)

    def keys(self, name: str) -> Path:
        place = self.folder / name / "keys"
        place.mkdir(parents=True, exist_ok=True)
        return place

    def record(self, name: str, keys: Path | None = None, **report: object) -> Path:
        """Challenge an enclave, let it answer with a quote, verify, and keep the record."""
        asked, answer, out = (self.folder / f"{name}.{what}" for what in ("challenge", "answer", "attested"))
        call("enclave", "challenge", "--charter", self.folder / "charter", "--out", asked)
        asked.write_text(json.dumps({**json.loads(asked.read_text()), "issued": NOW - 5}))
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(inside, "attestable", lambda device: True)
            patch.setattr(inside, "quote_for", lambda data, device: authority().quote(data, **report))
            found = inside.answer(Challenge.decode(asked.read_bytes()), keys or self.keys(name))
        answer.write_bytes(found.encode())
        told = ("--charter", self.folder / "charter", "--challenge", asked, "--at", NOW, "--root", self.root)
        call("enclave", "record", answer, *told, "--collateral", self.folder / "collateral.json", "--out", out)
        if time.time() < NOW:  # the chain's time is still to come here, and silos would say so
            found = record.decode(out.read_bytes(), "")
            out.write_bytes(record.encode(replace(found, attested=replace(found.attested, verified=int(time.time())))))
        return out

    def roster(self, *attested: str, more: tuple[object, ...] = ()) -> Path:
        """Make the roster, sign it, and have all silos pin it."""
        place = self.folder / "roster.json"
        place.unlink(missing_ok=True)
        options = [part for n in NAMES for part in ("--member", f"{n}={self.folder / n / 'keys' / 'identity.key.pub'}")]
        options += [part for n in attested for part in ("--attested", f"{n}={self.folder / n}.attested")]
        call("roster", "create", place, "--admin", f"anna={self.folder / 'admin.key.pub'}", *options, *more)
        call("roster", "sign", place, "--key", self.folder / "admin.key")
        for at, name in enumerate(NAMES):
            (self.folder / name / "silo.yaml").write_text(
                f"name: {name}\ndata: {{connector: shipped, partition: {at}, partitions: 3}}\n"
                f"identity: keys/identity.key\npopulation: {{name: breast-{at}, records: 100}}\n"
                f"roster: {{file: ../roster.json, hash: {read_roster(place).roster.hash}}}\n"
                f'charter: {{file: ../charter, hash: "{self.charter.hash}"}}\n'
                f"policy: {{{RECORD.replace('[secure]', '[secure, plain]')}}}\n"
            )
        return place

    def run(self, number: int, monkeypatch: pytest.MonkeyPatch, overrides: str = RUN) -> dict[str, object]:
        monkeypatch.setenv("QUIRE_CHARTER", str(self.folder / "charter"))
        overrides = f"{overrides} charter={self.charter.hash}"
        files = {name: self.folder / name / "silo.yaml" for name in NAMES}
        grid = InProcess(files, number, overrides, self.folder / "left")
        folder = self.folder / f"run-{number}"
        try:
            serve(grid, number, folder, self.folder / "roster.json", overrides)
        except Exception as error:
            return {"status": "failed", "error": str(error)}
        return json.loads((folder / "run.json").read_text())


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Site:
    made = Site(tmp_path_factory.mktemp("site"))
    for name in NAMES:
        made.record(name)
    return made


def test_attested_silos_federate_and_the_roster_says_which_enclaves_they_are(site, monkeypatch) -> None:
    place = site.roster(*NAMES)
    shown = call("roster", "show", place)
    assert shown.count(f"measurement {MEASUREMENT.hex()}") == 3
    assert shown.count("NOT UP TO INTEL'S ROOT") == 3
    monkeypatch.setenv("QUIRE_ENCLAVE", "sgx-prod")
    found = site.run(1, monkeypatch)
    assert (found["status"], found["error"]) == ("completed", None)
    folder = site.folder / "run-1"
    said = f"hospital-1: its key was made in the enclave {MEASUREMENT.hex()}"
    card = json.loads((folder / "privacy_card.json").read_text())["enclaves"]
    assert card["banner"] is None
    assert card["words"][0].startswith(said)
    assert "A ROOT THAT IS NOT INTEL" in card["words"][0]
    assert said in (folder / "privacy_card.html").read_text()
    assert said in write_report(folder).read_text()
    call("verify", folder)
    text = (folder / "enclaves.json").read_text()
    (folder / "enclaves.json").write_text(text.replace(MEASUREMENT.hex(), "77" * 32))  # the roster is what is believed
    call("verify", folder)
    (folder / "enclaves.json").write_text(text.replace('"hospital-1": "sgx-prod"', '"hospital-1": "direct-dev"', 1))
    assert "enclaves" in call("verify", folder, code=1)


def test_who_runs_without_protection_says_so_on_report_and_card(site, monkeypatch) -> None:
    site.roster(*NAMES)
    monkeypatch.setenv("QUIRE_ENCLAVE", "direct-dev")
    found = site.run(7, monkeypatch)
    assert (found["status"], found["error"]) == ("completed", None)
    folder = site.folder / "run-7"
    card = json.loads((folder / "privacy_card.json").read_text())["enclaves"]
    assert card["banner"].startswith(f"{BANNER}: hospital-1, hospital-2, hospital-3 ran under direct-dev")
    assert card["words"] == [card["banner"]]  # and no measurement beside it
    assert json.loads((folder / "privacy_card.json").read_text())["verdict"].startswith(f"{BANNER} (direct-dev). ")
    assert BANNER in call("verify", folder)
    for page in (folder / "privacy_card.html", write_report(folder)):
        assert BANNER in page.read_text()
    (folder / "enclaves.json").write_text("{}")
    with pytest.raises(ReportError, match=r"enclaves\.json is not what a run writes"):
        write_report(folder)


def test_one_silo_without_an_attestation_is_refused_by_all_its_partners(site, monkeypatch, caplog) -> None:
    site.roster(*NAMES[:2])
    with caplog.at_level(logging.ERROR):
        found = site.run(2, monkeypatch)
    assert found["status"] == "failed"
    told = [text for text in caplog.messages if "hospital-3 has no attested enclave" in text]
    assert len(told) == 3, caplog.text
    assert "its admins record one with `quire roster create --attested`" in told[0]
    assert "hospital-3 has no attested enclave" in call(
        "silo", "check", site.folder / "hospital-1" / "silo.yaml", code=1
    )


def test_a_roster_takes_no_record_of_another_key(site, tmp_path) -> None:
    records = [part for one, of in (("hospital-1", 2), ("hospital-2", 1)) for part in ("--attested", f"{one}={of}")]
    (tmp_path / "1").write_bytes((site.folder / "hospital-1.attested").read_bytes())
    options = [f"{part}" if "=" not in part else part.replace("=", f"={tmp_path}/") for part in records]
    members = ("--member", f"hospital-1={site.folder / 'hospital-1/keys/identity.key.pub'}")
    text = call("roster", "create", tmp_path / "roster.json", *members, *options[2:], code=1)
    assert "hospital-2" in text
    (tmp_path / "2").write_bytes((site.folder / "hospital-2.attested").read_bytes())
    admin = ("--admin", f"anna={site.folder / 'admin.key.pub'}")
    text = call("roster", "create", tmp_path / "roster.json", *members, *admin, *options[:2], code=1)
    assert "The enclave that was attested has the key" in text
    assert not (tmp_path / "roster.json").exists()


@pytest.mark.parametrize(
    ("report", "words"),
    [
        ({"measurement": b"\x33" * 32}, "is allowed"),
        ({"flags": 0x7}, "debug mode"),
    ],
)
def test_an_enclave_that_the_charter_does_not_list_gets_no_record(site, tmp_path, report, words) -> None:
    place = tmp_path / "other"
    made = Site.__new__(Site)
    made.__dict__ = {**vars(site), "folder": tmp_path}
    for name in ("charter", "collateral.json"):
        (tmp_path / name).symlink_to(site.folder / name)
    place.mkdir()
    with pytest.raises(AssertionError, match=words):
        made.record("other", place, **report)
    assert not (tmp_path / "other.attested").exists()


def test_a_record_needs_the_charters_own_challenge_and_root(site, tmp_path) -> None:
    asked = tmp_path / "challenge.json"
    call("enclave", "challenge", "--policy", "ab" * 32, "--out", asked)
    told = ("--collateral", site.folder / "collateral.json", "--charter", site.folder / "charter", "--at", NOW)
    answer = (site.folder / "hospital-1.answer", *told, "--out", tmp_path / "out")
    text = call("enclave", "record", *answer, "--challenge", asked, "--root", site.root, code=2)
    assert "The challenge is for abab" in text
    text = call("enclave", "record", *answer, "--challenge", site.folder / "hospital-1.challenge", code=2)
    assert "--root is intel" in text


def test_an_unattested_server_is_refused_and_an_attested_one_signs_the_log(tmp_path, monkeypatch, caplog) -> None:
    site = Site(tmp_path, frozenset({"server"}), measurements=frozenset(), signers=frozenset({(SIGNER.hex(), 1, 2)}))
    site.roster()
    assert site.run(1, monkeypatch)["status"] == "failed"
    assert "the server has no attested enclave" in caplog.text
    keys = tmp_path / "server"
    keys.mkdir()
    site.record("aggregator", keys)
    site.roster(more=("--aggregator", tmp_path / "aggregator.attested"))
    caplog.clear()
    assert site.run(2, monkeypatch)["status"] == "failed"  # without a log, or one of another key
    assert "asks for a transparency log" in caplog.text
    monkeypatch.setenv("QUIRE_LOG_KEY", str(tmp_path / "log.key"))
    caplog.clear()
    assert site.run(3, monkeypatch)["status"] == "failed"
    assert "demands an attested server, whose key is" in caplog.text
    monkeypatch.setenv("QUIRE_LOG_KEY", str(keys / "identity.key"))
    found = site.run(4, monkeypatch)
    assert (found["status"], found["error"]) == ("completed", None)
    caplog.clear()
    assert site.run(5, monkeypatch, RUN.replace("aggregation=secure", "aggregation=plain"))["status"] == "failed"
    assert "asks for a transparency log, and under aggregation=plain" in caplog.text
