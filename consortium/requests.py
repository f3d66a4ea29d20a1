"""What a request to be admitted must be before anything is signed for it."""

from __future__ import annotations

import secrets

from cryptography.hazmat.primitives.asymmetric import ec

from quire.clients.identity.errors import sentences
from quire.consortium import documents
from quire.consortium.about import OperatorAbout
from quire.consortium.certificates import DAY, key_id, key_of_csr
from quire.consortium.documents import INVITATION, Document
from quire.consortium.errors import ConsortiumError
from quire.consortium.index import State
from quire.consortium.layout import OperatorFolder
from quire.consortium.places import check_node

#: An invitation that nobody has used after so many days is refused: whoever finds it later gets nowhere.
INVITATION_DAYS = 30


def examine(
    request: Document, about: OperatorAbout, state: State, folder: OperatorFolder, now: int
) -> ec.EllipticCurvePublicKey | None:
    """Check everything about a request but whose fingerprint it has; opens no secret.

    Parameters
    ----------
    request : Document
        What the silo sent.
    about : OperatorAbout
    state : State
        What the index says.
    folder : OperatorFolder
    now : int
        Seconds since 1970 UTC.

    Returns
    -------
    ec.EllipticCurvePublicKey or None
        The TLS key that it asks for; None if this very request was admitted before.

    Raises
    ------
    ConsortiumError, IdentityFileError
        In one sentence, what is wrong with it.
    """
    known = state.members.get(request.body["name"])
    if known is not None and known.request == request.digest:
        return None
    with sentences(f"The request of {request.body['name']}"):
        return _checked(request, about, state, folder, now)


def _checked(
    request: Document, about: OperatorAbout, state: State, folder: OperatorFolder, now: int
) -> ec.EllipticCurvePublicKey:
    name = request.body["name"]
    if request.body["consortium"] != about.name:
        raise ConsortiumError(f"The request is for {request.body['consortium']}, and this consortium is {about.name}.")
    if name in state.members:
        raise ConsortiumError(f"{name} is a member already: revoke it first, or have it renew its certificate.")
    if request.body["nonce"] in state.nonces:
        raise ConsortiumError(f"The invitation that this request of {name} answers was used before: invite it anew.")
    place = folder.invitation(name)
    if not place.exists():
        raise ConsortiumError(f"{name} was not invited, or not under this name: `quire consortium invite` comes first.")
    invitation = documents.read(place, INVITATION)
    if not secrets.compare_digest(invitation.body["nonce"], request.body["nonce"]):
        raise ConsortiumError(f"The request of {name} answers another invitation than the one that is open for it.")
    if now - invitation.body["created"] > INVITATION_DAYS * DAY:
        raise ConsortiumError(
            f"The invitation of {name} is older than {INVITATION_DAYS} days: invite it anew with --again."
        )
    identity = request.identity("identity")
    documents.check_signature(request, identity)
    if identity.fingerprint == about.admin:
        raise ConsortiumError(f"{name} has the admin's own keys: a silo makes its own.")
    key = key_of_csr(request.blob("csr"))
    node = check_node(request.body["node"])
    for what, seen in (("identity", identity.fingerprint), ("node key", node), ("TLS key", key_id(key))):
        if seen in state.keys:
            raise ConsortiumError(
                f"The {what} of {name} was used before, by {state.keys[seen]}: a silo makes new ones, in a new folder."
            )
    return key
