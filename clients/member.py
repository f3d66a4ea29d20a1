"""Who a node is: its own file, its name and where its rows are, and what its operator lets it answer.

A real silo goes by its own ``silo.yaml``, which its SuperNode's node config names; without a file, or without a policy
in it, it refuses. A simulated one may do without.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from quire.clients import contract
from quire.clients.answering import Refusal
from quire.clients.contract import Code
from quire.clients.data.consent.lineage import Trains
from quire.clients.data.own import Where
from quire.clients.data.rules.labels import hold_to_labels
from quire.clients.data.silo_file import SILOS_VARIABLE, SiloFile, read_silo, read_silo_file, silo_files
from quire.clients.entropy import Entropy, Fresh, Seeded
from quire.clients.policy.approval import require_approval
from quire.clients.policy.case import Case, State
from quire.clients.policy.decide import Refuse, decide
from quire.clients.policy.model import Operator, Policy
from quire.clients.receipts import Stand
from quire.conf.schema import FilesData, Settings
from quire.errors import DataError

if TYPE_CHECKING:
    from quire.clients.policy.books import Books
    from quire.clients.policy.chartered import Bound
    from quire.privacy.approval import Statement

#: Key of a node's config that names the silo's own file.
SILO_KEY = "silo"

NodeConfig = Mapping[str, object]


@dataclass(frozen=True)
class Member:
    """A silo in a run.

    Attributes
    ----------
    name : str
    where : int or SiloFile
        Where its rows are.
    operator : Operator or None
        What its operator lays down, as strict as the charter has it; None for a simulated silo without a file.
    simulated : bool
    bound : Bound or None
        The charter that is in force for it.
    """

    name: str
    where: Where
    operator: Operator | None
    simulated: bool
    bound: Bound | None = None

    @property
    def policy(self) -> Policy | None:
        """The operator's policy; None in a simulation whose silos have none."""
        return self.operator.policy if self.operator is not None else None

    def entropy(self, settings: Settings) -> Entropy:
        """Return what the silo draws from: the run's seed in a simulation or a test, else the operating system."""
        if self.simulated or (self.policy is not None and self.policy.test_seed):
            return Seeded(settings.seed)
        return Fresh()

    def notes(self, run: int, round_number: int, model: Mapping[str, np.ndarray]) -> Trains:
        """Return what notes a round in the silo's lineage, once its rows are at hand and before it trains."""
        return Trains(self.operator, run, round_number, self.simulated, model)

    def admit(
        self, settings: Settings, stage: str, code: str, run: int, round_number: int = 0, clip: float | None = None
    ) -> tuple[Stand | None, Statement | None]:
        """Hold a run against the policy and the silo's own books; on the way in, count the round and charge for it.

        Parameters
        ----------
        settings : Settings
        stage : str
            What is asked.
        code : str
            Hash of the code that runs here.
        run : int
            Flower's number of the run.
        round_number : int
            What the server calls the round.
        clip : float, optional
            What it tells the silo to clip to.

        Returns
        -------
        stand : Stand or None
            Where a real silo's books stand after it was charged; None if it was not.
        approval : Statement or None
            That its operator has approved the run, where the policy demands it.

        Raises
        ------
        Refusal
            If the silo does not answer; the words are for its own log.
        """
        with self.books(settings, stage, code, run, clip) as books:
            if books is None:
                return None, None
            stand = books.enter(stage, settings, code, round_number) if stage != contract.QUERY else None
            return stand, books.approval

    @contextmanager
    def books(
        self, settings: Settings, stage: str, code: str, run: int, clip: float | None = None
    ) -> Iterator[Books | None]:
        """Hold a run against the policy and open the silo's own books, if it is a real one; see :meth:`admit`."""
        if self.operator is None or self.policy is None:  # only in a simulation, see `member_of`
            yield None
        elif self.simulated:  # nothing leaves this machine, so there are no books to keep
            self.hold(settings, State(stage, code, simulated=True, clip=clip))
            yield None
        else:
            from quire.clients.policy.books import opened
            from quire.clients.policy.chartered import hold_to_memory

            with opened(self.operator, self.policy, run, self.name) as books:
                if self.bound is not None:
                    from quire.clients.policy.attested import hold_to_attestation
                    from quire.clients.policy.books import now

                    hold_to_memory(self.bound, books)
                    hold_to_attestation(self.bound, self.operator, now())
                state = replace(books.state(stage, code), clip=clip)
                self.hold(settings, state)
                if self.policy.approval:
                    books.approval = require_approval(books, self.policy, settings, state, run, self.name)
                if stage != contract.QUERY:
                    books.bind(settings)
                yield books

    def hold(self, settings: Settings, state: State) -> None:
        """Hold a run against charter, labels and policy.

        Raises
        ------
        Refusal
            If the silo does not take part.
        """
        if self.policy is None:
            raise Refusal(Code.NO_POLICY)
        if self.bound is not None:
            from quire.clients.policy.chartered import hold_to_charter

            hold_to_charter(self.bound, Case(self.policy, settings, state))
        if self.operator is not None and self.operator.dataset is not None:
            hold_to_labels(self.operator.dataset, None if self.bound is None else self.bound.charter, settings)
        decision = decide(self.policy, settings, state)
        if isinstance(decision, Refuse):
            raise Refusal(decision.code, decision.words)


