"""Who signed, who may amend, and which version is in force."""

from __future__ import annotations

from dataclasses import replace
from itertools import permutations
from pathlib import Path

import pytest
from charters import BEGINS, ENDS, ISSUED, amended, charter, key, member, signed, written

from quire.charter.chain import charter_files, expired, read_chain, verified
from quire.charter.errors import CharterError, CharterForked, CharterRefused
from quire.charter.signed import SignedCharter, check_succession, signers

FIRST = charter()
SECOND = amended(FIRST, min_cohort=2, colluders=0)
THIRD = amended(SECOND, approval="each_run")


def chain(*more: SignedCharter):
    return [signed(FIRST), *more]


def test_m_of_n_members_make_a_charter() -> None:
    assert verified([signed(FIRST)]).last == FIRST
    assert verified([signed(FIRST, "bern", "basel", "berlin")], FIRST.hash).first == FIRST


def test_one_signature_too_few_is_refused() -> None:
    with pytest.raises(CharterRefused, match=r"signed by 1 of 3 of its members \(basel\), and needs 2"):
        verified([signed(FIRST, "basel")])
    with pytest.raises(CharterRefused, match="signed by 0 of 3"):
        verified([SignedCharter(FIRST)])


def test_a_stranger_can_neither_sign_nor_be_slipped_in() -> None:
    with pytest.raises(CharterError, match="belongs to no member"):
        signed(FIRST, "paris")
    other = signed(charter("basel", "berlin", "paris"), "paris").signatures
    with pytest.raises(CharterRefused, match="is not a member of it"):
        verified([signed(FIRST).with_signatures(other)])


def test_nobody_signs_twice() -> None:
    with pytest.raises(CharterError, match=r"has signed .* already"):
        signed(FIRST, "basel", "basel")


def test_a_signature_counts_between_proposal_and_force() -> None:
    for at in (FIRST.issued, FIRST.not_before):
        assert verified([signed(FIRST, at=at)])
    with pytest.raises(CharterError, match="too late to sign"):
        signed(FIRST, at=BEGINS + 1)
    with pytest.raises(CharterError, match="clock"):
        signed(FIRST, at=ISSUED - 1)


@pytest.mark.parametrize(("at", "words"), [(BEGINS + 1, "is backdated"), (ISSUED - 1, "one of the two is backdated")])
def test_who_signs_at_another_time_by_force_is_found_out(at: int, words: str) -> None:
    """Not by our own `sign`: the signature is good, and made at a time at which it counts for nothing."""
    from quire.charter.signed import TAG, Signature

    made = Signature(key("berlin").public.fingerprint, at, key("berlin").sign(TAG, FIRST.body, at.to_bytes(8, "big")))
    with pytest.raises(CharterRefused, match=words):
        verified([signed(FIRST, "basel").with_signatures((made,))])


def test_the_time_of_a_signature_is_signed() -> None:
    one = signed(FIRST).signatures[0]
    moved = replace(signed(FIRST), signatures=(replace(one, signed_at=one.signed_at + 1),))
    with pytest.raises(CharterRefused, match=r"The signature of \w+ under .* is bad"):
        signers(moved, FIRST.members)


def test_versions_hold_in_whatever_order_they_come() -> None:
    versions = chain(signed(SECOND, previous=FIRST), signed(THIRD, previous=SECOND))
    for order in permutations(versions):
        assert verified(order, FIRST.hash).versions == tuple(versions)


def test_a_version_that_is_missing_is_missed() -> None:
    third = signed(THIRD, previous=SECOND)
    with pytest.raises(CharterRefused, match="Version 2 of the charter is missing"):
        verified([signed(FIRST), third])
    with pytest.raises(CharterRefused, match="Version 1 of the charter is missing"):
        verified([third])
    with pytest.raises(CharterRefused, match="is missing"):
        verified([signed(FIRST), SignedCharter(replace(SECOND, version=1_000_000))])
    with pytest.raises(CharterError, match="no charter"):
        verified([])


def test_a_fork_is_found_and_names_who_signed_both() -> None:
    other = amended(FIRST, approval="each_run")
    versions = chain(signed(SECOND, previous=FIRST), signed(other, "basel", "bern", previous=FIRST))
    for order in permutations(versions):
        with pytest.raises(CharterForked, match=r"two different versions 2 .* basel signed both"):
            verified(order)


def test_more_than_half_decide_so_that_every_fork_names_somebody() -> None:
    for needed in (1, 0):
        with pytest.raises(CharterError, match="more than half"):
            charter(amendments=needed)


def test_copies_signed_elsewhere_are_taken_together() -> None:
    assert verified([signed(FIRST, "basel"), signed(FIRST, "bern")]).last == FIRST


def test_the_members_before_decide_on_an_amendment() -> None:
    """Two write themselves a charter with themselves as its only members: they have not amended anybody's."""
    taken = amended(FIRST, members=(member("bern"), member("paris")), min_cohort=2, colluders=0, needed=2, amendments=2)
    with pytest.raises(CharterRefused, match=r"signed by 1 of 3 of the members of the version before \(bern\)"):
        verified(chain(_signed(taken, "bern", "paris")))
    assert verified(chain(_signed(taken, "basel", "bern", "paris"))).last == taken


def test_how_many_have_to_sign_is_lowered_by_as_many_as_it_takes_now() -> None:
    three = charter(amendments=3)
    lowered = amended(three, amendments=2)
    with pytest.raises(CharterRefused, match="signed by 2 of 3 of the members of the version before"):
        verified([signed(three), signed(lowered, previous=three)])
    assert verified([signed(three), signed(lowered, "basel", "berlin", "bern", previous=three)])


