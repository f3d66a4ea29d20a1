"""docs/data-policy.md says what is so: its file is read, and its table of levels is the one that is enforced."""

from __future__ import annotations

import re

from pages import ROOT

from quire.clients.data.rules.cells import Bucket, Day, Hash, Keep, Mapped
from quire.clients.data.rules.labels import SENSITIVITIES
from quire.clients.data.silo_file import read_silo

TEXT = (ROOT / "docs" / "data-policy.md").read_text(encoding="utf-8")


def test_the_file_of_the_page_is_read_as_the_page_says(home) -> None:
    (block,) = re.findall(r"```yaml\n(.*?)```", TEXT, re.DOTALL)
    policy = "population: {name: p, records: 99}\npolicy: {modes: [none], aggregation: [plain], code: []}\n"
    home.write(
        "schema.yaml",
        "columns: {age: {low: 0, high: 110}}\ntarget: {name: outcome, kind: classification, classes: [0, 1]}\n",
    )
    silo = read_silo(home.silo("{connector: csv, path: rows.csv}", policy + block))
    assert silo.operator.dataset is not None
    assert (silo.operator.dataset.sensitivity, silo.operator.dataset.unconfirmed) == ("restricted", False)
    assert dict(silo.data.columns.rules) == {
        "age": Bucket(width=10.0),
        "postcode": Keep(2),
        "admitted": Day("year", "%d.%m.%Y"),
        "ward": Mapped((("icu", "acute"), ("er", "acute")), "other"),
        "doctor": Hash(16),
    }


def test_the_page_names_every_level_in_order() -> None:
    assert re.findall(r"^\| `(\w+)` \| .* \| .* \| .* \|$", TEXT, re.MULTILINE) == list(SENSITIVITIES)
