"""Published test vectors of SecAgg-Q: every message of a session and a round, from randomness that is written down.

``python tests/support/secagg_vectors.py`` writes ``tests/privacy/secagg/vectors.json`` anew; the test only reads it.
HPKE draws its own randomness, so its ciphertexts are part of what is given: an implementation opens them, and takes
them in place of its own when it builds the messages.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from secagg_network import MODEL, Network, config

from quire.privacy.secagg.context import GENESIS
from quire.privacy.secagg.pairs import PAIR_CIPHERTEXT, seal

FILE = Path(__file__).resolve().parent.parent / "privacy" / "secagg" / "vectors.json"
DROPPED = 3  # sends shares, and no vector


class Tape:
    """A source of random bytes that writes down, or plays back, what it gave."""

    def __init__(self, network: Network, index: int, given: dict[str, str] | None) -> None:
        self._coins = network.nodes[index].party.random_bytes
        self._given = {key: bytes.fromhex(value) for key, value in (given or {}).items()}
        self.coins = b""
        self.sealed: dict[str, str] = {}

    def random_bytes(self, count: int) -> bytes:
        at = len(self.coins)
        data = self._given["coins"][at : at + count] if self._given else self._coins(count)
        self.coins += data
        return data

    def seal(self, half: bytes, key: bytes, info: bytes) -> bytes:
        data = self._given[info.hex()] if self._given else seal(half, key, info)
        if len(data) != PAIR_CIPHERTEXT:
            raise ValueError("a recorded ciphertext of another length")
        self.sealed[info.hex()] = data.hex()
        return data


def run(given: dict[str, Any] | None = None) -> dict[str, Any]:
    """Run the session and the round, from what is given or anew, and return all that there is to compare."""
    network = Network(4, config(6, 1, bits=24, application=b"example"), seed=2026)
    tapes = {}
    for index, node in network.nodes.items():
        node.vector = (np.arange(6) * 100_003 - 7 * index).astype(np.uint32)
        silo = given["silos"][str(index)] if given else None
        tapes[index] = Tape(network, index, silo and {"coins": silo["random_bytes"], **silo["hpke_by_info"]})
        node.party = replace(node.party, random_bytes=tapes[index].random_bytes, sealer=tapes[index].seal)
    messages: list[dict[str, str | int]] = []

    def watch(stage: str, way: str, index: int, data: bytes) -> bytes | None:
        if stage in ("mask", "confirm", "unmask") and index == DROPPED:
            return None
        messages.append({"stage": stage, "way": way, "silo": index, "hex": data.hex()})
        return data

    network.meddle = watch
    network.agree()
    one = network.round(1, 2)  # the second attempt: the pairs' keys have moved on once
    total = network.aggregate(one)
    network.check(one, total)
    return {
        "about": "SecAgg-Q, version 1: 4 silos, the last of which drops out before masking. All bytes in hexadecimal.",
        "session_id": network.session.sid.hex(),
        "roster_hash": network.session.roster.hex(),
        "config": network.config.encode().hex(),
        "session_hash": network.session.session.hex(),
        "model_hash": MODEL.hex(),
        "log_root": GENESIS.hex(),
        "round": 1,
        "attempt": 2,
        "context": one.context.hex(),
        "silos": {
            str(index): {
                "identity": network.identities[index].encode_secret().hex(),
                "vector": node.vector.astype("<u4").tobytes().hex(),
                "random_bytes": tapes[index].coins.hex(),
                "hpke_by_info": tapes[index].sealed,
            }
            for index, node in network.nodes.items()
        },
        "messages": messages,
        "survivors": list(one.u3),
        "sum_low_24_bits": [int(word) & 0xFFFFFF for word in total],
    }


if __name__ == "__main__":
    FILE.write_text(json.dumps(run(), indent=1) + "\n", encoding="utf-8")
