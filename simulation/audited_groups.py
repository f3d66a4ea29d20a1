"""Auditing a run whose silos were summed in groups: from the opened sums to each model, as the server combined them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from quire.clients.secure.agreement import Agreement
from quire.privacy.secagg.masks import Words
from quire.simulation.secure_attempts import told_of_groups
from quire.strategies.rounds import Algorithm, RoundState
from quire.strategies.secure_groups import Outcome, Rule, combined, lacking, outcome_of


@dataclass(frozen=True, eq=False)
class Opened:
    """The sum of one group in one round, as its transcript opens it.

    Attributes
    ----------
    silos : tuple of str
        Whose updates are in it.
    total : numpy.ndarray of uint32
    """

    silos: tuple[str, ...]
    total: Words


@dataclass(frozen=True)
class GroupAudit:
    """What is needed to combine the groups of a run once more.

    Attributes
    ----------
    rule : Rule
    agreements : sequence of Agreement
        Of each group.
    algorithm : Algorithm
    required : bool
        Whether every attempt has a transcript.
    """

    rule: Rule
    agreements: Sequence[Agreement]
    algorithm: Algorithm
    required: bool

    def step(
        self, line: Mapping[str, Any], state: RoundState, opened: Mapping[int, Opened]
    ) -> tuple[RoundState | None, list[str]]:
        """Work out the state after a round, and hold what the journal says of its groups against their sums.

        Parameters
        ----------
        line : mapping
            The journal's, of a round.
        state : RoundState
            Before it.
        opened : mapping of int to Opened
            By group, from 0: of which a transcript opens a sum.

        Returns
        -------
        state : RoundState or None
            None where it does not follow from the sums.
        wrong : list of str
            One sentence each.
        """
        where = f"Round {line['round']}"
        outcomes = [
            outcome_of(agreement, group, opened[group].silos, opened[group].total)
            if group in opened
            else Outcome(group, why="no transcript opens its sum")
            for group, agreement in enumerate(self.agreements)
        ]
        wrong = [f"{where}, group {group}: {words}." for group, words in self._against(line, outcomes)]
        missing = lacking(self.rule, outcomes)
        if "lost" in line:
            if not missing:
                wrong.append(f"{where}: it is called lost, and its transcripts open sums enough for a model.")
            return RoundState(line["round"], state.model, state.memory), wrong
        if missing:
            return None, [*wrong, f"{where}: its sums lead to no model, as {missing}."]
        with np.errstate(all="ignore"):  # what is not finite is found below
            moved = self.algorithm.step(state, combined(self.rule, outcomes)[0], 1.0)
        if not all(np.isfinite(array).all() for array in moved.model.values()):
            return None, [*wrong, f"{where}: its sums lead to a model that is not finite."]
        return moved, wrong

    def _against(self, line: Mapping[str, Any], outcomes: Sequence[Outcome]) -> list[tuple[int, str]]:
        """Say where the journal tells something else of a group than its sum does."""
        told, found = dict(told_of_groups(line)), list[tuple[int, str]]()
        for one in outcomes:
            said, number = told.get(one.group + 1), one.group + 1
            if said is None:
                found.append((number, "the journal does not say what its sum came to"))
            elif not one.silos and not self.required:
                continue  # the run began to keep transcripts when it was gone on with
            elif said.get("silos") != list(one.silos):
                found.append((number, "the journal names other silos in its sum than the transcripts do"))
            elif ("reach" in said, said.get("rejected", False)) != (one.mean is not None, one.alarmed):
                found.append((number, "the journal says something else of its sum than what it comes to"))
        return found
