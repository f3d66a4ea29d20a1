"""What a silo's operator lays down in ``silo.yaml`` beside where its rows are. None of it comes from a server.

Every limit that is left out takes its strict side, and what would open the silo (the modes, the aggregation, the
code) has no default at all.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from quire.clients.data.rules.labels import Dataset

#: What ``connector`` of ``data`` says where the silo holds a part of a data set that ships with Quire.
SHIPPED = "shipped"
#: What ``log`` of the policy says beside a key: whether a run has to have a transparency log.
OPTIONAL, REQUIRED = "optional", "required"
#: The mode in which updates leave the silo as they are; see :data:`quire.conf.schema.GROUPS`.
NONE = "none"


@dataclass(frozen=True)
class Population:
    """The people or things that the records are about, as the operator declares them.

    Attributes
    ----------
    name : str
        What the ledger keeps its books by: a file that is renamed or grows resets nothing.
    records : int
        The public number of records, at least 1: the only count of the silo that leaves it. It serves sampling
        rates, delta and weights; how many rows there really are serves none of them.
    """

    name: str
    records: int


@dataclass(frozen=True)
class RosterPin:
    """The roster that the silo takes part under.

    Attributes
    ----------
    file : pathlib.Path
    sha256 : str
        The hash (hex) of the roster itself in its canonical form, as ``quire roster show`` prints it
        (:attr:`quire.privacy.identity.roster.Roster.hash`). Not the SHA-256 of the file, which holds signatures too.
    """

    file: Path
    sha256: str


@dataclass(frozen=True)
class CharterPin:
    """The charter that the silo takes part under.

    Attributes
    ----------
    file : pathlib.Path
        The folder of its versions, or the file of the only one.
    sha256 : str
        The hash (hex) of version 1, as ``quire charter show`` prints it: later versions follow from it by signatures.
    residency : str or None
        Where the silo's records lie, which has to be what the charter says of it.
    """

    file: Path
    sha256: str
    residency: str | None = None


@dataclass(frozen=True)
class Policy:
    """What the silo accepts. Settings may only be stricter.

    Attributes
    ----------
    modes : frozenset of str
        Options of the group ``privacy`` that may run.
    aggregation : frozenset of str
        Options of the group ``aggregation`` that may run.
    groups : int or None
        In how many groups silos may be summed apart under masks, beside one sum of all; None: in none. It is one
        number, as who is grouped with whom depends on it: sums of runs with several would be equations for updates.
    code : frozenset of str
        SHA-256 (hex, :func:`quire.clients.code.code_hash`) of the code that may run; empty: any, which means that
        the server is taken to be honest but curious.
    population : Population
    epsilon : float
        What the records of the population may spend in a period, at ``delta``; infinite: no cap.
    delta : float
        The delta at which that is reckoned, and the largest that settings may have.
    period_days : int or None
        Days after which what was spent no longer counts; None: never.
    min_cohort : int
        Fewest silos whose updates may be merged.
    colluders : int
        How many of them may side with the server; at least two honest ones must remain.
    noise : frozenset of str
        Ways in which noise may be drawn; see :class:`quire.privacy.dp.lattice.NoiseKind`.
    min_noise : float
        Smallest noise multiplier: standard deviation of the noise over the clip.
    max_clip : float
        Largest L2 norm that a gradient or an update may be clipped to.
    max_rounds, max_rounds_per_day : int
        Rounds of one run, and of one day (UTC) over all runs.
    trusts_server : bool
        Whether a server may see this silo's update before any noise is on it, as ``privacy=silo`` has it.
    test_seed : bool
        Whether a seed from the server may decide this silo's randomness. Only for tests: whoever knows the seed
        can take the noise off again.
    rehearsal : bool
        Whether a simulation on the silo's own machine may read its rows, for which no ledger is charged.
    approval : bool
        Whether the operator has to approve each run (`quire approve`) before the silo answers anything in it. A
        rehearsal, which the operator starts, needs none.
    log : str
        Whether runs have to be bound to a transparency log: ``optional``, ``required``, or the fingerprint of the key
        that the log has to be signed with.
    shipped : bool
        Whether the silo's rows ship with Quire, so that there is nobody to protect. Not a key: told by ``data``.
    file : pathlib.Path
    lines : tuple of (str, int)
        Where each limit stands in the file; those that were left out are not in it.
    charter : tuple of (str, str)
        Limits that a charter has made stricter, and which charter.
    """

    modes: frozenset[str]
    aggregation: frozenset[str]
    code: frozenset[str]
    population: Population
    epsilon: float = 0.0
    delta: float = 0.0
    period_days: int | None = None
    min_cohort: int = 4
    colluders: int = 1
    noise: frozenset[str] = frozenset({"discrete"})
    min_noise: float = 0.5
    max_clip: float = 1.0
    max_rounds: int = 100
    max_rounds_per_day: int = 200
    trusts_server: bool = False
    test_seed: bool = False
    rehearsal: bool = False
    approval: bool = False
    log: str = OPTIONAL
    groups: int | None = None
    shipped: bool = False
    file: Path = field(default=Path("silo.yaml"), compare=False)
    lines: tuple[tuple[str, int], ...] = field(default=(), compare=False)
    charter: tuple[tuple[str, str], ...] = field(default=(), compare=False)

    @property
    def capped(self) -> bool:
        """Whether there is a cap on epsilon."""
        return self.epsilon < math.inf

    @property
    def seeded(self) -> bool:
        """Whether noise on somebody's records can be foretold, so that it protects nobody."""
        return self.test_seed and not self.shipped

    def place(self, key: str) -> str:
        """Say where a limit stands, for a refusal: ``policy.epsilon (silo.yaml, line 9)``."""
        line = dict(self.lines).get(key)
        if key in (stricter := dict(self.charter)):
            return f"{key} ({stricter[key]})"
        where = f"line {line}" if line is not None else "its default"
        return f"policy.{key} ({self.file.name}, {where})"


@dataclass(frozen=True)
class Operator:
    """All that a ``silo.yaml`` says beside the data.

    Attributes
    ----------
    population : Population or None
    store : pathlib.Path
        The silo's own directory; ``store`` beside the file by default.
    witness : pathlib.Path or None
        A file elsewhere that notes how far the store has come, so that an old copy of it is told.
    identity : pathlib.Path
        The silo's private key; ``silo.key`` beside the file by default.
    roster : RosterPin or None
    policy : Policy or None
        Without one the file serves the simulator only.
    charter : CharterPin or None
        With one, the stricter of policy and charter holds.
    dataset : Dataset or None
        The labels of the rows, which hold beside them.
    """

    population: Population | None
    store: Path
    witness: Path | None
    identity: Path
    roster: RosterPin | None
    policy: Policy | None
    charter: CharterPin | None = None
    dataset: Dataset | None = None
