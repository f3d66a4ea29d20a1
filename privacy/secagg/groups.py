"""Groups: the members of a roster in several circles, each of which is summed under masks by itself.

A robust combination of the sums then has something to choose from (section "Groups of silos" of
``docs/robust-aggregation.md``). To the protocol a group *is* a roster: its members agree on keys with each other and
with nobody else, ``n`` and ``c`` are counted among them, and a member of another group is a stranger. The argument in
:mod:`quire.privacy.secagg.params` then holds for each group word for word, as it asks of the set of members only that
no server has a say in it. Here neither the server nor the run has: who is in which group follows from the roster that
a silo has pinned and from the number of groups, which is in the settings and so in the configuration that a run keeps.

Members stay in their group for as long as roster and number of groups do, in every round and every run. To deal them
out anew in each round would give honest members of a bad group another chance, and it would open their updates: those
of one silo are much alike from round to round, so that the sums over ever other groups are equations, and soon there
are as many of them as silos. Another number of groups deals anew too. That is why a silo's policy names the one number
that it takes part in.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

#: The fewest members of a group, and the fewest whose sum may be opened.
LEAST_IN_GROUP = 3


@dataclass(frozen=True)
class Group:
    """One of several groups of a roster.

    Attributes
    ----------
    number : int
        From 0.
    members : tuple of int
        Roster indices, ascending.
    """

    number: int
    members: tuple[int, ...]


def dealt(members: Sequence[int], groups: int) -> tuple[Group, ...]:
    """Deal the members of a roster into groups, in turn, by roster index.

    Parameters
    ----------
    members : sequence of int
        Roster indices of *all* members, whether their keys count at the moment or not.
    groups : int
        At least 1.

    Returns
    -------
    tuple of Group
        Their sizes differ by one at most; the first ones are the larger.
    """
    order = sorted(members)
    return tuple(Group(number, tuple(order[number::groups])) for number in range(groups))


def group_of(members: Sequence[int], groups: int, member: int) -> Group:
    """Return the group that a member is in.

    Raises
    ------
    ValueError
        If it is not among them.
    """
    order = sorted(members)
    number = order.index(member) % groups
    return Group(number, tuple(order[number::groups]))


def size_of(members: int, groups: int, number: int) -> int:
    """Return how many of so many members are in a group."""
    return len(range(number, members, groups))


def needed(byzantine: int, alarmed: int = 0) -> int:
    """Return how many sums a combination takes, so that the bad ones stay in the minority.

    A group whose sum is none of honest silos has a bad silo for certain, which is then not in another group: each such
    group lowers the number of bad ones that may be among the others by one.

    Parameters
    ----------
    byzantine : int
        Silos that may send anything, f: they spoil as many groups at most.
    alarmed : int
        Groups whose sum was opened and rejected.
    """
    return 2 * max(0, byzantine - alarmed) + 1
