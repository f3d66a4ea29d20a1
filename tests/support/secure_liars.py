"""Members of secure aggregation that lie, end to end: what they send is signed by their own keys, and does not hold."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from quire.clients.secure import stage as stages
from quire.privacy.secagg import client_round, pairs, shamir
from quire.privacy.secagg.client import Party
from quire.privacy.secagg.context import tag
from quire.privacy.secagg.messages import Advert, Pairs, Shares

Tamper = Callable[[Party, bytes], bytes]


def lie(monkeypatch: Any, silo: str, exchange: str, tamper: Tamper) -> None:
    """Let a simulated silo send something else at an exchange that touches no rows."""
    answer = stages.Stage.answer

    def lying(self: Any, core: Any, *rest: Any) -> Any:
        if self.silo.member.name != silo or self.name != exchange:
            return answer(self, core, *rest)

        def other(party: Party, state: Any, data: bytes) -> Any:
            step = core(party, state, data)
            return replace(step, reply=tamper(party, step.reply))

        return answer(self, other, *rest)

    monkeypatch.setattr(stages.Stage, "answer", lying)


def lie_when_dealing(monkeypatch: Any, index: int, tamper: Tamper) -> None:
    """Let a member send other shares than it dealt."""
    start = client_round.start

    def lying(party: Party, *rest: Any) -> Any:
        step = start(party, *rest)
        return replace(step, reply=tamper(party, step.reply)) if party.index == index else step

    monkeypatch.setattr(client_round, "start", lying)


def advertise(key: Callable[[bytes], bytes]) -> Tamper:
    """Advertise another key, properly signed."""

    def tamper(party: Party, data: bytes) -> bytes:
        advert = Advert.decode(data)
        other = replace(advert, key=key(advert.key))
        return replace(other, signature=party.identity.sign(tag("advert"), other.signed_part())).encode()

    return tamper


def garbage_halves(*victims: int) -> Tamper:
    """Seal nothing that opens to these members."""

    def tamper(party: Party, data: bytes) -> bytes:
        message = Pairs.decode(data)
        sent = {index: (bytes(len(row[0])),) if index in victims else row for index, row in message.ciphertexts.items()}
        other = replace(message, ciphertexts=sent)
        return replace(other, signature=party.sign("pairs", other.signed_part())).encode()

    return tamper


def garbage_shares(*victims: int) -> Tamper:
    """Deal shares that do not open to these members."""

    def tamper(party: Party, data: bytes) -> bytes:
        message = Shares.decode(data)
        peers = {i: (bytes(len(row[0])), row[1]) if i in victims else row for i, row in message.peers.items()}
        other = replace(message, peers=peers)
        return replace(other, signature=party.sign("shares", other.signed_part())).encode()

    return tamper


def sealed_nonsense(party: Party, data: bytes) -> bytes:
    """Seal a list of mask seeds under no key that was dealt."""
    message = Shares.decode(data)
    other = replace(message, sealed=bytes(len(message.sealed)))
    return replace(other, signature=party.sign("shares", other.signed_part())).encode()


def deal_no_secret(monkeypatch: Any, *indices: int) -> None:
    """Let members deal shares that are of no one secret, each of them the one that they published a hash of."""
    start, share = client_round.start, shamir.share

    def mixed(secret: bytes, cohort: Any, threshold: int, random_bytes: Any) -> Any:
        one, other = (share(text, cohort, threshold, random_bytes) for text in (secret, random_bytes(32)))
        return [pair[place % 2] for place, pair in enumerate(zip(one, other, strict=True))]

    def lying(party: Party, *rest: Any) -> Any:
        if party.index not in indices:
            return start(party, *rest)
        shamir.share = mixed
        try:
            return start(party, *rest)
        finally:
            shamir.share = share

    monkeypatch.setattr(client_round, "start", lying)


def no_key(key: bytes) -> bytes:
    """Return as many bytes, which are no key."""
    return b"\xff" * len(key)


def no_point(key: bytes) -> bytes:
    """Return a key whose part of X25519 is a point of small order."""
    return key[: -pairs.HALF_SIZE] + bytes(pairs.HALF_SIZE)
