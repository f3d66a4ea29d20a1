"""What members have done in a run of secure aggregation, and whom the server goes on without.

Two things are told apart. Some notes *convict*: the member's own signed messages contradict each other, and it is left
out for the rest of the run. Others are *quarrels* of two members, of whom one lies (a half of a key or a share that
does not open, commitments that differ), and nothing tells the server which. An honest member quarrels with liars only,
so with no more of them than there may be: whoever quarrels with more members than may collude is out as well. Of a
pair below that, one is left out of a session and the other of the next, turn by turn, so that no honest member is out
for good while the liar stays. All of it is forgotten when the server's process ends.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable

from quire.privacy.secagg.blame import Blame
from quire.strategies.secure_log import is_refusal

#: What members can find wrong with each other.
_QUARRELS = frozenset({"PairKeyFailure", "BadShareCiphertext", "MalformedShare", "EdgeMismatch"})


class Conduct:
    """Of the members of one run.

    Parameters
    ----------
    members : collection of int
        Of the roster: a refusal can name anybody.
    colluders : int
        Members of the roster that may collude.

    Attributes
    ----------
    out : set of int
        Members that are left out for the rest of the run.
    """

    def __init__(self, members: Collection[int], colluders: int) -> None:
        self._members = frozenset(members)
        # One quarrel alone never says who of the two lies, even where nobody is expected to.
        self._most = max(1, colluders)
        self._quarrels: set[tuple[int, int]] = set()
        self._sat_out: Counter[int] = Counter()
        self.out: set[int] = set()

    def note(self, blame: Iterable[Blame]) -> bool:
        """Learn of an attempt's blame; say whether a new session is due because of it."""
        known = len(self.out), len(self._quarrels)
        for one in blame:
            if one.convicts:
                self.out.add(one.member)
            elif one.code in _QUARRELS and one.peer in self._members - {one.member}:
                pair = (min(one.member, one.peer), max(one.member, one.peer))
                if pair not in self._quarrels:
                    self._quarrels.add(pair)
                    if is_refusal(one):  # who refused was out of it already
                        self._sat_out[one.member] += 1
        degrees = Counter(end for pair in self._quarrels for end in pair)
        self.out |= {member for member, count in degrees.items() if count > self._most}
        return (len(self.out), len(self._quarrels)) != known

    def aside(self, suffice: Callable[[set[int]], bool]) -> set[int]:
        """Choose whom the session that is made now does without, so that no quarrelling pair is in it.

        Parameters
        ----------
        suffice : callable
            Whether a session without these members is large enough. If none is, nobody is left out.
        """
        for key in (self._turn, self._degree):
            chosen = self._cover(key)
            if suffice(chosen | self.out):
                self._sat_out.update(chosen)
                return chosen
        return set()

    def _open(self) -> set[tuple[int, int]]:
        return {pair for pair in self._quarrels if not self.out & set(pair)}

    def _turn(self, member: int, degree: int) -> tuple[int, int, int]:
        return (self._sat_out[member], -degree, member)

    def _degree(self, member: int, degree: int) -> tuple[int, int, int]:
        return (-degree, self._sat_out[member], member)

    def _cover(self, key: Callable[[int, int], tuple[int, int, int]]) -> set[int]:
        """Choose one end at least of every quarrel."""
        left, chosen = self._open(), set[int]()
        while left:
            degrees = Counter(end for pair in left for end in pair)
            first = min(degrees, key=lambda member: key(member, degrees[member]))
            chosen.add(first)
            left = {pair for pair in left if first not in pair}
        return chosen