def member_of(settings: Settings, node_config: NodeConfig, simulated: bool) -> Member:
    """Find out who this node is. Reads the silo's own file, and no data.

    Parameters
    ----------
    settings : Settings
    node_config : mapping
        The operator's, or the launcher's in a simulation; never the server's.
    simulated : bool
        See :func:`quire.clients.simulation.is_simulated`.

    Raises
    ------
    Refusal
        If a real silo has no policy, its charter is not in force, or the node has no place among the silos.
    DataError
        If its file cannot be used.
    """
    member = _simulated(settings, node_config) if simulated else _real(settings, node_config)
    if member.operator is None or member.operator.charter is None:
        return member
    from quire.clients.policy.chartered import under_charter

    operator, bound = under_charter(member.operator, member.name)
    return replace(member, operator=operator, bound=bound)


def _real(settings: Settings, node_config: NodeConfig) -> Member:
    named = node_config.get(SILO_KEY)
    if named is None:
        raise Refusal(
            Code.NO_POLICY,
            "this node's config names no silo file: start the SuperNode with --node-config 'silo=\"FILE\"'",
        )
    if settings.attack.name != "none":
        raise Refusal(Code.SETTINGS_REFUSED, f"the run asks for attack={settings.attack.name}: only simulations attack")
    own = read_silo_file(Path(str(named)))
    if own.operator.policy is None:
        raise Refusal(
            Code.NO_POLICY, f"{own.path} has no 'policy', so it serves the simulator only: add what this silo accepts"
        )
    if isinstance(own, SiloFile) != isinstance(settings.data, FilesData):
        offers = "its own rows (data=files)" if isinstance(own, SiloFile) else "a part of a shipped data set"
        raise DataError(f"{own.path} offers {offers}, and the settings ask for data={settings.data.name}.")
    if isinstance(own, SiloFile):
        return _of_file(settings, own, node_config, simulated=False)
    place = _placed(settings, own.partition, own.partitions)
    return Member(own.name or contract.silo_name(settings.task.silo_label, place), place, own.operator, False)


def _simulated(settings: Settings, node_config: NodeConfig) -> Member:
    partition, partitions = node_config.get("partition-id"), node_config.get("num-partitions")
    named = node_config.get(SILO_KEY)
    if isinstance(settings.data, FilesData) and named is not None:
        return _of_file(settings, read_silo(Path(str(named))), node_config, simulated=True)
    place = _placed(settings, partition, partitions)
    if isinstance(settings.data, FilesData):
        return _of_file(settings, read_silo(_file_of(place, partitions)), node_config, simulated=True)
    return Member(contract.silo_name(settings.task.silo_label, place), place, None, True)


def _placed(settings: Settings, partition: object, partitions: object) -> int:
    """Return the partition, if the settings have it."""
    if (
        not isinstance(partition, int)
        or not isinstance(partitions, int)
        or partitions != settings.partition.silos
        or not 0 <= partition < partitions
    ):
        raise DataError(
            f"This node is partition {partition} of {partitions}, the settings have {settings.partition.silos} silos."
        )
    return partition


def _of_file(settings: Settings, own: SiloFile, node_config: NodeConfig, simulated: bool) -> Member:
    if own.name is not None:
        return Member(own.name, own, own.operator, simulated)
    partition = node_config.get("partition-id")
    if not isinstance(partition, int):
        raise DataError(f"{own.path} has no 'name', and this node has no partition-id to make one from.")
    return Member(contract.silo_name(settings.task.silo_label, partition), own, own.operator, simulated)


def _file_of(partition: int, partitions: object) -> Path:
    """Return the file of a silo that Flower simulates, out of the folder that the launcher named."""
    folder = os.environ.get(SILOS_VARIABLE)
    if folder is None:
        raise DataError("This node's config names no silo file: start it with --node-config 'silo=\"FILE\"'.")
    files = silo_files(Path(folder))
    if len(files) != partitions:
        raise DataError(f"The folder {folder} holds {len(files)} silos, the settings have {partitions}.")
    return files[partition]
