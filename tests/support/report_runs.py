"""What the tests of reports have in common: a deployed run under a charter, with log and approvals, and its roster."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from charters import charter as charter_of
from charters import key, member, signed, written
from private_runs import OVERRIDES, SILOS, Consortium, write_run

from quire.charter.parts import Exit
from quire.clients.code import code_hash
from quire.conf.compose import compose
from quire.privacy.approval import APPROVED, Binding, Statement
from quire.privacy.identity.keys import PrivateIdentity
from quire.privacy.receipts import settings_hash
from quire.reports.checks import Keys
from quire.reports.document import Document, Group
from quire.reports.document import Statement as Said
from quire.reports.inputs import Inputs
from quire.reports.run import Run, read_run
from quire.strategies.approvals import Approvals

CONSORTIUM = Consortium()
KEY = PrivateIdentity.from_seed(b"log".ljust(32))
DAY = "2026-11-22"
LATE = ("hospital-2", 3)
PURPOSE = "Research on the heart, Zürich.\nNothing else."
_NOW = int(time.time())
CHARTER = charter_of(
    issued=_NOW - 9000,
    not_before=_NOW - 5000,
    not_after=_NOW + 90_000,
    exit=Exit("The model.", "The rest, within 30 days.", "The members.", None),
)

assert key  # re-exported for tests that sign
assert member


def approvals(overrides: str) -> Approvals:
    """Return what the operators of all silos decided about a run: yes."""
    settings, roster = settings_hash(compose(overrides).as_dict()), CONSORTIUM.signed.roster
    found = Approvals("7", code_hash(), settings, roster=roster)
    for silo in SILOS:
        binding = Binding("7", code_hash(), settings, roster.hash)
        made = Statement.sign(binding, silo, APPROVED, 100, None, CONSORTIUM.keys[silo])
        found.take(silo, made.encode(), APPROVED)
    return found


def deployed(place: Path) -> Path:
    """Write a run of three silos, one late once, under a charter, with log and approvals; beside it the keys."""
    written(place / "charter", signed(CHARTER))
    overrides = f"{OVERRIDES} charter={CHARTER.hash}"
    write_run(
        place / "run",
        CONSORTIUM,
        overrides,
        silent=LATE,
        log_key=KEY,
        approvals=approvals(overrides),
        charter=CHARTER,
    )
    (place / "roster.json").write_bytes(CONSORTIUM.signed.encode())
    return place


def trusted(place: Path) -> Keys:
    """Return what an auditor trusts."""
    return Keys(place / "roster.json", CONSORTIUM.signed.roster.hash, place / "charter")


def read(place: Path, keys: Keys | None = None) -> tuple[Run, Inputs]:
    """Read the run of a place."""
    inputs = Inputs()
    return read_run(place / "run", trusted(place) if keys is None else keys, inputs), inputs


def said(document: Document, title: str) -> Any:
    """Return the statement, or the table, of a title."""
    items = [item for section in document.sections for item in section.items]
    items += [one for item in items if isinstance(item, Group) for one in item.statements]
    return next(item for item in items if item.title == title)


def residual(document: Document, risk: str) -> Said:
    """Return what is left of a risk."""
    return next(
        group.statements[-1]
        for section in document.sections
        for group in section.items
        if isinstance(group, Group) and group.title == risk
    )


def notices(document: Document) -> dict[str, str]:
    """Return what stands at the top."""
    return {one.title: one.text for one in document.notices}
