"""Consent at a silo in a run: withdrawn between two rounds, left out in the next; refused where it cannot be read."""

from __future__ import annotations

import json
import logging
import os
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest
from consenting import CONSENT, PLAIN, RECORDS, Consenting
from flwr.app import RecordDict
from real_silo import SCHEMA, all_bytes

import quire
from quire.clients.arrays import decode
from quire.conf.compose import compose
from quire.errors import DataError
from quire.simulation.silos import hold_to_rows, local_silos

NONE = "privacy=none strategy.min_silos=2"


@pytest.fixture
def silo(tmp_path: Path) -> Consenting:
    return Consenting(tmp_path)


def counts(line: dict) -> tuple[int, dict, int]:
    return line["came"], line["left_out"], line["trained"] + line["scored"]


def test_who_withdraws_between_two_rounds_is_out_in_the_next_one(silo: Consenting) -> None:
    assert silo.train(1) == "ANSWERED"
    silo.withdraw("p3", "p4", " p5 ")
    assert silo.train(2) == "ANSWERED", "the run goes on: its rows are those that it began with"
    silo.withdraw("p3")
    assert silo.train(3) == "ANSWERED"
    assert [line["round"] for line in silo.lines()] == [1, 2, 3]
    assert [counts(line) for line in silo.lines()] == [
        (RECORDS, {}, RECORDS),
        (RECORDS, {"withdrawn": 3}, RECORDS - 3),
        (RECORDS, {"withdrawn": 1}, RECORDS - 1),
    ]


def test_what_a_withdrawn_record_says_changes_nothing_any_more(silo: Consenting) -> None:
    """Bit for bit: what is trained is the same, whatever is in the rows of who withdrew."""
    silo.write(CONSENT, **{**PLAIN, "test_seed": "true"})
    gone = silo.load().sifted.train_ids[0]
    updates = []
    for withdrawn, age in ((False, 11), (False, 89), (True, 11), (True, 89)):
        silo.withdraw(*([gone] if withdrawn else []))
        lines = silo.csv.read_text().splitlines()
        lines = [f"{gone},{age},{line[-1]}" if line.startswith(f"{gone},") else line for line in lines]
        silo.csv.write_text("\n".join(lines) + "\n")
        silo.run, silo.state = silo.run + 1, RecordDict()  # rows that change are for another run
        updates.append(decode(silo.ask("train", f"{NONE} training.steps=10").content["update"])["0.weight"].item())
    assert updates[0] != updates[1]
    assert updates[2] == updates[3]


def test_counts_sent_without_privacy_are_of_what_was_trained_on(silo: Consenting) -> None:
    silo.withdraw(*(f"p{number}" for number in range(30)))
    reply = silo.ask("train", NONE)
    assert reply.content["metrics"]["num-examples"] == silo.lines()[-1]["trained"] < 30


def test_federated_statistics_are_of_what_is_allowed(silo: Consenting) -> None:
    def rows() -> float:
        reply = silo.ask("query.moments", f"{NONE} data.preprocessing=federated")
        return float(decode(reply.content["arrays"])["count"].max())

    before = rows()
    silo.withdraw(*silo.load().sifted.train_ids[:5])
    assert rows() == before - 5


def test_under_privacy_nothing_of_it_travels(silo: Consenting) -> None:
    replies, charges = [], []
    for number, withdrawn in enumerate([(), ("p1", "p2"), tuple(f"p{place}" for place in range(RECORDS))], start=1):
        silo.write(CONSENT)
        silo.withdraw(*withdrawn)
        reply = silo.ask("train", round_number=number)
        assert reply.content["identity"]["records"] == RECORDS, "the public constant"
        assert set(reply.content) == {"update", "identity"}
        line, sent = silo.lines()[-1], all_bytes(reply)
        assert counts(line) == (RECORDS, {"withdrawn": len(withdrawn)} if withdrawn else {}, RECORDS - len(withdrawn))
        for private in (line["members"].encode(), bytes.fromhex(line["members"]), b"withdrawn", b"num-examples"):
            assert private not in sent
        replies.append(len(sent))
        charges.append({key: silo.charges()[-1][key] for key in ("event", "unit") if key in silo.charges()[-1]})
    assert charges[0] == charges[1] == charges[2], "what is charged goes by the declared number"
    assert max(replies) - min(replies) < 64, "nor does the size tell"


