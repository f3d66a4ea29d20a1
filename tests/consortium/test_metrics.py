"""Quire's own metrics, scraped over HTTP and read by Prometheus' parser: true, bounded, whatever silos are called."""

from __future__ import annotations

import contextlib
import json
import math
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families
from provisioned import Provisioned, provision
from stores import HEART, Home

from quire.consortium.about import Server
from quire.consortium.errors import ConsortiumError
from quire.consortium.logs import rotate
from quire.consortium.metrics import MOST_LABEL, MOST_SERIES, Metrics, Tail, Tally, services_of
from quire.consortium.server_metrics import Journals, server_metrics
from quire.consortium.services import ServicesError, free_ports
from quire.consortium.silo_metrics import Decisions, Ledger, silo_metrics
from quire.consortium.supervise import Duty, Service, Supervisor

Found = dict[tuple[str, tuple[tuple[str, str], ...]], float]


def read(text: str) -> Found:
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def value(found: Found, name: str, **labels: str) -> float | None:
    return found.get((name, tuple(sorted(labels.items()))))


@contextlib.contextmanager
def served(metrics: Metrics) -> Iterator[Callable[[], Found]]:
    (port,) = free_ports(1)
    metrics.serve(port)

    def scrape() -> Found:
        answer = httpx.get(f"http://127.0.0.1:{port}/metrics", trust_env=False)
        assert answer.status_code == 200
        return read(answer.text)

    try:
        yield scrape
    finally:
        metrics.close()


def quiet(name: str, words: str) -> None:
    """Where nobody listens."""


def idle(folder: Path) -> Supervisor:
    return Supervisor(folder, [], quiet)


@pytest.fixture
def made(tmp_path: Path, no_power_cuts: None) -> Provisioned:
    return provision(tmp_path, ["clinic", "hospital"], Server("localhost", free_ports(1)[0]))


ROUND: dict[str, Any] = {
    "event": "round",
    "round": 1,
    "replied": ["clinic"],
    "failed": [{"silo": "hospital", "stage": "mask", "code": "no_reply", "words": "it did not answer"}],
    "seconds": {"train": 2.0, "aggregate": 1.5},
    "secure": {"attempts": [{"stages": {"shares": {"seconds": 0.5}}}, {"stages": {"shares": {"seconds": 0.25}}}]},
    "bytes_down": 100,
    "bytes_up": 30,
}


def journal(run: Path, *events: dict[str, Any]) -> None:
    run.mkdir(parents=True, exist_ok=True)
    with (run / "metrics.jsonl").open("a") as file:
        file.writelines(json.dumps(event) + "\n" for event in events)


def test_the_server_tells_of_members_certificates_and_runs(made: Provisioned) -> None:
    runs = made.operator.root / "runs"
    journal(runs / "1", {"event": "start", "rounds": 9}, ROUND)  # of an earlier start: over, whatever it says
    with served(server_metrics(made.operator, idle(made.operator.run), runs)) as scrape:
        found = scrape()
        assert value(found, "quire_members") == 2.0
        assert value(found, "quire_revoked_certificates") == 0.0
        for whose, days in (("authority", 3650.0), ("server", 365.0), ("member clinic", 90.0)):
            left = value(found, "quire_certificate_days_left", whose=whose)
            assert left is not None
            assert days - 2.0 < left <= days + 2.0
        assert value(found, "quire_rounds_total", outcome="completed") is None
        journal(runs / "22", {"event": "start", "rounds": 3}, ROUND)
        found = scrape()
        assert value(found, "quire_run_round", run="22") == 1.0
        assert value(found, "quire_run_rounds_planned", run="22") == 3.0
        assert value(found, "quire_rounds_total", outcome="completed") == 1.0
        assert value(found, "quire_silo_answers_total", silo="clinic") == 1.0
        assert value(found, "quire_silo_failures_total", silo="hospital", stage="mask", code="no_reply") == 1.0
        assert value(found, "quire_round_seconds_total") == 3.5
        assert value(found, "quire_stage_seconds_total", stage="train") == 2.0
        assert value(found, "quire_stage_seconds_total", stage="secure shares") == 0.75
        journal(runs / "22", ROUND | {"round": 2, "lost": "its sum cannot be opened"}, ROUND | {"event": "failed"})
        journal(runs / "22", {"event": "end", "status": "failed"})
        failure = {"silo": "h", "stage": "query", "code": "another_member"}
        journal(runs / "23", {"event": "enrolment", "failed": [failure]})
        made.parties.revoke("clinic")
        found = scrape()
        assert all(value(found, "quire_rounds_total", outcome=one) == 1.0 for one in ("completed", "lost", "failed"))
        assert value(found, "quire_runs_total", status="failed") == 1.0
        assert value(found, "quire_run_round", run="22") is None
        assert value(found, "quire_silo_failures_total", silo="h", stage="query", code="another_member") == 1.0
        assert value(found, "quire_members") == 1.0
        assert value(found, "quire_revoked_certificates") == 1.0
        made.operator.crl.unlink()
        found = scrape()
        assert value(found, "quire_source_readable", source="members") == 0.0
        assert value(found, "quire_members") is None


