"""The labels of a data set: read strictly, and held against every message of a real silo before a row is touched."""

from __future__ import annotations

import time
from dataclasses import replace
from itertools import product
from pathlib import Path

import pytest
from charters import charter, member, signed, written
from flwr.app import ConfigRecord, Context, Message, RecordDict
from real_silo import MODEL, RealSilo, code_of, merged, opened_files
from typer.testing import CliRunner

from quire.cli import app as command
from quire.clients import contract
from quire.clients.answering import Refusal
from quire.clients.arrays import encode
from quire.clients.client_app import SILO_KEY, app
from quire.clients.contract import WORDS, Code
from quire.clients.data.rules.labels import SENSITIVITIES, Dataset, hold_to_labels, objections
from quire.clients.data.silo_file import read_operator_of
from quire.clients.identity import load_identity
from quire.conf.compose import compose
from quire.errors import DataError
from quire.simulation.grid import server_identity

CLINICS = ("clinic-1", "clinic-2", "clinic-3", "clinic-4")
HOUR = 3600
PURPOSE = "Research on the heart, Zürich. Nothing else."  # that of the charter, which breaks it into two lines

#: What each level lets in, of all that settings can ask for: privacy, aggregation.
EVERYTHING = {
    ("none", "plain"),
    ("none", "secure"),
    ("silo", "plain"),
    ("record", "plain"),
    ("record", "secure"),
    ("record_distributed", "secure"),
    ("silo_distributed", "secure"),
}
LETS = {
    "public": EVERYTHING,
    "internal": EVERYTHING,
    "confidential": EVERYTHING - {("none", "plain"), ("silo", "plain")},
    "restricted": EVERYTHING - {("none", "plain"), ("silo", "plain"), ("none", "secure")},
    "secret": {("record", "secure"), ("record_distributed", "secure")},
}


def settings_of(privacy: str, aggregation: str, more: str = ""):
    noisy = "" if privacy == "none" else "strategy.fraction_evaluate=0 privacy.delta=1e-5"
    return compose(f"task=breast_cancer partition.silos=5 privacy={privacy} aggregation={aggregation} {noisy} {more}")


@pytest.mark.parametrize(("privacy", "aggregation"), sorted(EVERYTHING))
def test_each_level_lets_in_what_its_table_says(privacy: str, aggregation: str) -> None:
    settings, refused = settings_of(privacy, aggregation), []
    for level in SENSITIVITIES:
        against = objections(Dataset(level), None, settings)
        assert (not against) == ((privacy, aggregation) in LETS[level]), (level, against)
        refused.append(bool(against))
    assert refused == sorted(refused)  # what a level refuses, every higher one refuses


def test_every_option_is_in_the_table() -> None:
    from quire.conf.schema import GROUPS, SEEN

    known = set(product(GROUPS["privacy"], SEEN))
    impossible = {("silo", "secure"), ("record_distributed", "plain"), ("silo_distributed", "plain")}
    assert known == EVERYTHING | impossible


def test_moments_in_clear_are_for_public_rows() -> None:
    settings = settings_of("none", "plain", "data.preprocessing=federated")
    assert objections(Dataset("public"), None, settings) == ()
    (words,) = objections(Dataset("internal", lines=(("sensitivity", 7),)), None, settings)
    assert words.startswith("dataset.sensitivity (silo.yaml, line 7) is internal, which asks for no moments of columns")


def test_residency_is_that_of_every_member() -> None:
    near = charter("clinic-1", "clinic-2", "clinic-3", needed=2)
    far = replace(near, members=(*near.members[:2], member("clinic-3", residency="us")))
    nowhere = replace(near, members=(*near.members[:2], member("clinic-3", residency=None)))
    settings, dataset = settings_of("none", "plain"), Dataset("public", residency=frozenset({"eu", "ch"}))
    assert objections(dataset, near, settings) == ()
    assert "has members elsewhere, whom the model goes to: clinic-3 (us)" in objections(dataset, far, settings)[0]
    assert "clinic-3 (not said)" in objections(dataset, nowhere, settings)[0]
    assert objections(replace(dataset, residency=frozenset({"eu", "us"})), far, settings) == ()
    assert "without a charter nobody says where the members are" in objections(dataset, None, settings)[0]
    assert objections(Dataset("public"), far, settings) == ()


