"""The privacy card of a run: what was promised to whom, put together from the signed receipts in the journal.

Everything on it follows from the files of the run folder, so that ``quire verify`` can put it together once more, and
a resumed run ends with the card of one that was never interrupted.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from quire.clients.gate.mark import BANNER
from quire.conf.asked import is_chained, is_short_cut
from quire.privacy.dp import card as arithmetic
from quire.privacy.dp.contract import PrivacyError
from quire.privacy.dp.spending import Spending
from quire.privacy.receipts import Receipt, repeated, settings_hash, statement
from quire.privacy.secagg.params import default_colluders
from quire.strategies import checkpoint
from quire.strategies.card_noise import KEY, add_part, attempts_of, shared_facts, signed_beyond
from quire.strategies.card_page import page
from quire.strategies.card_words import Facts, rounds_words, standing, verdict, words
from quire.strategies.enclaves import Enclaves, banner, sentences
from quire.strategies.material import CardError, Material, read_material
from quire.strategies.secure_words import SHORT_CUT, Masked

FORMAT = "quire-run-card-1"
CARD_FILE, PAGE_FILE = "privacy_card.json", "privacy_card.html"

LOG = logging.getLogger("quire.strategies")


def run_card(material: Material) -> dict[str, Any]:
    """Put the card of a run together; no signature is checked here.

    Raises
    ------
    CardError
        If there is no receipt, or they contradict each other.
    """
    by_silo: dict[str, list[Receipt]] = {}
    asked: dict[str, int] = {}
    tried: dict[str, int] = {}
    distributed = str(material.setting("privacy", "name")).endswith("_distributed")
    for line in material.charged:
        for silo in line["cohort"]:
            asked[silo] = asked.get(silo, 0) + 1
            tried[silo] = tried.get(silo, 0) + (attempts_of(line, silo) if distributed else 1)
    for receipts in material.receipts:
        for silo, receipt in receipts.items():
            by_silo.setdefault(silo, []).append(receipt)
    if not by_silo:
        raise CardError("No round was finished, so no receipt came and there is no card.")
    roster = material.start.get("silos", [])
    names = [silo for silo in roster if silo in by_silo] + sorted(set(by_silo) - set(roster))
    try:
        whole = arithmetic.card(statement(by_silo[silo]) for silo in names)
    except (PrivacyError, OverflowError, TypeError, ValueError) as error:
        raise CardError(f"The receipts contradict each other: {error}") from error
    silos = [
        {**entry, **_about(by_silo[silo], asked.get(silo, 0), tried.get(silo, 0))}
        for silo, entry in zip(names, whole["silos"], strict=True)
    ]
    try:
        part = add_part(material.start, material.charged, silos, by_silo) if distributed else {}
    except (PrivacyError, OverflowError, TypeError, ValueError) as error:
        raise CardError(str(error)) from error
    facts = _facts(material, silos, part)
    worst = max([whole["worst"]["rdp"], *(signed_beyond(by_silo, silos) if distributed else {}).values()])
    silent = [silo for silo in roster if silo not in by_silo]
    planned = material.setting("strategy", "rounds")
    failed = {line["round"]: bool(line["replied"]) for line in material.charged if line["event"] == "failed"}
    inside = _enclaves(material)
    return {
        "format": FORMAT,
        "standing": standing(facts),
        "verdict": _loudly(inside) + verdict(facts, worst, max(silo["statement"]["delta"] for silo in silos)),
        "coverage": rounds_words(len(material.rounds), planned, silent, failed),
        "run": {
            "task": material.setting("task", "name"),
            "strategy": material.setting("strategy", "name"),
            "privacy": material.setting("privacy", "name"),
            "aggregation": f"not secure ({SHORT_CUT})" if facts.clear else facts.aggregation,
            "rounds": {"planned": planned, "done": len(material.rounds)},
            "settings": settings_hash(material.settings),
            **_charter(material),
            "code": by_silo[names[0]][0].body["code"],
            "model": material.model,
            "roster": material.roster.roster.hash if material.roster is not None else None,
            "signatures": facts.signatures,
        },
        "silos": silos,
        **part,
        "worst": whole["worst"],
        "words": words(facts),
        **inside,
    }


def _loudly(inside: Mapping[str, Any]) -> str:
    """Return what stands before the verdict, which is quoted wherever a card is spoken of."""
    return f"{BANNER} (direct-dev). " if inside and inside["enclaves"]["banner"] else ""


def _enclaves(material: Material) -> dict[str, Any]:
    """Return what is said of enclaves, by the roster that signed for it; nothing where there is nothing to say."""
    found = material.enclaves
    if material.roster is not None:
        found = found.by(material.roster.roster, material.start.get("silos", []))
    elif found.attested or found.server:
        found = Enclaves(found.says, {})
    said = sentences(found)
    return {"enclaves": {"banner": banner(found), "words": said}} if said else {}


def _charter(material: Material) -> dict[str, Any]:
    """Return what is said of the charter that the run was under; nothing if there was none."""
    charter = material.settings.get("charter")
    return {"charter": charter, "charter_version": material.charter_version} if charter else {}


def write_card(folder: Path) -> bool:
    """Write the card of a run, as JSON and as a page; tell whether there is one.

    A run without privacy has none, nor has one that released nothing. It never raises: the card comes beside a run's
    results, and must not take them down.
    """
    try:
        material = read_material(folder)
        if not material.private or not any(material.receipts):
            return False
        card = run_card(material)
        checkpoint.replace(folder / CARD_FILE, json.dumps(card, indent=1, allow_nan=False).encode() + b"\n")
        checkpoint.replace(folder / PAGE_FILE, page(card).encode())
    except (PrivacyError, OSError) as error:
        LOG.warning("There is no privacy card: %s", error)
        return False
    return True


class CardWriter:
    """Writes the card while a run goes on, so that a killed run has one; seldom enough not to slow it down.

    Parameters
    ----------
    folder : pathlib.Path
        The run folder.
    """

    #: The part of a run's time that may go into writing cards.
    _SHARE = 0.05

    def __init__(self, folder: Path) -> None:
        self._folder, self._next, self._off = folder, 0.0, False

    def round_done(self, private: bool) -> None:
        """Write the card if enough time has gone by since the last; the first round always writes one."""
        now = time.perf_counter()
        if private and now >= self._next:
            write_card(self._folder)
            done = time.perf_counter()
            self._next = done + max(1.0, (done - now) / self._SHARE)


def _about(receipts: list[Receipt], asked: int, tried: int) -> dict[str, Any]:
    """Return what a card says of a silo beside its statement and figures."""
    last = receipts[-1].body
    bound = Spending.of(*(repeated(receipt.event, tried) for receipt in receipts[:1] if tried)).epsilon(last["delta"])
    broken = [receipt.body["broken_gradients"] for receipt in receipts]
    return {
        "rounds": {"asked": asked, "released": len(receipts)},
        "if_all_asked": {"rdp": "inf" if bound == float("inf") else bound},
        "population": last["population"],
        "declared_records": last["records"],
        "guarded": all(receipt.body["guarded"] for receipt in receipts),
        "simulated": any(receipt.body["simulated"] for receipt in receipts),
        "test_seed": any(receipt.body["test_seed"] for receipt in receipts),
        "broken_gradients": None if None in broken else sum(broken),
        "ledger": last["ledger"],
        "signer": receipts[-1].signer,
    }


def _masked(material: Material, noised: bool) -> Masked | None:
    """Return what is said of secure aggregation: from the settings, as any silo that has the roster works it out."""
    if material.setting("aggregation", "name") != "secure":
        return None
    members = len(material.roster.roster.members if material.roster else material.start.get("silos", []))
    colluders, least = material.setting("aggregation", "colluders"), material.setting("strategy", "min_silos")
    against = colluders if type(colluders) is int else default_colluders(members)
    shared, chained = KEY in material.start, is_chained(material.settings)
    clear = is_short_cut(material.settings)
    return Masked(members, against, least if type(least) is int else 0, noised, shared, chained, clear)


def _facts(material: Material, silos: list[dict[str, Any]], part: Mapping[str, Any]) -> Facts:
    stated = [silo["statement"] for silo in silos]
    simulated = any(silo["simulated"] for silo in silos)
    noiseless = any(one["mechanism"] == "non_private" for one in stated)
    return Facts(
        unit=stated[0]["unit"],
        noiseless=noiseless,
        discrete=all("discrete" in one["mechanism"] for one in stated),
        sampled=any(one["sampling_rate"] < 1.0 for one in stated),
        aggregation=str(material.setting("aggregation", "name")),
        simulated=simulated,
        test_seed=any(silo["test_seed"] for silo in silos),
        unguarded=sum(not silo["guarded"] for silo in silos),
        silos=len(silos),
        signatures="simulated" if simulated else "unchecked" if material.roster is None else "roster",
        adaptive=material.setting("privacy", "clipping") == "adaptive",
        masked=_masked(material, not noiseless),
        shared=shared_facts(part[KEY], silos) if KEY in part else None,
    )
