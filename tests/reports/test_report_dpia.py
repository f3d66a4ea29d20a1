"""`quire report dpia`: filled from charter, card, journal and log, each with its source; the rest are gaps."""

from __future__ import annotations

import re
import shutil

import pytest
from private_runs import OVERRIDES, SILOS, write_run
from real_silo import SCHEMA
from report_runs import CHARTER, CONSORTIUM, DAY, deployed, notices, read, residual, said

from quire.reports import facts
from quire.reports.checks import Keys
from quire.reports.details import QUESTIONS, Details, example, read_details
from quire.reports.document import Standing, Statement, Table
from quire.reports.dpia import dpia
from quire.reports.errors import ReportInput
from quire.reports.inputs import Inputs
from quire.reports.markdown import markdown
from quire.reports.page import page
from quire.reports.risks import EPSILONS, bounded, guessing
from quire.reports.run import read_run


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return deployed(tmp_path_factory.mktemp("deployed"))


@pytest.fixture(scope="module")
def document(place):
    run, inputs = read(place)
    return dpia(run, None, Details(), None, inputs, DAY)


def test_it_says_what_the_charter_and_the_run_say_and_that_it_was_verified(document):
    assert not document.failed
    purpose = said(document, "Purpose, as the members signed it")
    assert purpose.says == (CHARTER.purpose.replace("\n", " "),)
    assert (purpose.source, purpose.standing) == ("charter heart, version 1", Standing.VERIFIED)
    assert "basel: eu." in said(document, "Where records lie").says
    assert said(document, "Where records lie").standing is Standing.DECLARED
    assert "Destroyed: The rest, within 30 days." in said(document, "Exit rules of the charter").says
    privacy = said(document, "Differential privacy")
    assert privacy.standing is Standing.VERIFIED
    assert "Every record has epsilon 3 at delta 1e-05, or better." in privacy.says[0]
    assert "noise multiplier 1.4101 to 1.427." in privacy.says[1]
    rows = said(document, "Who takes part").rows
    assert [row[:2] for row in rows] == [("hospital-1", "4"), ("hospital-2", "3"), ("hospital-3", "4")]
    assert said(document, "Software").standing is Standing.UNCHECKED
    members = said(document, "Members of the charter")
    assert [row[3] for row in members.rows] == ["holds", "holds", "none"]


def test_whose_keys_counted_stands_at_the_top(place, document):
    assert "that was named" in notices(document)["Whose keys"]
    assert CONSORTIUM.signed.roster.hash in notices(document)["Whose keys"]
    run, inputs = read(place, Keys())
    other = dpia(run, None, Details(), None, inputs, DAY)
    assert "nobody has compared" in notices(other)["Whose keys"]
    assert said(other, "Roster").standing is Standing.UNCHECKED
    assert said(other, "Purpose, as the members signed it").standing is Standing.GAP


def test_gaps_are_counted_at_the_top_and_answers_close_them(place, document, tmp_path):
    assert {title for title, _ in QUESTIONS.values()} < {one.title for one in document.gaps}
    count = len(document.gaps)
    assert document.notices[0].title == f"{count} gaps"
    assert page(document).count('<span class="mark gap">GAP</span>') >= count
    assert markdown(document).count("- **GAP: ") >= count
    assert len(re.findall(r"^\d+\. \*\*", markdown(document), re.MULTILINE)) == count
    file = tmp_path / "answers.yaml"
    file.write_text("controller: Heart Ltd, Basel\nretention: [Logs for 10 years., The model for good.]\ndpo:\n")
    run, inputs = read(place)
    answered = dpia(run, None, read_details(file), None, inputs, DAY)
    assert len(answered.gaps) == count - 2
    assert said(answered, "Controller").says == ("Heart Ltd, Basel",)
    assert said(answered, "Controller").standing is Standing.DECLARED
    assert said(answered, "Time limits").says == ("Logs for 10 years.", "The model for good.")
    assert said(answered, "Data protection officer").standing is Standing.GAP


def test_every_question_answered_leaves_only_what_the_silo_knows(place, tmp_path):
    file = tmp_path / "answers.yaml"
    file.write_text("".join(f"{key}: said\n" for key in QUESTIONS))
    run, inputs = read(place)
    left = {one.title for one in dpia(run, None, read_details(file), None, inputs, DAY).gaps}
    assert left == {
        "Columns and redaction rules",
        "Lineage",
        "Consent, withdrawals, erasure",
        "What records have spent over all runs",
    }


def test_the_example_of_answers_has_every_key_and_answers_nothing(tmp_path):
    (tmp_path / "answers.yaml").write_text(example())
    assert read_details(tmp_path / "answers.yaml").answers == {}
    assert re.findall(r"^(\w+):$", example(), re.MULTILINE) == list(QUESTIONS)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("controler: x\n", "has no key 'controler'"),
        ("controller: x\ncontroller: y\n", "is there twice"),
        ("controller: {a: b}\n", "must be a single value"),
        ("controller: 5\n", "must be a text"),
        ("controller: '  '\n", "is blank"),
        (f"controller: {'x' * 4001}\n", "more than 4000 characters"),
        (f"controller: [{', '.join(['x'] * 51)}]\n", "more than 50 entries"),
        ("controller: &a x\ndpo: *a\n", "alias"),
        ("- x\n", "must hold keys"),
        ("", "is empty"),
        ("a: [", "not YAML"),
    ],
)
def test_answers_are_read_strictly(tmp_path, text, words):
    file = tmp_path / "answers.yaml"
    file.write_text(text)
    with pytest.raises(ReportInput, match=words) as caught:
        read_details(file)
    assert caught.value.exit_code == 2
    assert str(file) in str(caught.value)


