"""Secure aggregation: SecAgg-Q against its own floor, the AES-CTR keystream, and against Flower's SecAgg client.

CPU seconds of one process; contenders take turns. Sessions are put in place where only rounds are measured. Silos and
server run in this process, one after the other, so there is no network in any figure. With ``--json FILE`` a plot of
one silo's time over n is written beside it.
"""

from __future__ import annotations

import math
import os
import statistics
import sys
import tracemalloc
from collections.abc import Callable
from functools import partial
from pathlib import Path

import harness
import numpy as np
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.hpke import AEAD, KDF, KEM, Suite
from harness import Figure
from secagg_parts import Cast, cpu, exact, flower_client, keystreams, one_silo, plot_growth, run_round, words

from quire.privacy.csprng import Csprng
from quire.privacy.secagg import masks, pairs
from quire.privacy.secagg.context import survivor_parts, tag
from quire.privacy.secagg.fixedpoint import FixedPoint
from quire.privacy.secagg.messages import Advert, Adverts, ConfirmRequest, Open, PairKeys, Pairs, Ready, UnmaskRequest


def client_stages(n: int, length: int) -> Callable[[], dict[str, float]]:
    """Return one silo among n, from encoding to giving up shares; every peer's message is real."""
    cast = Cast.of(n, length)
    encoding = FixedPoint(length - 4, n, 24, 8.0, 1000)
    vector = np.random.default_rng(1).normal(size=length - 4)
    started = cast.round()
    for index in range(1, n):
        started.receive(index, cast.do("start", index, started.start()))
    before = cast.states[0]
    everybody = started.cohort
    parts = survivor_parts(started.context, everybody, everybody)
    signatures = {
        i: (cast.parties[i].identity.sign_ed25519(tag("survivors"), *parts),)
        for i in everybody[: started.limits.threshold]
    }
    confirm = ConfirmRequest(started.context, everybody).encode()
    unmask = UnmaskRequest(started.context, signatures).encode()

    def run() -> dict[str, float]:
        cast.states[0] = before
        encoded: list[np.ndarray] = []
        times = {}

        def encode() -> None:
            got = encoding.encode(vector, 500, {}, Csprng(os.urandom(32))).words
            encoded.append(np.concatenate([got, np.zeros(length - len(got), dtype=np.uint32)]))

        times["encode"] = cpu(encode)
        replies: list[bytes] = []
        times["share"] = cpu(lambda: replies.append(cast.do("start", 0, started.start())))
        started._shares.pop(0, None)  # the same attempt again: the server's side of it is not measured here
        started.receive(0, replies[0])
        started.u2 = started.cohort
        request = started.mask_request(0)
        times["mask"] = cpu(lambda: cast.do("mask", 0, request, encoded[0]))
        times["confirm and unmask"] = cpu(lambda: (cast.do("confirm", 0, confirm), cast.do("unmask", 0, unmask)))
        return times

    return run


