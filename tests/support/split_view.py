"""A server that shows one silo another log, and looks away wherever it would find that out itself.

Imported by tests, and put beside the server's own code into a bundle that is sent to a SuperLink.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from hashlib import sha256
from typing import Any

from flwr.app import ConfigRecord, RecordDict

from quire.clients import contract
from quire.privacy.secagg import server_round
from quire.privacy.secagg.messages import MaskRequest
from quire.strategies.log_bound import Bound
from quire.transparency.checkpoints import sign

#: Who is shown the other log.
VICTIM = "hospital-3"


def forked(bound: Any) -> ConfigRecord:
    """Return a checkpoint of the same log, name and key, over other entries."""
    log = bound._log
    other = replace(log.notes[-1].checkpoint, root=sha256(b"another history").digest())
    record = {contract.CHECKPOINT: sign(other, log._key).encode(), contract.LOG_KEY: log.key.encode()}
    return ConfigRecord(record)


def lie() -> None:
    """Turn the server's classes in this process into those of a liar."""
    beside, accept = Bound.beside, Bound.accept

    def shown(self: Any, contents: Mapping[int, RecordDict], names: Mapping[int, str]) -> dict[int, RecordDict]:
        found = dict(beside(self, contents, names))
        for index in found:
            if names[index] == VICTIM:
                found[index] = RecordDict({**found[index], contract.LOG: forked(self)})
        return found

    def taken(self: Any, silo: str, content: RecordDict) -> None:
        if silo != VICTIM:
            accept(self, silo, content)

    Bound.beside, Bound.accept = shown, taken  # type: ignore[method-assign]
    look_away()


def look_away() -> None:
    """Let a server take messages of another context and pairs with different masks, and tell each silo its own one."""
    ask = server_round.ServerRound.mask_request

    def authentic(self: Any, sender: int, message: Any, use: str) -> None:
        server_round.check_signature(self._identities[sender], use, message.signed_part(), message.signature, sender)

    def asking(self: Any, receiver: int) -> bytes:
        request = MaskRequest.decode(ask(self, receiver))
        return replace(request, context=self._shares[receiver].context).encode()

    server_round.ServerRound.mask_request = asking  # type: ignore[method-assign]
    server_round.ServerRound._authentic = authentic  # type: ignore[method-assign]
    server_round.cover = lambda wrong: set()  # type: ignore[assignment]