def test_the_silo_tells_of_its_gate_and_its_ledger(made: Provisioned, tmp_path: Path) -> None:
    silo = made.silos["clinic"]
    log = silo.run / "log" / "gate.log"
    log.parent.mkdir(parents=True)
    log.write_text("2026-01-01 00:00:00,000 gate INFO: Answered train with CONTENT\n")  # of an earlier start
    with served(silo_metrics(silo, idle(silo.run))) as scrape:
        with log.open("a") as file:
            file.write(
                "2026-01-01 00:00:00,000 gate INFO: Admitted by abc: quire 1\n"
                "2026-01-01 00:00:00,000 gate INFO: Answered train.shares with CONTENT\n"
                "2026-01-01 00:00:00,000 gate ERROR: Answered with CODE_REFUSED: content abc is not in ...\n"
                "2026-01-01 00:00:00,000 gate INFO: Answered query with CODE_REFUSED\n"
                "2026-01-01 00:00:00,000 gate INFO: Answered query with MADE_UP\n"
                "whatever code prints: gate INFO: Answered train with CONTENT\n"
            )
        found = scrape()
    assert value(found, "quire_gate_decisions_total", decision="admitted") == 1.0
    assert value(found, "quire_gate_decisions_total", decision="refused") == 1.0
    assert value(found, "quire_answers_total", stage="train.shares", outcome="content") == 1.0
    assert value(found, "quire_answers_total", stage="query", outcome="code_refused") == 1.0
    assert value(found, "quire_answers_total", stage="train", outcome="content") is None
    assert value(found, "quire_server_reachable") is None  # nobody has looked yet
    left = value(found, "quire_certificate_days_left", whose="silo")
    assert left is not None
    assert 88.0 < left <= 91.0


def test_what_was_spent_is_told_from_the_ledger_and_what_is_left_of_the_budget(
    made: Provisioned, monkeypatch: pytest.MonkeyPatch
) -> None:
    from quire.clients.identity import read_key_file

    silo = made.silos["clinic"]
    silo.silo_file.write_text(
        f"name: clinic\ndata: {{connector: csv, path: rows.csv}}\nidentity: identity/silo.key\nstore: store\n"
        f"population: {{name: {HEART}, records: 100}}\n"
        "policy: {modes: [record], aggregation: [secure], code: [], epsilon: 4.0, delta: 1.0e-5}\n"
    )
    home = Home(silo.root, read_key_file(silo.identity_key).open(None))
    ledger = Ledger(silo)
    (budget, spent, left) = ledger.look()
    assert [(sample.labels, sample.value) for sample in budget.samples] == [({"population": HEART}, 4.0)]
    assert (spent.samples, left.samples) == ([], [])
    home.run(3)
    assert next(iter(ledger.look())) is budget  # kept: it is not read for every scrape
    monkeypatch.setattr("quire.consortium.silo_metrics._KEEP", -1.0)
    _, spent, left = ledger.look()
    labels = {"population": HEART, "unit": "record"}
    (told,) = [sample.value for sample in spent.samples if sample.labels == labels]
    (rest,) = [sample.value for sample in left.samples if sample.labels == labels]
    assert 0.0 < told < 4.0
    assert rest == pytest.approx(4.0 - told)


@settings(deadline=None, max_examples=40)
@given(st.lists(st.tuples(st.text(max_size=200), st.text(max_size=200)), max_size=20))
def test_whatever_silos_and_codes_are_called_the_page_stays_readable(
    tmp_path_factory: pytest.TempPathFactory, pairs: list[tuple[str, str]]
) -> None:
    from prometheus_client import generate_latest
    from prometheus_client.registry import CollectorRegistry

    root = tmp_path_factory.mktemp("runs")
    journals = Journals(root)
    failed = [{"silo": silo, "stage": "train", "code": code} for silo, code in pairs]
    journal(root / "1", ROUND | {"failed": failed, "replied": [silo for silo, _ in pairs]})
    registry = CollectorRegistry(auto_describe=False)
    registry.register(Metrics({"runs": journals.look}))  # type: ignore[arg-type]
    text = generate_latest(registry).decode()
    found = {key: number for key, number in read(text).items() if key[0] == "quire_silo_failures_total"}
    assert sum(found.values()) == len(pairs)
    for _, labels in found:
        for _, label in labels:
            assert 0 < len(label) <= MOST_LABEL
            assert label.isprintable()


@pytest.mark.parametrize(
    "line",
    [
        b"{",
        b"[]",
        b"null",
        b"\xff\xfe",
        b'{"event": 7}',
        b'{"event": "round", "replied": 3, "failed": "x", "seconds": [], "secure": 1, "round": "one"}',
        b'{"event": "round", "seconds": {"train": "long", "aggregate": -4}, "bytes_up": true, "failed": [null]}',
        b'{"event": "start", "rounds": null}',
        b"[" * 100_000,
    ],
)
def test_a_journal_that_is_none_spoils_no_scrape(tmp_path: Path, line: bytes) -> None:
    journals = Journals(tmp_path)
    (tmp_path / "1").mkdir()
    (tmp_path / "1" / "metrics.jsonl").write_bytes(line + b"\n")
    journal(tmp_path / "1", ROUND)
    found = {metric.name: metric for metric in journals.look()}
    assert {sample.value for sample in found["quire_silo_answers"].samples} == {1.0}


