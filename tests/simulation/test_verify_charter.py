"""`quire verify` and the charter: settings, run.json, log and card name the same one, and it was in force."""

from __future__ import annotations

import json
import shutil
import time
from dataclasses import replace

import pytest
from charters import NAMES, amended, charter, signed, written
from private_runs import OVERRIDES, Consortium, write_run
from typer.testing import CliRunner

from quire.cli import app
from quire.privacy.identity.keys import PrivateIdentity
from quire.simulation.verify import verify_run
from quire.strategies.card_page import page
from quire.transparency.log import Log, origin_of
from quire.transparency.reading import Entries
from quire.transparency.verify import Place, verify_log

CONSORTIUM = Consortium()
KEY = PrivateIdentity.from_seed(b"log".ljust(32))
NOW = int(time.time())
TIMES = {"issued": NOW - 9000, "not_before": NOW - 5000, "not_after": NOW + 90_000}
FIRST = charter(**TIMES)
SECOND = amended(FIRST, issued=NOW - 4000, not_before=NOW - 3000)
CHARTER_2 = signed(SECOND, *NAMES, previous=FIRST)


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    place = tmp_path_factory.mktemp("runs")
    written(place / "charter", signed(FIRST), CHARTER_2)
    write_run(place / "run", CONSORTIUM, f"{OVERRIDES} charter={SECOND.hash}", log_key=KEY, charter=SECOND)
    return place


@pytest.fixture
def place(original, tmp_path):
    return shutil.copytree(original, tmp_path / "place")


def wrong(place, charter="charter"):
    return verify_run(place / "run", charter=place / charter if charter else None).wrong


def about(place, change):
    path = place / "run" / "run.json"
    found = json.loads(path.read_text())
    change(found)
    path.write_text(json.dumps(found))


def anew(place, keep):
    """Write the log anew, as whoever has its key can, with every entry as a function wants it."""
    where, folder = Place.of(place / "run"), place / "run" / "log"
    entries, notes = [entry for _, entry in Entries(where.entries).each()][1:], verify_log(where).notes
    origin = origin_of(folder)
    shutil.rmtree(folder)
    with Log.open(folder, origin, KEY, 1) as log:
        log.append(*(made for entry in entries if (made := keep(entry)) is not None))
        log.checkpoint(notes[-1].checkpoint.time)


def named(place, **changes):
    anew(place, lambda one: replace(one, body={**one.body, **changes}) if one.kind == "charter" else one)


def test_a_run_under_a_charter_verifies_and_says_which(place):
    assert verify_log(Place.of(place / "run")).kinds["charter"] == 1
    found = verify_run(place / "run", charter=place / "charter")
    assert found.wrong == []
    assert f"Charter: {SECOND.hash}, version 2 of heart, as you named it." in found.notes
    found = verify_run(place / "run")
    assert found.wrong == []
    assert f"Charter: {SECOND.hash}; what it says was not looked at, name its versions with --charter." in found.notes


def test_a_log_that_names_another_charter_is_found(place):
    named(place, charter=FIRST.hash)
    assert wrong(place) == [
        f"The log says that run 7 is under the charter {FIRST.hash[:16]}, and its settings name {SECOND.hash[:16]}."
    ]


@pytest.mark.parametrize("change", [{"version": 3}, {"previous": None}])
def test_a_log_that_says_another_version_is_found(place, change):
    named(place, **change)
    (only,) = wrong(place)
    assert only.endswith("another version, or another one before it, than run.json.")


def test_a_log_without_the_charter_is_found(place):
    anew(place, lambda one: None if one.kind == "charter" else one)
    assert wrong(place) == [
        f"The log does not say under which charter run 7 went, and its settings name {SECOND.hash[:16]}."
    ]


def test_another_charter_in_run_json_is_found(place):
    about(place, lambda found: found["held_to"]["charter"].update(charter=FIRST.hash))
    assert (
        f"run.json says that the run is under the charter {FIRST.hash[:16]}, and its settings name {SECOND.hash[:16]}."
    ) in wrong(place)


