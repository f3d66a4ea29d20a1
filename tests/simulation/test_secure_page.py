"""The report of a secure run tells the protocol's life; card and page say what is promised, and what is not."""

import json
import re

import pytest
import yaml

import quire
from quire.conf.asked import fewest_in_sum
from quire.conf.compose import compose
from quire.simulation import grid, report_words, secure_section
from quire.simulation.grid import InlineGrid
from quire.simulation.report import write_report
from quire.simulation.report_data import read_run
from quire.simulation.verify import verify_run
from quire.strategies.secure_words import Masked, not_protected, sees, trusted
from tests.simulation.test_report import Page, make_run, page_of, round_event
from tests.support.private_runs import OVERRIDES, Consortium, write_run

BASE = "task=breast_cancer partition=iid output.baselines=false output.report=false"
SECURE = f"{BASE} aggregation=secure"
SILOS = [f"hospital-{place}" for place in range(1, 6)]


def rounds_of(folder):
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [line for line in lines if line["event"] == "round"]


def section_of(folder):
    return secure_section.section(read_run(folder))


@pytest.fixture(scope="module")
def dropped(tmp_path_factory):
    """A run of eight hospitals in which one is lost at each of four exchanges, with keys made anew on the way."""
    folder = tmp_path_factory.mktemp("runs") / "run"
    faults = (
        "drop:mask:2:hospital-2,error:shares:3:hospital-4,drop:confirm:4:hospital-1,drop:pairs:5:hospital-7,"
        "drop:evaluate:1:hospital-3"
    )
    settings = f"{SECURE} partition.silos=8 strategy.rounds=6 aggregation.rekey_every=4 runtime.faults=[{faults}]"
    quire.run(settings, folder)
    return folder


# ----------------------------------------------------------------------------------------------- the page
def test_the_page_has_every_exchange_with_its_bytes_and_time(dropped):
    found = section_of(dropped)
    stages = {row["name"]: row for row in found["stages"]}
    assert list(stages) == ["open", "pairs", "ready", "shares", "mask", "confirm", "unmask"]
    logs = [log for event in rounds_of(dropped) for log in event["secure"]["attempts"]]
    for name, row in stages.items():
        held = [log["stages"][name] for log in logs if name in log["stages"]]
        assert row["times"] == len(held) == (2 if name in ("open", "pairs", "ready") else 6)
        assert row["asked"] == sum(stage["asked"] for stage in held)
        assert (row["down"], row["up"]) == tuple(
            sum(stage[way] for stage in held) for way in ("bytes_down", "bytes_up")
        )
        assert min(stage["seconds"] for stage in held) <= row["seconds"] <= max(stage["seconds"] for stage in held)
    assert {name: row["silent"] for name, row in stages.items() if row["silent"]} == {
        "pairs": 1,
        "shares": 1,
        "mask": 1,
        "confirm": 1,
    }
    text = page_of(dropped).text("section")
    assert "Secure aggregation" in text
    for row in found["stages"]:
        assert f"{row['name']}: {row['purpose']}" in text


def test_the_page_has_the_numbers_that_the_promise_rests_on(dropped):
    assert dict(section_of(dropped)["numbers"]) == {
        "On the roster": "8",
        "May side with the server": "2",
        "Fewest in a sum": "6",
        "May drop out of a round": "2",
        "Bits a coordinate": "24",
        "Numbers under the mask": "38",
        "Keys agreed in rounds": "1, 5",
        "Attempts that failed": "0",
    }


def test_the_page_says_who_was_lost_where(dropped):
    rows = {row["round"]: row for row in section_of(dropped)["rounds"]}
    assert rows[2]["lost"] == "no vector: hospital-2"
    assert rows[3]["lost"] == "no shares: hospital-4"
    assert rows[4]["lost"] == ""
    assert rows[5]["lost"] == "without keys: hospital-7"
    assert [rows[at]["masked"] for at in range(1, 7)] == [8, 7, 7, 8, 7, 7]
    assert [rows[at]["session"] for at in range(1, 7)] == ["new", "kept", "kept", "kept", "new", "kept"]
    silos = {row["silo"]: row for row in section_of(dropped)["silos"]}
    assert (silos["hospital-2"]["asked"], silos["hospital-2"]["sums"]) == (6, 5)
    assert silos["hospital-2"]["missed"] == "mask 1\N{MULTIPLICATION SIGN}"
    assert silos["hospital-1"]["sums"] == 6  # its vector had arrived when it did not confirm
    assert silos["hospital-3"]["missed"] == ""  # it missed an evaluation, which is no part of the protocol
    titles = Page((write_report(dropped)).read_text(encoding="utf-8")).texts["title"]
    assert any(title.startswith("hospital-7, round 6: not in the round: it has no keys") for title in titles)