def test_what_is_left_of_a_risk_follows_from_the_facts(document):
    assert residual(document, "Membership inference").says[0] == "Moderate."
    assert "at most 95.3 % of the time" in residual(document, "Membership inference").says[1]
    assert residual(document, "The server sees updates").says[0] == "Moderate."
    assert residual(document, "Other code or settings").says[0] == "Moderate."  # approved, and no gate
    assert residual(document, "A record that is rewritten").says[0] == "Moderate."  # a log, and nobody countersigned
    assert residual(document, "Silos that are missing").says[0] == "Moderate."
    assert residual(document, "Use against a person's will").says[0] == "Open."
    assert residual(document, "Loss of keys").says[0] == "Moderate."
    assert all(residual(document, group.title).standing is Standing.FOLLOWS for group in document.sections[5].items)


@pytest.mark.parametrize(
    ("epsilon", "word"),
    [(0.5, "Low"), (1.0, "Low"), (1.1, "Moderate"), (3.0, "Moderate"), (8.0, "High"), (10.1, "Not bounded")],
)
def test_the_word_for_an_epsilon(epsilon, word):
    assert bounded(epsilon) == word
    assert bounded(float("inf")) == "Not bounded"
    assert bounded(None) == "Open"
    assert [most for most, _ in EPSILONS] == sorted(most for most, _ in EPSILONS)


def test_how_often_a_guess_is_right():
    assert guessing(0.0, 0.0) == 0.5
    assert guessing(1.0, 0.0) == pytest.approx(0.7311, abs=1e-4)
    assert guessing(0.0, 1.0) == 1.0
    assert guessing(800.0, 0.1) == 1.0


@pytest.mark.parametrize("rule", ["plain", "median"])
def test_a_run_without_privacy_is_said_to_have_protected_nothing(tmp_path, rule):
    plain = OVERRIDES.replace("privacy=record privacy.epsilon=3", f"aggregation={rule}")
    write_run(tmp_path / "run", _Silent(CONSORTIUM), plain)
    run = read_run(tmp_path / "run", Keys(), inputs := Inputs())
    found = dpia(run, None, Details(), None, inputs, DAY)
    assert not found.failed
    assert "protected nothing beyond keeping the rows at home" in notices(found)["No privacy, and no masks"]
    for risk in (
        "The server sees updates",
        "Membership inference",
        "Reconstruction of records",
        "Release of the model",
    ):
        assert residual(found, risk).says[0] == "Not bounded.", risk
    assert f"aggregation={rule}: nobody has to collude" in residual(found, "Collusion").says[1]
    bounded_ones = "updates that lie apart move the mean only so far" in said(found, "Influence of one silo").says[0]
    assert bounded_ones == (rule == "median")
    left = residual(found, "Poisoned updates").says
    assert left[0] == ("Moderate." if rule == "median" else "High.")
    assert ("A rule held against outliers ran" in left[1]) == (rule == "median")
    assert said(found, "Privacy card").standing is Standing.ABSENT
    assert said(found, "What is learned").standing is Standing.UNCHECKED  # nobody but the server signed anything


class _Silent:
    """A consortium whose silos send no receipts."""

    def __init__(self, consortium):
        self.signed = consortium.signed

    def receipt(self, *args, **more):
        return b""


def test_a_charter_that_does_not_hold_fails_and_the_document_says_so(place, tmp_path):
    copy = shutil.copytree(place, tmp_path / "place")
    about = copy / "run" / "run.json"
    about.write_text(about.read_text().replace('"version": 1', '"version": 2', 1))
    run, inputs = read(copy)
    found = dpia(run, None, Details(), None, inputs, DAY)
    assert found.failed
    assert "Charter" in notices(found)["It does not verify"]
    assert said(found, "Purpose, as the members signed it").standing is Standing.FAILED


def test_the_same_inputs_give_the_same_bytes(place, document):
    run, inputs = read(place)
    again = dpia(run, None, Details(), None, inputs, DAY)
    assert page(again) == page(document)
    assert markdown(again) == markdown(document)
    for name in SILOS:
        assert name in page(document)
    assert str(place) not in page(document) + markdown(document)


def test_the_schema_is_held_against_the_hash_that_the_run_names(place, tmp_path):
    file = tmp_path / "schema.yaml"
    file.write_text(SCHEMA)
    run, inputs = read(place)
    table = said(dpia(run, None, Details(), file, inputs, DAY), "Columns of the public schema")
    assert isinstance(table, Table)
    assert (table.rows[0], table.standing) == (("age", "number", "0 to 100", "no"), Standing.UNCHECKED)
    from quire.clients.tasks.schema import read_schema

    run.about["held_to"]["schema"] = read_schema(file).sha256
    assert facts.columns(run, read_schema(file), "schema").standing is Standing.VERIFIED
    run.about["held_to"]["schema"] = "0" * 64
    assert facts.columns(run, read_schema(file), "schema").standing is Standing.FAILED
    assert isinstance(facts.columns(run, None, ""), Statement)
