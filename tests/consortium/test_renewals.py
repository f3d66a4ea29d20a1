"""Renewals that are asked for twice, or whose answer was lost."""

from __future__ import annotations

from pathlib import Path

import pytest
from consortium_parties import NOW, Parties

from quire.consortium.documents import Document
from quire.consortium.errors import ConsortiumError
from quire.consortium.joining import join
from quire.consortium.operator import opened
from quire.consortium.places import read_key
from quire.consortium.silo import certificate_of, renew


def answer(parties: Parties, asked: Document, now: int) -> Path:
    with opened(parties.operator.root, None, now) as operator:
        return operator.renew(asked, 90, now)


@pytest.mark.parametrize("again", [True, False], ids=["fresh key", "present key"])
def test_a_renewal_that_is_asked_for_again_does_not_undo_the_first(parties: Parties, again: bool) -> None:
    silo = parties.bring("hospital-1")
    old = read_key(silo.client_key).public_key()
    admission = answer(parties, renew(silo.root, fresh=True, now=NOW + 1), NOW + 1)
    late = renew(silo.root, fresh=again, now=NOW + 2)
    with pytest.raises(ConsortiumError, match="has not joined with its newest admission yet"):
        answer(parties, late, NOW + 2)
    join(silo.root, admission, now=NOW + 3)
    assert certificate_of(silo).public_key() == read_key(silo.client_key).public_key() != old
    assert not silo.next_client_key.exists()
    join(silo.root, answer(parties, renew(silo.root, fresh=True, now=NOW + 4), NOW + 4), now=NOW + 4)


def test_half_a_fresh_key_is_made_anew(parties: Parties) -> None:
    silo = parties.bring("hospital-1")
    renew(silo.root, fresh=True, now=NOW + 1)
    silo.next_client_key.write_bytes(silo.next_client_key.read_bytes()[:50])
    join(silo.root, answer(parties, renew(silo.root, fresh=True, now=NOW + 2), NOW + 2), now=NOW + 2)
    assert certificate_of(silo).public_key() == read_key(silo.client_key).public_key()