def test_bytes_by_silo_add_up_to_those_by_exchange(dropped):
    rows = section_of(dropped)["silos"]
    for event in rounds_of(dropped):
        for log in event["secure"]["attempts"]:
            for at, way in enumerate(("bytes_down", "bytes_up")):
                stages = sum(stage[way] for stage in log["stages"].values())
                assert sum(sizes[at] for sizes in log["bytes"].values()) == stages > 0
    assert sum(row["up"] for row in rows) == sum(event["bytes_up"] for event in rounds_of(dropped))
    # What goes down beside it is the model that is scored.
    assert 0 < sum(row["down"] for row in rows) < sum(event["bytes_down"] for event in rounds_of(dropped))
    by_name = {row["silo"]: row["up"] for row in rows}
    assert by_name["hospital-7"] == min(by_name.values())


def test_the_page_shows_attempts_that_failed_and_why(tmp_path, monkeypatch):
    deliver, missed = InlineGrid._deliver, set()

    def missing(self, message):
        place = (message.metadata.message_type.split(".")[-1], message.metadata.dst_node_id)
        if place in {("mask", 1001), ("mask", 1003)} - missed:
            missed.add(place)
            return grid._runtime_error(message, grid._NODE_GONE)
        return deliver(self, message)

    monkeypatch.setattr(InlineGrid, "_deliver", missing)
    quire.run(f"{SECURE} strategy.rounds=2", tmp_path / "run")
    found = section_of(tmp_path / "run")
    assert found["failed"] == [
        {
            "round": 1,
            "attempt": 1,
            "words": "too few masked vectors came",
            "missing": "hospital-2 (mask); hospital-4 (mask)",
        }
    ]
    assert dict(found["numbers"])["Attempts that failed"] == "1"
    assert [(row["round"], row["attempt"], row["outcome"]) for row in found["rounds"]] == [
        (1, 1, "TooFewSurvivors"),
        (1, 2, "opened"),
        (2, 1, "opened"),
    ]
    text = page_of(tmp_path / "run").text("li")
    assert "Round 1, attempt 1: too few masked vectors came. Missing in that round: hospital-2 (mask)" in text


def test_the_page_shows_blame_with_what_stands_behind_it(tmp_path, monkeypatch):
    deliver = InlineGrid._deliver

    def swapped(self, message):
        if message.metadata.message_type == "train.shares" and message.metadata.dst_node_id == 1002:
            from quire.clients.arrays import decode, encode

            arrays = decode(message.content["arrays"])
            message.content["arrays"] = encode({name: part + 1 for name, part in arrays.items()})
        return deliver(self, message)

    monkeypatch.setattr(InlineGrid, "_deliver", swapped)
    quire.run(f"{SECURE} strategy.rounds=1", tmp_path / "run")
    (note,) = section_of(tmp_path / "run")["blame"]
    assert note == {
        "round": 1,
        "silo": "hospital-3",
        "stage": "shares",
        "what": "sent what does not hold",
        "error": "ContextMismatch",
        "peer": None,
        "proven": False,
    }
    assert "ContextMismatch" in page_of(tmp_path / "run").text("td")
    assert next(row for row in section_of(tmp_path / "run")["stages"] if row["name"] == "shares")["wrong"] == 1


def masked_round(number, silos, cohort=None, **changes):
    """A round event as a secure run journals it, with two exchanges."""
    stage = {"asked": len(silos), "answered": len(silos), "bytes_down": 100, "bytes_up": 200, "seconds": 0.01}
    log = {
        "attempt": 1,
        "cohort": cohort or silos,
        "threshold": 4,
        "u2": silos,
        "u3": silos,
        "stages": {"shares": stage, "mask": stage},
        "bytes": {silo: [40, 80] for silo in silos},
        "blame": [],
        "error": None,
        **changes,
    }
    secure = {"members": len(silos), "colluders": 1, "bits": 24, "length": 35, "session": 1, "attempts": [log]}
    return round_event(number, silos, secure=secure)


