"""The transparency log: durable appends, proofs, and full verification, on a log of a million entries.

Appending 100 entries at a time with one fsync, beside a bare write and fsync of the same bytes in the same batches, in
turns, to two files of one folder. Then the finished log: how many hashes a proof of inclusion has; and the whole of
`quire log verify` beside SHA-256 over the same bytes in one go, in turns, taken apart into its pieces. Entries are
what a round writes (models, ledger heads, transcripts: 150 to 190 bytes), made beforehand for both sides.

Where entries are this short, a tree of RFC 6962 has itself more to hash than there are bytes: the prefix, the padding
and a node for every leaf. One figure counts that, in blocks of SHA-256, whatever the language.

And what log and countersignatures add to a round of secure aggregation: whole federations of simulated silos in this
process, with and without a log in turns, from one line of the journal to the next.
"""

from __future__ import annotations

import hashlib
import math
import os
import random
import statistics
import sys
import tempfile
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import harness

BATCH, TURNS = 100, 10


def entries(count: int) -> list[object]:
    """Return entries as a run of ten silos writes them."""
    from quire.transparency.entries import Entry

    rng, made = random.Random(7), []
    for number in range(count):
        digest, round_number = rng.randbytes(32).hex(), 1 + number // 12
        if number % 12 == 0:
            made.append(Entry("model", "run-7", round_number, 1763757962 + number, {"model": digest}))
        elif number % 12 == 1:
            body = {"attempt": 1, "transcript": digest}
            made.append(Entry("transcript", "run-7", round_number, 1763757962 + number, body))
        else:
            body = {"silo": f"silo-{number % 12}", "entries": round_number, "head": digest}
            made.append(Entry("ledger_head", "run-7", round_number, 1763757962 + number, body))
    return made


def batches(made: list[object]) -> list[list[object]]:
    """Return entries in the batches in which they are written."""
    return [made[at : at + BATCH] for at in range(0, len(made), BATCH)]


def seconds(work: Callable[[], object]) -> float:
    """Return how long something takes."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def appending(folder: Path, count: int) -> dict[str, list[float]]:
    """Write the log and, beside it, the same bytes; return the rates of both, turn by turn."""
    from quire.privacy.identity.keys import PrivateIdentity
    from quire.transparency.log import Log

    key = PrivateIdentity.from_seed(b"benchmark".ljust(32))
    bare = os.open(folder / "bare", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    share: list[list[object]] = []

    def plainly() -> float:
        lines = [[entry.data for entry in batch] for batch in share]  # type: ignore[attr-defined]

        def work() -> None:
            for batch in lines:
                os.write(bare, b"".join(batch))
                os.fsync(bare)

        return sum(map(len, lines)) / seconds(work)

    with Log.open(folder / "log", "bench/log", key, 1) as log:

        def logged() -> float:
            def work() -> None:
                for batch in share:
                    log.append(*batch)  # type: ignore[arg-type]

            rate = sum(map(len, share)) / seconds(work)
            log.checkpoint(1)
            return rate

        figures: dict[str, list[float]] = {"bare": [], "log": []}
        for turn in range(TURNS):
            share[:] = batches(entries(count // TURNS))
            for name in ("bare", "log") if turn % 2 else ("log", "bare"):
                figures[name].append({"bare": plainly, "log": logged}[name]())
    os.close(bare)
    return figures


def plain_hash(path: Path) -> bytes:
    """Return SHA-256 over a file in one go."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").digest()


def leaves_and_nodes(path: Path) -> bytes:
    """Return the root by the bare hashes that RFC 6962 asks for, with all leaves in memory."""
    from quire.transparency.merkle import leaf_hashes, parents

    level, pending = leaf_hashes(path.read_bytes().splitlines(keepends=True)), []
    while level:
        if len(level) % 2:
            pending.append(level.pop())
        level = parents(level)
    return pending[-1]


def blocks(size: int) -> int:
    """Return how many blocks SHA-256 works through for so many bytes: the message, a byte, and its length."""
    return (size + 9 + 63) // 64


