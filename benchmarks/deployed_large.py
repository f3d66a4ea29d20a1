"""A round of a deployed consortium whose messages have as many bytes as a deployment carries."""

from __future__ import annotations

import harness
import psutil
from deployed import Deployed, rounds_of
from deployed_rounds import ROLES

#: An MLP of 64 million parameters: two hidden layers as wide as this, over thirty columns and two classes.
WIDE = 8_000
PARAMETERS = 30 * WIDE + WIDE + WIDE * WIDE + WIDE + 2 * WIDE + 2
TITLE = "large messages: seconds of a round with messages of 245 MiB"
OVERRIDES = (
    f"task=tabular data=files task.model=mlp task.hidden=[{WIDE},{WIDE}] aggregation=plain strategy.rounds=2 "
    "strategy.fraction_evaluate=0 output.report=false output.baselines=false output.progress=none "
    "runtime.join_timeout=600"
)


class Peaks(harness.Beside):
    """Notes the most memory (PSS) that the largest process of each role takes.

    Parameters
    ----------
    consortium : Deployed

    Attributes
    ----------
    most : dict of str to float
        Bytes.
    """

    def __init__(self, consortium: Deployed) -> None:
        super().__init__(1.0)
        self.most: dict[str, float] = {}
        self._tree = consortium.processes
        self._roles = {**ROLES, "a silo's process for a message": "flwr-clientapp"}

    def look(self) -> bool:
        """Look once; say whether to go on."""
        for process in self._tree.update():
            try:
                line, size = " ".join(process.cmdline()), float(process.memory_full_info().pss)
            except psutil.Error:
                continue
            role = next((role for role, words in self._roles.items() if words in line), "others")
            self.most[role] = max(self.most.get(role, 0.0), size)
        return True


def large(silos: int) -> harness.Figure:
    """Let silos train such a model, and say how long a round takes and how much memory."""
    with Deployed(silos) as consortium, Peaks(consortium) as peaks:
        consortium.start()
        run = consortium.submit(f"{OVERRIDES} partition.silos={silos} strategy.min_silos={silos}")
        consortium.reached(run, limit=3000.0)
        lines = rounds_of(run)
    told = ", ".join(f"{role} {size / 2**30:.1f}" for role, size in sorted(peaks.most.items(), key=lambda x: -x[1])[:5])
    return harness.Figure(
        TITLE,
        sum(lines[-1]["seconds"].values()),
        None,
        f"{silos} silos, {PARAMETERS:,} parameters, updates in the clear, through both proxies, {len(lines)} rounds; "
        f"GiB of the largest process: {told}",
    )
