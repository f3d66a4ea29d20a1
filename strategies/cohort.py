"""Who takes part: the roster of the run's silos, and the cohort drawn from it for each round."""

from __future__ import annotations

import re
import secrets
import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType

from flwr.app import ConfigRecord, Message, RecordDict
from flwr.serverapp import Grid

from quire.clients import contract
from quire.conf.asked import silos_asked
from quire.errors import RunFailed
from quire.privacy.randomness import stream
from quire.strategies.approvals import Approvals, Found
from quire.strategies.enrolment import read_identities
from quire.strategies.exchange import exchange
from quire.strategies.members import members_of
from quire.strategies.reading import Failure, Silos

_SETTLED_AFTER = 5.0


@dataclass(frozen=True)
class Roster:
    """The silos of a run in a fixed order: natural order of their names, whatever ids Flower gave their nodes.

    Attributes
    ----------
    silos : dict of int to str
        Name of the silo at each node id, in roster order.
    code_hash : str or None
        The code that every reply must have come from; None where silos do not say (a foreign app).
    records : dict of str to int
        Under privacy, the public number of records that each silo's operator declares; else empty.
    """

    silos: Silos
    code_hash: str | None = None
    records: dict[str, int] = field(default_factory=dict)

    @classmethod
    def of_nodes(cls, node_ids: Iterable[int]) -> Roster:
        """Make a roster of nodes that are known by their id only."""
        return cls({node: f"node-{node}" for node in sorted(node_ids)})

    @property
    def names(self) -> list[str]:
        """Names in roster order."""
        return list(self.silos.values())

    def sample(self, fraction: float, minimum: int, seed: int | None, purpose: str, round_number: int) -> Silos:
        """Draw a cohort without replacement.

        Parameters
        ----------
        fraction : float
            Share of the roster, rounded down.
        minimum : int
            Fewest silos to draw, if there are so many.
        seed : int or None
            The run's seed; None draws from the operating system.
        purpose : str
            Keeps draws for training and for evaluation apart.
        round_number : int

        Returns
        -------
        dict of int to str
            The cohort, in roster order.
        """
        nodes = list(self.silos)
        size = silos_asked(fraction, len(nodes), minimum)
        if size == len(nodes):
            return dict(self.silos)
        rng = stream(seed if seed is not None else secrets.randbits(63), "cohort", purpose, round_number)
        places = sorted(rng.choice(len(nodes), size=size, replace=False).tolist())
        return {nodes[place]: self.silos[nodes[place]] for place in places}


def enrol(
    grid: Grid,
    expected: int,
    minimum: int,
    code_hash: str,
    join_timeout: float,
    simulated: bool,
    schema: str | None = None,
    private: bool = False,
    members: Mapping[bytes, str] | None = None,
    approvals: Approvals | None = None,
    enclaves: dict[str, str] | None = None,
    witnessed: Mapping[str, Sequence[bytes]] = MappingProxyType({}),
) -> tuple[Roster, list[Failure]]:
    """Wait until every silo has joined, ask each who it is, and make the roster.

    Parameters
    ----------
    grid : flwr.serverapp.Grid
    expected : int
        Silos that the settings speak of. More or fewer than that is an error.
    minimum : int
        Fewest silos that must answer.
    code_hash : str
        Hash of the server's own code. A silo with another one is left out.
    join_timeout : float
        Seconds to wait for nodes, and again for their answers.
    simulated : bool
        True where all nodes are made at once: then a number that no longer grows is final, and not waited out.
    schema : str or None
        Hash of the server's schema, where silos read their own rows. A silo with another one is left out.
    private : bool
        Whether silos have to declare a public number of records. One that does not is left out.
    members : mapping of bytes to str, optional
        In a consortium: whose a node key is. A node that answers under another member's name is left out.
    approvals : Approvals, optional
        Receives what silos' operators have decided, and says how long those are waited for who have not.
    enclaves : dict of str to str, optional
        Receives what silos say of the enclaves in which they run.
    witnessed : mapping of str to sequence of bytes
        By the name of a silo its own receipts of earlier runs, which it is shown, and nobody else: with the first
        message where ``members`` says whose a node is, else with another one once the node has said it.

    Returns
    -------
    roster : Roster
    failed : list of Failure
        Nodes that could not be enrolled, and why.

    Raises
    ------
    RunFailed
        If the number of nodes is not the expected one, or fewer than ``minimum`` could be enrolled.
    """
    nodes = _wait_for_nodes(grid, expected, join_timeout, simulated)
    records: dict[str, int] = {}

    def ask(some: Sequence[int], taken: Collection[str] = (), names: Mapping[int, str] | None = None) -> Found:
        whose = members_of(grid, members) if members is not None else names
        shown = {node: witnessed.get(name, ()) for node, name in (whose or {}).items()}
        messages = [
            Message(_told(shown.get(node, ())), node, contract.QUERY, ttl=join_timeout, group_id="0") for node in some
        ]
        replies = exchange(grid, messages, join_timeout)
        asked = (schema, records if private else None, whose, approvals, taken, enclaves)
        return read_identities(messages, replies, code_hash, *asked)

    found = ask(nodes)
    if approvals is not None and approvals.seconds:
        approvals.wait(found, ask, minimum)
    if members is None:
        named = {node: name for node, name in found.items() if isinstance(name, str)}
        again = {node: name for node, name in named.items() if witnessed.get(name)}
        if again:
            found |= ask(list(again), set(named.values()) - set(again.values()), again)
    silos = {node: name for node, name in found.items() if isinstance(name, str)}
    failed = [failure for failure in found.values() if isinstance(failure, Failure)]
    if len(silos) < minimum:
        if simulated and all(failure.code == "other_code" for failure in failed):
            # Ray's workers look for code where that daemon was started before they look into the bundle.
            raise RunFailed(
                f"{len(failed)} of {expected} silos run other code than the server: the flower-superlink that Flower "
                "keeps running was started in another folder, or the code has changed since; end it and run again."
            )
        raise RunFailed(
            f"{len(silos)} of {expected} silos could be enrolled, {minimum} are needed: "
            + "; ".join(f"{failure.silo}: {failure.words}" for failure in failed[:5])
            + "."
            + (approvals.advice(failed) if approvals is not None else "")
        )
    ordered = dict(sorted(silos.items(), key=lambda item: natural(item[1])))
    return Roster(ordered, code_hash, records), failed


def _told(receipts: Sequence[bytes]) -> RecordDict:
    """Return what a silo is told when it is asked who it is."""
    return RecordDict({contract.CONFIG: ConfigRecord({contract.WITNESSED: list(receipts)})} if receipts else {})


def _wait_for_nodes(grid: Grid, expected: int, join_timeout: float, simulated: bool) -> Sequence[int]:
    started = changed = time.monotonic()
    count = -1
    while True:
        nodes = sorted(grid.get_node_ids())
        now = time.monotonic()
        if len(nodes) != count:
            count, changed = len(nodes), now
        if count == expected:
            return nodes
        settled = simulated and count > 0 and now - changed > _SETTLED_AFTER
        if count > expected or settled or now - started > join_timeout:
            raise RunFailed(
                f"{count} nodes joined, but the settings have {expected} silos: start {expected} SuperNodes "
                f"(flwr run . --federation-config 'num-supernodes={expected}') or set partition.silos={max(count, 2)}."
            )
        time.sleep(0.05)


def natural(name: str) -> list[tuple[int, int, str]]:
    """Sort key that puts hospital-2 before hospital-10."""
    return [(0, int(part), part) if part.isdecimal() else (1, 0, part) for part in re.split(r"(\d+)", name) if part]
