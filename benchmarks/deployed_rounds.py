"""Rounds of a deployed consortium beside those of Flower as it comes, and a round whose SuperLink is killed."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import harness
import psutil
from deployed import Deployed, rounds_of
from plain_flower import Federation, cpu_seconds, roles

SHARED = "the machine was shared with other work: trust ratios and processor time"
OVERRIDES = (
    "task=tabular data=files aggregation=secure aggregation.max_rows=1000 output.report=false output.baselines=false "
    "output.progress=none runtime.join_timeout=600"
)
EXCHANGES = 4
RECOVERY = "recovery: seconds from the SuperLink's return to the next round's start"
#: Contenders by whether their client imports torch, and what they are called.
FLOWERS = ("flower", "flower-torch")
_WORDS = {"flower": "Flower as it comes, no torch", "flower-torch": "Flower as it comes, torch imported"}


#: What processes of ours are for, by words of their command lines. The warm process waits for those of messages.
ROLES = {
    "SuperLink": "flower-superlink",
    "silos' processes for messages": "gate/warm.py",
    "SuperNodes": "consortium.supernode",
    "executors": "flower-superexec",
    "proxies": "haproxy",
    "ServerApp": "handed_on.py",
    "supervisors": "-m quire",
}


@dataclass(frozen=True)
class Rounds:
    """What rounds of one contender took.

    Attributes
    ----------
    round, exchange : float
        Seconds, medians; of an exchange that does not train.
    cpu : float
        Seconds of processor time for a round.
    roles : dict of str to float
        The same by what it is spent in; empty where that is not looked at.
    """

    round: float
    exchange: float
    cpu: float
    roles: dict[str, float] = field(default_factory=dict)


def overrides(silos: int, rounds: int, least: int) -> str:
    """Return the settings of a run."""
    return f"{OVERRIDES} partition.silos={silos} strategy.rounds={rounds} strategy.min_silos={least}"


def stages_of(line: dict[str, Any]) -> dict[str, float]:
    """Return the seconds of each exchange of a round."""
    return {
        name: stage["seconds"] for attempt in line["secure"]["attempts"] for name, stage in attempt["stages"].items()
    }


def ours(silos: int, rounds: int) -> Rounds:
    """Start a consortium, run it, stop it. The first round is not counted: in it the session is made."""
    with Deployed(silos) as consortium:
        consortium.start()
        run = consortium.submit(overrides(silos, rounds + 1, silos))
        consortium.reached(run, 1)
        before = roles(consortium.processes, ROLES)
        consortium.reached(run, rounds + 1)
        after = roles(consortium.processes, ROLES)
        consortium.reached(run)
        stages = [stages_of(line) for line in rounds_of(run)[1:]]
    spent = {role: (seconds - before[role]) / rounds for role, seconds in after.items()}
    return Rounds(
        statistics.median(sum(stage.values()) for stage in stages),
        statistics.median(seconds for stage in stages for name, seconds in stage.items() if name != "shares"),
        sum(spent.values()),
        spent,
    )


def flowers(nodes: int, rounds: int, torch: bool) -> Rounds:
    """Start Flower as it comes, run the app, stop it."""
    with Federation(nodes) as federation:
        federation.run(rounds=0)  # until all are there
        before = cpu_seconds(federation.processes)
        federation.run(rounds=0)
        empty = cpu_seconds(federation.processes) - before
        found = federation.run(rounds=rounds, torch=torch)
        spent = cpu_seconds(federation.processes) - before - 2 * empty
    return Rounds(
        statistics.median(sum(stages) for stages in found),
        statistics.median(seconds for stages in found for seconds in stages),
        spent / rounds,
    )


def rounds_figures(silos: int, rounds: int, repetitions: int, beside: Sequence[str]) -> list[harness.Figure]:
    """Measure rounds, in turns with those of some of ``FLOWERS``."""
    found: dict[str, list[Rounds]] = {}

    def contender(name: str, make: Callable[[], Rounds]) -> Callable[[], float]:
        def once() -> float:
            found.setdefault(name, []).append(make())
            return found[name][-1].round

        return once

    contenders = {"ours": contender("ours", lambda: ours(silos, rounds))}
    for name in beside:
        contenders[name] = contender(name, lambda name=name: flowers(silos, rounds, name == "flower-torch"))
    taken = harness.interleaved(contenders, repetitions)
    figures = []
    for name in beside:
        words = _WORDS[name]
        ratio = harness.median_ratio(taken, name, "ours")
        cpu = statistics.median(a.cpu / b.cpu for a, b in zip(found[name], found["ours"], strict=True))
        note = f"{words}: {harness.spread(taken[name])} s a round of four exchanges; {SHARED}"
        figures.append(harness.Figure(f"round: {words}, times ours", ratio, ">= 2", note))
        figures.append(
            harness.Figure(
                f"round: processor time, {words}, times ours",
                cpu,
                None,
                f"{statistics.median(one.cpu for one in found[name]):.1f} s of all its processes for a round",
            )
        )
        figures.append(
            harness.Figure(
                f"exchange: {words}, times ours without training",
                statistics.median(a.exchange / b.exchange for a, b in zip(found[name], found["ours"], strict=True)),
                None,
                f"{statistics.median(one.exchange for one in found[name]):.2f} s",
            )
        )
    mine = found["ours"]
    figures += [
        harness.Figure(
            f"round: ours, {silos} silos, seconds",
            statistics.median(taken["ours"]),
            None,
            harness.spread(taken["ours"]),
        ),
        harness.Figure("exchange: ours, without training, seconds", statistics.median(one.exchange for one in mine)),
        harness.Figure(
            "round: ours, processor seconds of all processes",
            statistics.median(one.cpu for one in mine),
            None,
            "server and silos, the exchange that trains included: "
            + ", ".join(
                f"{role} {statistics.median(one.roles[role] for one in mine):.1f}" for role in sorted(mine[0].roles)
            ),
        ),
    ]
    return figures


def recovery(silos: int, kills: int) -> harness.Figure:
    """Kill the SuperLink after a round, more than once; the value is the median."""
    taken, away = [], []
    with Deployed(silos) as consortium:
        consortium.start()
        run = consortium.submit(overrides(silos, 2 * kills + 1, silos))
        for kill in range(kills):
            consortium.reached(run, 2 * kill + 1)
            ready = [event for event in consortium.events("server") if event["service"] == "superlink"]
            told = [event["words"] for event in ready if "is ready" in event["words"]]
            psutil.Process(int(told[-1].split("process ")[1].split(",")[0])).kill()
            killed, starts = time.monotonic(), len(told)
            consortium.wait(
                lambda starts=starts: consortium.said("server", "superlink", "is ready") > starts,
                120.0,
            )
            back = time.monotonic()
            consortium.reached(run, 2 * kill + 2)
            taken.append(time.monotonic() - back)
            away.append(back - killed)
        consortium.reached(run)
        usual = statistics.median(sum(stages_of(line).values()) for line in rounds_of(run)[2::2])
    return harness.Figure(
        RECOVERY,
        statistics.median(taken),
        "< 30",
        f"{kills} kills, {harness.spread(taken)} s; it was back {statistics.median(away):.1f} s after SIGKILL; a round "
        f"without that took {usual:.1f} s, and the one under way is finished first; {SHARED}",
    )
