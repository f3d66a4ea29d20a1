"""The model chain: each model follows from the one before it by a published sum, and every silo works that out itself.

Server and silo share what is here, which is pure. *State j* is what round j trains from: the model, and what the
algorithm remembers beside it (moments of a server optimiser). Round j opens a sum S_j, and state j + 1 is

    step(state j, decode(S_j))

or state j itself where the round was lost and has no sum. Decoding and stepping are numpy operations coordinate by
coordinate, in a fixed order, so that the same words come to the same bits: on one machine this is tested, across kinds
of processors it is not.

A silo is told an earlier state and the sums since. It trains on the state that it came to, and goes on only where the
path leads through the last one that it took part with. See "The model chain" in ``docs/secure-aggregation.md``.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from quire.clients.arrays import Arrays, fingerprint
from quire.clients.secure.agreement import Agreement
from quire.privacy.dp.encoding import Encoding
from quire.privacy.dp.probes import ProbeTest
from quire.privacy.dp.rounding import EncodingError
from quire.privacy.dp.shares import watch
from quire.privacy.identity.hashing import tagged_hash
from quire.privacy.secagg.errors import ImplausibleSum, ModelChainMismatch, Replay
from quire.privacy.secagg.masks import Words
from quire.strategies.rounds import Algorithm, RoundState

#: A silo is told no more sums than these, and unless it is a single one no more bytes of them.
MOST_SUMS, MOST_BYTES = 64, 128 * 2**20

_RECORD = b"quire-chain-1\n"
_FORM = struct.Struct(">I32sQQdQQ")  # round and digest; then the test of the probes


@dataclass(frozen=True)
class Known:
    """What a silo remembers of a run's models.

    Attributes
    ----------
    round : int
        The last round that it began to take part in.
    digest : bytes
        32 bytes, :func:`digest_of` the state that this round trained from.
    probes : ProbeTest
        What this silo has found of the noise in the sums before that round.
    """

    round: int
    digest: bytes
    probes: ProbeTest = field(default_factory=ProbeTest)

    def encode(self) -> bytes:
        """Return it as bytes."""
        test = self.probes
        alarms = test.too_little or 0, test.too_much or 0
        return _RECORD + _FORM.pack(self.round, self.digest, test.looks, test.probes, test.statistic, *alarms)

    @classmethod
    def decode(cls, data: bytes) -> Known:
        """Read what :meth:`encode` returned.

        Raises
        ------
        ModelChainMismatch
            If it is anything else: the silo then knows that there was a state, and not which.
        """
        if data[: len(_RECORD)] != _RECORD or len(data) != len(_RECORD) + _FORM.size:
            raise ModelChainMismatch(LOST)
        number, digest, looks, probes, statistic, little, much = _FORM.unpack(data[len(_RECORD) :])
        if number < 1 or not (math.isfinite(statistic) and statistic >= 0.0):
            raise ModelChainMismatch(LOST)
        test = ProbeTest(looks, probes, statistic, too_little=little or None, too_much=much or None)
        return cls(number, digest, test)


#: Why a silo stays out of a run whose models it can no longer hold together.
LOST = (
    "What this silo knew of the run's last model is lost or damaged, so that it cannot tell a crafted one: it takes "
    "part again in another run."
)


@dataclass(frozen=True, eq=False)
class Path:
    """What a silo is told in place of a model.

    Attributes
    ----------
    first : int
        The round whose state is told, at least 1.
    state : RoundState
        That state.
    last : int
        The round that is to be trained for, not before ``first``.
    sums : mapping of int to numpy.ndarray of uint32
        The sums of rounds from ``first`` on and before ``last``; a round that was lost has none.
    survivors : mapping of int to int
        How many silos are in each, as the server says; where it says nothing, as many as a round asks.
    """

    first: int
    state: RoundState
    last: int
    sums: Mapping[int, Words]
    survivors: Mapping[int, int] = field(default_factory=dict)


def digest_of(state: RoundState) -> bytes:
    """Return 32 bytes by which parties know a state: model, the order of its arrays, and the algorithm's memory.

    The order counts, since it is that in which the coordinates of an update are laid out.
    """
    order = b"".join(tagged_hash("quire/secure/array/1", name.encode()) for name in state.model)
    parts = (bytes.fromhex(fingerprint(arrays)) for arrays in (state.model, state.memory))
    return tagged_hash("quire/secure/state/1", order, *parts)


def after(
    agreement: Agreement, algorithm: Algorithm, state: RoundState, total: Words, silos: int | None = None
) -> RoundState:
    """Return the state that follows from an opened sum.

    Parameters
    ----------
    agreement : Agreement
    algorithm : Algorithm
        Of the run's settings, see :func:`quire.strategies.chosen.algorithm_of`.
    state : RoundState
    total : numpy.ndarray of uint32
    silos : int, optional
        How many there are in it; by default as many as a round asks.

    Raises
    ------
    ImplausibleSum
        If honest silos cannot have come to this sum, or it leads to a model that is not finite.
    """
    try:
        agreement.check(total, silos)
        mean, _ = agreement.decode(total)
    except EncodingError as error:
        raise ImplausibleSum(f"The sum of round {state.round + 1} is none: {error}.") from error
    with np.errstate(all="ignore"):  # what is not finite is found below
        # Of how many silos the sum is plays no part: no algorithm that sums can be had of looks at it.
        moved = algorithm.step(state, mean, 1.0)
    if not all(np.isfinite(array).all() for array in moved.model.values()):
        raise ImplausibleSum(f"The sum of round {state.round + 1} leads to a model that is not finite.")
    return moved


def follow(agreement: Agreement, algorithm: Algorithm, path: Path, known: Known | None) -> tuple[RoundState, bytes]:
    """Work out the state that a round trains from, and hold it to the one that the silo knows.

    Parameters
    ----------
    agreement : Agreement
    algorithm : Algorithm
    path : Path
    known : Known or None
        None for a silo that has taken part in no round of the run: it takes the state that it is told as the first.

    Returns
    -------
    state : RoundState
    digest : bytes
        :func:`digest_of` it.

    Raises
    ------
    Replay
        If the round lies before the one that the silo knows.
    ModelChainMismatch
        If the path does not lead through the state that it knows.
    ImplausibleSum
        See :func:`after`.
    """
    if known is not None and path.last < known.round:
        raise Replay(f"Round {path.last} is over: this silo has begun round {known.round}.")
    if known is not None and path.first > known.round:
        raise ModelChainMismatch(
            f"The model that is told is that of round {path.first}, and this silo, which knows that of round "
            f"{known.round}, was not told the sums in between."
        )
    state, digest = RoundState(path.first - 1, path.state.model, path.state.memory), b""
    held = {path.last} if known is None else {path.last, known.round}
    for number in sorted(held | set(path.sums)):  # and not through all rounds: a message may name any number
        state = RoundState(number - 1, state.model, state.memory)
        if number in held:
            digest = digest_of(state)
        if known is not None and number == known.round and digest != known.digest:
            raise ModelChainMismatch(
                f"The model of round {number} is not the one that this silo took part with: model or memory differ."
            )
        if number in path.sums:
            state = after(agreement, algorithm, state, path.sums[number], path.survivors.get(number))
    return state, digest


def watched(agreement: Agreement, path: Path, known: Known | None) -> ProbeTest:
    """Hold the probes in the sums that are new to a silo against the noise that was promised.

    How many silos are in a sum only the server says. One that says too few hides some of the noise that is missing, at
    most down to the fewest that there may be.

    Parameters
    ----------
    agreement : Agreement
    path : Path
        Followed, so that its sums are of the right form.
    known : Known or None

    Returns
    -------
    ProbeTest
        With the sums of rounds that the last test did not have; as it was without distributed noise.
    """
    test, since = (ProbeTest(), 0) if known is None else (known.probes, known.round)
    if isinstance(agreement.point, Encoding):
        for number in sorted(number for number in path.sums if number >= since):
            probes = agreement.point.released(path.sums[number])
            test = watch(test, agreement.point, probes, path.survivors[number])
    return test


def fits(algorithm: Algorithm, model: Arrays, memory: Arrays) -> bool:
    """Tell whether this can be what an algorithm remembers beside a model: nothing yet, or all of its moments."""
    form = {f"{moment}/{name}": array.shape for moment in algorithm.moments for name, array in model.items()}
    found = {name: array.shape for name, array in memory.items() if array.dtype == np.float64}
    return not memory or (len(found) == len(memory) and found == form)
