"""What a silo trains for one round of secure aggregation, as the words that it will mask. Imports torch when called.

Whatever goes wrong here depends on the rows and on a model that the server chose: whether a loss overflows on them
says something of them. So it stays in the silo's log, and what is masked is nothing, at no weight.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from flwr.app import ArrayRecord, Context

from quire.clients import contract
from quire.clients.answering import LOG, Refusal
from quire.clients.arrays import Arrays, decode, encode
from quire.clients.contract import Code
from quire.clients.data.consent.lineage import Trains
from quire.clients.secure.agreement import Agreement
from quire.clients.secure.memory import Vector
from quire.clients.secure.public import LOSS_BOUND
from quire.clients.secure.stage import Silo
from quire.privacy.csprng import Csprng
from quire.privacy.secagg.messages import Start

if TYPE_CHECKING:
    from quire.clients.local import Trained

_T = TypeVar("_T")


def quiet(work: Callable[[], _T], round_number: int) -> _T | None:
    """Do what touches the rows; None where it fails.

    Parameters
    ----------
    work : callable
        What may raise depending on the rows. It has them loaded: that they are there is no secret.
    round_number : int

    Raises
    ------
    WrongModel
        If the arrays are no model of the task, which depends on no row.
    """
    from quire.clients.training import WrongModel

    try:
        return work()
    except (KeyboardInterrupt, WrongModel):
        raise
    except BaseException as error:  # SystemExit, and what libraries derive from BaseException, included
        told = error.code.name if isinstance(error, Refusal) else "an error"
        with contextlib.suppress(Exception):  # a log that cannot be written must not change what travels
            LOG.error(
                "Training for round %d ended with %s: this silo sends a vector that counts for nothing in the sum.",
                round_number,
                told,
                exc_info=None if isinstance(error, Refusal) else error,
            )
        return None


def ready_for(
    silo: Silo, context: Context, agreement: Agreement, model: Arrays, digest: bytes, attempt: Start
) -> tuple[Vector, dict[str, float]]:
    """Train, and encode what came out.

    Parameters
    ----------
    silo : Silo
        Charged for the round.
    context : flwr.app.Context
    agreement : Agreement
    model : dict of str to numpy.ndarray
        The global model.
    digest : bytes
        Its hash.
    attempt : Start
        What began it: the session, the round, and which attempt of it.

    Returns
    -------
    vector : Vector
    shown : dict of str to float
        What a simulated silo shows.

    Raises
    ------
    Refusal, DataError
        If the rows cannot be loaded, or nothing was charged.
    WrongModel
        If the arrays are no model of the task.
    """
    if agreement.terms.noise is not None:
        return _shared(silo, context, agreement, model, digest, attempt)
    round_number = attempt.round
    source = Csprng(silo.member.entropy(silo.settings).key("secure-rounding", round_number, silo.member.name))
    receipt, shown = b"", dict[str, float]()
    found: tuple[Arrays, int, dict[str, float]] | None
    if silo.private:
        update, shown, receipt = silo.private_update(context, model, round_number, guard=quiet)
        found = None if update is None else (update, silo.records, {})
    else:
        silo.load(context)
        note = silo.member.notes(context.run_id, round_number, model)
        trained = quiet(lambda: _update(silo, context, model, round_number, note), round_number)
        found = None if trained is None else (trained.update, trained.rows, {contract.TRAIN_LOSS: trained.loss})
        if trained is not None and trained.memory:
            context.state[contract.MEMORY] = encode(trained.memory)
    words = None if found is None else quiet(lambda: _encoded(agreement, *found, source, round_number), round_number)
    if words is None:
        words = agreement.nothing()
    return Vector(round_number, digest, receipt, words.astype("<u4").tobytes()), shown


def _shared(
    silo: Silo, context: Context, agreement: Agreement, model: Arrays, digest: bytes, attempt: Start
) -> tuple[Vector, dict[str, float]]:
    """Make ready what this attempt adds under distributed noise: in whole numbers, and without any noise yet."""
    round_number, which = attempt.round, (attempt.round, attempt.attempt)
    vector, shown, receipt = silo.shared_vector(context, model, which, agreement.terms.members, quiet)
    source = Csprng(silo.member.entropy(silo.settings).key("secure-rounding", *which, silo.member.name))
    found = None if vector is None else quiet(lambda: agreement.encode_shared(vector, source), round_number)
    words, clamped = (agreement.nothing(), 0) if found is None else found
    if clamped:  # for the silo's own eyes: the count is private
        LOG.warning("%d coordinates of round %d lay beyond what one silo may add.", clamped, round_number)
    kept = words.astype("<u4").tobytes()
    size = agreement.layout.size
    return Vector(round_number, digest, receipt, kept, size, attempt.attempt, attempt.session), shown


def _update(silo: Silo, context: Context, model: Arrays, round_number: int, note: Trains) -> Trained:
    from quire.clients.work import train_update

    settings, member = silo.settings, silo.member
    entropy, kept = member.entropy(settings), context.state.get(contract.MEMORY)
    own = decode(kept) if isinstance(kept, ArrayRecord) else {}
    trained = train_update(settings, member.where, member.name, model, {}, own, round_number, entropy, None, note)
    if not trained.finite:
        raise Refusal(Code.NOT_FINITE)
    return trained


def _encoded(
    agreement: Agreement, update: Arrays, weight: int, metrics: dict[str, float], source: Csprng, round_number: int
) -> np.ndarray[Any, np.dtype[np.uint32]]:
    encoded = agreement.encode(update, weight, metrics, source)
    if (longest := agreement.terms.norm_bound) is not None:
        norm = float(np.linalg.norm([np.linalg.norm(update[name].astype(np.float64)) for name in agreement.names]))
        if norm > longest:  # for the silo's own eyes, and nothing to be done about: the settings ask for it
            LOG.info("The update of round %d, of norm %.3g, is clipped to %g.", round_number, norm, longest)
    if encoded.clamped:
        LOG.warning("%d coordinates of round %d lay beyond aggregation.bound.", encoded.clamped, round_number)
    if weight > (most := agreement.terms.max_weight):
        LOG.warning("%d rows count as %d in round %d, by aggregation.max_rows.", weight, most, round_number)
    if abs(loss := metrics.get(contract.TRAIN_LOSS, 0.0)) > LOSS_BOUND:
        LOG.warning("The training loss of round %d is %g, and is averaged as %g.", round_number, loss, LOSS_BOUND)
    return encoded.words
