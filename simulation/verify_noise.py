"""``quire verify`` on noise that silos share: its numbers worked out anew, and the probes held against the journal."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from quire.conf.schema import DistributedPrivacy, SecureAggregation, Settings
from quire.errors import SettingsError
from quire.privacy.dp.contract import PrivacyError
from quire.privacy.dp.distributed import SharedNoise
from quire.privacy.dp.encoding import Encoding
from quire.privacy.dp.forecast import forecast
from quire.privacy.dp.probes import ProbeTest, p_value
from quire.privacy.receipts import Receipt
from quire.simulation.promise import promised
from quire.strategies.card import run_card
from quire.strategies.card_noise import KEY, signed_beyond
from quire.strategies.material import CardError, Material

_RELEASED = {"probes", "probe_statistic", "probe_p", "probe_alarm"}


def check_noise(folder: Path, material: Material, settings: Settings | None, members: int | None) -> list[str]:
    """Say where the numbers of distributed noise in a journal do not follow from settings, roster and model.

    Parameters
    ----------
    folder : pathlib.Path
        The run folder.
    material : Material
    settings : Settings or None
        As composed anew; None where they could not be.
    members : int or None
        Of the roster; None where there is none.

    Returns
    -------
    list of str
        One sentence each; empty without distributed noise.
    """
    if settings is None or not isinstance(settings.privacy, DistributedPrivacy):
        return ["The journal speaks of distributed noise, and the settings do not."] if KEY in material.start else []
    secure, dimension = settings.aggregation, material.start.get("parameters")
    if not isinstance(secure, SecureAggregation) or type(dimension) is not int or dimension < 1:
        return ["The journal does not say how many parameters the model has."]
    try:
        count = settings.partition.silos if members is None else members
        noise, encoding = promised(settings, secure, count, dimension)
        derived = _json(
            {
                "noise": asdict(noise),
                "encoding": encoding.to_json(),
                "forecast": asdict(forecast(noise, dimension)),
            }
        )
    except (PrivacyError, SettingsError) as error:
        return [f"The noise of the run cannot be worked out: {str(error).rstrip('.')}."]
    wrong = [] if dimension == _size(folder) else ["The journal's number of parameters is not that of the model."]
    if material.start.get(KEY) != derived:
        wrong.append("The journal's numbers of distributed noise do not follow from settings, roster and model.")
    return wrong + _probes(material, noise, encoding) + _signed(material)


def _signed(material: Material) -> list[str]:
    """Name silos whose own ledgers state more of this run than its journal tells."""
    by_silo: dict[str, list[Receipt]] = {}
    try:
        for receipts in material.receipts:
            for silo, receipt in receipts.items():
                by_silo.setdefault(silo, []).append(receipt)
        silos = run_card(material)["silos"]
    except CardError:
        return []  # said where the card is held against the journal
    told = {silo["statement"]["silo"]: float(silo["if_all_asked"]["rdp"]) for silo in silos}
    return [
        f"{silo[:80]}: the silo has signed for more than the journal tells, epsilon {epsilon:.3g} where its attempts "
        f"come to {told[silo]:.3g}: attempts were left out."
        for silo, epsilon in signed_beyond(by_silo, silos).items()
    ]


def _probes(material: Material, noise: SharedNoise, encoding: Encoding) -> list[str]:
    """Hold what the journal says of the probes against itself: the values, their test, and its alarm."""
    test, wrong = ProbeTest(), []
    for line in material.rounds:
        if "lost" in line:  # no sum was opened, or none that counts: there are no probes
            continue
        released: Mapping[str, Any] = line.get("released") or {}
        if not encoding.noise_variance:
            if released:
                wrong.append(f"Round {line['round']}: the journal speaks of probes, and there is no noise.")
            continue
        good = (
            isinstance(released, Mapping)
            and set(released) == _RELEASED
            and all(type(value) is float and math.isfinite(value) and value >= 0.0 for value in released.values())
            and released["probes"] == noise.probes
        )
        if not good:
            wrong.append(f"Round {line['round']}: the journal does not say what the noise probes came to.")
            continue
        test = test.add(noise.probes, released["probe_statistic"])
        expected = p_value(noise.probes, released["probe_statistic"])
        if not math.isclose(released["probe_p"], expected, rel_tol=1e-6, abs_tol=1e-12):
            wrong.append(
                f"Round {line['round']}: the p-value of the noise probes does not follow from their statistic."
            )
        if released["probe_alarm"] != float(test.alarm):
            wrong.append(f"Round {line['round']}: the alarm of the noise probes does not follow from their statistics.")
    return wrong


def _size(folder: Path) -> int | None:
    """Return the number of parameters of the model in a run folder; None where there is none to read."""
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    path = folder / "model.safetensors"
    checkpoints = sorted((folder / "checkpoint").glob("round-*.safetensors"))
    try:
        arrays = load_file(path if path.exists() or not checkpoints else checkpoints[-1])
    except (OSError, SafetensorError, KeyError, ValueError):
        return None
    names = {name for name in arrays if not name.startswith(("memory/", "silo/"))}
    return sum(int(arrays[name].size) for name in names)


def _json(value: dict[str, Any]) -> Any:
    return json.loads(json.dumps(value))
