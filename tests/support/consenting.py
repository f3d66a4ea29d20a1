"""A real silo whose rows are about subjects, with a table of withdrawals; on :mod:`real_silo`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from real_silo import RECORDS, RealSilo

from quire.clients.data.consent.place import Place
from quire.clients.data.own import load
from quire.clients.data.preprocess import Loaded
from quire.clients.data.silo_file import SiloFile, read_silo
from quire.conf.compose import compose

CONSENT = "consent: {subject: patient, withdrawn: {connector: csv, path: out.csv, key: id}}\n"
PLAIN = {"modes": "[none]", "epsilon": None, "delta": None, "min_cohort": "2", "colluders": "0"}


class Consenting(RealSilo):
    """Patients ``p0`` to ``p59``, a row each, in a run without privacy; nobody has withdrawn."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.withdraw()
        self.write(CONSENT, **PLAIN)

    def rows(self, count: int, more: str = "") -> None:
        ages = np.random.default_rng(1).integers(10, 90, count)
        lines = "".join(f"p{place},{age},{int(age > 50)}\n" for place, age in enumerate(ages))
        self.csv.write_text(f"patient,age,sick\n{lines}{more}")

    def withdraw(self, *subjects: str) -> None:
        """Put a new table of withdrawals in the place of the old one."""
        new = self.folder / "out.csv.new"
        new.write_text("id\n" + "".join(f"{one}\n" for one in subjects))
        new.replace(self.folder / "out.csv")

    def consent(self, section: str) -> None:
        self.write(f"consent: {section}\n", **PLAIN)

    def file(self) -> SiloFile:
        return read_silo(self.folder / "silo.yaml")

    def load(self, overrides: str = "") -> Loaded:
        return load(compose(f"task=tabular partition.silos=2 {overrides}"), self.file(), "clinic-1")

    def train(self, round_number: int, overrides: str = "") -> str:
        """Ask for a round without privacy; return the code, or ANSWERED."""
        return self.code("train", f"privacy=none strategy.min_silos=2 {overrides}", round_number)

    @property
    def place(self) -> Place:
        return Place.of(self.file().operator)

    def lines(self) -> list[dict[str, Any]]:
        path = self.store / "consent" / "lineage.jsonl"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


__all__ = ["CONSENT", "PLAIN", "RECORDS", "Consenting"]
