"""Parts of the benchmark of secure aggregation: silos with a session ready, the keystream alone, Flower's client."""

from __future__ import annotations

import hashlib
import importlib
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from numpy.typing import NDArray

from quire.privacy.csprng import Csprng
from quire.privacy.dp.wire import centred
from quire.privacy.identity.keys import PrivateIdentity
from quire.privacy.secagg import client_round, masks
from quire.privacy.secagg.client import Party
from quire.privacy.secagg.context import GENESIS
from quire.privacy.secagg.messages import Config
from quire.privacy.secagg.params import default_colluders
from quire.privacy.secagg.policy import Policy
from quire.privacy.secagg.server_round import ServerRound
from quire.privacy.secagg.server_session import ServerSession, SessionRecord
from quire.privacy.secagg.state import ClientState, Counter, Stage

ROSTER, SESSION, MODEL = (hashlib.sha256(name).digest() for name in (b"roster", b"session", b"model"))
BLOCK = 64 * 1024


def cpu(work: Callable[[], object]) -> float:
    """Return the CPU seconds of this process that some work takes."""
    started = time.process_time()
    work()
    return time.process_time() - started


def keystreams(count: int, length: int) -> None:
    """Make so many AES-256-CTR keystreams of ``length`` words and throw them away: the floor, block by block."""
    zeros, out = bytes(BLOCK), bytearray(BLOCK + 16)
    ciphers = [Cipher(algorithms.AES(os.urandom(32)), modes.CTR(bytes(16))).encryptor() for _ in range(count)]
    for start in range(0, 4 * length, BLOCK):
        part = memoryview(zeros)[: min(BLOCK, 4 * length - start)]
        for cipher in ciphers:
            cipher.update_into(part, out)


@dataclass
class Cast:
    """A server and silos whose session is made, without the cost of making it: pair keys are put in place."""

    config: Config
    parties: dict[int, Party]
    states: dict[int, ClientState]
    session: ServerSession

    @classmethod
    def of(cls, n: int, length: int, bits: int = 24, only: int | None = None) -> Cast:
        """Return a cast of n silos, or of one of them (``only``) among n."""
        config = Config(bytes(16), 1, 50, 3, n, default_colluders(n), 0, bits, length)
        policy = Policy(members=n, min_cohort=2, colluders=config.colluders, application=config.application)
        identities = {i: PrivateIdentity.from_seed(hashlib.sha256(b"%d" % i).digest()) for i in range(n)}
        members = {i: identity.public for i, identity in identities.items()}
        here = range(n) if only is None else [only]
        parties = {i: Party(i, identities[i], members, ROSTER, policy, os.urandom) for i in here}
        counter = Counter(bytes(16), 1, 0, Stage.READY, roster=ROSTER).encode()
        states = {i: ClientState(counter, config.encode(), SESSION, tuple(range(n)), keys=_keys(i, n)) for i in here}
        record = SessionRecord(bytes(16), ROSTER, config.encode(), SESSION, tuple(range(n)))
        return cls(config, parties, states, ServerSession.decode(record.encode(), members))

    def round(self, number: int = 1) -> ServerRound:
        """Return a round with everybody."""
        return ServerRound(self.session, number, 1, self.session.members, MODEL, GENESIS)

    def do(self, stage: str, index: int, message: bytes, vector: NDArray[np.uint32] | None = None) -> bytes:
        """Let one silo answer, and keep its new state."""
        party, state = self.parties[index], self.states[index]
        if stage == "start":
            step = client_round.start(party, state, message, MODEL, GENESIS)
        elif stage == "mask" and vector is not None:
            step = client_round.mask(party, state, message, lambda: vector)
        elif stage == "confirm":
            step = client_round.confirm(party, state, message)
        else:
            step = client_round.unmask(party, state, message)
        self.states[index] = step.state
        return step.reply


def _keys(index: int, n: int) -> dict[int, tuple[bytes]]:
    pairs = {other: (min(index, other), max(index, other)) for other in range(n) if other != index}
    return {other: (hashlib.sha256(b"%d-%d" % pair).digest(),) for other, pair in pairs.items()}


def words(index: int, length: int) -> NDArray[np.uint32]:
    """Return one silo's vector: small integers."""
    return Csprng(hashlib.sha256(b"words%d" % index).digest()).uint32(length) >> np.uint32(20)


def run_round(cast: Cast, dropouts: int, length: int) -> tuple[ServerRound, dict[str, float]]:
    """Run a round up to, not including, the server's unmask; the last silos drop out before masking."""
    one = cast.round()
    n = len(one.cohort)
    times = {"start": 0.0, "mask": 0.0, "confirm": 0.0, "unmask": 0.0}

    def timed(stage: str, index: int, message: bytes) -> bytes:
        replies: list[bytes] = []
        vector = words(index, length)
        times[stage] += cpu(lambda: replies.append(cast.do(stage, index, message, vector)))
        return replies[0]

    for index in one.cohort:
        one.receive(index, timed("start", index, one.start()))
    for index in one.close_shares()[: n - dropouts]:
        one.receive(index, timed("mask", index, one.mask_request(index)))
    confirm = one.close_masked()
    for index in one.u3:
        one.receive(index, timed("confirm", index, confirm))
    unmask = one.close_survivors()
    for index in one.u3:
        one.receive(index, timed("unmask", index, unmask))
    if one.blame:
        raise RuntimeError(f"honest silos were blamed: {one.blame[:3]}")
    return one, times


