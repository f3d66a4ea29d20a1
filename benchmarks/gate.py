"""The gate: what it costs to hold a bundle against the operator's list.

A bundle of 10 MB, the largest that Flower takes, is read from disk, hashed and looked up among a hundred approvals,
in a process of its own. Beside it, in turns, a process that does nothing but SHA-256 of the same bytes. Once the
archive itself is on the list, once only its content, so that it has to be unpacked to be recognised.
"""

from __future__ import annotations

import io
import random
import statistics
import subprocess
import sys
import tempfile
import time
import zipfile
from pathlib import Path

import harness

PLAIN = "import hashlib, sys; hashlib.sha256(open(sys.argv[1], 'rb').read()).hexdigest()"
NOTHING = "pass"
ADMIT = """
import sys
from pathlib import Path
from quire.clients.gate.approvals import approved_hash, read_approvals
from quire.clients.gate.bundle import read_bundle
if approved_hash(read_bundle(Path(sys.argv[1])), read_approvals(Path(sys.argv[2]))) is None:
    sys.exit("not approved")
"""
APPROVALS = 100


def bundle(size: int) -> bytes:
    """Return an archive of at most so many bytes, of text that deflates to about two thirds, as encoded weights do."""
    rng, buffer = random.Random(7), io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("pyproject.toml", "[project]\n")
        number = 0
        while buffer.tell() < size - 300_000:
            archive.writestr(f"app/part_{number}.json", rng.randbytes(200_000).hex())
            number += 1
    return buffer.getvalue()


def seconds(program: str, *arguments: Path) -> float:
    """Return how long a process takes from its start to its end."""
    started = time.perf_counter()
    command = [sys.executable, "-c", program, *map(str, arguments)]
    subprocess.run(command, env=harness.child_environment(), check=True)
    return time.perf_counter() - started


def main() -> int:
    """Measure, in turns."""
    from quire.clients.gate.approvals import Approval, approve
    from quire.clients.gate.bundle import MAX_BYTES, Bundle

    args = harness.arguments(__doc__)
    raw = bundle(MAX_BYTES)
    with tempfile.TemporaryDirectory() as name:
        fab = Path(name) / "app.fab"
        fab.write_bytes(raw)
        lists = {"archive": Bundle(raw).fab, "content": Bundle(raw).content}
        others = tuple(f"{number:064x}" for number in range(APPROVALS))
        for kind, known in lists.items():
            approve(Path(name) / f"{kind}.json", Approval((*others, known)))
        contenders = {
            "start": lambda: seconds(NOTHING),
            "plain": lambda: seconds(PLAIN, fab),
            "archive": lambda: seconds(ADMIT, fab, Path(name) / "archive.json"),
            "content": lambda: seconds(ADMIT, fab, Path(name) / "content.json"),
        }
        measured = harness.interleaved(contenders, 9 if args.quick else 41)
    size, unpacked = len(raw) / 1e6, sum(map(len, Bundle(raw).files.values())) / 1e6
    milliseconds = {kind: 1e3 * statistics.median(values) for kind, values in measured.items()}
    shown = ", ".join(f"{kind} {value:.0f} ms" for kind, value in milliseconds.items())
    note = f"{size:.1f} MB bundle, each in a process of its own; medians: {shown}"
    figures = [
        harness.Figure(
            "gate: hash and approval of a bundle, times SHA-256 of its bytes and process start",
            harness.median_ratio(measured, "archive", "plain"),
            "< 2",
            note,
        ),
        harness.Figure(
            "gate: the same when only the content is approved and the bundle must be unpacked",
            harness.median_ratio(measured, "content", "plain"),
            None,
            f"{unpacked:.0f} MB unpacked and hashed",
        ),
    ]
    return harness.report(figures, args, "The gate")


if __name__ == "__main__":
    sys.exit(main())
