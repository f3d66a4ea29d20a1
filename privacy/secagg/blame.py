"""What the server notes about members that did not keep to the protocol.

Blame says what the *server* saw. It proves nothing to others: a server may lie about it, and what a member is blamed
for can be a fault of its machine.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from quire.privacy.secagg.errors import SecAggError


@dataclass(frozen=True)
class Blame:
    """One entry.

    Attributes
    ----------
    member : int
        Roster index.
    stage : str
        Where it was seen: ``"advert"``, ``"shares"`` and so on.
    code : str
        The name of the error.
    peer : int or None
        The other member, where it takes two.
    proven : bool
        Whether the member's own signature stands under what it is blamed for; without, anyone on the way may have
        sent it, or broken it.
    """

    member: int
    stage: str
    code: str
    peer: int | None = None
    proven: bool = False

    @property
    def convicts(self) -> bool:
        """Whether nothing that another member did explains it: its own signed messages contradict each other."""
        return self.proven and self.code not in _MUTUAL


#: Errors of a pair, of which either may be the one that lied.
_MUTUAL = frozenset({"EdgeMismatch"})


def blamed(member: int, stage: str, error: type[SecAggError], peer: int | None = None, proven: bool = False) -> Blame:
    """Return an entry for an error of the closed set."""
    return Blame(member, stage, error.__name__, peer, proven)


def cover(edges: Iterable[tuple[int, int]]) -> set[int]:
    """Choose whom to leave out so that no quarrelling pair is left.

    The member with the most quarrels goes first: a cheat who quarrels with everybody goes alone. Of a pair that has
    no other quarrel both go, as nothing tells which of them is right; so a cheat that takes an honest member down
    with it is gone too. Several cheats can single out one honest member and stay, as the two cases look the same from
    outside. That costs availability, never privacy, and their signatures stand under it.

    Parameters
    ----------
    edges : iterable of tuple of int
        Pairs of members that do not agree.
    """
    left = set(edges)
    out: set[int] = set()
    while left:
        counts = Counter(end for edge in left for end in edge)
        most = max(counts.values())
        chosen = {member for member, count in counts.items() if count == most}
        out |= chosen
        left = {edge for edge in left if not chosen & set(edge)}
    return out
