"""The model chain at the server: which silo is told which state and which sums, so that it comes to the next model.

What a silo checks is in :mod:`quire.clients.secure.chain`. A silo that took part in the last round is told the state
that it knows and one sum. One that was away is told the last state that it is known to have, with all sums since, as
far back as they are kept; beyond that it cannot hold the models together, and takes part again in the next run.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, RecordDict

from quire.clients import contract
from quire.clients.arrays import encode, fingerprint
from quire.clients.secure.agreement import Agreement
from quire.clients.secure.chain import MOST_BYTES, MOST_SUMS, digest_of
from quire.privacy.dp.wire import pack
from quire.privacy.secagg.blame import Blame
from quire.privacy.secagg.errors import ModelChainMismatch
from quire.privacy.secagg.masks import Words
from quire.strategies.distributed import OWN
from quire.strategies.reading import Failure
from quire.strategies.rounds import RoundState

#: Why a silo takes no part that was away for longer than sums are kept, as a code and in words.
AWAY = (
    "away_too_long",
    "it was away for longer than the sums are kept by which it could follow the model: it takes part again in the "
    "next run",
)


class Chain:
    """The states and sums of one run that some silo may still need.

    Of the states only those are kept that a silo may have to be told: this round's, and one for each round after which
    some silo was last heard of. As long as all take part that is two, and never more than one for each silo and one;
    a state is the model and what the server remembers of it, twice it with Adam's moments, and the model once more as
    it is sent. Between the states lie the sums alone, from the oldest state on.

    Parameters
    ----------
    active : bool
        Where not, all silos are told the model of the round itself.
    """

    def __init__(self, active: bool) -> None:
        self._active, self._number = active, 0
        self._states: dict[int, tuple[RoundState, ArrayRecord]] = {}
        self._sums: dict[int, bytes] = {}
        self._survivors: dict[int, int] = {}
        # For each silo the oldest round whose state it can know best: the last that it answered, else the first that
        # it was asked in, as an answer may have been lost.
        self._at: dict[int, int] = {}
        # Who holds no path to this run's model for one, and whether it had been away for too long.
        self._refused: dict[int, bool] = {}

    def begin(self, state: RoundState, arrays: ArrayRecord) -> bytes:
        """Begin a round, and return the digest by which its context knows the state: without a chain, the model's.

        Parameters
        ----------
        state : RoundState
            What the round trains from. What the server remembers of the noise is no part of the chain.
        arrays : flwr.app.ArrayRecord
            Its model, encoded.
        """
        if not self._active:
            self._states = {state.round + 1: (state, arrays)}
            self._number = state.round + 1
            return bytes.fromhex(fingerprint(state.model))
        memory = {name: part for name, part in state.memory.items() if name not in OWN}
        self._number = state.round + 1
        self._states[self._number] = RoundState(state.round, state.model, memory), arrays
        kept = min(self._states)
        oldest = min([self._number, *(at for silo, at in self._at.items() if at >= kept and silo not in self._refused)])
        needed = {oldest, self._number, *(at for silo, at in self._at.items() if silo not in self._refused)}
        self._states = {number: state for number, state in self._states.items() if number in needed}
        self._sums = {number: words for number, words in self._sums.items() if number >= oldest}
        self._survivors = {number: self._survivors[number] for number in self._sums}
        return digest_of(self._states[self._number][0])

    def opened(self, total: Words, agreement: Agreement, survivors: int) -> None:
        """Keep the sum of the round under way, and how many silos are in it."""
        if not self._active:
            return
        self._survivors[self._number] = survivors
        self._sums[self._number] = pack(total, agreement.point.bits)
        while len(self._sums) > MOST_SUMS or (
            len(self._sums) > 1 and sum(len(words) for words in self._sums.values()) > MOST_BYTES
        ):
            gone = min(self._sums)
            del self._sums[gone]
            self._states = {number: state for number, state in self._states.items() if number > gone}

    def answered(self, silo: int) -> None:
        """Learn that a silo has answered the first message of the round under way."""
        self._at[silo] = self._number

    def strays(self, blame: Iterable[Blame], names: Mapping[int, str]) -> list[Failure]:
        """Learn who refuses the path that it was told, as it always will: these silos are told no more sums.

        Parameters
        ----------
        blame : iterable of Blame
            Of an attempt's first exchange.
        names : mapping of int to str
            By roster index.

        Returns
        -------
        list of Failure
            Those who were away for too long.
        """
        found = []
        for note in blame:
            if self._active and note.code == ModelChainMismatch.__name__:
                behind = self._at.get(note.member, self._number) < min(self._states)
                if self._refused.setdefault(note.member, behind):
                    found.append(Failure(names[note.member], "shares", *AWAY))
        return found

    def asked(self, silos: Iterable[int], start: RecordDict) -> dict[int, RecordDict]:
        """Return for each silo the message that begins an attempt: one and the same for all told the same state.

        Parameters
        ----------
        silos : iterable of int
            By roster index.
        start : flwr.app.RecordDict
            What the message holds beside model and sums.
        """
        bases = {silo: self._base(silo) for silo in silos}
        told = {base: RecordDict({**start, **self._records(base)}) for base in sorted(set(bases.values()))}
        for silo in bases:
            self._at.setdefault(silo, self._number)
        return {silo: told[base] for silo, base in bases.items()}

    def _base(self, silo: int) -> int:
        known = self._active and silo not in self._refused
        at = self._at.get(silo, self._number) if known else self._number
        return max(at, min(self._states))

    def _records(self, base: int) -> dict[str, ArrayRecord | ConfigRecord]:
        state, arrays = self._states[base]
        if not self._active:
            return {contract.ARRAYS: arrays}
        about = ConfigRecord({contract.BASE: base})
        records: dict[str, ArrayRecord | ConfigRecord] = {contract.ARRAYS: arrays, contract.CHAIN: about}
        if state.memory:
            records[contract.CHAIN_MEMORY] = encode(state.memory)
        sums = {
            str(number): np.frombuffer(self._sums[number], dtype=np.uint8)
            for number in range(base, self._number)
            if number in self._sums
        }
        if sums:
            records[contract.SUMS] = encode(sums)
            about[contract.SURVIVORS] = [self._survivors[int(number)] for number in sums]
        return records