def exact(one: ServerRound, total: np.ndarray, length: int, bits: int = 24) -> bool:
    """Say whether an opened sum is that of the survivors' vectors."""
    plain = np.zeros(length, dtype=np.int64)
    for index in one.u3:
        plain += words(index, length)
    return bool(np.array_equal(centred(total, bits), plain))


def one_silo(n: int, length: int) -> float:
    """Return the CPU seconds of dealing shares and of masking with n - 1 peers' masks and one's own."""
    cast = Cast.of(n, length, only=0)
    message = cast.round().start()
    vector, seeds = words(0, length), [os.urandom(32) for _ in range(n)]

    def work() -> None:
        cast.do("start", 0, message)
        masks.add_masks(vector, seeds)
        hashlib.sha256(vector).digest()

    return cpu(work)


def plot_growth(seconds: Mapping[int, float], length: int, path: Path) -> None:
    """Draw one silo's CPU time over the number of silos, with the straight line through it, as an SVG."""
    import matplotlib as mpl
    from matplotlib.figure import Figure as Canvas

    sizes, times = np.array(list(seconds)), 1000 * np.array(list(seconds.values()))
    slope, start = np.polyfit(sizes, times, 1)
    with mpl.rc_context({"svg.hashsalt": "secagg", "svg.fonttype": "none", "font.size": 9}):
        canvas = Canvas(figsize=(5.4, 3.0), layout="constrained")
        axes = canvas.add_subplot(xlabel="silos, n", ylabel="CPU time of one silo, ms")
        axes.plot(sizes, start + slope * sizes, color="0.6", label=f"least squares: {slope:.2f} ms a silo")
        axes.plot(sizes, times, "o", color="tab:blue", label="measured, median")
        axes.set(title=f"Dealing shares and masking {length:,} coordinates", xlim=(0, None), ylim=(0, None))
        axes.legend()
        path.parent.mkdir(parents=True, exist_ok=True)
        canvas.savefig(path, format="svg", metadata={"Date": None})


def flower_client(n: int, length: int) -> Callable[[], dict[str, float]]:
    """Return Flower's SecAgg client with n neighbours: its own functions for sharing keys and for masking.

    Its peers' shares are placeholders of the right form; nothing of them is part of what is timed but decrypting.
    """
    from flwr.app import ConfigRecord
    from flwr.common import ndarrays_to_parameters
    from flwr.common.secure_aggregation.crypto.symmetric_encryption import encrypt, generate_shared_key
    from flwr.common.secure_aggregation.secaggplus_utils import share_keys_plaintext_concat
    from flwr.supercore.primitives.asymmetric import (
        bytes_to_private_key,
        bytes_to_public_key,
        generate_key_pairs,
        private_key_to_bytes,
        public_key_to_bytes,
    )

    # The package exports a function of the module's name, which hides the module.
    mod = importlib.import_module("flwr.client.mod.secure_aggregation.secaggplus_mod")
    state = mod.SecAggPlusState()
    state.nid, state.sample_num, state.share_num, state.threshold = 1, n, n, (2 * n) // 3
    state.clipping_range, state.target_range, state.mod_range = 8.0, 2**22, 2**32
    state.max_weight = 1000.0
    state.rd_seed_share_dict, state.sk1_share_dict, state.ss2_dict = {}, {}, {}
    keys = {}
    for node in range(1, n + 1):
        (one, one_public), (two, two_public) = generate_key_pairs(), generate_key_pairs()
        keys[node] = (public_key_to_bytes(one_public), public_key_to_bytes(two_public))
        if node == 1:
            state.sk1, state.pk1 = private_key_to_bytes(one), keys[1][0]
            state.sk2, state.pk2 = private_key_to_bytes(two), keys[1][1]
    from_peers = []
    for node in range(2, n + 1):
        shared = generate_shared_key(bytes_to_private_key(state.sk2), bytes_to_public_key(keys[node][1]))
        from_peers.append(encrypt(shared, share_keys_plaintext_concat(node, 1, bytes(36), bytes(36))))
    parameters = ndarrays_to_parameters([np.random.default_rng(1).normal(size=length).astype(np.float32)])

    def run() -> dict[str, float]:
        listed = ConfigRecord({str(node): list(pair) for node, pair in keys.items()})
        request = {mod.Key.SOURCE_LIST: list(range(2, n + 1)), mod.Key.CIPHERTEXT_LIST: from_peers}
        return {
            "share": cpu(lambda: mod._share_keys(state, listed)),
            "mask": cpu(lambda: mod._collect_masked_vectors(state, request, 500, parameters)),
        }

    return run
