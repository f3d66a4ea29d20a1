"""Metrics of Quire's own, for Prometheus: read from what services leave in files, when somebody asks for them.

The supervisor serves them, on 127.0.0.1 and only where it was told a port. A look costs no more than what was written
since the one before: of files that grow the place is remembered, and of one look no more than ``MOST_BYTES`` are read.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from quire.consortium.loopback import LOOPBACK
from quire.consortium.services import ServicesError, check_free
from quire.errors import QuireError

if TYPE_CHECKING:
    from prometheus_client.core import Metric

    from quire.consortium.supervise import Supervisor

#: Bytes of one file that one look reads; the rest is for the next.
MOST_BYTES = 8 * 2**20
#: Different labels of one metric; what would be more is counted under ``other``.
MOST_SERIES = 2000
#: Characters of a label.
MOST_LABEL = 80
OTHER = "other"
_DAY = 86_400.0

Source = Callable[[], Iterable["Metric"]]


class Tail:
    """Reads the lines that were appended to a file since the last look, also after it was emptied and begun anew.

    Parameters
    ----------
    path : pathlib.Path
    from_end : bool
        Leave out what is there now.
    """

    def __init__(self, path: Path, from_end: bool = False) -> None:
        self._path, self._at = path, 0
        if from_end and path.exists():
            self._at = path.stat().st_size

    def lines(self) -> Iterator[bytes]:
        """Yield whole new lines; none where there is no file."""
        try:
            with self._path.open("rb") as file:
                size = file.seek(0, 2)
                self._at = 0 if size < self._at else self._at  # put aside by `logs.rotate`, or cut back
                file.seek(self._at)
                read = file.read(MOST_BYTES)
        except OSError:
            return
        end = read.rfind(b"\n") + 1
        if not end and len(read) == MOST_BYTES:  # no line of ours is that long
            end = len(read)
        self._at += end
        yield from read[:end].splitlines()


class Tally:
    """Numbers by labels, all of them bounded: in what is counted here, silos have a say.

    Parameters
    ----------
    name, words : str
        Of the metric.
    labels : sequence of str
        Their names.
    """

    def __init__(self, name: str, words: str, labels: Sequence[str]) -> None:
        self._name, self._words, self._labels = name, words, tuple(labels)
        self._found: dict[tuple[str, ...], float] = {}

    def add(self, *labels: object, by: float = 1.0) -> None:
        """Add to the number under these labels."""
        key = tuple(map(plain, labels))
        if key not in self._found and len(self._found) >= MOST_SERIES:
            key = (OTHER,) * len(key)
        if math.isfinite(by) and by >= 0.0:
            self._found[key] = self._found.get(key, 0.0) + by

    def counted(self) -> Metric:
        """Return it as a counter."""
        from prometheus_client.core import CounterMetricFamily

        family = CounterMetricFamily(self._name, self._words, labels=self._labels)
        for key, value in self._found.items():
            family.add_metric(key, value)
        return family


def plain(label: object) -> str:
    """Return a label that is one line, printable and short; nothing else is a text here."""
    if not isinstance(label, str) or not label:
        return OTHER
    return "".join(letter if letter.isprintable() else "?" for letter in label[:MOST_LABEL])


def gauge(name: str, words: str, labels: Sequence[str], values: Mapping[Any, float]) -> Metric:
    """Return a metric of numbers as they stand, each under a tuple of labels."""
    from prometheus_client.core import GaugeMetricFamily

    family = GaugeMetricFamily(name, words, labels=labels)
    merged: dict[tuple[str, ...], float] = {}
    for key, value in values.items():  # labels that are cut may come to the same, which Prometheus does not take
        short = tuple(map(plain, key))
        if short in merged or len(merged) < MOST_SERIES:
            merged[short] = min(merged.get(short, value), value)
    for short, value in merged.items():
        family.add_metric(short, value)
    return family


def days_left(certificate: Path, whose: str) -> dict[tuple[str, ...], float]:
    """Return how many days a certificate is good for, by whose it is; less than none if it has ended.

    Raises
    ------
    OSError, ValueError
        If it cannot be read.
    """
    from cryptography import x509

    end = x509.load_pem_x509_certificate(certificate.read_bytes()).not_valid_after_utc
    return {(whose,): (end - datetime.now(UTC)).total_seconds() / _DAY}


def services_of(supervisor: Supervisor) -> Iterator[Metric]:
    """Yield what a supervisor knows of its services."""
    known = supervisor.services_now()
    up = {(name,): float(ready) for name, (ready, _) in known.items()}
    yield gauge("quire_service_up", "Whether a service is ready.", ["service"], up)
    restarts = Tally("quire_service_restarts", "How often a service was started again.", ["service"])
    for name, (_, again) in known.items():
        restarts.add(name, by=again)
    yield restarts.counted()


class Metrics:
    """All of one side's metrics, and the port at which they are served.

    Parameters
    ----------
    sources : mapping of str to callable
        By name. One that cannot be read is left out, and ``quire_source_readable`` says so.
    """

    def __init__(self, sources: Mapping[str, Source]) -> None:
        self._sources, self._lock = sources, threading.Lock()
        self._close: Callable[[], None] = lambda: None

    def collect(self) -> Iterator[Metric]:
        """Yield every metric; Prometheus' own library calls this for each scrape."""
        readable: dict[tuple[str, ...], float] = {}
        found: list[Metric] = []
        with self._lock:  # scrapes come in threads of their own
            for name, source in self._sources.items():
                try:
                    found += list(source())
                    readable[name,] = 1.0
                except (QuireError, OSError, ValueError):
                    readable[name,] = 0.0
        yield gauge("quire_source_readable", "Whether what metrics are read from could be.", ["source"], readable)
        yield from found

    def serve(self, port: int) -> None:
        """Answer scrapes on 127.0.0.1, in a thread, until :meth:`close`.

        Raises
        ------
        ServicesError
            If the port is taken.
        """
        from prometheus_client import start_http_server
        from prometheus_client.registry import CollectorRegistry

        check_free(LOOPBACK, port)
        registry = CollectorRegistry(auto_describe=False)
        registry.register(self)  # anything with `collect` is a collector
        try:
            server, thread = start_http_server(port, LOOPBACK, registry)
        except OSError as error:
            raise ServicesError(f"Nothing can listen at {LOOPBACK}:{port}: {error.strerror}.") from None

        def close() -> None:
            server.shutdown()
            server.server_close()
            thread.join()

        self._close = close

    def close(self) -> None:
        """Answer no more."""
        self._close()