def test_new_members_sign_too() -> None:
    five = tuple(map(member, ("basel", "berlin", "bern", "oslo", "paris")))
    grown = amended(FIRST, members=five, needed=3, amendments=3)
    with_old = _signed(grown, "basel", "berlin")
    with pytest.raises(CharterRefused, match=r"signed by 2 of 5 of its members .* needs 3"):
        verified(chain(with_old))


def test_the_signature_of_a_removed_member_does_not_count() -> None:
    """Basel leaves with version 2. What it signs for version 3 counts neither as old nor as new."""
    left = amended(FIRST, members=(member("berlin"), member("bern")), min_cohort=2, colluders=0)
    after = amended(left, approval="each_run")
    second = _signed(left, "basel", "berlin", "bern")
    with pytest.raises(CharterRefused, match=r"has signed .*, and is not a member of it or of the version before"):
        verified(chain(second, _signed(after, "basel", "bern")))
    with pytest.raises(CharterError, match="belongs to no member"):
        signed(after, "basel", previous=left)
    with pytest.raises(CharterRefused, match="needs 2"):
        verified(chain(second, _signed(after, "bern")))
    assert verified(chain(second, _signed(after, "berlin", "bern"))).last == after


@pytest.mark.parametrize(
    "changes",
    [
        {"issued": ISSUED},
        {"issued": ISSUED - 5},
        {"issued": ISSUED + 1, "not_before": BEGINS},
        {"issued": ISSUED + 1, "not_before": BEGINS - 1},
    ],
)
def test_a_backdated_amendment_is_refused(changes: dict) -> None:
    late = amended(FIRST, **changes)
    with pytest.raises(CharterRefused, match="is backdated"):
        verified(chain(_signed(late, "basel", "bern")))
    with pytest.raises(CharterRefused, match="is backdated"):
        SignedCharter(late).sign(key("basel"), late.issued, FIRST)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"charter_id": "lung"}, "it is another one"),
        ({"previous": "a" * 64}, "follows aaaaaaaa"),
        ({"version": 3}, "cannot follow version 1"),
    ],
)
def test_another_succession_is_refused(changes: dict, words: str) -> None:
    with pytest.raises(CharterRefused, match=words):
        check_succession(FIRST, _signed(amended(FIRST, **changes), "basel", "bern"))


def test_another_first_version_than_the_pinned_one_is_refused() -> None:
    with pytest.raises(CharterRefused, match="not the pinned charter"):
        verified(chain(), SECOND.hash)
    with pytest.raises(CharterError, match="64 hexadecimal digits"):
        verified(chain(), "x")


def test_the_newest_version_that_has_begun_is_in_force() -> None:
    found = verified(chain(signed(SECOND, previous=FIRST)))
    with pytest.raises(CharterRefused, match="not in force yet"):
        found.in_force(BEGINS - 1)
    assert found.in_force(BEGINS) == FIRST
    assert found.in_force(SECOND.not_before - 1) == FIRST
    assert found.in_force(SECOND.not_before) == SECOND
    assert not expired(SECOND, ENDS)
    assert expired(SECOND, ENDS + 1)
    assert found.holds(1, FIRST.hash)
    assert not found.holds(2, FIRST.hash)
    assert not found.holds(3, FIRST.hash)


def test_a_version_that_was_replaced_never_comes_back() -> None:
    short = amended(FIRST, not_after=FIRST.not_before + 20_000)
    found = verified(chain(signed(short, previous=FIRST)))
    now = short.not_after + 1
    assert not expired(FIRST, now)
    assert found.in_force(now) == short
    assert expired(found.in_force(now), now)


def test_folders_and_files(tmp_path: Path) -> None:
    folder = written(tmp_path / "charter", signed(FIRST), signed(SECOND, previous=FIRST))
    assert read_chain(folder, FIRST.hash).last == SECOND
    assert read_chain(folder / "charter-1.json").last == FIRST
    assert charter_files(folder / "charter-1.json") == (folder / "charter-1.json",)
    (folder / "charter-3.json").write_bytes(b"{")
    with pytest.raises(CharterError, match=r"charter-3\.json: .*not JSON"):
        read_chain(folder)
    with pytest.raises(CharterError, match="cannot be read"):
        read_chain(tmp_path / "none.json")
    (tmp_path / "empty").mkdir()
    with pytest.raises(CharterError, match="must hold 1 to"):
        read_chain(tmp_path / "empty")


def test_signatures_need_every_key_that_a_member_has() -> None:
    """A member with an ML-DSA-65 key signs with both: a signature by the other key alone is bad."""
    both = tuple(member(name, identity=key(name, True).public) for name in ("basel", "berlin", "bern"))
    made = SignedCharter(charter(members=both)).sign(key("basel", True), ISSUED)
    halved = replace(made.signatures[0], signature=b"\x01\x01" + made.signatures[0].signature[2:66])
    with pytest.raises(CharterRefused, match="is bad"):
        signers(replace(made, signatures=(halved,)), both)


def _signed(found, *names: str) -> SignedCharter:
    """Sign without the checks of `sign` on who is a member: what somebody else's program may do."""
    from quire.charter.signed import TAG, Signature

    at = found.issued
    made = [
        Signature(key(name).public.fingerprint, at, key(name).sign(TAG, found.body, at.to_bytes(8, "big")))
        for name in names
    ]
    return SignedCharter(found).with_signatures(tuple(made))
