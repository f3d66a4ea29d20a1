"""Thresholds: how many shares open a secret, how many signatures fix a set of survivors, how many may drop out.

With ``n`` members in the cohort of which ``c`` may work with a lying server, ``t = floor((n + c) / 2) + 1`` is the
threshold of both the shares and the signatures. Two different sets of survivors would need ``2 t`` signatures, and
there are only ``n + c`` to be had (every honest member signs once, every colluder as often as it likes), so
``2 t > n + c`` makes a second set impossible. The same count forbids opening a second attempt of one round.
"""

from __future__ import annotations

from dataclasses import dataclass

from quire.privacy.secagg.errors import CohortTooSmall

#: Bits of a coordinate on the wire. Each divides 32, in the sense that 2**bits divides 2**32.
BITS = (16, 24, 32)

#: The most members of one session: what parsers allocate for.
MAX_COHORT = 2048

#: The most coordinates of one vector, 1 GiB of words.
MAX_LENGTH = 2**28


@dataclass(frozen=True)
class Thresholds:
    """The numbers that a cohort has to keep.

    Attributes
    ----------
    cohort : int
        Members of the cohort, n.
    colluders : int
        Members that may work with the server, c.
    threshold : int
        Shares that open a secret, and signatures that fix a set of survivors, t.
    min_survivors : int
        The fewest survivors whose sum may be opened, U_min.
    """

    cohort: int
    colluders: int
    threshold: int
    min_survivors: int

    @property
    def noise_colluders(self) -> int:
        """Return how many noise shares an observer may know or miss: the colluders, and its own."""
        return self.colluders + 1

    @property
    def dropouts(self) -> int:
        """Return how many members may drop out with the sum still opened."""
        return self.cohort - max(self.threshold, self.min_survivors)


def default_colluders(cohort: int) -> int:
    """Return the number of colluders that a cohort of this size is protected against by default.

    A third from four members on; none for two and three, where one colluder would leave no dropout to survive or
    no second honest term.
    """
    return max(1, (cohort - 1) // 3) if cohort >= 4 else 0


def thresholds(cohort: int, colluders: int, min_survivors: int = 0) -> Thresholds:
    """Return the thresholds of a cohort.

    Parameters
    ----------
    cohort : int
        Members of the cohort, n.
    colluders : int
        Members of the *roster* that may work with the server, c: the same number however small the cohort is, since
        the server may choose the cohort.
    min_survivors : int
        What the policy asks for beyond the protocol's own minimum.

    Raises
    ------
    CohortTooSmall
        If no set of survivors could keep the thresholds.
    """
    if colluders < 0 or not 2 <= cohort <= MAX_COHORT:
        raise CohortTooSmall(f"A cohort has 2 to {MAX_COHORT} members, not {cohort}, of which at least 0 collude.")
    if cohort - colluders < 2:
        raise CohortTooSmall(f"Of {cohort} members {colluders} may collude: the sum needs two honest terms.")
    threshold = (cohort + colluders) // 2 + 1
    least = max(threshold, colluders + 2, min_survivors)
    if least > cohort:
        raise CohortTooSmall(f"{cohort} members with {colluders} colluders cannot leave {least} survivors.")
    return Thresholds(cohort, colluders, threshold, least)