def test_nothing_that_a_silo_or_a_journal_says_becomes_markup(tmp_path):
    hostile = "<img src=x onerror=alert(1)>"
    silos = [hostile, *SILOS[1:]]
    blame = {"silo": hostile, "stage": hostile, "refused": False, "error": hostile, "peer": hostile, "proven": True}
    event = masked_round(1, silos, blame=[blame], u3=silos[1:])
    failing = masked_round(2, silos, error=hostile)
    failing["failed"] = [{"silo": hostile, "stage": hostile, "code": "x", "words": hostile}]
    make_run(tmp_path, silos, [event, failing], overrides="task=breast_cancer aggregation=secure")
    page = page_of(tmp_path)
    assert not [attrs for tag, attrs in page.tags if tag == "img" or "onerror" in attrs]


def test_a_long_run_of_many_silos_stays_a_page(tmp_path, monkeypatch):
    monkeypatch.setattr(secure_section, "_MOST_ROWS", 4)
    monkeypatch.setattr(secure_section, "_MOST_BLAME", 4)
    note = {"silo": "hospital-1", "stage": "mask", "refused": True, "error": "Replay", "peer": None, "proven": False}
    rounds = [masked_round(number, SILOS, blame=[note]) for number in range(1, 8)]
    make_run(tmp_path, SILOS, rounds, overrides="task=breast_cancer aggregation=secure")
    found = section_of(tmp_path)
    assert (found["rounds_left_out"], found["silos_left_out"], found["blame_left_out"]) == (3, 1, 3)
    assert (len(found["rounds"]), len(found["silos"]), len(found["blame"])) == (4, 4, 4)
    text = page_of(tmp_path).text("p")
    assert "3 more are in metrics.jsonl." in text
    assert "And 3 more, in metrics.jsonl." in text


@pytest.mark.parametrize("rounds", [[], [round_event(1, SILOS)]])
def test_a_run_without_a_sum_says_so(tmp_path, rounds):
    make_run(tmp_path, SILOS, rounds, overrides="task=breast_cancer aggregation=secure")
    text = page_of(tmp_path).text("section")
    assert "No sum was opened" in text
    assert "No round was finished, so that no sum was opened." in text


def test_a_plain_run_says_in_one_sentence_that_the_server_saw_every_update(tmp_path):
    make_run(tmp_path)
    assert section_of(tmp_path) is None
    saw = report_words.server_saw(read_run(tmp_path))
    sentences = re.split(r"(?<=\.) ", " ".join(saw))
    assert sentences[0].startswith(
        "The server saw every hospital\N{RIGHT SINGLE QUOTATION MARK}s update of every round in the clear"
    )
    assert "under the mask" not in page_of(tmp_path).text("body")


# ---------------------------------------------------------------------------------------------- the words
def test_without_noise_the_page_says_what_masks_do_not_do(dropped):
    saw = " ".join(report_words.server_saw(read_run(dropped)))
    assert "one sum of updates for each round, over at least 6 of 8 silos, without noise" in saw
    assert "no more than 2 of the 8 members of the roster side with a lying server" in saw
    assert "only a server that is honest but curious is covered" in saw
    assert "The sum itself: nothing was added to it" in saw
    assert "of their training losses and of the shares of their updates that were cut to aggregation.bound" in saw
    assert "epsilon" not in saw
    assert "in the clear" not in saw
    text = page_of(dropped).text("p")
    assert "A simulation: all hospitals ran on one machine" in text
    assert "Simulator only" in text


def test_a_deployed_run_shows_no_scores_and_no_simulation(tmp_path):
    rounds = [masked_round(number, SILOS) | {"evaluate": None, "silos": {}} for number in (1, 2, 3)]
    make_run(tmp_path, SILOS, rounds, overrides="task=breast_cancer aggregation=secure", runtime="deployment")
    page = page_of(tmp_path)
    assert page.text("h1") == "Federating five hospitals for three rounds: what it bought, only they can tell."
    assert "Under secure aggregation a silo keeps its scores." in page.text("p")
    assert "A simulation:" not in page.text("p")
    assert "persil" not in str(page.tags)


