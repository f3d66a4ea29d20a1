"""Is the silo's ledger older than what it has signed before? Its own receipts say so, which a server shows it again.

A store that was sealed, or lies on a machine that somebody else runs, can be put back to an earlier state of its own,
and agrees with itself then. What it cannot take back is a receipt: the silo signed it, with the head of its ledger, and
the server's transparency log names that head. So a server shows every silo the newest receipts that it has of that
silo, before the first round of a run. None can be made up: they need the silo's own signature, and what another one
signed is passed over. A server that shows none, or old ones, changes nothing; the witness file does not depend on it
(docs/ledger.md).
"""

from __future__ import annotations

import os

from flwr.app import ConfigRecord, Message

from quire.clients import contract
from quire.clients.answering import Refusal
from quire.clients.contract import Code
from quire.clients.member import Member
from quire.errors import QuireError
from quire.privacy.receipts import MAX_BYTES, Receipt, ReceiptError

#: The most receipts that are looked at. A server shows one for each population that the silo has had.
MOST = 64


def shown(message: Message) -> list[Receipt]:
    """Return the receipts that come with a message.

    Raises
    ------
    Refusal
        If they are none.
    """
    record = message.content.get(contract.CONFIG)
    found = record.get(contract.WITNESSED, []) if isinstance(record, ConfigRecord) else []
    if not isinstance(found, list) or len(found) > MOST:
        raise Refusal(Code.BAD_REQUEST, "the receipts of earlier runs are not shown as servers show them")
    try:
        return [Receipt.decode(data) for data in found if isinstance(data, bytes) and len(data) <= MAX_BYTES]
    except ReceiptError as error:
        raise Refusal(Code.BAD_REQUEST, str(error).rstrip(".")) from error


def hold_to_witnessed(member: Member, message: Message) -> None:
    """See to it that the ledger goes on from every receipt that this silo signed and is shown again.

    Parameters
    ----------
    member : Member
        A simulated one has no ledger.
    message : flwr.app.Message

    Raises
    ------
    Refusal
        If it does not, or the books cannot be used; the words are for the silo's own log.
    """
    operator, policy = member.operator, member.policy
    if member.simulated or operator is None or policy is None or not (receipts := shown(message)):
        return
    from quire.clients.identity import load_identity
    from quire.clients.identity.passphrase import from_variable
    from quire.clients.policy.books import PASSPHRASE_VARIABLE
    from quire.clients.store import Receipt as Stand
    from quire.clients.store import Store

    population = policy.population.name
    try:
        words = from_variable(PASSPHRASE_VARIABLE) if PASSPHRASE_VARIABLE in os.environ else None
        signer = load_identity(operator.identity, words)
        own = [one for one in receipts if _is_ours(one, signer.public.fingerprint, member.name, population)]
        own = [one for one in own if _signed(one, signer.public)]
        if not own:
            return
        with Store.open(operator.store, signer, witness=operator.witness) as store:
            store.ledger(population).require_all(
                (Stand(one.body["ledger"]["entries"], one.body["ledger"]["head"]), _who(one)) for one in own
            )
    except QuireError as error:
        raise Refusal(Code.BOOKS_UNUSABLE, str(error).rstrip(".")) from None


def _is_ours(one: Receipt, fingerprint: str, name: str, population: str) -> bool:
    body = one.body
    return (one.signer, body["silo"], body["population"]) == (fingerprint, name, population) and bool(body["ledger"])


def _signed(one: Receipt, public: object) -> bool:
    try:
        one.check(public)  # type: ignore[arg-type]
    except ReceiptError:
        return False  # somebody's under our name: it shows nothing
    return True


def _who(one: Receipt) -> str:
    return f"this silo's own receipt for round {one.body['round']} of run {one.body['run']}"
