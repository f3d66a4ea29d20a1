"""What a transparency log costs a round of secure aggregation: rounds with and without one, side by side in one run.

Ten simulated silos in one process train on digits under masks, with a log that all countersign and without, in turns. A
round is what lies between two lines of the journal; the first one, with the session, does not count.

What a silo costs there, in milliseconds, is then set against the round of a consortium on loopback whose server has a
log, as ``benchmarks/deployment.py`` starts one: three silos, each with proxy, SuperNode and gate. That share is worked
out from two figures of one run, not measured: a few milliseconds cannot be told from what such rounds vary by. It
counts what silos do side by side as if they did it in a row, and on top what one of them spends on its disk. The two
parts are not measured at the same moment: where the machine is shared with other work, trust its order of magnitude.

What the time goes into, by a profile: a signature and three verifications for each silo (of what it remembers, of what
it is shown, and of its countersignature, at the server) are about a quarter of the processor time. The rest is reading,
writing and copying small records in Python, for ten silos in one process. A round's log takes three fsyncs, in an order
that no crash may change: countersignatures, entries, the checkpoint over them.
"""

from __future__ import annotations

import os
import statistics
import sys
import tempfile
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import harness

SILOS, DEPLOYED = 10, 3
SETTINGS = (
    f"task=digits partition=iid partition.silos={SILOS} aggregation=secure strategy.fraction_evaluate=0 "
    "output.report=false output.baselines=false output.progress=none"
)


def rounds_of_run(folder: Path, rounds: int, key: Path | None) -> tuple[list[float], list[float]]:
    """Run a federation in this process; return for each round from the second on its seconds, and those of processor.

    From one round's line in the journal to the next: all that a round is made of, the log's entries and checkpoint too.
    """
    import quire
    from quire.strategies.folder import RunFolder

    moments: list[tuple[float, float]] = []
    done = RunFolder.round_done

    def watched(self: RunFolder, report: Any, state: Any) -> None:
        done(self, report, state)
        moments.append((time.perf_counter(), time.process_time()))

    os.environ.pop("QUIRE_LOG_KEY", None)
    if key is not None:
        os.environ["QUIRE_LOG_KEY"] = str(key)
    RunFolder.round_done = watched  # type: ignore[method-assign]
    try:
        quire.run(f"{SETTINGS} strategy.rounds={rounds}", folder)
    finally:
        RunFolder.round_done = done  # type: ignore[method-assign]
        os.environ.pop("QUIRE_LOG_KEY", None)
    took = [(after[0] - before[0], after[1] - before[1]) for before, after in pairwise(moments)]
    return [seconds for seconds, _ in took], [seconds for _, seconds in took]


def taking(folder: Path, times: int) -> list[float]:
    """Return the seconds in which a silo checks a checkpoint, remembers it on its disk and countersigns it."""
    from quire.privacy.identity.keys import PrivateIdentity
    from quire.transparency.checkpoints import countersign
    from quire.transparency.entries import Entry
    from quire.transparency.log import Log
    from quire.transparency.memory import Memory

    server, silo = (PrivateIdentity.from_seed(name.ljust(32)) for name in (b"server", b"silo"))
    memory, found = Memory(folder / "logs"), []
    with Log.open(folder / "log", "bench/rounds", server, 1) as log:
        before = 0
        for number in range(times):
            log.append(*(Entry("model", "run-7", number + 1, 1, {"model": f"{number:064x}"}) for _ in range(20)))
            note = log.checkpoint(1)
            path = log.consistency(before, note.checkpoint.size) if before else []
            started = time.perf_counter()
            memory.accept(note, server.public, path)
            countersign(note.checkpoint, "silo-1", silo, 1)
            found.append(time.perf_counter() - started)
            before = note.checkpoint.size
    return found