@pytest.mark.parametrize(
    ("section", "says"),
    [
        ("{subject: patient, withdrawn: {connector: csv, path: gone.csv, key: id}}", "there is no"),
        ("{subject: patient, withdrawn: {connector: csv, path: out.csv, key: number}}", "no column 'number'"),
        ("{subject: insured, withdrawn: {connector: csv, path: out.csv, key: id}}", "no column 'insured'"),
        (
            "{subject: patient, withdrawn: {connector: sql, url: 'sqlite:///c.db', query: 'select 1 from w', key: x}}",
            "the database answered with an error",
        ),
    ],
)
def test_a_silo_that_cannot_tell_who_withdrew_does_not_train(
    silo: Consenting, section: str, says: str, caplog: pytest.LogCaptureFixture
) -> None:
    sqlite3.connect(silo.folder / "c.db").close()
    assert silo.train(1) == "ANSWERED"
    silo.consent(section)
    assert silo.train(2) == "DATA_UNAVAILABLE"
    assert says in caplog.text
    assert len(silo.lines()) == 1


def test_a_table_that_went_away_in_mid_run_is_not_consent_as_it_was(silo: Consenting) -> None:
    assert silo.train(1) == "ANSWERED"
    (silo.folder / "out.csv").unlink()
    assert silo.train(2) == "DATA_UNAVAILABLE"
    silo.withdraw("p1")
    assert silo.train(3) == "ANSWERED"


