"""Consent: rows looked up in a table of a million subjects, beside a bare dictionary look-up in the same run.

A look-up is what a round does for each row: the subject's id made text, held against the table of withdrawals and, in
a second figure, against requests for erasure, where every id is hashed under the silo's key. Reading the table is
measured apart: it happens when the table has changed, not for each row. The goal is 100,000 rows a second.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from harness import Figure, arguments, interleaved, median_ratio, report, spread

from quire.clients.data.connectors import Raw
from quire.clients.data.consent.place import Subjects
from quire.clients.data.consent.section import WITHDRAWN, Consent
from quire.clients.data.consent.sieve import Sieve, Standing
from quire.clients.data.consent.table import Listing, listing_of
from quire.clients.data.silo_file import read_silo

SUBJECTS = 1_000_000
ROWS = {False: 500_000, True: 100_000}
REPETITIONS = {False: 9, True: 3}
ERASED = 100
GOAL = ">= 100000"


def rate(work: Callable[[], object], rows: int) -> float:
    """Return rows a second of one turn."""
    began = time.perf_counter()
    work()
    return rows / (time.perf_counter() - began)


def contenders(quick: bool) -> dict[str, Callable[[], float]]:
    """Lay out the table and the rows, half of whose subjects withdrew, and return who takes turns over them."""
    draw = np.random.default_rng(1)
    subjects = [f"patient-{number:09d}" for number in range(SUBJECTS)]
    ids = np.array([f"patient-{number:09d}" for number in draw.integers(0, 2 * len(subjects), ROWS[quick])], object)
    listing = Listing(WITHDRAWN, frozenset(subjects), b"")
    consent, key = Consent("patient", None), Subjects(bytes(32))
    erased = frozenset(key.tag(one) for one in subjects[:ERASED])
    bare = dict.fromkeys(subjects, True)
    raw, plain = Raw({"patient": ids}), ids.tolist()

    def sieved(standing: Standing) -> Callable[[], object]:
        return lambda: Sieve(standing).look(raw, (), "rows")

    def bare_look_up() -> object:
        return [bare.get(one, False) for one in plain]

    withdrawn, both = Standing(consent, listing), Standing(consent, listing, erased, key)
    work = {"bare dictionary": bare_look_up, "consent": sieved(withdrawn), "consent and erasure": sieved(both)}
    return {name: lambda one=one: rate(one, len(ids)) for name, one in work.items()}


def reading() -> float:
    """Return the seconds that it takes to read the table from a CSV file, as after a change."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "schema.yaml").write_text(
            "columns: {age: {low: 0, high: 100}}\ntarget: {name: sick, kind: classification, classes: [0, 1]}\n"
        )
        (folder / "silo.yaml").write_text(
            "name: home\ndata: {connector: csv, path: rows.csv}\npopulation: {name: home, records: 1000}\n"
            "consent: {subject: patient, withdrawn: {connector: csv, path: out.csv, key: id}}\n"
        )
        with (folder / "out.csv").open("w") as table:
            table.write("id\n")
            table.writelines(f"patient-{number:09d}\n" for number in range(SUBJECTS))
        consent = read_silo(folder / "silo.yaml").consent
        if consent is None or consent.table is None:
            raise RuntimeError("the silo's file has no consent")
        began = time.perf_counter()
        listing_of(consent.table)
        return time.perf_counter() - began


def main() -> int:
    """Measure and report."""
    args = arguments(__doc__)
    rates = interleaved(contenders(args.quick), REPETITIONS[args.quick])
    about = f"{ROWS[args.quick]:,} rows, {SUBJECTS:,} subjects withdrawn, half of the rows theirs"
    figures = [
        Figure(
            f"{name}: rows a second",
            float(np.median(found)),
            None if name == "bare dictionary" else GOAL,
            spread(found),
        )
        for name, found in rates.items()
    ]
    figures += [
        Figure(
            "consent / bare dictionary",
            median_ratio(rates, "consent", "bare dictionary"),
            None,
            f"{about}; both wait for memory",
        ),
        Figure(
            "consent and erasure / bare dictionary",
            median_ratio(rates, "consent and erasure", "bare dictionary"),
            None,
            f"{ERASED} requests; every id is hashed",
        ),
        Figure("reading the table: seconds", reading(), None, "CSV, once after each change"),
    ]
    return report(figures, args, "Consent: rows looked up a second")


if __name__ == "__main__":
    sys.exit(main())