def deployed_seconds(key: Path, rounds: int) -> list[float]:
    """Return the seconds of rounds of a deployed consortium whose server has a log; the first does not count."""
    from deployed import Deployed, rounds_of
    from deployed_rounds import overrides, stages_of

    with Deployed(DEPLOYED) as consortium:
        consortium.variables["QUIRE_LOG_KEY"] = str(key)
        consortium.start()
        run = consortium.submit(overrides(DEPLOYED, rounds + 1, DEPLOYED))
        consortium.reached(run)
        lines = rounds_of(run)
        if not all(line["secure"].get("checkpoint") for line in lines):
            raise RuntimeError("The rounds of the deployed consortium were bound to no log.")
        return [sum(stages_of(line).values()) for line in lines[1:]]


def deployed_figure(key: Path, each: float, disk: float, quick: bool) -> harness.Figure:
    """Set what a silo costs against a deployed round."""
    name = f"log: the same for {DEPLOYED} silos, as a share of a deployed round (worked out)"
    if quick:
        return harness.Figure(name, None, None, "not measured in the short form")
    seconds = deployed_seconds(key, 4)
    cost, whole = DEPLOYED * each + disk, statistics.median(seconds)
    return harness.Figure(
        name,
        cost / whole,
        None,
        f"{1e3 * cost:.1f} ms ({DEPLOYED} times {1e3 * each:.2f} ms, and {1e3 * disk:.2f} ms of a silo with a disk) of "
        f"{whole:.2f} s ({harness.spread(seconds)}), four exchanges on loopback",
    )


def figures(quick: bool) -> list[harness.Figure]:
    """Measure."""
    from quire.clients.identity import new_identity

    turns, rounds = (2, 4) if quick else (6, 15)
    with tempfile.TemporaryDirectory() as name:
        home = Path(name)
        new_identity(home / "log.key")
        took: dict[str, list[float]] = {"with": [], "without": []}
        worked: dict[str, list[float]] = {"with": [], "without": []}
        for turn in range(turns):
            for kind in ("with", "without") if turn % 2 else ("without", "with"):
                key = home / "log.key" if kind == "with" else None
                seconds, processor = rounds_of_run(home / f"{kind}-{turn}", rounds, key)
                took[kind].append(statistics.median(seconds))
                worked[kind].append(statistics.median(processor))
        silo = statistics.median(taking(home, 20 if quick else 200))
        median = {kind: statistics.median(values) for kind, values in took.items()}
        each = statistics.median(a - b for a, b in zip(took["with"], took["without"], strict=True)) / SILOS
        busy = statistics.median(a - b for a, b in zip(worked["with"], worked["without"], strict=True)) / SILOS
        deployed = deployed_figure(home / "log.key", each, silo, quick)
    overhead = harness.median_ratio(took, "with", "without") - 1.0
    return [
        harness.Figure(
            "log: what log and countersignatures add to a secure round, as a share of it",
            overhead,
            "< 0.05",
            f"digits, {SILOS} simulated silos in one process, one epoch each, no evaluation: median round "
            f"{1e3 * median['with']:.1f} ms with and {1e3 * median['without']:.1f} ms without, "
            f"{1e6 * each:.0f} microseconds a silo; "
            "their memory is not on a disk",
        ),
        harness.Figure(
            "log: the same in processor time, as a share of a round's",
            harness.median_ratio(worked, "with", "without") - 1.0,
            None,
            f"{1e6 * busy:.0f} microseconds a silo; what is missing to the figure above is waiting for three fsyncs a "
            "round, and for a processor where the machine is shared",
        ),
        harness.Figure(
            "log: a silo takes a checkpoint, remembers it on its disk and countersigns it, microseconds",
            1e6 * silo,
            None,
            "with the fsyncs; that is once a round, beside those of its store",
        ),
        deployed,
    ]


def main() -> int:
    """Measure, and report."""
    args = harness.arguments(__doc__)
    return harness.report(figures(args.quick), args, "Rounds with a transparency log")


if __name__ == "__main__":
    sys.exit(main())
