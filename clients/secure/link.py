"""What the first message of a round says of the model chain: read strictly, as it comes from a server."""

from __future__ import annotations

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Message

from quire.clients import contract
from quire.clients.answering import Refusal
from quire.clients.arrays import Arrays, MalformedArray, decode
from quire.clients.contract import Code
from quire.clients.secure.agreement import Agreement
from quire.clients.secure.chain import MOST_SUMS, Path, fits
from quire.privacy.dp.rounding import EncodingError
from quire.privacy.dp.wire import unpack
from quire.privacy.secagg.masks import Words
from quire.strategies.rounds import Algorithm, RoundState


def read_path(message: Message, agreement: Agreement, algorithm: Algorithm, model: Arrays) -> Path:
    """Read which state is told, and which sums since.

    Parameters
    ----------
    message : flwr.app.Message
        With a round in its ``config``, which was read before.
    agreement : Agreement
        For this model.
    algorithm : Algorithm
        Of the run.
    model : dict of str to numpy.ndarray
        The model of the state, as read from ``arrays``.

    Raises
    ------
    Refusal
        With ``BAD_REQUEST``: if the records are missing or of another kind; if a memory is not of the algorithm's form;
        if there are more sums than may be, one of a round that has none here, or one of another length.
    """
    last = message.content[contract.CONFIG][contract.ROUND]
    about = message.content.get(contract.CHAIN)
    first = about.get(contract.BASE) if isinstance(about, ConfigRecord) else None
    if type(first) is not int or type(last) is not int or not 1 <= first <= last:
        raise Refusal(Code.BAD_REQUEST, "the message does not say which round's model it tells")
    try:
        memory, packed = (_arrays(message, name) for name in (contract.CHAIN_MEMORY, contract.SUMS))
        if not fits(algorithm, model, memory):
            raise Refusal(Code.BAD_REQUEST, "what is told beside the model is no memory of this run's algorithm")
        if len(packed) > MOST_SUMS:
            raise Refusal(Code.BAD_REQUEST, f"{len(packed)} sums are told, and there may be {MOST_SUMS}")
        sums = {_round(name, first, last): _words(array, agreement) for name, array in packed.items()}
        survivors = dict(zip(sums, _survivors(about, len(sums), agreement), strict=True))
    except (MalformedArray, EncodingError) as error:
        raise Refusal(Code.BAD_REQUEST, "the message's model chain cannot be read") from error
    return Path(first, RoundState(first - 1, model, memory), last, sums, survivors)


def _arrays(message: Message, name: str) -> Arrays:
    record = message.content.get(name, ArrayRecord())
    if not isinstance(record, ArrayRecord):
        raise Refusal(Code.BAD_REQUEST, f"'{name}' holds no arrays")
    return decode(record)


def _round(name: str, first: int, last: int) -> int:
    """Return the round that a sum is of, from its one spelling."""
    if name.isascii() and name.isdecimal() and len(name) < 10 and str(int(name)) == name and first <= int(name) < last:
        return int(name)
    raise Refusal(Code.BAD_REQUEST, f"a sum is of no round from {first} on and before {last}")


def _survivors(about: object, count: int, agreement: Agreement) -> list[int]:
    """Return how many silos are in each of so many sums: numbers that there may be."""
    told = about.get(contract.SURVIVORS, []) if isinstance(about, ConfigRecord) else []
    least, most = agreement.terms.min_survivors, agreement.terms.parties
    if not isinstance(told, list) or len(told) != count:
        raise Refusal(Code.BAD_REQUEST, "the message does not say how many silos are in each sum")
    found = [number for number in told if type(number) is int and least <= number <= most]
    if len(found) != count:
        raise Refusal(Code.BAD_REQUEST, f"in a sum there are {least} to {most} silos")
    return found


def _words(array: np.ndarray, agreement: Agreement) -> Words:
    if array.dtype != np.uint8 or array.ndim != 1:
        raise Refusal(Code.BAD_REQUEST, "a sum does not travel as bytes")
    return unpack(array.tobytes(), agreement.point.bits, agreement.point.length)
