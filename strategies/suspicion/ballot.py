"""Silos vote on one another's updates: does the loss on my rows rise when this update is taken in as well?

The question goes out by the ordinary exchange ``evaluate``, once for the mean without any suspect and once for each
suspect. A real silo's policy counts rounds and not such questions, so this is for simulations.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from flwr.app import ConfigRecord, Message, RecordDict
from flwr.serverapp import Grid

from quire.clients import contract
from quire.clients.arrays import encode
from quire.strategies.cohort import Roster
from quire.strategies.exchange import exchange
from quire.strategies.replies import read_evaluate_replies
from quire.strategies.rounds import Algorithm, Arrays, Cohort, RoundState


@dataclass(frozen=True, eq=False)
class SilosVote:
    """Asks the silos of a round for the loss of models on their own rows.

    Attributes
    ----------
    grid : flwr.serverapp.Grid
    roster : Roster
    algorithm : Algorithm
        Makes a model of a mean.
    told : flwr.app.ConfigRecord
        What goes along with every request to score.
    seconds : float
        To wait for the replies.
    """

    grid: Grid
    roster: Roster
    algorithm: Algorithm
    told: ConfigRecord
    seconds: float

    def harmless(
        self, state: RoundState, cohort: Cohort, base: Arrays, means: Mapping[str, Arrays], voters: Collection[str]
    ) -> dict[str, str]:
        """Return which suspects a majority of the voters cleared, with the votes in words.

        A voter that scored the base and gives no finite loss for the other model votes against it; one that did not
        score the base does not vote. A tie does not clear.
        """
        before = self._losses(state, cohort, base, voters)
        cleared = {}
        for silo, mean in means.items():
            after = self._losses(state, cohort, mean, voters)
            good = sum(name in after and after[name] <= loss for name, loss in before.items())
            if 2 * good > len(before):
                cleared[silo] = f"{good} of {len(before)} silos lose nothing by it"
        return cleared

    def _losses(self, state: RoundState, cohort: Cohort, mean: Arrays, voters: Collection[str]) -> dict[str, float]:
        model = self.algorithm.step(state, mean, 1.0).model
        config = ConfigRecord({**self.told, contract.ROUND: cohort.round})
        content = RecordDict({contract.ARRAYS: encode(model), contract.CONFIG: config})
        messages = [
            Message(content, node, contract.EVALUATE, ttl=self.seconds, group_id=str(cohort.round))
            for node, name in self.roster.silos.items()
            if name in voters
        ]
        replies = exchange(self.grid, messages, self.seconds)
        good, _ = read_evaluate_replies(messages, replies, self.roster.silos, self.roster.code_hash)
        return {reply.silo: reply.metrics["loss"] for reply in good if "loss" in reply.metrics}
