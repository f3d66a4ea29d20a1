"""What Prometheus is told at a silo: services, the way to the server, the gate's decisions, answers, the ledger.

All of it stays on the silo's machine: numbers of a silo's own, such as what its records have spent, are the operator's.
"""

from __future__ import annotations

import math
import re
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from quire.clients.contract import STAGES, Code
from quire.consortium.layout import SiloFolder
from quire.consortium.metrics import OTHER, Metrics, Tail, Tally, days_left, gauge, services_of
from quire.errors import QuireError

if TYPE_CHECKING:
    from prometheus_client.core import Metric

    from quire.consortium.supervise import Supervisor

# The delta at which epsilon is told where no policy names one, as in `quire ledger show`.
_DELTA = 1e-5
# Seconds for which what was read of the ledger is told again: it is verified from its last checkpoint on.
_KEEP = 30.0
_MOMENT = 0.2
# As the gate's starter logs it; approved code writes into the same log, and its lines are none of these.
_DECIDED = re.compile(rb"^\S+ \S+ gate (?:INFO: Admitted by|ERROR: Answered with (CODE_REFUSED))\b")
_TOLD = re.compile(rb"^\S+ \S+ gate INFO: Answered ([a-z.]{1,40}) with ([A-Z_]{1,40})$")
_OUTCOMES = frozenset({"CONTENT", *Code.__members__})


def silo_metrics(folder: SiloFolder, supervisor: Supervisor) -> Metrics:
    """Return the metrics of a silo.

    Parameters
    ----------
    folder : SiloFolder
    supervisor : Supervisor
        Of its services.
    """
    decisions, ledger = Decisions(folder), Ledger(folder)
    return Metrics(
        {
            "services": lambda: services_of(supervisor),
            "server": lambda: _server(supervisor),
            "certificate": lambda: _certificate(folder),
            "gate": decisions.look,
            "ledger": ledger.look,
        }
    )


def _server(supervisor: Supervisor) -> Iterator[Metric]:
    troubled = supervisor.troubled("server")
    if troubled is not None:
        yield gauge(
            "quire_server_reachable", "Whether the server was reached at the last look.", [], {(): 1.0 - troubled}
        )


def _certificate(folder: SiloFolder) -> Iterator[Metric]:
    left = days_left(folder.client_certificate, "silo") | days_left(folder.ca_certificate, "authority")
    yield gauge("quire_certificate_days_left", "Days that a certificate is good for.", ["whose"], left)


class Decisions:
    """What the gate has decided and what was answered, from its log, since the start.

    Parameters
    ----------
    folder : SiloFolder
    """

    def __init__(self, folder: SiloFolder) -> None:
        self._tail = Tail(folder.run / "log" / "gate.log", from_end=True)
        self._decided = Tally("quire_gate_decisions", "Bundles that the gate let in, or not.", ["decision"])
        self._told = Tally("quire_answers", "Messages answered: with content, or a code.", ["stage", "outcome"])

    def look(self) -> Iterator[Metric]:
        """Read what was logged since the last look."""
        for line in self._tail.lines():
            if found := _DECIDED.match(line):
                self._decided.add("refused" if found[1] else "admitted")
            elif found := _TOLD.match(line):
                stage, outcome = found[1].decode(), found[2].decode()
                known = stage if stage in STAGES else OTHER, outcome.lower() if outcome in _OUTCOMES else OTHER
                self._told.add(*known)
        yield self._decided.counted()
        yield self._told.counted()


class Ledger:
    """What the silo's records have spent, and what is left of it.

    Parameters
    ----------
    folder : SiloFolder
    """

    def __init__(self, folder: SiloFolder) -> None:
        self._folder = folder
        self._read = -math.inf
        self._found: list[Metric] = []
        self._wrong: Exception | None = None

    def look(self) -> Iterator[Metric]:
        """Read the ledger, if that was not done a moment ago.

        Raises
        ------
        QuireError
            If it cannot be read.
        """
        if time.monotonic() - self._read > _KEEP:
            self._found, self._wrong = [], None
            try:
                self._found = self._twice()
            except (QuireError, OSError, ValueError) as error:
                self._wrong = error  # and for as long as it is told again
            self._read = time.monotonic()
        if self._wrong is not None:
            raise self._wrong
        yield from self._found

    def _twice(self) -> list[Metric]:
        """Look again after a moment where books do not agree: a charge may have come between two of them."""
        try:
            return list(self._look())
        except QuireError:
            time.sleep(_MOMENT)
            return list(self._look())

    def _look(self) -> Iterator[Metric]:
        from quire.clients.data.silo_file import read_operator_of
        from quire.clients.store.inspection import Inspection

        operator = read_operator_of(self._folder.silo_file)
        spent: dict[tuple[str, ...], float] = {}
        left: dict[tuple[str, ...], float] = {}
        budget: dict[tuple[str, ...], float] = {}
        policy = operator.policy
        if policy is not None and policy.capped:
            budget[policy.population.name,] = policy.epsilon
        if operator.store.is_dir():
            inspection = Inspection(operator.store, operator.witness)
            for name in inspection.populations():
                books = inspection.books(name)
                mine = policy if policy is not None and policy.population.name == name and policy.capped else None
                since = None
                if mine is not None and mine.period_days is not None:
                    since = datetime.now(UTC).date() - timedelta(days=mine.period_days - 1)
                for unit in books.units():
                    now = books.spent(unit, since).epsilon(mine.delta if mine is not None else _DELTA)
                    spent[name, str(unit)] = now
                    if mine is not None:
                        left[name, str(unit)] = max(0.0, mine.epsilon - now)
        yield gauge("quire_epsilon_budget", "Epsilon that the policy allows.", ["population"], budget)
        labels = ["population", "unit"]
        yield gauge("quire_epsilon_spent", "Epsilon spent, in the policy's period at its delta.", labels, spent)
        yield gauge("quire_epsilon_left", "Epsilon that is left of the policy's.", labels, left)