def test_a_purpose_is_compared_word_for_word() -> None:
    found, settings = charter(), settings_of("none", "plain")
    for purposes, fits in (
        ((PURPOSE,), True),
        (("Something else.", PURPOSE), True),
        ((PURPOSE.lower(),), False),
        (("Research on the heart",), False),
    ):
        assert (objections(Dataset("public", purposes=purposes), found, settings) == ()) == fits
    assert (
        "without a charter nobody says what a run is for"
        in objections(Dataset("public", purposes=("x",)), None, settings)[0]
    )


def test_the_first_objection_is_the_refusal() -> None:
    dataset = Dataset("secret", residency=frozenset({"us"}), purposes=("x",), unconfirmed=True)
    assert len(objections(dataset, charter(), settings_of("none", "plain"))) == 4
    with pytest.raises(Refusal) as caught:
        hold_to_labels(dataset, charter(), settings_of("none", "plain"))
    assert caught.value.code is Code.LABELS_REFUSED
    assert "nobody has confirmed the columns" in caught.value.words
    assert "data set" in WORDS[Code.LABELS_REFUSED]


class Labelled(RealSilo):
    """The silo ``clinic-1``, with labels, under a charter of four clinics or none."""

    def label(self, dataset: str, chartered: bool = True, more: str = "", **policy: object) -> None:
        lines = f"dataset: {dataset}\n{more}"
        if chartered:
            lines += f'charter: {{file: charter, hash: "{self.charter().hash}", residency: eu}}\n'
        self.write(lines, **policy)

    def charter(self):
        began = getattr(self, "began", int(time.time()) - HOUR)
        self.began = began
        public = load_identity(self.folder / "silo.key").public
        members = (
            member(CLINICS[0], identity=public, delta=1e-4),
            *(member(name, delta=1e-4) for name in CLINICS[1:]),
        )
        found = charter(
            members=members, needed=3, amendments=3, min_cohort=4, issued=began - HOUR, not_before=began,
            not_after=began + 10 * HOUR,
        )  # fmt: skip
        if not (self.folder / "charter").exists():
            written(self.folder / "charter", signed(found, *CLINICS[1:]))
        return found

    def under(self, stage: str = "train") -> str:
        return self.refused(stage, f"charter={self.charter().hash}")


@pytest.fixture
def silo(tmp_path: Path) -> Labelled:
    return Labelled(tmp_path)


@pytest.mark.parametrize(
    ("dataset", "words"),
    [
        ("{sensitivity: secret}", "is secret, which asks for noise for each record, under masks"),
        ("{sensitivity: public, residency: [us]}", "lists us, and the charter heart, version 1, has members elsewhere"),
        ("{sensitivity: public, purposes: [Advertising]}", "does not list the purpose of the charter heart, version 1"),
        ("{sensitivity: public, confirmed: required}", "is required, and nobody has confirmed the columns"),
    ],
)
def test_a_real_silo_refuses_at_every_stage(silo: Labelled, dataset: str, words: str, caplog) -> None:
    silo.label(dataset)
    for stage in ("query", "query.moments", "train", "evaluate"):
        assert silo.under(stage) == "LABELS_REFUSED", stage
    assert words in caplog.text
    assert "silo.yaml, line 4" in caplog.text
    assert silo.charges() == []


@pytest.mark.parametrize("stage", contract.SECURE_STAGES)
def test_a_real_silo_refuses_at_every_stage_of_secure_aggregation(silo: Labelled, stage: str) -> None:
    silo.label("{sensitivity: public, purposes: [Advertising]}", chartered=False, aggregation="[plain, secure]")
    records = {
        contract.ARRAYS: encode(MODEL),
        contract.CONFIG: ConfigRecord({contract.ROUND: 1}),
        contract.PROTOCOL: ConfigRecord({contract.MESSAGE: b"x"}),
    }
    node = {SILO_KEY: str(silo.folder / "silo.yaml")}
    overrides = merged("aggregation=secure aggregation.max_rows=100")
    with server_identity(silo.run), opened_files() as files:
        message = Message(RecordDict(records), 10, stage)
        message.metadata.__dict__["_message_id"] = "m"
        reply = app(message, Context(silo.run, 10, node, silo.state, {"overrides": overrides}))
    assert code_of(reply) == "LABELS_REFUSED"
    assert str(silo.csv) not in files


