"""A deployed consortium on loopback: rounds, recovery, many silos, large messages, the proxy under load, a flood.

**Rounds.** Four silos, each with its proxy, SuperNode and gate, before them the server's proxy with mutual TLS, node
authentication and the state in SQLite: each trains on its own CSV file of breast cancer rows with
``aggregation=secure``, where one of the four exchanges of a round trains. Beside it, in turns, Flower as it comes:
SuperLink in memory, four SuperNodes, no TLS, and an app that sends 31 numbers there and back four times, by
``send_and_receive``; once as it is, once with torch imported by its client, as every app that trains does. Processor
time is that of all processes of a contender; starting a run is not counted, nor making the session.

Server and silos share the machine's cores, which are busy for most of a round: the processor seconds by role say with
what. The SuperLink's part is requests: for each object of a message one, about six a message and way, and every
SuperNode's question whether there is a message. A silo's part is the processes of each message, which unpack and import
the approved code anew. On machines of their own silos do that side by side.

**Recovery.** The SuperLink is killed with SIGKILL after a round, three times. Counted is from when its supervisor has
it ready again to the start of the round after the one that was under way: that one's remaining exchanges are in it.

**Many silos.** Flower's SuperNodes with their executors, and the protocol itself (session and round, seven exchanges)
in a client that imports no torch. Memory is PSS, so that what processes share counts once, at its largest.

**Large messages.** Two silos and a model whose arrays are nearly as large as a deployment carries in one message.

**The proxy.** Requests by four threads of Python (neither wrk nor h2load is needed), against the proxy's own
configuration and the same without client certificates; a second HAProxy answers in the SuperLink's place.

**The flood.** One member of a consortium of three asks the SuperLink for messages as fast as the proxy lets it, signed
as its SuperNode's are, while the rounds of the other two go on. Without the proxy's slow
lane, in which a member with so many requests waits, this was 2.7: a request is a sixtieth of a second's work for the
SuperLink, and a member may have 200 a second.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import harness
import psutil
from deployed import Deployed, rounds_of
from deployed_large import TITLE, large
from deployed_rounds import EXCHANGES, FLOWERS, RECOVERY, SHARED, overrides, recovery, rounds_figures, stages_of
from plain_flower import Federation, cpu_seconds, memory
from proxy_load import Load, Proxies

#: Seconds that many silos have to come up, and for their round; bytes of memory that stay free.
MANY_LIMIT, LEAST_LEFT = 900.0, 2e9
FLOOD = "flood: a round's exchanges without training while a third member floods, times without the flood"


def many(nodes: int) -> list[harness.Figure]:
    """Let many SuperNodes of Flower's go through a session and a round; stop before memory runs out."""
    left = psutil.virtual_memory().available
    fit = int((left - 3e9) // 0.35e9)  # a SuperNode, its executor, and two processes while a message is worked on
    asked, nodes = nodes, min(nodes, fit)
    if nodes < 3:
        return [
            harness.Figure("many silos: nodes", None, None, f"not measured: {left / 1e9:.1f} GB of memory are free")
        ]
    with Federation(nodes) as federation, Watched(federation) as watched:
        began = time.monotonic()
        federation.run(MANY_LIMIT, rounds=0)
        up, idle = time.monotonic() - began, memory(federation.processes)
        watched.most = idle
        link = psutil.Process(federation.link)
        before, all_before = sum(link.cpu_times()[:2]), cpu_seconds(federation.processes)
        (seconds,) = federation.run(MANY_LIMIT, secure=True)
        spent, all_spent = sum(link.cpu_times()[:2]) - before, cpu_seconds(federation.processes) - all_before
    messages = nodes * len(seconds)
    figures = [
        harness.Figure(
            f"many silos: seconds of a session and a round with {nodes} SuperNodes",
            sum(seconds.values()),
            None,
            ", ".join(f"{name} {value:.0f}" for name, value in seconds.items()) + f"; all were there after {up:.0f} s",
        ),
        harness.Figure(
            f"many silos: peak memory of {nodes} SuperNodes and the server, GB",
            watched.most / 1e9,
            None,
            f"{idle / 1e9:.1f} GB while idle"
            + ("" if nodes == asked else f"; of {asked} no more fit into {left / 1e9:.0f} GB"),
        ),
        harness.Figure(
            "many silos: processor seconds for a message at silo and server together",
            all_spent / messages,
            None,
            "what limits the round on this machine: two processes are started for each message",
        ),
    ]
    return [*figures, *extrapolated(spent / messages, nodes)]


class Watched(harness.Beside):
    """Notes how much memory a federation takes, and ends it before the machine has none left.

    Parameters
    ----------
    federation : Federation

    Attributes
    ----------
    most : float
        Bytes, the most that was seen.
    """

    def __init__(self, federation: Federation) -> None:
        super().__init__(2.0)
        self.most, self._federation = 0.0, federation

    def look(self) -> bool:
        """Look once; say whether to go on."""
        self.most = max(self.most, memory(self._federation.processes))
        enough = psutil.virtual_memory().available >= LEAST_LEFT
        if not enough:
            self._federation.give_up(f"less than {LEAST_LEFT / 1e9:.0f} GB of memory were left")
        return enough


def extrapolated(per_message: float, nodes: int) -> list[harness.Figure]:
    """Say what the SuperLink alone would take for rounds with more silos, each on its own machine.

    The model: seconds = exchanges x silos x processor time of the SuperLink for a message, as it serves from one
    process; memory = silos x the bytes of a message, once down and once up; polls = silos x (1 / pause).
    """
    figures = [
        harness.Figure(
            "many silos: processor milliseconds of the SuperLink for a message, with its polls",
            1e3 * per_message,
            None,
            f"measured with {nodes} SuperNodes: every object of a message is a request of its own",
        )
    ]
    for silos in (1_000, 10_000):
        seconds = EXCHANGES * silos * per_message
        figures.append(
            harness.Figure(
                f"many silos: extrapolated to {silos:,}, seconds of the SuperLink for a round",
                seconds,
                None,
                f"{EXCHANGES} x {silos:,} x {1e3 * per_message:.0f} ms; {silos * 8 / 1e3:.0f} GB for a million "
                f"parameters of 4 bytes down and up; {silos / 3:,.0f} polls a second at Flower's 3 s",
            )
        )
    return figures


def proxy_figures(seconds: float, repetitions: int) -> list[harness.Figure]:
    """Load the proxy with and without client certificates, in turns."""
    with Deployed(1) as consortium:
        (name, silo), *_ = consortium.silos.items()
        proxies = Proxies(consortium.operator, silo, name)
        try:
            kinds = {"open": False, "fresh": True}
            found: dict[str, list[Load]] = {f"{kind}{mutual}": [] for kind in kinds for mutual in (True, False)}

            def contender(kind: str, mutual: bool) -> Callable[[], float]:
                def once() -> float:
                    found[f"{kind}{mutual}"].append(proxies.load(mutual, kinds[kind], seconds))
                    return found[f"{kind}{mutual}"][-1].rate

                return once

            turns = {f"{kind}{mutual}": contender(kind, mutual) for kind in kinds for mutual in (True, False)}
            harness.interleaved(turns, repetitions)
        finally:
            proxies.close()
    figures = []
    for kind, words in (("open", "on open connections"), ("fresh", "each on a connection of its own")):
        with_, without = found[f"{kind}True"], found[f"{kind}False"]
        shown = "; ".join(
            f"{label}: {middle(loads, 'rate'):.0f}/s, p50 {middle(loads, 'p50'):.2f} ms, p99 "
            f"{middle(loads, 'p99'):.1f} ms, {middle(loads, 'proxy'):.3f} ms of the proxy's processor for one"
            for label, loads in (("mutual TLS", with_), ("without client certificates", without))
        )
        for figure, ratio in (
            ("requests a second", [a.rate / b.rate for a, b in zip(with_, without, strict=True)]),
            ("the proxy's processor time", [a.proxy / b.proxy for a, b in zip(with_, without, strict=True)]),
        ):
            figures.append(
                harness.Figure(
                    f"proxy: {figure} with mutual TLS, times without, {words}",
                    statistics.median(ratio),
                    None,
                    shown if figure == "requests a second" else "4 threads of Python ask",
                )
            )
    return figures


def middle(loads: list[Load], name: str) -> float:
    """Return the median of a figure."""
    return statistics.median(float(getattr(load, name)) for load in loads)


def flood(rounds: int) -> harness.Figure:
    """Let one member ask as much as it may while the rounds of two go on, and compare with rounds before and after."""
    calm: list[float] = []
    wild: list[float] = []
    with Deployed(3) as consortium:
        consortium.start(["server", *list(consortium.silos)[:2]])  # of the third there is the generator alone
        node = flooding_node(consortium)
        for wildly in (False, True, False, True):
            running = flooder(consortium, node) if wildly else None
            try:
                run = consortium.submit(overrides(2, rounds, 2))
                consortium.reached(run)
            finally:
                if running is not None:
                    running.kill()
                    running.wait()
            figures = [stages_of(line) for line in rounds_of(run)]
            taken = [sum(line[name] for name in ("mask", "confirm", "unmask")) for line in figures]
            (wild if wildly else calm).append(statistics.median(taken))
    slower = statistics.median(a / b for a, b in zip(wild, calm, strict=True))
    return harness.Figure(
        FLOOD,
        slower,
        "<= 1.2",
        f"{harness.spread(wild)} s against {harness.spread(calm)} s for three exchanges, in turns; "
        f"silos and generator share the machine's cores with the SuperLink; {SHARED}",
    )


def flooding_node(consortium: Deployed) -> int:
    """Return the number of the last silo's node."""
    from flwr.proto.control_pb2 import ListNodesRequest

    from quire.consortium.superlink import read_running

    with read_running(consortium.operator).connection.client() as client:
        nodes = client.ListNodes(ListNodesRequest()).nodes_info
    return next(int(node.node_id) for node in nodes if node.name == list(consortium.silos)[-1])


def flooder(consortium: Deployed, node: int) -> subprocess.Popen[bytes]:
    """Start a process that asks for messages as fast as it may."""
    name = list(consortium.silos)[-1]
    process = subprocess.Popen(
        [sys.executable, str(Path(__file__).with_name("proxy_load.py")), str(consortium.home), name],
        stdin=subprocess.PIPE,
        env=harness.child_environment(),
    )
    told = {"address": f"https://localhost:{consortium.port}", "node": node, "threads": 8}
    if process.stdin is not None:
        process.stdin.write((json.dumps(told) + "\n").encode())
        process.stdin.flush()
    return process


# Of each part its first figure, the goal of that, and how it is measured.
PARTS: dict[str, tuple[str, str | None, Callable[[], list[harness.Figure]]]] = {
    "rounds": ("round: Flower as it comes, times ours", ">= 2", lambda: rounds_figures(4, 3, 2, FLOWERS)),
    "recovery": (RECOVERY, "< 30", lambda: [recovery(4, 3)]),
    "many": ("many silos: seconds of a session and a round", None, lambda: many(30)),
    "large": (TITLE, None, lambda: [large(2)]),
    "proxy": ("proxy: requests a second with mutual TLS, times without", None, lambda: proxy_figures(4.0, 5)),
    "flood": (FLOOD, "<= 1.2", lambda: [flood(3)]),
}


def measured(name: str) -> list[harness.Figure]:
    """Measure a part, and say at once what came out; what cannot be measured is said to be so, and the rest goes on."""
    title, goal, measure = PARTS[name]
    try:
        figures = measure()
    except (RuntimeError, TimeoutError) as error:
        sys.stderr.write(f"{error}\n")
        figures = [harness.Figure(title, None, goal, f"not measured: {str(error).splitlines()[0]:.200}")]
    for item in figures:
        sys.stderr.write(f"{item.figure}: {harness.shown(item.value)} ({item.note})\n")
    sys.stderr.flush()
    return figures


def main() -> int:
    """Measure all, or the rounds of two silos and the proxy."""
    parser = harness.parser(__doc__)
    parser.add_argument("--only", action="append", choices=PARTS, help="measure this part; may be given repeatedly")
    args = parser.parse_args()
    if args.quick:
        figures = [*rounds_figures(2, 1, 1, ()), *proxy_figures(0.5, 2)]
        goals = [(title, goal) for title, goal, _ in PARTS.values() if goal is not None]
        left_out = "not measured: it takes minutes, and this is the short form"
        figures += [harness.Figure(title, None, goal, left_out) for title, goal in goals]
    else:
        figures = [item for name in args.only or PARTS for item in measured(name)]
    return harness.report(figures, args, "A deployed consortium")


if __name__ == "__main__":
    sys.exit(main())
