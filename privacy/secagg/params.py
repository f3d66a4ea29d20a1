"""Thresholds: how many shares open a secret, how many signatures fix a set of survivors, how many may drop out.

With ``n`` members on the *roster*, of which ``c`` may work with a lying server,
``t = floor((n + c) / 2) + 1`` is the threshold of both the shares and the signatures, in every session and for every
cohort, however small. What follows is that the vector of an honest silo is in at most one sum that is opened in a round
of a run: there are no two sums to take the difference of.

Within one attempt
    A silo gives up shares only against ``t`` signatures over the two sets that it signed itself: U2, who dealt shares,
    and U3, who survived. Two different pairs of sets would need ``2 t > n + c`` signatures; there are at most ``n + c``
    to be had, as every honest member signs once in an attempt and every colluder as often as it likes. What comes clear
    is then the sum over U3 and not over a part of it, even if some of U3 were shown another U2 and did not sign: theirs
    has ``t`` members too, so that it has at least ``2 t - n > c`` in common with those who signed. Hence each of them
    shares a secret mask with an honest one who signed, and those who signed do so with all of U3.

Between two attempts
    An attempt is *opened* when the secret of some honest member comes out; this takes ``t`` shares of it, so at least
    ``t`` members of the roster gave up theirs. Suppose that two attempts of one round are both opened, and that an
    honest silo masked its vector in both. It keeps to one roster and one configuration in a run, and all members of a
    session have those in common, so that ``n``, ``c`` and ``t`` are the same in both. The two sets of ``t`` members
    then have at least ``2 t - n > c`` in common, one of them honest. But an honest member gives up shares once in a
    round: it writes the round down as opened before its shares leave, and from then on neither starts an attempt of
    that round nor enters a session that begins with it or with one before it.

The second argument does not ask which session or cohort the two attempts belong to, as both sets of members lie in
the same roster. That is why ``n`` is the size of the roster and not of a cohort or a session: both of these are chosen
by the server. With ``t`` counted from the cohort, a first attempt of ten could be opened by four honest members and
three colluders, and a second one by the other honest members with the same colluders; the difference of the two sums
is that of the first four. With ``t`` counted from the session, the same goes through after the keys are agreed anew
among fewer members; with a ``c`` that may fall within a run, after they are agreed anew for fewer colluders. ``n`` is
therefore what each silo counts on the roster that it has pinned, members included whose keys do not count at the
moment, and a cohort or session of fewer than ``t`` members is refused.

Where silos are summed in groups, each group is what is called the roster here: see
:mod:`quire.privacy.secagg.groups`.

It rests on what each silo sees to by itself: the last round that it opened, the roster and the configuration of a run
outlive its sessions and restarts (:class:`quire.privacy.secagg.state.Counter`), and ``c`` is not below what its own
policy says. It says nothing of two *rounds*, or of two runs: a server may show one model twice, and leave a silo out of
the second sum. Both sums are ones that it may have; only noise hides what their difference says.
"""

from __future__ import annotations

from dataclasses import dataclass

from quire.privacy.secagg.errors import CohortTooSmall

#: Bits of a coordinate on the wire. Each divides 32, in the sense that 2**bits divides 2**32.
BITS = (16, 24, 32)

#: The most members of one roster: what parsers allocate for.
MAX_COHORT = 2048

#: The most coordinates of one vector, 1 GiB of words.
MAX_LENGTH = 2**28


@dataclass(frozen=True)
class Thresholds:
    """The numbers that every session and cohort under a roster has to keep.

    Attributes
    ----------
    members : int
        Members of the roster, n.
    colluders : int
        Members that may work with the server, c.
    threshold : int
        Shares that open a secret, and signatures that fix a set of survivors, t.
    min_survivors : int
        The fewest survivors whose sum may be opened, U_min; not below ``threshold``.
    """

    members: int
    colluders: int
    threshold: int
    min_survivors: int

    @property
    def noise_colluders(self) -> int:
        """Return how many noise shares an observer may know or miss: the colluders, and its own."""
        return self.colluders + 1

    @property
    def dropouts(self) -> int:
        """Return how many members may be missing, from the session or later, with the sum still opened."""
        return self.members - self.min_survivors

    def admit(self, cohort: int) -> None:
        """Accept a session or cohort of this many members.

        Raises
        ------
        CohortTooSmall
            If its sum could never be opened.
        """
        if cohort > self.members:
            raise CohortTooSmall(f"{cohort} members are more than the {self.members} that the roster has.")
        if cohort < self.min_survivors:
            raise CohortTooSmall(
                f"{cohort} members are too few: of the {self.members} on the roster, {self.colluders} of which may "
                f"collude, {self.min_survivors} have to go through with it."
            )


def default_colluders(members: int) -> int:
    """Return the number of colluders that a roster of this size is protected against by default.

    A third from four members on; none for two and three, where one colluder would leave no dropout to survive or
    no second honest term.
    """
    return max(1, (members - 1) // 3) if members >= 4 else 0


def thresholds(members: int, colluders: int, min_survivors: int = 0) -> Thresholds:
    """Return the thresholds under a roster.

    Parameters
    ----------
    members : int
        Members that the *roster* lists, n, whoever of them is in a session or a cohort.
    colluders : int
        Members of the roster that may work with the server, c.
    min_survivors : int
        What the policy asks for beyond the protocol's own minimum.

    Raises
    ------
    CohortTooSmall
        If no set of survivors could keep the thresholds.
    """
    if colluders < 0 or not 2 <= members <= MAX_COHORT:
        raise CohortTooSmall(f"A roster has 2 to {MAX_COHORT} members, not {members}, of which at least 0 collude.")
    if members - colluders < 2:
        raise CohortTooSmall(f"Of {members} members {colluders} may collude: the sum needs two honest terms.")
    threshold = (members + colluders) // 2 + 1
    least = max(threshold, colluders + 2, min_survivors)
    if least > members:
        raise CohortTooSmall(f"{members} members with {colluders} colluders cannot leave {least} survivors.")
    return Thresholds(members, colluders, threshold, least)