@pytest.mark.parametrize(
    ("members", "colluders", "min_silos", "least"), [(2, 0, 0, 2), (5, 1, 2, 4), (10, 3, 2, 7), (10, 3, 9, 9)]
)
def test_the_fewest_in_a_sum_are_those_of_the_protocol(members, colluders, min_silos, least):
    from quire.privacy.secagg.params import thresholds

    masked = Masked(members, colluders, min_silos)
    assert masked.least == thresholds(members, colluders, min_silos).min_survivors == least
    assert f"over at least {least} of {members} silos" in sees(masked)[0]
    who = "none of the" if colluders == 0 else f"no more than {colluders} of the"
    assert who in trusted(masked)[0]
    assert ("With two silos" in trusted(masked)[-1]) == (members == 2)
    assert fewest_in_sum(members, colluders, min_silos) == least
    assert any(text.startswith("The sum itself") for text in not_protected(masked))
    assert not any(text.startswith("The sum itself") for text in not_protected(Masked(members, colluders, noised=True)))


def card_of(folder):
    return json.loads((folder / "privacy_card.json").read_text())


def test_a_private_secure_run_has_a_card_that_says_both_and_verifies(tmp_path):
    overrides = f"{SECURE} partition.silos=3 strategy.rounds=2 privacy=record privacy.epsilon=4"
    quire.run(overrides, tmp_path / "run")
    assert verify_run(tmp_path / "run").wrong == []
    card = card_of(tmp_path / "run")
    words = card["words"]
    assert card["run"]["aggregation"] == "secure"
    assert "over at least 2 of 3 silos, with the noise of each of these silos in it" in words["sees"][0]
    assert "the noise of the other silos is in the sum too, and is not counted" in words["sees"][2]
    assert words["sees"][3].startswith("Each silo works out the next model itself")
    assert "It could still tell all silos a false sum in every round" in words["sees"][3]
    assert not any("update on its own, with" in text for text in words["sees"])
    trust = " ".join(words["trusted"])
    assert "honest but curious" in trust
    assert "none of the 3 members of the roster sides with a lying server" in trust
    assert "a quorum of them could enrol members of their own making" in trust
    assert [text[:20] for text in words["not_protected"] if text in not_protected(Masked(3, 0, 2, True))] == [
        "That a round succeed",
        "That the sum is righ",
        "Who dropped out, whe",
    ]
    text = page_of(tmp_path / "run").text("section")
    assert words["sees"][0] in text
    # The same receipts under plain means promise the same epsilon: nothing is counted for the sum.
    quire.run(overrides.replace("aggregation=secure", "aggregation=plain"), tmp_path / "plain")
    plain = card_of(tmp_path / "plain")
    assert plain["worst"] == card["worst"]
    assert plain["words"]["sees"][0] == "The server sees each silo's update on its own, with the silo's noise in it."
    assert plain["words"]["not_protected"] != words["not_protected"]


@pytest.mark.parametrize(("more", "colluders"), [("", 0), (" aggregation.colluders=1", 1)])
def test_the_card_of_a_deployed_secure_run_counts_from_the_roster(tmp_path, more, colluders):
    folder = write_run(tmp_path / "run", Consortium(), f"{OVERRIDES} aggregation=secure{more}")
    assert verify_run(folder).wrong == []
    said = trusted(Masked(3, colluders, compose(OVERRIDES).strategy.min_silos, noised=True))
    assert card_of(folder)["words"]["trusted"][-len(said) :] == said


def test_verify_finds_a_card_that_says_less_of_secure_aggregation(tmp_path):
    folder = write_run(tmp_path / "run", Consortium(), f"{OVERRIDES} aggregation=secure")
    card = card_of(folder)
    card["words"]["not_protected"].pop(2)
    (folder / "privacy_card.json").write_text(json.dumps(card))
    assert verify_run(folder).wrong


@pytest.mark.parametrize("colluders", ["many", -4, True, 10**30, None])
def test_a_card_over_nonsense_in_the_settings_is_a_finding_and_no_crash(tmp_path, colluders):
    folder = write_run(tmp_path / "run", Consortium(), f"{OVERRIDES} aggregation=secure aggregation.colluders=1")
    settings = yaml.safe_load((folder / "settings.yaml").read_text())
    settings["aggregation"]["colluders"] = colluders
    (folder / "settings.yaml").write_text(yaml.safe_dump(settings))
    assert verify_run(folder).wrong  # the receipts are about other settings, and the card says something else
