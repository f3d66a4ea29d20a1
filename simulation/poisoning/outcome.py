"""What came of an attack: how often the final model does what the attackers wanted, beside its accuracy.

Measured on the test rows of all silos, none of which anybody trained on.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from quire.clients.data.silo import Rows, concatenate
from quire.clients.training import Workbench
from quire.conf.attack_schema import BackdoorAttack, LabelFlipAttack
from quire.conf.schema import Attack, Settings
from quire.simulation.personal import final_model
from quire.simulation.poisoning import OUTCOME_FILE
from quire.simulation.poisoning.rows import flipped, triggered
from quire.simulation.predicted import predicted
from quire.simulation.silos import local_silos
from quire.strategies.checkpoint import replace


def write_outcome(settings: Settings, folder: Path, silos: Path | None = None) -> dict[str, Any] | None:
    """Measure what came of the attack on a completed run, and write ``attack.json``; None without an attack.

    Parameters
    ----------
    settings : Settings
        Of the run.
    folder : pathlib.Path
        The run's folder, holding ``model.safetensors``.
    silos : pathlib.Path, optional
        Of the silos' files, where they read their own rows.

    Returns
    -------
    dict or None
        ``scores``: of the model on all test rows. Where the attack has an aim beyond harm, ``success``: the share of
        the ``rows`` to which the model gives what the attackers wanted, and ``without``: the share to which it would
        give that without the trigger.

    Raises
    ------
    QuireError
        If the model cannot be read.
    """
    if not isinstance(settings.attack, Attack):
        return None
    local = local_silos(settings, silos)
    bench = Workbench(local.task(settings))
    bench.load(final_model(folder))
    rows = concatenate([silo.test for silo in local.data(settings)])
    found = {"attack": settings.attack.name, "scores": bench.score(rows), **_success(settings.attack, bench, rows)}
    replace(folder / OUTCOME_FILE, json.dumps(found, indent=1, allow_nan=False).encode())
    return found


def _success(attack: Attack, bench: Workbench, rows: Rows) -> dict[str, Any]:
    if isinstance(attack, BackdoorAttack):
        others = rows.take(np.flatnonzero(rows.y != attack.target))
        marked = Rows(triggered(attack, others.x), others.y)
        return {
            "wanted": f"class {attack.target} for rows of other classes that have the trigger",
            "rows": len(others),
            "success": float((predicted(bench, marked) == attack.target).mean()) if len(others) else 0.0,
            "without": float((predicted(bench, others) == attack.target).mean()) if len(others) else 0.0,
        }
    if isinstance(attack, LabelFlipAttack):
        aim = flipped(rows.y, bench.task.classes)
        moved = aim != rows.y
        hits = (predicted(bench, rows) == aim)[moved]
        return {
            "wanted": "class C - 1 - y for rows of class y",
            "rows": int(moved.sum()),
            "success": float(hits.mean()) if hits.size else 0.0,
        }
    return {}