def test_a_real_silo_answers_what_fits(silo: Labelled) -> None:
    confirmed = 'columns: {allow: [age, sick], confirmed: "A. Vogel, 2026-11-22"}\n'
    fits = f'{{sensitivity: restricted, residency: [eu, ch], purposes: ["{PURPOSE}"], confirmed: required}}'
    silo.label(fits, more=confirmed)
    assert silo.code("train", f"charter={silo.charter().hash}") == "ANSWERED"
    silo.label("{sensitivity: restricted}", chartered=False)
    silo.run += 1
    assert silo.code() == "ANSWERED"


def test_charter_and_policy_still_hold_beside_labels(silo: Labelled) -> None:
    silo.label("{sensitivity: public}")
    assert silo.refused("train") == "ANOTHER_CHARTER"
    silo.label("{sensitivity: public}", modes="[silo]")
    assert silo.under() == "POLICY_REFUSED"


def test_silo_check_says_what_the_labels_have_against_a_run(silo: Labelled, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")

    def check(*more: str) -> tuple[int, str]:
        done = CliRunner().invoke(command, ["silo", "check", str(silo.folder / "silo.yaml"), *more])
        return done.exit_code, " ".join(done.output.split())

    silo.label('{sensitivity: secret, residency: [eu], purposes: ["x"]}')
    status, said = check()
    assert status == 0
    assert "Data set: secret, which asks for no moments of columns in clear" in said
    assert "Residency: members in eu only. Purposes: 1, of which a run's charter has to name one." in said
    status, said = check(*merged(f"charter={silo.charter().hash}").split())
    assert status == 1
    assert "Labels: dataset.purposes (silo.yaml, line 4) does not list the purpose of the charter heart" in said
    assert "Labels: dataset.sensitivity (silo.yaml, line 4) is secret" in said
    silo.label("{sensitivity: internal}")
    assert check(*merged(f"charter={silo.charter().hash}").split())[0] == 0


@pytest.mark.parametrize(
    ("dataset", "words"),
    [
        ("{}", "'dataset' lacks the key 'sensitivity'"),
        ("{sensitivity: high}", "'sensitivity' must be one of public, internal, confidential, restricted, secret"),
        ("{sensitivity: public, residency: eu}", "'residency' must be a list"),
        ("{sensitivity: public, residency: []}", "'residency' must list at least one place"),
        ("{sensitivity: public, residency: [EU]}", "'residency' must list words of lower-case letters"),
        ("{sensitivity: public, purposes: []}", "'purposes' must list at least one"),
        ("{sensitivity: public, purposes: [' ']}", "'purposes' must list at least one"),
        ("{sensitivity: public, confirmed: 'A. Vogel, 2026-11-22'}", "'confirmed' must be optional or required"),
        ("{sensitivity: public, purpose: [x]}", "'dataset' has no key 'purpose'"),
    ],
)
def test_what_it_cannot_say_is_refused_in_one_sentence(silo: Labelled, dataset: str, words: str) -> None:
    silo.label(dataset, chartered=False)
    with pytest.raises(DataError, match=words) as caught:
        read_operator_of(silo.folder / "silo.yaml")
    assert "silo.yaml, line 4, column " in str(caught.value)


def test_noise_that_can_be_foretold_is_none(silo: Labelled) -> None:
    for level in SENSITIVITIES:
        silo.label(f"{{sensitivity: {level}}}", chartered=False, test_seed="true", epsilon=None)
        if level in ("restricted", "secret"):
            with pytest.raises(DataError, match=f"a {level} data set needs noise that nobody can foretell"):
                read_operator_of(silo.folder / "silo.yaml")
        else:
            assert read_operator_of(silo.folder / "silo.yaml").dataset is not None


def test_labels_need_a_policy_that_they_are_held_beside(silo: Labelled) -> None:
    file = silo.folder / "silo.yaml"
    file.write_text("data: {connector: csv, path: rows.csv}\ndataset: {sensitivity: public}\n")
    with pytest.raises(DataError, match="a 'dataset' needs a 'policy' beside it"):
        read_operator_of(file)