def longest_path(path: Path, proofs: int) -> tuple[int, int, float]:
    """Return the most hashes of some proofs, out of how many entries, and the milliseconds that one takes."""
    from quire.transparency.merkle import leaf_hash, verify_inclusion
    from quire.transparency.reading import Entries

    found, rng = Entries(path), random.Random(7)
    tree, root, longest, spent = found.tree, found.tree.root(), 0, 0.0
    for _ in range(proofs):
        index = rng.randrange(tree.size)
        started = time.perf_counter()
        proof = tree.inclusion(index)
        spent += time.perf_counter() - started
        verify_inclusion(leaf_hash(found.lines(index, index + 1)[0]), index, tree.size, proof, root)
        longest = max(longest, len(proof))
    return longest, tree.size, 1e3 * spent / proofs


def peak_memory(path: Path) -> float:
    """Return the most memory, in MiB, that opening a log takes."""
    from quire.transparency.reading import Entries

    tracemalloc.start()
    Entries(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak / 2**20


def main() -> int:
    """Measure."""
    from quire.transparency.reading import Entries
    from quire.transparency.verify import Place, verify_log

    args = harness.arguments(__doc__)
    count = 20_000 if args.quick else 1_000_000
    with tempfile.TemporaryDirectory() as name:
        rates = appending(Path(name), count)
        place = Place.of(Path(name) / "log")
        path, size = place.entries, place.entries.stat().st_size
        longest, total, each = longest_path(path, 200)
        memory = peak_memory(path)
        wrong = verify_log(place).wrong
        if wrong:
            raise SystemExit(f"The log that was just written does not verify: {wrong[0]}")
        contenders = {
            "plain": lambda: seconds(lambda: plain_hash(path)),
            "hashes": lambda: seconds(lambda: leaves_and_nodes(path)),
            "tree": lambda: seconds(lambda: Entries(path)),
            "verify": lambda: seconds(lambda: verify_log(place)),
        }
        measured = harness.interleaved(contenders, 5)
        with path.open("rb") as file:
            work = sum(blocks(1 + len(line)) for line in file) + (total - 1) * blocks(65)
    took = {kind: statistics.median(values) for kind, values in measured.items()}
    shown = ", ".join(f"{kind} {1e6 * value / total:.2f}" for kind, value in took.items())
    rate = {kind: statistics.median(values) for kind, values in rates.items()}
    figures = [
        harness.Figure(
            f"log: durable append in batches of {BATCH}, times bare write and fsync of the same bytes",
            harness.median_ratio(rates, "log", "bare"),
            ">= 0.5",
            f"{total} entries, {size / 1e6:.0f} MB; {rate['log']:.0f} entries/s against {rate['bare']:.0f}",
        ),
        harness.Figure(
            "log: hashes of a proof of inclusion, less ceil(log2 n), the most over random entries",
            float(longest - math.ceil(math.log2(total))),
            "<= 0",
            f"n = {total}: {longest} hashes; {each:.2f} ms to make one from the file",
        ),
        harness.Figure(
            "log: full verification, times SHA-256 of the same bytes in one go",
            harness.median_ratio(measured, "verify", "plain"),
            "<= 2",
            f"microseconds an entry: {shown}; of `verify` what is beyond `tree` is the form of every entry",
        ),
        harness.Figure(
            "log: recomputing the tree from the file, times the tree's bare hashes",
            harness.median_ratio(measured, "tree", "hashes"),
            None,
            "what reading, cutting into lines and keeping nodes add, against all leaves in memory",
        ),
        harness.Figure(
            "log: what RFC 6962 has to hash, in blocks of SHA-256, times those of the bytes in one go",
            work / blocks(size),
            None,
            f"the floor of the figure above for entries of {size / total:.0f} bytes, in any language",
        ),
        harness.Figure("log: most memory while it is opened, MiB", memory, None, f"{total} entries"),
    ]
    return harness.report(figures, args, "The transparency log")


if __name__ == "__main__":
    sys.exit(main())
