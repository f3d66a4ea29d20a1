"""What Prometheus is told at the server: services, members, certificates, and how runs go.

Of runs it is what their journals say (``metrics.jsonl``) from the server's start on: nothing that the run folder does
not have, and nothing per silo but whether it answered, and why not.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from quire.consortium.layout import OperatorFolder
from quire.consortium.metrics import Metrics, Tail, Tally, days_left, gauge, services_of
from quire.consortium.registry import members_in

if TYPE_CHECKING:
    from prometheus_client.core import Metric

    from quire.consortium.supervise import Supervisor


def server_metrics(folder: OperatorFolder, supervisor: Supervisor, runs: Path) -> Metrics:
    """Return the metrics of a server.

    Parameters
    ----------
    folder : OperatorFolder
    supervisor : Supervisor
        Of its services.
    runs : pathlib.Path
        Where the run folders are.
    """
    journals = Journals(runs)
    return Metrics(
        {
            "services": lambda: services_of(supervisor),
            "members": lambda: _members(folder),
            "certificates": lambda: _certificates(folder),
            "runs": journals.look,
        }
    )


def _members(folder: OperatorFolder) -> Iterator[Metric]:
    from cryptography import x509

    revoked = len(x509.load_pem_x509_crl(folder.crl.read_bytes()))
    yield gauge("quire_members", "Members that are let in.", [], {(): float(len(members_in(folder)))})
    yield gauge("quire_revoked_certificates", "Certificates that are refused.", [], {(): float(revoked)})


def _certificates(folder: OperatorFolder) -> Iterator[Metric]:
    left = days_left(folder.ca_certificate, "authority") | days_left(folder.server_certificate, "server")
    for name in members_in(folder):
        left |= days_left(folder.client_certificate(name), f"member {name}")
    yield gauge("quire_certificate_days_left", "Days that a certificate is good for.", ["whose"], left)


class Journals:
    """The journals of runs, each read as it grows.

    Parameters
    ----------
    root : pathlib.Path
        Where the run folders are. Runs whose folders are there already are over: their processes ended with the
        server that they belonged to.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self._over = set(self._names())
        self._open: dict[str, Tail] = {}
        self._now: dict[str, tuple[int, int]] = {}
        self._runs = Tally("quire_runs", "Runs that have ended, by how.", ["status"])
        self._rounds = Tally("quire_rounds", "Rounds, by what came of them.", ["outcome"])
        self._answered = Tally("quire_silo_answers", "Rounds that a silo's answer is in.", ["silo"])
        self._failed = Tally(
            "quire_silo_failures", "Times that a silo failed, by stage and code.", ["silo", "stage", "code"]
        )
        self._seconds = Tally("quire_round_seconds", "Seconds that rounds took in all.", [])
        self._stages = Tally("quire_stage_seconds", "Seconds spent in a stage, in all.", ["stage"])
        self._bytes = Tally("quire_silo_bytes", "Bytes of messages to silos (down) and from them (up).", ["direction"])

    def _names(self) -> list[str]:
        try:
            return sorted(name for name in os.listdir(self._root) if name.isdecimal())
        except FileNotFoundError:
            return []

    def look(self) -> Iterator[Metric]:
        """Read what was written since the last look, and yield how runs stand."""
        for name in self._names():
            if name not in self._over:
                for line in self._tail(name).lines():
                    self._take(name, _event(line))
        at, of = ({(name,): float(where[part]) for name, where in self._now.items()} for part in (0, 1))
        yield gauge("quire_run_round", "The last round of a run that goes on.", ["run"], at)
        yield gauge("quire_run_rounds_planned", "The rounds that a run that goes on is to have.", ["run"], of)
        for tally in (self._runs, self._rounds, self._answered, self._failed):
            yield tally.counted()
        for tally in (self._seconds, self._stages, self._bytes):
            yield tally.counted()

    def _tail(self, name: str) -> Tail:
        """Return who reads a run's journal; of one that goes on with another's, that run's rounds are left out."""
        if name not in self._open:
            place, linked = self._root / name / "metrics.jsonl", (self._root / name).is_symlink()
            for event in map(_event, Tail(place).lines() if linked else ()):
                if event.get("event") == "start":
                    self._now[name] = (0, _count(event.get("rounds")))
            self._open[name] = Tail(place, from_end=linked)
        return self._open[name]

    def _take(self, run: str, event: dict[str, Any]) -> None:
        kind = event.get("event")
        if kind == "start":
            self._now[run] = (0, _count(event.get("rounds")))
        elif kind == "resume":
            self._now[run] = (_count(event.get("round")), self._now.get(run, (0, 0))[1])
        elif kind == "enrolment":
            self._take_failures(event)
        elif kind in ("round", "failed"):
            self._take_round(event)
            if kind == "round":
                self._now[run] = (_count(event.get("round")), self._now.get(run, (0, 0))[1])
        elif kind == "end":
            self._runs.add(event.get("status"))
            self._now.pop(run, None)
            self._open.pop(run, None)
            self._over.add(run)

    def _take_round(self, event: dict[str, Any]) -> None:
        lost = "lost" if event.get("lost") else "completed"
        self._rounds.add("failed" if event.get("event") == "failed" else lost)
        for silo in _list(event.get("replied")):
            self._answered.add(silo)
        self._take_failures(event)
        seconds = _dict(event.get("seconds"))
        self._seconds.add(by=sum(map(_number, seconds.values())))
        for stage, spent in seconds.items():
            self._stages.add(stage, by=_number(spent))
        for attempt in _list(_dict(event.get("secure")).get("attempts")):
            for stage, about in _dict(_dict(attempt).get("stages")).items():
                self._stages.add(f"secure {stage}", by=_number(_dict(about).get("seconds")))
        for way in ("down", "up"):
            self._bytes.add(way, by=_number(event.get(f"bytes_{way}")))

    def _take_failures(self, event: dict[str, Any]) -> None:
        for one in _list(event.get("failed")):
            about = _dict(one)
            self._failed.add(about.get("silo"), about.get("stage"), about.get("code"))


def _event(line: bytes) -> dict[str, Any]:
    try:
        return _dict(json.loads(line))
    except (ValueError, RecursionError):
        return {}


def _dict(found: object) -> dict[str, Any]:
    return found if isinstance(found, dict) else {}


def _list(found: object) -> list[Any]:
    return found if isinstance(found, list) else []


def _number(found: object) -> float:
    return float(found) if isinstance(found, int | float) and not isinstance(found, bool) else 0.0


def _count(found: object) -> int:
    return found if isinstance(found, int) else 0
