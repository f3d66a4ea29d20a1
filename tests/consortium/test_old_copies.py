"""Backups that were put back: what is found out, by the operator's commands and by the silos."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from consortium_parties import NOW, Parties, snapshot

from quire.consortium.errors import ConsortiumError
from quire.consortium.joining import join
from quire.consortium.operator import opened
from quire.consortium.settling import read_crl
from quire.consortium.silo import renew


def renewed(parties: Parties, name: str, now: int) -> None:
    asked = renew(parties.silo(name).root, fresh=True, now=now)
    with opened(parties.operator.root, None, now) as operator:
        join(parties.silo(name).root, operator.renew(asked, 90, now), now=now)


def listed(path: Path) -> set[int]:
    crl = read_crl(path)
    assert crl is not None
    return {one.serial_number for one in crl}


@pytest.mark.parametrize("leaves", [False, True], ids=["member", "former member"])
def test_an_index_without_a_certificate_that_was_issued_is_found_out(parties: Parties, leaves: bool) -> None:
    """A renewal changes neither the roster nor the list: revoked from such a copy, the member would keep access."""
    folder = parties.operator
    parties.bring("hospital-1")
    parties.bring("hospital-2")
    old = folder.issued.read_bytes()
    renewed(parties, "hospital-1", NOW + 1)
    if leaves:
        old_list = folder.crl.read_bytes()
        parties.revoke("hospital-1")
        folder.crl.write_bytes(old_list)
        for place in folder.rosters()[2:]:
            place.unlink()
    folder.issued.write_bytes(old)
    before = snapshot(folder.root)
    with pytest.raises(ConsortiumError, match=r"does not know the certificate in .*hospital-1.*client\.pem"):
        parties.revoke("hospital-2")
    assert snapshot(folder.root) == before


def test_an_index_without_the_servers_certificate_is_found_out(parties: Parties) -> None:
    folder = parties.operator
    old = folder.issued.read_bytes()
    with opened(folder.root, None, NOW) as operator:
        operator.renew_server(False, 365, NOW + 1)
    folder.issued.write_bytes(old)
    with pytest.raises(ConsortiumError, match=r"does not know the certificate in .*server\.pem"):
        parties.invite("hospital-1")


def test_a_damaged_certificate_is_made_again_and_says_nothing_about_the_index(parties: Parties) -> None:
    parties.bring("hospital-1")
    place = parties.operator.client_certificate("hospital-1")
    good = place.read_bytes()
    for bad in (b"", b"\xff", good[:-40]):
        place.write_bytes(bad)
        parties.invite("hospital-2", again=True)
        assert place.read_bytes() == good


def test_a_silo_takes_no_list_that_forgets_a_certificate(parties: Parties, tmp_path: Path) -> None:
    """The operator's whole folder is put back as it was, and goes on: the next number, another list."""
    folder, backup = parties.operator, tmp_path / "backup"
    for name in ("hospital-1", "hospital-2", "hospital-3"):
        parties.bring(name)
    silo = parties.silo("hospital-1")
    join(silo.root, folder.bulletin, now=NOW)
    shutil.copytree(folder.root, backup)
    with opened(folder.root, None, NOW) as operator:
        operator.renew_server(True, 365, NOW)
    join(silo.root, folder.bulletin, now=NOW)
    assert listed(silo.crl) == listed(folder.crl) != set()
    shutil.rmtree(folder.root)
    shutil.copytree(backup, folder.root)
    with opened(folder.root, None, NOW + 5) as operator:
        operator.revoke("hospital-3", False, NOW + 5)
    before = snapshot(silo.root)
    for _ in range(2):  # under the same number, and under a higher one
        with pytest.raises(ConsortiumError, match="contradicts the one here"):
            join(silo.root, folder.bulletin, now=NOW + 5)
        assert snapshot(silo.root) == before
        with opened(folder.root, None, NOW + 6) as operator:
            operator.revoke("hospital-2", False, NOW + 6)


def test_an_admission_with_an_older_list_that_is_no_part_of_the_newer_is_refused(
    parties: Parties, tmp_path: Path
) -> None:
    folder, backup = parties.operator, tmp_path / "backup"
    for name in ("hospital-1", "hospital-2", "hospital-3"):
        parties.bring(name)
    silo = parties.silo("hospital-1")
    join(silo.root, folder.bulletin, now=NOW)
    shutil.copytree(folder.root, backup)
    for name in ("hospital-2", "hospital-3"):
        parties.revoke(name)
    join(silo.root, folder.bulletin, now=NOW)
    shutil.rmtree(folder.root)
    shutil.copytree(backup, folder.root)
    with opened(folder.root, None, NOW) as operator:
        operator.renew_server(True, 365, NOW)
    with pytest.raises(ConsortiumError, match="contradicts the one here"):
        renewed(parties, "hospital-1", NOW + 1)
