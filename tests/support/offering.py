"""A silo that offers its rows to a catalogue, and offers of made-up silos."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from real_silo import RealSilo

from quire.catalog.counts import Count
from quire.catalog.form import kind_of, to_json
from quire.catalog.offer import FORMAT, Offer
from quire.clients.identity import PrivateIdentity
from quire.clients.tasks.schema import Categorical, Numeric, Schema, Target

NOW = 1_800_000_000
KEY = PrivateIdentity.from_seed(bytes(range(32)))
OTHER = PrivateIdentity.from_seed(bytes(range(1, 33)))
HEART = Schema(
    (
        Numeric("age", 20.0, 90.0, False, 55.0),
        Categorical("sex", ("f", "m"), False, "error"),
        Numeric("chol", 100.0, 600.0, True, 350.0),
    ),
    None,
    Target("sick", "classification", ("no", "yes"), 1.0),
)
PURPOSE = "Predict heart disease from routine measurements."
LABELS = 'dataset:\n  sensitivity: restricted\n  residency: [eu, ch]\n  purposes: ["Predict heart\n    disease."]\n'
OPEN = {"modes": "[none]", "epsilon": None, "delta": None, "min_cohort": "2", "colluders": "0"}


class Offering(RealSilo):
    """The silo ``clinic-1`` with 60 rows, of which it declares 64, in a policy of epsilon 4."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.write(records=64)

    def no_policy(self, population: bool = False) -> None:
        more = "population: {name: clinic, records: 64}\n" if population else ""
        (self.folder / "silo.yaml").write_text(f"name: clinic-1\ndata: {{connector: csv, path: rows.csv}}\n{more}")


def body(schema: Schema = HEART, **changes: Any) -> dict[str, Any]:
    """Return what an offer says, but for the keys, with changes."""
    return {
        **{"format": FORMAT, "silo": "clinic-1", "title": None, "description": None, "contact": None},
        **{"issued": NOW, "expires": NOW + 86400, "task": kind_of(schema), "schema": to_json(schema)},
        **{"schema_sha256": schema.sha256, "labels": None, "terms": None},
        "rows": Count("declared", 300).to_json(),
        **changes,
    }


def offer(schema: Schema = HEART, key: PrivateIdentity = KEY, **changes: Any) -> Offer:
    """Return a signed offer, with changes to its body."""
    return Offer.sign(body(schema, **changes), key)
