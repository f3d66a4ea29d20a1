"""A charter that lists releases is held against the bundle itself, after the operator's own list."""

from __future__ import annotations

import time
from datetime import date
from pathlib import Path

import pytest
from bundles import APP, packed
from charters import charter, signed, written

from quire.charter.parts import Release
from quire.clients.data.silo_file import read_operator_of
from quire.clients.gate.approvals import Approval, approvals_file, approve
from quire.clients.gate.bundle import Bundle
from quire.clients.gate.starter import Gate
from quire.clients.gate.working import Refused
from quire.clients.store import Position, Store
from quire.privacy.identity.keys import PrivateIdentity

BUNDLE = Bundle(packed(APP))
HOUR = 3600


class Place:
    """A silo that has approved the bundle, and a charter that it may have."""

    def __init__(self, folder: Path) -> None:
        self.silo, self.folder = folder / "silo.yaml", folder
        self.began = int(time.time()) - HOUR
        approve(approvals_file(self.silo), Approval((BUNDLE.content,)))

    def under(self, *bundles: str, **changes: object) -> None:
        releases = frozenset(Release(bundle, "0" * 64) for bundle in bundles)
        told = {"issued": self.began - HOUR, "not_before": self.began, "not_after": self.began + 2 * HOUR, **changes}
        found = charter(code=releases or None, **told)
        written(self.folder / "charter", signed(found))
        self.silo.write_text(
            "data: {connector: shipped, partition: 0, partitions: 2}\npopulation: {name: p, records: 9}\n"
            f'charter: {{file: charter, hash: "{found.hash}"}}\n'
            "policy: {modes: [none], aggregation: [plain], code: []}\n"
        )

    def refused(self) -> str:
        with pytest.raises(Refused) as why:
            Gate(self.silo).admit(BUNDLE)
        return why.value.code.name


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def test_a_bundle_that_the_charter_lists_is_let_in(place: Place) -> None:
    place.under("1" * 64, BUNDLE.content)
    assert Gate(place.silo).admit(BUNDLE) == BUNDLE.content
    place.under()  # any that the operator approves
    assert Gate(place.silo).admit(BUNDLE) == BUNDLE.content


def test_a_silo_without_a_charter_goes_by_its_operators_list(place: Place) -> None:
    assert Gate(place.silo).admit(BUNDLE) == BUNDLE.content
    place.silo.write_text("# no charter\ndata: {connector: shipped, partition: 0, partitions: 2}\n")
    assert Gate(place.silo).admit(BUNDLE) == BUNDLE.content


@pytest.mark.parametrize("key", ['"ch\\x61rter"', '? "ch\\u0061rter"\n'])
def test_a_key_that_is_spelled_with_escapes_is_the_same_key(place: Place, key: str) -> None:
    place.under("1" * 64)
    text = place.silo.read_text().replace("charter: {", f"{key}: {{")
    place.silo.write_text(text.replace("file: charter", 'file: "ch\\x61rter"'))
    assert b"charter" not in place.silo.read_bytes()
    assert place.refused() == "CHARTER_CODE"


def test_a_file_that_cannot_be_read_lets_nothing_in(place: Place) -> None:
    place.silo.write_text("charter: {")
    assert place.refused() == "CHARTER_REFUSED"


def test_what_the_silo_has_seen_is_remembered_here_too(place: Place) -> None:
    """An amendment that the silo was under, and whose file was taken away; or the clock was set back."""
    place.under()
    pinned = read_operator_of(place.silo).charter.sha256
    with Store.open(place.folder / "store", PrivateIdentity.from_seed(b"a" * 32)) as store:
        store.advance(Position(f"charter.{pinned[:32]}", 1, 1), date(2026, 1, 1))
        assert Gate(place.silo).admit(BUNDLE) == BUNDLE.content
        store.advance(Position(f"charter.{pinned[:32]}", 2, 1), date(2026, 1, 1))
    assert place.refused() == "CHARTER_REFUSED"


def test_an_approved_bundle_that_the_charter_does_not_list_is_kept_out(place: Place) -> None:
    place.under("1" * 64)
    assert place.refused() == "CHARTER_CODE"
    place.under(BUNDLE.fab)  # the archive's hash is not that of its files
    assert place.refused() == "CHARTER_CODE"


def test_what_the_charter_lists_and_the_operator_has_not_approved_is_kept_out(place: Place) -> None:
    place.under(BUNDLE.content)
    approvals_file(place.silo).unlink()
    assert place.refused() == "CODE_REFUSED"


def test_a_charter_that_does_not_hold_or_is_over_lets_nothing_in(place: Place) -> None:
    place.under(BUNDLE.content, not_after=place.began + 1)
    assert place.refused() == "CHARTER_EXPIRED"
    place.under(BUNDLE.content, not_before=place.began + 2 * HOUR, not_after=place.began + 3 * HOUR)
    assert place.refused() == "CHARTER_EXPIRED"
    file = place.folder / "charter" / "charter-1.json"
    file.write_bytes(file.read_bytes().replace(BUNDLE.content.encode(), b"1" * 64))
    assert place.refused() == "CHARTER_REFUSED"
    file.unlink()
    assert place.refused() == "CHARTER_REFUSED"
