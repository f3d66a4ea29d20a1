"""Charters, and the members who sign them, at times that a test chooses."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

from quire.charter.document import Charter
from quire.charter.parts import Exit, Member
from quire.charter.signed import SignedCharter
from quire.privacy.identity.keys import PrivateIdentity

#: When the first version is proposed, signed, in force, and over: seconds since 1970.
ISSUED, SIGNED, BEGINS, ENDS = 1_800_000_000, 1_800_000_100, 1_800_001_000, 1_900_000_000
NAMES = ("basel", "berlin", "bern")


@cache
def key(name: str, post_quantum: bool = False) -> PrivateIdentity:
    """Return the keys of a member: always the same."""
    return PrivateIdentity.from_seed(name.encode().ljust(32, b"."), post_quantum)


def member(name: str, **changes: Any) -> Member:
    """Return a member with caps, by name."""
    told = {"residency": "eu", "epsilon": 4.0, "delta": 1e-5, **changes}
    return Member(name, told.pop("identity", None) or key(name).public, **told)


def charter(*names: str, **changes: Any) -> Charter:
    """Return version 1 of a charter of three members, two of whom have to sign."""
    told: dict[str, Any] = {
        **{"charter_id": "heart", "version": 1, "purpose": "Research on the heart, Zürich.\nNothing else."},
        **{"members": tuple(member(name) for name in sorted(names or NAMES)), "needed": 2, "amendments": 2},
        **{"tasks": frozenset({"tabular"}), "code": None, "privacy": frozenset({"record"})},
        **{"aggregation": frozenset({"plain"}), "min_cohort": 3, "colluders": 1, "approval": "none"},
        **{"issued": ISSUED, "not_before": BEGINS, "not_after": ENDS},
        "exit": Exit("The model.", "The rest, within 30 days.", "The members.", ENDS),
    }
    return Charter(**{**told, **changes})


def amended(old: Charter, **changes: Any) -> Charter:
    """Return the version that follows another, proposed and in force later."""
    told = {
        **{"version": old.version + 1, "previous": old.hash},
        **{"issued": old.issued + 10_000, "not_before": old.not_before + 10_000},
    }
    return replace(old, **{**told, **changes})


def signed(found: Charter, *names: str, previous: Charter | None = None, at: int | None = None) -> SignedCharter:
    """Return a charter with the signatures of members: the first two, if none is named."""
    made = SignedCharter(found)
    for name in names or NAMES[:2]:
        made = made.sign(key(name), found.issued + 100 if at is None else at, previous)
    return made


def written(folder: Path, *versions: SignedCharter) -> Path:
    """Write versions into a folder, as a silo has them."""
    folder.mkdir(exist_ok=True)
    for one in versions:
        (folder / f"charter-{one.charter.version}.json").write_bytes(one.encode())
    return folder
