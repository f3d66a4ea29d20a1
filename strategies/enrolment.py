"""What silos answer before the first round: who they are, and the moments of their features."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

from flwr.app import ArrayRecord, ConfigRecord, Message, RecordDict

from quire.clients import contract
from quire.clients.arrays import Arrays, decode
from quire.clients.contract import Code
from quire.clients.gate.mark import PROFILES
from quire.clients.tasks.moments import usable
from quire.privacy.approval import APPROVED, REJECTED
from quire.strategies.approvals import Approvals, Found
from quire.strategies.reading import (
    Failure,
    Silos,
    Unusable,
    by_node,
    check_identity,
    content_of,
    identity_of,
    of_kind,
    unreadable,
)

_MAX_RECORDS = 10**12


def read_identities(
    sent: Iterable[Message],
    replies: Iterable[Message],
    code_hash: str,
    schema: str | None = None,
    records: dict[str, int] | None = None,
    members: Mapping[int, str] | None = None,
    approvals: Approvals | None = None,
    taken: Collection[str] = (),
    enclaves: dict[str, str] | None = None,
) -> Found:
    """Read who answered ``query``.

    Parameters
    ----------
    sent, replies : iterable of flwr.app.Message
    code_hash : str
        The server's own code.
    schema : str or None
        Hash of the server's schema, where silos read their own rows.
    records : dict of str to int, optional
        Under privacy: receives each silo's declared number of records, which it then has to declare.
    members : mapping of int to str, optional
        In a consortium: the member that each node is, under whose name it has to answer.
    approvals : Approvals, optional
        Receives what silos' operators have decided.
    taken : collection of str
        Names of silos that are enrolled already.
    enclaves : dict of str to str, optional
        Receives the profile of the enclave in which a silo says that it runs.

    Returns
    -------
    dict of int to str or Failure
        By node: the name of a silo that runs the server's own code, or why it cannot be enrolled.
    """
    known = members or {}
    found: Found = {}
    for node, reply in by_node(sent, replies).items():
        label = known.get(node, f"node {node}")
        try:
            content = content_of(reply)
            name = identity_of(content, code_hash)
            if members is not None:
                _check_member(members.get(node), name)
            identity = of_kind(content, ConfigRecord)[contract.IDENTITY]
            if contract.WITHHELD in identity:
                label = name
                raise _withheld(name, identity, approvals)
            if schema is not None and identity.get(contract.SCHEMA) != schema:
                raise Unusable("other_schema", "it has another schema than the server")
            if name in found.values() or name in taken:
                raise Unusable("name_taken", f"another node already answered as {name}")
            if records is not None:
                records[name] = _records(content)
            if approvals is not None and contract.APPROVAL in identity:
                approvals.take(name, identity[contract.APPROVAL], APPROVED)
            if enclaves is not None and contract.ENCLAVE in identity:
                enclaves[name] = _profile(identity[contract.ENCLAVE])
            found[node] = name
        except Unusable as why:
            found[node] = Failure(label, contract.QUERY, why.code, why.words)
        except Exception:  # as below
            found[node] = unreadable(label, contract.QUERY)
    return found


def _profile(word: object) -> str:
    if not isinstance(word, str) or word not in PROFILES:
        raise Unusable("no_identity", "what it says of its enclave is no word of the contract")
    return word


def read_moments(
    sent: Iterable[Message], replies: Iterable[Message], silos: Silos, features: int, code_hash: str | None
) -> tuple[dict[str, Arrays], list[Failure]]:
    """Check the answers to ``query.moments``; return the moments by silo, in roster order, and who gave none."""
    good: dict[str, Arrays] = {}
    failed: list[Failure] = []
    for node, reply in by_node(sent, replies, silos).items():
        try:
            content = content_of(reply)
            check_identity(content, silos[node], code_hash)
            record = content.array_records.get(contract.ARRAYS, ArrayRecord())
            parts = decode(record)
            if not usable(parts, features):
                raise Unusable("bad_moments", "its moments cannot be those of its features")
            good[silos[node]] = parts
        except Unusable as why:
            failed.append(Failure(silos[node], contract.QUERY, why.code, why.words))
        except Exception:  # arrays that cannot be read, or whatever else a reply stumbles over
            failed.append(unreadable(silos[node], contract.QUERY))
    return good, failed


def _withheld(name: str, identity: ConfigRecord, approvals: Approvals | None) -> Unusable:
    """Return why a silo says who it is and nothing else; in its operator's words where these may travel."""
    number = identity[contract.WITHHELD]
    if number not in Code._value2member_map_ or not isinstance(number, int):
        raise Unusable("malformed", "its reply cannot be read")
    code = Code(number)
    words = contract.WORDS[code]
    if code is Code.REJECTED and approvals is not None and contract.APPROVAL in identity:
        reason = approvals.take(name, identity[contract.APPROVAL], REJECTED).body["reason"]
        words += f": '{reason}'" if reason is not None else ""
    return Unusable(code.name.lower(), words)


def _check_member(member: str | None, name: str) -> None:
    if member is None:
        raise Unusable("no_member", "its node key is no member's")
    if member != name:
        raise Unusable("another_member", f"its node is {member}'s, and it answers as {name}")


def _records(content: RecordDict) -> int:
    records = of_kind(content, ConfigRecord).get(contract.IDENTITY, ConfigRecord()).get(contract.RECORDS)
    if not isinstance(records, int) or isinstance(records, bool) or not 1 <= records <= _MAX_RECORDS:
        raise Unusable("no_records", "it declares no public number of records")
    return records