@pytest.mark.parametrize("told", [None, [], {}, 7])
def test_no_charter_in_run_json_is_found(place, told):
    about(place, lambda found: found["held_to"].update(charter=told))
    assert any(words.startswith("run.json says that the run is under the charter none") for words in wrong(place))


def test_another_version_in_run_json_is_found_by_the_card_too(place):
    about(place, lambda found: found["held_to"]["charter"].update(version=9))
    found = wrong(place)
    assert any("run.json has another number" in words for words in found)
    assert any("The card: " in words and "charter_version" in words for words in found)


def test_a_log_of_a_run_under_no_charter_that_names_one_is_found(tmp_path):
    write_run(tmp_path / "run", CONSORTIUM, log_key=KEY, charter=FIRST)
    assert wrong(tmp_path, charter=None) == [
        f"run.json says that the run is under the charter {FIRST.hash[:16]}, and its settings name none.",
        f"The log says that run 7 is under the charter {FIRST.hash[:16]}, and its settings name none.",
    ]


def test_versions_without_the_run_s_charter_are_found(place):
    (place / "charter" / "charter-2.json").unlink()
    (only,) = wrong(place)
    assert only == f"The charter: none of the 1 versions that you named has the hash {SECOND.hash}."


def test_a_charter_that_lacks_signatures_is_found(place):
    data = replace(CHARTER_2, signatures=CHARTER_2.signatures[:1])
    (place / "charter" / "charter-2.json").write_bytes(data.encode())
    (only,) = wrong(place)
    assert only.startswith("The charter does not hold: ")


@pytest.mark.parametrize(("days", "what"), [(-1, "before it took force"), (2, "after it was over")])
def test_a_charter_that_was_not_in_force_is_found(place, days, what):
    moment = time.strftime("%Y-%m-%dT%H:%M:%S+00:00", time.gmtime(NOW + 86_400 * days))
    about(place, lambda found: found.update(started=moment))
    assert "The charter: the charter heart, version 2 was not in force when the run began." in wrong(place), what


def test_a_version_that_was_replaced_is_found(place):
    third = amended(SECOND, issued=NOW - 2000, not_before=NOW - 1000)
    written(place / "charter", signed(third, *NAMES, previous=SECOND))
    assert wrong(place) == ["The charter: the charter heart, version 2 was not in force when the run began."]


def test_the_command_takes_the_charter(place, tmp_path):
    done = CliRunner().invoke(app, ["verify", str(place / "run"), "--charter", str(place / "charter")])
    assert (done.exit_code, "version 2 of heart" in done.output) == (0, True)
    done = CliRunner().invoke(app, ["verify", str(place / "run"), "--charter", str(tmp_path / "none")])
    assert (done.exit_code, "WRONG  The charter does not hold: " in done.output) == (1, True)
    write_run(tmp_path / "run", CONSORTIUM)
    done = CliRunner().invoke(app, ["verify", str(tmp_path / "run"), "--charter", str(place / "charter")])
    assert (done.exit_code, "WRONG  The run is under no charter" in done.output) == (1, True)


# ------------------------------------------------------------------------------------------- the card's page
def test_the_page_of_the_card_names_charter_and_version(place, tmp_path):
    text = (place / "run" / "privacy_card.html").read_text()
    assert f"<dt>Charter (SHA-256)</dt><dd><code>{SECOND.hash}, version 2</code></dd>" in text
    without = write_run(tmp_path / "run", CONSORTIUM) / "privacy_card.html"
    assert "Charter" not in without.read_text()


def test_the_page_escapes_what_a_card_says_of_its_charter(place):
    card = json.loads((place / "run" / "privacy_card.json").read_text())
    card["run"].update(charter="<script>alert(1)</script>", charter_version='"><b>')
    text = page(card)
    assert "&lt;script&gt;alert(1)&lt;/script&gt;, version &quot;&gt;&lt;b&gt;" in text
    assert "<script" not in text
    card["run"]["charter_version"] = None
    assert "&lt;/script&gt;</code>" in page(card)