def test_a_change_that_keeps_size_and_time_is_noticed(silo: Consenting) -> None:
    silo.withdraw("p1")
    first = set(silo.load().sifted.train_ids)
    stat = (silo.folder / "out.csv").stat()
    silo.withdraw("p2")
    os.utime(silo.folder / "out.csv", ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert set(silo.load().sifted.train_ids) != first


def test_a_database_is_asked_anew_for_each_message(silo: Consenting) -> None:
    """Also one that is held in a file: in write-ahead mode the file itself need not change with a withdrawal."""
    database = sqlite3.connect(silo.folder / "c.db", isolation_level=None)
    database.execute("pragma journal_mode=wal")
    database.execute("create table given (id text, research integer)")
    database.executemany("insert into given values (?, 1)", [(f"p{place}",) for place in range(50)])
    silo.consent(
        "{subject: patient, given: {connector: sql, url: 'sqlite:///c.db', query: 'select * from given', key: id, "
        "flag: research}}"
    )
    assert silo.train(1) == "ANSWERED"
    database.execute("update given set research = 0 where id in ('p1', 'p2')")
    assert silo.train(2) == "ANSWERED"
    database.close()
    assert [line["left_out"] for line in silo.lines()] == [{"not given": 10}, {"not given": 12}]


def test_rows_that_change_themselves_still_end_the_run(silo: Consenting) -> None:
    assert silo.train(1) == "ANSWERED"
    silo.withdraw("p3")
    silo.rows(RECORDS - 1)
    assert silo.train(2) == "DATA_UNAVAILABLE"


def test_nothing_left_to_train_on_is_refused_without_privacy(
    silo: Consenting, caplog: pytest.LogCaptureFixture
) -> None:
    silo.withdraw(*(f"p{place}" for place in range(RECORDS)))
    assert silo.train(1) == "DATA_UNAVAILABLE"
    assert "without rows to train on or to test on" in caplog.text


def test_ids_that_are_spelled_otherwise_are_pointed_out(silo: Consenting, caplog: pytest.LogCaptureFixture) -> None:
    silo.withdraw("P3")
    silo.load()
    assert "none of the 1 subjects of the consent table is one of the silo's rows" in caplog.text


# --------------------------------------------------------------------------------------------- a whole federation
def federation(folder: Path) -> Path:
    (folder / "schema.yaml").write_text(SCHEMA)
    for name in ("clinic-1", "clinic-2"):
        (folder / name).mkdir()
        silo = Consenting(folder / name)
        text = (silo.folder / "silo.yaml").read_text().replace("name: clinic-1", f"name: {name}")
        text = text.replace("path: ", f"path: {name}/").replace("policy:\n", "policy:\n  rehearsal: true\n")
        (folder / f"{name}.yaml").write_text(f"{text}store: {name}/store\nidentity: {name}/silo.key\n")
    return folder


class AfterRound(logging.Handler):
    """Does something between two rounds, in the process of an inline run."""

    def __init__(self, number: int, act: Callable[[], None]) -> None:
        super().__init__(logging.INFO)
        self.number, self.act = number, act

    def emit(self, record: logging.LogRecord) -> None:
        if record.getMessage().startswith(f"Round {self.number}: "):
            self.act()


@pytest.mark.parametrize("privacy", ["", " privacy=record privacy.epsilon=20 privacy.delta=1e-4"])
def test_withdrawn_between_two_rounds_of_a_federation(tmp_path: Path, privacy: str) -> None:
    silos = federation(tmp_path)
    if privacy:
        for path in silos.glob("clinic-*.yaml"):
            path.write_text(path.read_text().replace("[none]", "[record]\n  epsilon: 40.0\n  delta: 1.0e-4"))
    out = silos / "clinic-1" / "out.csv"
    handler = AfterRound(2, lambda: out.write_text("id\np1\np2\np3\n") and None)
    logging.getLogger("quire").addHandler(handler)
    logging.getLogger("quire").setLevel(logging.INFO)
    try:
        folder = tmp_path / "run"
        settings = f"task=tabular partition.silos=2 strategy.rounds=4 training.steps=2 seed=3{privacy}"
        quire.run(settings, folder, silos=silos)
    finally:
        logging.getLogger("quire").removeHandler(handler)
        logging.getLogger("quire").setLevel(logging.NOTSET)
    journal = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    models = {line["round"]: line["model"] for line in journal if line["event"] == "round"}
    for name, out_of in (("clinic-1", 3), ("clinic-2", 0)):
        path = silos / name / "store" / "consent" / "lineage.jsonl"
        lines = [json.loads(line) for line in path.read_text().splitlines()]
        assert [line["round"] for line in lines] == [1, 2, 3, 4]
        left = {"withdrawn": out_of} if out_of else {}
        assert [line["left_out"] for line in lines] == [{}, {}, left, left]
        assert [line["model"] for line in lines[1:]] == [models[number] for number in (1, 2, 3)]


def test_a_run_is_gone_on_with_under_the_consent_of_the_day(silo: Consenting, tmp_path: Path) -> None:
    """What a run pins is the hash of all rows: a withdrawal between a kill and its resume is no other table."""
    (tmp_path / "more").mkdir()
    settings, folder = compose("task=tabular partition.silos=2 seed=3"), tmp_path / "run"
    local = local_silos(settings, federation(tmp_path / "more"))
    hold_to_rows(settings, local, folder, resume=False)
    (tmp_path / "more" / "clinic-1" / "out.csv").write_text("id\np1\n")
    hold_to_rows(settings, local, folder, resume=True)
    assert len(local.data(settings)[0].train) + len(local.data(settings)[0].test) == RECORDS - 1
    (tmp_path / "more" / "clinic-1" / "rows.csv").write_text("patient,age,sick\np1,20,0\np2,30,1\np3,40,0\np4,50,1\n")
    with pytest.raises(DataError, match="The rows of clinic-1 are not those that this run began with"):
        hold_to_rows(settings, local, folder, resume=True)
