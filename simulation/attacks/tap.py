"""One run through the apps of the product, and what each observer saw of it.

The taps sit where observers are: on the messages between server and silos as they are on the wire, and at the step
that the server takes. An attack is given some of :class:`Seen` and nothing else of a run.
"""

from __future__ import annotations

import json
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from flwr.app import ArrayRecord, Message

from quire.clients import contract
from quire.clients.arrays import Arrays, decode
from quire.conf.compose import compose
from quire.conf.schema import NoPrivacy, Settings
from quire.simulation.attacks.errors import AttackInput
from quire.simulation.inline import run_inline
from quire.simulation.plain import quietly
from quire.strategies.card import CARD_FILE
from quire.strategies.rounds import RoundState
from quire.strategies.watch import watching


@dataclass(frozen=True)
class Spent:
    """What a private run spent, as its own card says.

    Attributes
    ----------
    epsilon, delta : float
        Of the worst silo.
    unit : str
        What is protected: ``record`` or ``silo``.
    """

    epsilon: float
    delta: float
    unit: str


@dataclass(eq=False)
class Seen:
    """What was seen of one run, by whom.

    Attributes
    ----------
    settings : Settings
        Known to all parties.
    models : list of dict of str to numpy.ndarray
        Global models: before each round, and the final one. Every silo sees them all, a user of the model the last.
    means : list of dict of str to numpy.ndarray of float64
        The mean update of each round as the server has it: under masks what the opened sum came to, with whatever
        noise there was in it.
    updates : list of dict of str to dict of str to numpy.ndarray
        In each round, by silo, the update that came in clear. Empty where none comes in clear.
    spent : Spent or None
        For the page alone.
    """

    settings: Settings
    models: list[Arrays] = field(default_factory=list)
    means: list[Arrays] = field(default_factory=list)
    updates: list[dict[str, Arrays]] = field(default_factory=list)
    spent: Spent | None = None

    def sums_only(self) -> bool:
        """Tell whether no update of a single silo was seen."""
        return not any(self.updates)


def observe(overrides: str) -> Seen:
    """Run a federation in this process, and note what was seen of it; the run's folder is thrown away.

    Parameters
    ----------
    overrides : str
        Settings as for ``quire run``. Nobody is asked to score the model, and no baselines are trained.

    Raises
    ------
    QuireError
        If the settings are refused or the run had to stop.
    """
    settings = compose(overrides)
    seen = Seen(settings)

    def step(before: RoundState, mean: Arrays, after: RoundState) -> None:
        seen.models[before.round :] = [before.model, after.model]
        seen.means.append(mean)

    def heard(message: Message, reply: Message) -> None:
        if message.metadata.message_type != contract.TRAIN:
            return
        config: Any = message.content[contract.CONFIG]
        if config[contract.ROUND] > len(seen.updates):
            seen.updates.append({})
        if reply.has_error() or not isinstance(record := reply.content.get(contract.UPDATE), ArrayRecord):
            return
        identity: Any = reply.content.get(contract.IDENTITY)
        seen.updates[-1][str(identity[contract.SILO])] = decode(record)

    with tempfile.TemporaryDirectory(prefix="quire-attack-") as scratch, watching(step), quietly():
        folder = run_inline(settings, Path(scratch) / "run", listener=heard).folder
        if not isinstance(settings.privacy, NoPrivacy):
            seen.spent = _spent(folder)
    if len(seen.means) != settings.strategy.rounds:
        raise AttackInput("A round of the run was lost, so there is less to see than the settings say: try again.")
    return seen


def _spent(folder: Path) -> Spent:
    card = json.loads((folder / CARD_FILE).read_text(encoding="utf-8"))
    worst = max((silo["statement"] for silo in card["silos"]), key=lambda said: float(said["epsilon"]))
    return Spent(float(worst["epsilon"]), float(worst["delta"]), str(worst["unit"]))
