"""Rosters: what they refuse to be, who signs them, which may follow which."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quire.privacy.identity.canonical import dumps
from quire.privacy.identity.ephemeral import ephemeral_roster
from quire.privacy.identity.errors import BadEncoding, BadSignature, IdentityError, RosterError
from quire.privacy.identity.keys import PrivateIdentity, PublicIdentity
from quire.privacy.identity.roster import FOR_EVER, Admin, Member, Roster, from_json, to_json
from quire.privacy.identity.signed import SignedRoster, check_pin, check_signed, signers, succeeds


@cache
def party(number: int, post_quantum: bool = False) -> PrivateIdentity:
    return PrivateIdentity.from_seed(bytes([number]) * 32, post_quantum)


ANNA, BEN, CARL, DORA = (party(100 + place, place == 1) for place in range(4))


def admins(**known: PrivateIdentity) -> tuple[Admin, ...]:
    return tuple(Admin(name, known[name].public) for name in sorted(known))


def member(index: int, name: str | None = None, key: int | None = None, **more: Any) -> Member:
    return Member(index, name or f"hospital-{index}", party(index if key is None else key).public, **more)


def roster(**changes: Any) -> Roster:
    return replace(
        Roster(
            roster_id="heart",
            version=1,
            members=(member(0), member(1), replace(member(2), identity=party(2, True).public)),
            admins=admins(anna=ANNA, ben=BEN, carl=CARL),
            quorum=2,
            next_index=3,
        ),
        **changes,
    )


def follower(old: Roster, **changes: Any) -> Roster:
    return replace(old, version=old.version + 1, previous=old.hash, **changes)


def signed(body: Roster, *by: PrivateIdentity) -> SignedRoster:
    found = SignedRoster(body)
    for admin in by:
        found = found.sign(admin)
    return found


def test_a_roster_comes_back() -> None:
    whole = signed(roster(), ANNA, BEN)
    assert SignedRoster.decode(whole.encode()) == whole
    assert from_json(to_json(roster())) == roster()


CONTRADICTIONS: dict[str, tuple[dict[str, Any], str]] = {
    "a name twice": ({"members": (member(0), member(1, "hospital-0"))}, "the same name"),
    "an index twice": ({"members": (member(0), member(0, "b", 1))}, "the same index"),
    "a key twice": ({"members": (member(0), member(1, key=0))}, "the same Ed25519 key"),
    "an admin's name twice": ({"admins": (Admin("a", ANNA.public), Admin("a", BEN.public))}, "the same name"),
    "an admin's key twice": (
        {"admins": (Admin("a", PublicIdentity(BEN.public.ed25519)), Admin("b", BEN.public))},
        "Two admins have the same Ed25519 key",
    ),
    "an admin's second key twice": (
        {"admins": (Admin("a", BEN.public), Admin("b", PublicIdentity(ANNA.public.ed25519, BEN.public.mldsa65)))},
        "Two admins have the same ML-DSA-65 key",
    ),
    "no member": ({"members": ()}, "1 to 4096 members"),
    "no admin": ({"admins": ()}, "1 to 64 admins"),
    "no quorum": ({"quorum": 0}, "quorum must be from 1"),
    "a quorum out of reach": ({"quorum": 4}, "number of admins, which is 3"),
    "an index that is still to be given": ({"next_index": 2}, "index of hospital-2"),
    "members out of order": ({"members": (member(1), member(0))}, "order of their indexes"),
    "admins out of order": ({"admins": (Admin("b", ANNA.public), Admin("a", BEN.public))}, "order of their names"),
    "a name with a capital": ({"members": (member(0, "Hospital"),)}, "lower-case"),
    "a name with an escape": ({"members": (member(0, "a\x1b[2J"),)}, "lower-case"),
    "a long name": ({"members": (member(0, "a" * 65),)}, "at most 64"),
    "an id with a path": ({"roster_id": "../heart"}, "lower-case"),
    "no validity": ({"members": (member(0, valid_from=5, valid_to=5),)}, "valid_to of hospital-0"),
    "a time before 1970": ({"members": (member(0, valid_from=-1),)}, "valid_from of hospital-0"),
    "a time after 9999": ({"members": (member(0, valid_to=FOR_EVER + 1),)}, "valid_to of hospital-0"),
    "a first version with one before": ({"previous": "0" * 64}, "unless it is version 1"),
    "a second version with none before": ({"version": 2}, "unless it is version 1"),
    "a previous that is no hash": ({"version": 2, "previous": "0" * 63}, "64 hexadecimal digits"),
    "a version that is true": ({"version": True}, "version"),
}


@pytest.mark.parametrize("case", CONTRADICTIONS)
def test_a_roster_does_not_contradict_itself(case: str) -> None:
    changes, words = CONTRADICTIONS[case]
    with pytest.raises(RosterError, match=words):
        roster(**changes)


@pytest.mark.parametrize(
    "change",
    [
        {"format": "quire-roster-2"},
        {"version": "1"},
        {"version": True},
        {"quorum": None},
        {"extra": 1},
        {"members": {}},
        {"members": [1]},
        {"members": [{}]},
        {"admins": "anna"},
        {"previous": 7},
    ],
    ids=repr,
)
def test_another_form_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(IdentityError):
        from_json(to_json(roster()) | change)


@pytest.mark.parametrize("value", ["AB", "ab" * 31, "zz" * 32, "", 7, None], ids=repr)
def test_keys_are_hexadecimal_digits_in_lower_case(value: Any) -> None:
    body = to_json(roster())
    body["members"][0]["ed25519"] = value
    with pytest.raises(BadEncoding):
        from_json(body)


def test_validity_begins_with_its_first_second_and_ends_before_its_last() -> None:
    made = roster(members=(member(0, valid_from=10, valid_to=20), member(1)), next_index=2)
    assert [[one.index for one in made.active(now)] for now in (9, 10, 19, 20)] == [[1], [0, 1], [0, 1], [1]]


def test_signatures_move_no_pin() -> None:
    bare, whole = signed(roster()), signed(roster(), ANNA, CARL)
    assert bare.roster.hash == whole.roster.hash
    check_pin(whole, roster().hash)
    with pytest.raises(RosterError, match="not the pinned roster"):
        check_pin(whole, "0" * 64)
    with pytest.raises(RosterError, match="A pin is"):
        check_pin(whole, roster().hash.upper())
    with pytest.raises(RosterError, match=r"signed by 0 of its own admins, and needs 2"):
        check_pin(bare, roster().hash)


def test_an_admin_who_signs_twice_counts_once() -> None:
    twice = signed(roster(), ANNA, ANNA)
    assert [admin.name for admin in signers(twice, roster().admins)] == ["anna"]
    with pytest.raises(RosterError, match=r"signed by 1 of its own admins \(anna\), and needs 2"):
        check_signed(twice)
    with pytest.raises(RosterError, match="at most one of each admin"):
        SignedRoster(roster(), twice.signatures * 2)
    document = {"roster": to_json(roster()), "signatures": []}
    one = {"identity": ANNA.public.fingerprint, "signature": twice.signatures[0].signature.hex()}
    document["signatures"] = [one, one]
    with pytest.raises(RosterError, match="at most one of each admin"):
        SignedRoster.decode(dumps(document))


def test_a_signature_of_somebody_else_counts_for_nothing() -> None:
    with pytest.raises(RosterError, match="who is not an admin of it"):
        check_signed(signed(roster(), ANNA, BEN, DORA))
    moved = signed(roster(), ANNA, BEN).signatures
    by = {one.fingerprint: one.signature for one in moved}
    swapped = tuple(replace(one, signature=by[ANNA.public.fingerprint]) for one in moved)
    with pytest.raises(BadSignature):
        check_signed(SignedRoster(roster(), swapped))


def test_the_next_version_needs_the_quorum_before_and_its_own() -> None:
    old = roster()
    new = follower(old, admins=admins(carl=CARL, dora=DORA), quorum=2)
    succeeds(old, signed(new, ANNA, CARL, DORA))
    with pytest.raises(RosterError, match=r"1 of the admins of the version before \(carl\), and needs 2"):
        succeeds(old, signed(new, CARL, DORA))
    with pytest.raises(RosterError, match=r"1 of its own admins \(carl\), and needs 2"):
        succeeds(old, signed(new, ANNA, CARL))
    with pytest.raises(RosterError, match="who is not an admin of it or of the version before"):
        succeeds(old, signed(new, ANNA, CARL, DORA, party(200)))


def test_the_signature_of_one_version_is_none_of_the_next() -> None:
    old = roster()
    new = follower(old, quorum=1)
    with pytest.raises(BadSignature):
        succeeds(old, SignedRoster(new, signed(old, ANNA, BEN).signatures))


NOT_NEXT: dict[str, tuple[dict[str, Any], str]] = {
    "another consortium's": ({"roster_id": "lungs"}, "another consortium"),
    "a version left out": ({"version": 3}, "Version 3 cannot follow version 1"),
    "the same version": ({"version": 1, "previous": None}, "Version 1 cannot follow version 1"),
    "the child of another": ({"previous": "0" * 64}, "which is pinned"),
    "an index that goes on to somebody else": (
        {"members": (member(0, "clinic", 9), member(1))},
        "Index 0 belongs to hospital-0",
    ),
    "a name with another index": (
        {"members": (member(1), member(3, "hospital-0", 0)), "next_index": 4},
        "has index 0 and cannot get 3",
    ),
    "a key that goes on to somebody else": (
        {"members": (member(0), member(3, "clinic", 1)), "next_index": 4},
        "has a key that belongs to hospital-1",
    ),
    "only the second key goes on": (
        {
            "members": (Member(3, "clinic", PublicIdentity(party(9).public.ed25519, party(2, True).public.mldsa65)),),
            "next_index": 4,
        },
        "has a key that belongs to hospital-2",
    ),
    "a count that goes down": ({"members": (member(0),), "next_index": 1}, "'next_index' went down"),
}


@pytest.mark.parametrize("case", NOT_NEXT)
def test_what_may_not_follow(case: str) -> None:
    changes, words = NOT_NEXT[case]
    new = replace(follower(roster()), **changes)
    with pytest.raises(RosterError, match=words):
        succeeds(roster(), signed(new, ANNA, BEN))


def test_the_index_of_a_member_who_left_long_ago_is_not_given_away_again() -> None:
    first = roster()
    second = follower(first, members=first.members[:2])
    succeeds(first, signed(second, ANNA, BEN))
    third = follower(second, members=(*second.members, member(2, "clinic", 9)))
    with pytest.raises(RosterError, match="clinic has index 2, which was given away before"):
        succeeds(second, signed(third, ANNA, BEN))
    third = follower(second, members=(*second.members, member(3, "clinic", 9)), next_index=4)
    succeeds(second, signed(third, ANNA, BEN))


def test_new_keys_for_a_member_who_stays() -> None:
    new = follower(roster(), members=(member(0, key=9), *roster().members[1:]))
    succeeds(roster(), signed(new, ANNA, CARL))


@cache
def document() -> bytes:
    return signed(roster(), ANNA, BEN).encode()


@settings(max_examples=400, deadline=None)
@given(data=st.data())
def test_no_byte_of_a_signed_roster_can_be_changed(data: st.DataObject) -> None:
    changed = bytearray(document())
    place = data.draw(st.integers(0, len(changed) - 1))
    match data.draw(st.sampled_from(["flip", "digit", "cut", "drop", "add"])):
        case "flip":
            changed[place] ^= data.draw(st.integers(1, 255))
        case "digit":  # the likeliest to stay well-formed
            changed[place] = ord(data.draw(st.sampled_from("0123456789abcdef")))
        case "cut":
            del changed[place:]
        case "drop":
            del changed[place]
        case _:
            changed[place:place] = data.draw(st.binary(min_size=1, max_size=3))
    if bytes(changed) == document():
        return
    with pytest.raises(IdentityError) as caught:  # whichever notices: the parser, the roster, or a signature
        check_signed(SignedRoster.decode(bytes(changed)))
    assert str(caught.value).endswith(".")
    assert len(str(caught.value)) < 400


def test_size_and_depth_are_bounded() -> None:
    with pytest.raises(BadEncoding, match="more than the"):
        SignedRoster.decode(b" " * (24 * 2**20 + 1))
    with pytest.raises(BadEncoding):
        SignedRoster.decode(b"[" * 10**6)
    signatures = [{"identity": f"{place:064x}", "signature": "00"} for place in range(129)]
    with pytest.raises(BadEncoding, match="at most 128"):
        SignedRoster.decode(dumps({"roster": to_json(roster()), "signatures": signatures}))


def test_the_largest_roster_fits_into_the_largest_file() -> None:
    """By arithmetic: making 4096 post-quantum keys would take a minute."""
    one, few = (len(dumps(to_json(_of(count)))) for count in (1, 2))
    longest = few - one + 64 + 64 + 10 + 12 + 12
    assert 4096 * longest + 64 * longest + 128 * (2 * 3375 + 110) < 24 * 2**20


def _of(count: int) -> Roster:
    keys = [party(place, True).public for place in range(count)]
    return roster(members=tuple(Member(place, f"m-{place}", keys[place]) for place in range(count)))


NAMES = ("hospital-1", "hospital-2", "hospital-3")


@pytest.mark.parametrize("post_quantum", [False, True])
def test_an_ephemeral_roster_is_its_secret(post_quantum: bool) -> None:
    made, identities = ephemeral_roster(b"s" * 32, NAMES, post_quantum)
    again, _ = ephemeral_roster(b"s" * 32, NAMES, post_quantum)
    other, _ = ephemeral_roster(b"t" * 32, NAMES, post_quantum)
    assert made == again
    assert made.hash == again.hash != other.hash
    assert list(identities) == [one.name for one in made.members] == list(NAMES)
    assert all(identities[one.name].public == one.identity for one in made.members)
    assert all(one.identity.post_quantum == post_quantum and one.active(0) for one in made.members)
    shown = f"{made} {identities}"
    assert not any(one.encode_secret()[2:34].hex() in shown for one in identities.values())


def test_the_keys_of_a_name_do_not_depend_on_the_others() -> None:
    few, _ = ephemeral_roster(b"s" * 32, NAMES[:2])
    many, _ = ephemeral_roster(b"s" * 32, NAMES)
    assert few.members == many.members[:2]


def test_an_ephemeral_roster_refuses_what_a_roster_does() -> None:
    for names in ((), ("a", "a"), ("A",)):
        with pytest.raises(RosterError):
            ephemeral_roster(b"s" * 32, names)
    with pytest.raises(ValueError, match="32 bytes"):
        ephemeral_roster(b"s" * 31, NAMES)