def masking(quick: bool) -> list[Figure]:
    """Client masking against the floor and against Flower's client, at n = 100 and 1M parameters."""
    n, length, turns = 100, 1_000_000, 3 if quick else 9
    vector, seeds = words(0, length), [os.urandom(32) for _ in range(n)]
    ours, theirs = client_stages(n, length), flower_client(n, length)
    stages: list[dict[str, float]] = []
    flower: list[dict[str, float]] = []

    def whole() -> float:
        stages.append(ours())
        return sum(stages[-1].values())

    def peer() -> float:
        flower.append(theirs())
        return sum(flower[-1].values())

    times = harness.interleaved(
        {
            "floor": lambda: cpu(lambda: keystreams(n, length)),
            "masks": lambda: cpu(lambda: masks.add_masks(vector, seeds[: n // 2], seeds[n // 2 :])),
            "client": whole,
        },
        turns,
    )
    slow = harness.interleaved({"flower": peer, "client": whole}, 1 if quick else 3)
    parts = {key: statistics.median(item[key] for item in stages) for key in stages[0]}
    theirs_parts = {key: statistics.median(item[key] for item in flower) for key in flower[0]}
    floor = statistics.median(times["floor"])
    return [
        Figure(
            "client masking over AES-CTR keystream, n=100, 1M",
            harness.median_ratio(times, "masks", "floor"),
            "<= 1.3",
            f"100 masks; the keystream alone takes {floor:.3f} s ({4e-9 * n * length / floor:.1f} GB/s)",
        ),
        Figure(
            "client's whole work over AES-CTR keystream, n=100, 1M",
            harness.median_ratio(times, "client", "floor"),
            None,
            ", ".join(f"{name} {value:.3f} s" for name, value in parts.items()),
        ),
        Figure(
            "Flower's SecAgg client over ours, CPU, n=100, 1M",
            harness.median_ratio(slow, "flower", "client"),
            ">= 10",
            ", ".join(f"{name} {value:.2f} s" for name, value in theirs_parts.items())
            + "; complete graph. Flower's: X25519, shares, quantising, masks. Ours: encoding and all four stages, "
            "without the session's keys, which serve 50 rounds",
        ),
    ]


def server(quick: bool) -> list[Figure]:
    """The server's unmask against its own floor, with a tenth of the silos dropped."""
    n, length = (40, 250_000) if quick else (100, 1_000_000)
    dropped = n // 10
    one, _ = run_round(Cast.of(n, length), dropped, length)
    streams = (n - dropped) * (1 + dropped)
    before = cpu(lambda: keystreams(streams, length))
    totals: list[np.ndarray] = []
    took = cpu(lambda: totals.append(one.unmask()))
    floor = (before + cpu(lambda: keystreams(streams, length))) / 2
    if not exact(one, totals[0], length):
        raise RuntimeError("the sum is not that of the survivors")
    size = f"n={n}, {length // 1000}k" if quick else "n=100, 1M"
    return [
        Figure(
            f"server unmask over AES-CTR keystream, {size}, 10 % dropped",
            took / floor,
            "<= 1.5",
            f"{streams} keystreams: {floor:.2f} s of {took:.2f} s; all shares checked, Shamir included, sum exact",
        )
    ]


def thousand(quick: bool) -> list[Figure]:
    """A whole round with very many silos."""
    n, length = (120, 10_000) if quick else (1000, 100_000)
    one, times = run_round(Cast.of(n, length), n // 100, length)
    totals: list[np.ndarray] = []
    took = cpu(lambda: totals.append(one.unmask()))
    right = exact(one, totals[0], length)
    each = ", ".join(f"{name} {1000 * value / n:.0f} ms" for name, value in times.items())
    return [
        Figure(
            f"round of n={n}, {length // 1000}k parameters, 1 % dropped: sum exact",
            float(right),
            ">= 1",
            f"each silo: {each}; server's unmask {took:.1f} s",
        )
    ]


def growth(quick: bool, picture: Path | None) -> list[Figure]:
    """How one silo's work in the stages X1 and X2 grows with n, at 1M parameters; as figures, and as a plot."""
    sizes = (25, 50, 100) if quick else (50, 100, 200, 400, 800)
    length, turns = 1_000_000, 3 if quick else 5
    times = harness.interleaved({str(n): partial(one_silo, n, length) for n in sizes}, turns)
    seconds = {n: statistics.median(times[str(n)]) for n in sizes}
    if picture is not None:
        plot_growth(seconds, length, picture)
    logs = [(math.log(n), math.log(value)) for n, value in seconds.items()]
    slope = statistics.linear_regression([x for x, _ in logs], [y for _, y in logs]).slope
    return [
        Figure(
            f"growth of one silo's work from n={sizes[0]} to {sizes[-1]}, exponent, 1M",
            slope,
            "<= 1.1",
            "1 is linear; " + ", ".join(f"n={n}: {1000 * value:.0f} ms" for n, value in seconds.items()),
        )
    ]


def post_quantum(quick: bool) -> list[Figure]:
    """What the hybrid key agreement costs more than X25519 alone, for one silo of ten."""
    n, rounds, turns = 10, 50, 3 if quick else 15
    suite = Suite(KEM.X25519, KDF.HKDF_SHA256, AEAD.AES_256_GCM)
    stages = client_stages(n, 1_000_000)

    def hybrid() -> None:
        seed = os.urandom(pairs.KEY_SEED)
        key = pairs.public_key(seed)
        sealed = {peer: pairs.seal(bytes(32), key, b"") for peer in range(1, n)}
        private = pairs._private(seed)
        for ciphertext in sealed.values():
            pairs._SUITE.decrypt(ciphertext, private, b"")

    def classical() -> None:
        private = X25519PrivateKey.generate()
        for ciphertext in [suite.encrypt(bytes(32), private.public_key(), b"") for _ in range(1, n)]:
            suite.decrypt(ciphertext, private, b"")

    times = harness.interleaved(
        {
            "hybrid": lambda: cpu(hybrid),
            "x25519": lambda: cpu(classical),
            "round": lambda: sum(stages().values()),
        },
        turns,
    )
    middle = {name: statistics.median(values) for name, values in times.items()}
    more = middle["hybrid"] - middle["x25519"]
    return [
        Figure(
            "hybrid key agreement over X25519 alone, CPU per session, n=10",
            harness.median_ratio(times, "hybrid", "x25519"),
            None,
            f"{1000 * middle['hybrid']:.2f} ms against {1000 * middle['x25519']:.2f} ms for one silo",
        ),
        Figure(
            "surcharge of the hybrid per round, over one silo's round, n=10, 1M",
            more / rounds / middle["round"],
            "<= 0.2",
            f"{rounds} rounds a session; a round takes {1000 * middle['round']:.1f} ms. Were every round to make a "
            f"session of its own: {more / middle['round']:.3f}",
        ),
    ]


def wire() -> list[Figure]:
    """Bytes of real messages at n = 100 and 1M parameters, the session's shared out over 50 rounds."""
    n, length, bits, rounds = 100, 1_000_000, 24, 50
    cast = Cast.of(n, length)
    one = cast.round()
    start = one.start()
    shares = {index: cast.do("start", index, start) for index in one.cohort}
    for index, reply in shares.items():
        one.receive(index, reply)
    one.close_shares()
    request = one.mask_request(0)
    packed = masks.packed_size(length, bits)
    others = {i: (bytes(1168),) for i in range(1, n)}
    up = [
        Advert(0, bytes(16), bytes(32), bytes(32), bytes(1216), bytes(66)).encode(),
        Pairs(0, bytes(32), others, bytes(64)).encode(),
        Ready(0, bytes(32), {i: (bytes(16),) for i in others}, bytes(64)).encode(),
    ]
    down = [
        Open(bytes(16), bytes(32), cast.config.encode()).encode(),
        Adverts(bytes(16), {i: (bytes(1216), bytes(66)) for i in range(n)}).encode(),
        PairKeys(bytes(32), others).encode(),
    ]
    masked = cast.do("mask", 0, request, words(0, length))
    confirmed = 2 + 32 + 64 + 5  # Survivors
    unmasked = 5 + 2 + 32 + 2 * 2 + n * 35 + 64
    sent = sum(map(len, up)) / rounds + len(shares[0]) + len(masked) + confirmed + unmasked
    confirm = 5 + 32 + 2 + 2 * n
    unmask = 5 + 32 + 2 + 66 * one.limits.threshold
    received = sum(map(len, down)) / rounds + len(start) + len(request) + confirm + unmask
    sixteen = FixedPoint(length, n, 16, 1.0, 1000, rotation="00" * 32)
    return [
        Figure(
            "bytes sent over the packed vector, n=100, 1M, 24 bits",
            sent / packed,
            "<= 1.02",
            f"{sent - packed:.0f} bytes of keys and control a round, the session's shared out over {rounds} rounds",
        ),
        Figure(
            "the same with control received, model left out",
            (sent + received) / packed,
            "<= 1.02",
            f"{received:.0f} bytes received a round",
        ),
        Figure("24 bits over float32", packed / (4 * length), "<= 0.75", "1M coordinates"),
        Figure(
            "16 bits with rotation over float32",
            masks.packed_size(sixteen.length, 16) / (4 * length),
            "<= 0.505",
            f"{sixteen.length} coordinates: filled up to blocks, weight included",
        ),
    ]


def memory() -> list[Figure]:
    """Peak memory of the server from the first masked vector to the sum."""
    n, length = 10, 1_000_000
    cast = Cast.of(n, length)
    one = cast.round()
    for index in one.cohort:
        one.receive(index, cast.do("start", index, one.start()))
    replies = {i: cast.do("mask", i, one.mask_request(i), words(i, length)) for i in one.close_shares()}
    one._sum = np.zeros(0, dtype=np.uint32)
    tracemalloc.start()
    one._sum = np.zeros(length, dtype=np.uint32)
    for index, reply in replies.items():
        one.receive(index, reply)
    confirm = one.close_masked()
    for index in one.u3:
        one.receive(index, cast.do("confirm", index, confirm))
    unmask = one.close_survivors()
    for index in one.u3:
        one.receive(index, cast.do("unmask", index, unmask))
    total = one.unmask()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    if not exact(one, total, length):
        raise RuntimeError("the sum is not that of the survivors")
    packed = masks.packed_size(length, 24)
    return [
        Figure(
            "server's peak memory over the cohort's packed vectors, n=10, 1M",
            peak / (n * packed),
            "<= 2",
            f"streaming: {peak / packed:.2f} packed vectors at most, whatever n is; the message being read is not "
            "counted, control is",
        )
    ]


def main() -> int:
    """Measure and report."""
    args = harness.arguments(__doc__)
    quick = args.quick
    picture = args.json.with_suffix(".svg") if args.json is not None else None
    figures = [*masking(quick), *server(quick), *growth(quick, picture), *post_quantum(quick), *wire(), *memory()]
    figures += thousand(quick)
    return harness.report(figures, args, "Secure aggregation")


if __name__ == "__main__":
    sys.exit(main())