def test_labels_do_not_grow_without_end() -> None:
    tally = Tally("x", "x", ["silo"])
    for number in range(MOST_SERIES + 50):
        tally.add(f"silo-{number}")
    samples = tally.counted().samples
    assert len(samples) == MOST_SERIES + 1
    assert [sample.value for sample in samples if sample.labels["silo"] == "other"] == [50.0]
    tally.add("silo-1", by=math.nan)
    assert all(math.isfinite(sample.value) for sample in tally.counted().samples)


def test_a_file_is_read_once_and_after_it_was_put_aside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = tmp_path / "x.log"
    tail = Tail(place)
    assert list(tail.lines()) == []
    place.write_text("one\ntwo\nthr")
    assert list(tail.lines()) == [b"one", b"two"]
    with place.open("a") as file:
        file.write("ee\n")
    assert list(tail.lines()) == [b"three"]
    assert list(tail.lines()) == []
    assert rotate(place, most=1)
    assert list(tail.lines()) == []
    place.write_text("four\n")
    assert list(tail.lines()) == [b"four"]
    assert list(Tail(place, from_end=True).lines()) == []
    monkeypatch.setattr("quire.consortium.metrics.MOST_BYTES", 8)
    place.write_text("four\n" + "x" * 20 + "\nfive\nsix\n")
    seen: list[bytes] = []
    for _ in range(8):
        seen += tail.lines()
    assert seen[-2:] == [b"five", b"six"]  # a line that is too long is passed over, in pieces


def test_services_are_told_as_the_supervisor_has_them(tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    once = f"import pathlib, sys, time; p = pathlib.Path({str(marker)!r}); n = p.exists(); p.touch(); n or sys.exit(3)"
    commands = {"steady": "import time; time.sleep(60)", "falls": once + "; time.sleep(60)"}
    services = [
        Service(name, (sys.executable, "-c", code), dict(os.environ), tmp_path) for name, code in commands.items()
    ]

    def trouble() -> None:
        raise ConsortiumError("There is nobody.")

    supervisor = Supervisor(tmp_path / "run", services, quiet, [Duty("server", 0.2, trouble)], back_off=0.1)
    found: dict[str, Any] = {}

    def look() -> None:
        deadline = time.monotonic() + 60.0
        while supervisor.troubled("server") is None and time.monotonic() < deadline:
            time.sleep(0.05)
        metrics = Metrics({"services": lambda: services_of(supervisor)})
        with served(metrics) as scrape:
            found.update(page=scrape(), troubled=supervisor.troubled("server"))
        os.kill(os.getpid(), signal.SIGTERM)

    assert supervisor.troubled("server") is None
    thread = threading.Thread(target=look)
    thread.start()
    supervisor.run()
    thread.join()
    assert found["troubled"] is True
    page = found["page"]
    assert value(page, "quire_service_up", service="steady") == value(page, "quire_service_up", service="falls") == 1.0
    assert value(page, "quire_service_restarts_total", service="steady") == 0.0
    assert value(page, "quire_service_restarts_total", service="falls") == 1.0


def test_a_port_that_is_taken_is_told_in_a_sentence() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(ServicesError, match="Nothing can listen at"):
            Metrics({}).serve(taken.getsockname()[1])


def test_the_gates_log_is_read_as_the_gate_writes_it(made: Provisioned, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the starter's own logging, so that a changed line is found here."""
    import logging

    from flwr.app import Message, Metadata, RecordDict
    from flwr.app.message import make_message
    from flwr.supercore.task_identity import TaskIdentity

    from quire.clients.contract import Code
    from quire.clients.gate import starter

    silo = made.silos["clinic"]
    log = silo.run / "log" / "gate.log"
    log.parent.mkdir(parents=True)
    decisions = Decisions(silo)
    handler = logging.FileHandler(log)
    handler.setFormatter(logging.Formatter("%(asctime)s gate %(levelname)s: %(message)s"))
    monkeypatch.setattr(starter.LOG, "level", logging.INFO)
    for name, number in (("_task_id", 1), ("_run_id", 2), ("_node_id", 3)):
        monkeypatch.setattr(TaskIdentity, name, number)
    starter.LOG.addHandler(handler)
    try:
        for kind in ("train", "train.admitted"):
            asked = make_message(Metadata(2, "id", 1, 3, "", "", time.time(), 60.0, kind), RecordDict())
            starter._note(asked, Message(RecordDict(), reply_to=asked))
            starter._note(asked, starter.refusal_of(asked, Code.POLICY_REFUSED))
    finally:
        starter.LOG.removeHandler(handler)
    decided, told = decisions.look()
    assert decided.samples == []
    assert {(one.labels["stage"], one.labels["outcome"]): one.value for one in told.samples} == {
        ("train", "content"): 1.0,
        ("train", "policy_refused"): 1.0,
        ("other", "content"): 1.0,
        ("other", "policy_refused"): 1.0,
    }
