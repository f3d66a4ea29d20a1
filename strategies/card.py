"""The privacy card of a run: what was promised to whom, put together from the signed receipts in the journal.

Everything on it follows from the files of the run folder, so that ``quire verify`` can put it together once more, and
a resumed run ends with the card of one that was never interrupted.
"""

from __future__ import annotations

import binascii
import json
import logging
import time
from base64 import b64decode
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from quire.conf.asked import is_chained
from quire.privacy.dp import card as arithmetic
from quire.privacy.dp.contract import PrivacyError
from quire.privacy.dp.spending import Spending
from quire.privacy.identity.errors import IdentityError
from quire.privacy.identity.signed import MAX_BYTES, SignedRoster
from quire.privacy.receipts import Receipt, ReceiptError, repeated, settings_hash, statement
from quire.privacy.secagg.params import default_colluders
from quire.strategies import checkpoint
from quire.strategies.card_noise import KEY, add_part, attempts_of, shared_facts, signed_beyond
from quire.strategies.card_page import page
from quire.strategies.card_words import Facts, rounds_words, standing, verdict, words
from quire.strategies.receipts import ROSTER_FILE
from quire.strategies.secure_words import Masked

FORMAT = "quire-run-card-1"
CARD_FILE, PAGE_FILE = "privacy_card.json", "privacy_card.html"

LOG = logging.getLogger("quire.strategies")


class CardError(PrivacyError):
    """A folder out of which no card can be made; its text is one sentence."""


@dataclass(frozen=True)
class Material:
    """What a card is made of.

    Attributes
    ----------
    settings : mapping
        ``settings.yaml``.
    start : mapping
        The journal's first line.
    lines : tuple of dict
        The journal's lines about rounds and resumes, in order; of a round that was run again the later line alone.
    roster : SignedRoster or None
    """

    settings: Mapping[str, Any]
    start: Mapping[str, Any]
    lines: tuple[dict[str, Any], ...]
    roster: SignedRoster | None

    @property
    def rounds(self) -> tuple[dict[str, Any], ...]:
        """The rounds, in order."""
        return tuple(line for line in self.lines if line["event"] == "round")

    @cached_property
    def receipts(self) -> tuple[dict[str, Receipt], ...]:
        """The receipts of each line, by the silo that the journal names.

        Raises
        ------
        CardError
            If one is no receipt.
        """
        return tuple(_receipts(line) if line["event"] == "round" else {} for line in self.lines)

    @property
    def private(self) -> bool:
        """Whether the run was to have privacy."""
        return self.setting("privacy", "name") not in (None, "none")

    def setting(self, group: str, key: str) -> Any:
        """Return a setting, None where there is none."""
        found = self.settings.get(group)
        return found.get(key) if isinstance(found, dict) else None

    def up_to(self, rounds: int) -> Material:
        """Return the material of the first rounds."""
        return replace(self, lines=tuple(line for line in self.lines if line["round"] <= rounds))


def read_material(folder: Path) -> Material:
    """Read what a run folder holds for a card.

    Raises
    ------
    CardError
        If a file is missing, or is not what a run writes. A torn last line of the journal is passed over.
    """
    import yaml

    try:
        settings = yaml.safe_load(_text(folder / "settings.yaml"))
    except (yaml.YAMLError, RecursionError):
        settings = None
    if not isinstance(settings, dict):
        raise CardError("settings.yaml is not what a run writes.")
    start: dict[str, Any] = {}
    lines: list[dict[str, Any]] = []
    for number, line in _journal(folder / "metrics.jsonl"):
        kind = line.get("event")
        if kind == "start":
            _check_form(number, line, _START)
            start = line
        elif kind in ("round", "resume"):
            _check_form(number, line, _ROUND if kind == "round" else _RESUME)
            while kind == "round" and lines and lines[-1]["round"] >= line["round"]:  # it was run again
                lines.pop()
            lines.append(line)
    path = folder / ROSTER_FILE
    return Material(settings, start, tuple(lines), read_roster(path) if path.exists() else None)


def read_roster(path: Path) -> SignedRoster:
    """Read a roster; no signature is checked.

    Raises
    ------
    CardError
        If it cannot be read, or is none.
    """
    try:
        with path.open("rb") as file:
            return SignedRoster.decode(file.read(MAX_BYTES + 1))
    except OSError as error:
        raise CardError(f"{path} cannot be read: {error.strerror}.") from error
    except IdentityError as error:
        raise CardError(f"{path.name} is no roster: {error}") from error


def _receipts(line: Mapping[str, Any]) -> dict[str, Receipt]:
    listed = line.get("receipts")
    if not isinstance(listed, dict):
        raise CardError(f"Round {line['round']} of metrics.jsonl lists no receipts.")
    found = {}
    for silo, text in listed.items():
        try:
            found[silo] = Receipt.decode(b64decode(text, validate=True))
        except (binascii.Error, ReceiptError, TypeError, ValueError) as error:
            raise CardError(f"The receipt of {silo[:80]} in round {line['round']} cannot be read: {error}") from None
    return found


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
    for line in material.rounds:
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
        part = add_part(material.start, material.rounds, silos, by_silo) if distributed else {}
    except (PrivacyError, OverflowError, TypeError, ValueError) as error:
        raise CardError(str(error)) from error
    facts = _facts(material, silos, part)
    worst = max([whole["worst"]["rdp"], *(signed_beyond(by_silo, silos) if distributed else {}).values()])
    silent = [silo for silo in roster if silo not in by_silo]
    planned = material.setting("strategy", "rounds")
    return {
        "format": FORMAT,
        "standing": standing(facts),
        "verdict": verdict(facts, worst, max(silo["statement"]["delta"] for silo in silos)),
        "coverage": rounds_words(len(material.rounds), planned, silent),
        "run": {
            "task": material.setting("task", "name"),
            "strategy": material.setting("strategy", "name"),
            "privacy": material.setting("privacy", "name"),
            "aggregation": facts.aggregation,
            "rounds": {"planned": planned, "done": len(material.rounds)},
            "settings": settings_hash(material.settings),
            "code": by_silo[names[0]][0].body["code"],
            "model": material.rounds[-1]["model"],
            "roster": material.roster.roster.hash if material.roster is not None else None,
            "signatures": facts.signatures,
        },
        "silos": silos,
        **part,
        "worst": whole["worst"],
        "words": words(facts),
    }


def write_card(folder: Path) -> bool:
    """Write the card of a run, as JSON and as a page; tell whether there is one.

    A run without privacy has none, nor has one that finished no round. It never raises: the card comes beside a run's
    results, and must not take them down.
    """
    try:
        material = read_material(folder)
        if not material.private or not material.rounds:
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
    return Masked(members, against, least if type(least) is int else 0, noised, shared, chained)


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


_RESUME: dict[str, Any] = {"round": int}
_START: dict[str, Any] = {"silos": [str], "model": str}
_ROUND: dict[str, Any] = {"round": int, "cohort": [str], "replied": [str], "failed": [dict], "model": str}


def _check_form(number: int, line: Mapping[str, Any], form: Mapping[str, Any]) -> None:
    """Refuse a line that lacks what a card is made of, or has it in another form."""
    for key, kind in form.items():
        value = line.get(key)
        if isinstance(kind, list):
            good = isinstance(value, list) and all(isinstance(item, kind[0]) for item in value)
        else:
            good = isinstance(value, kind) and not isinstance(value, bool)
        if not good:
            raise CardError(f"Line {number} of metrics.jsonl has no '{key}' of the right form.")


def _journal(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    lines = _text(path).split("\n")
    for number, line in enumerate(lines[:-1], start=1):  # what follows the last newline is torn, or nothing
        try:
            event = json.loads(line)
        except (ValueError, RecursionError):
            raise CardError(f"Line {number} of metrics.jsonl is not JSON.") from None
        if not isinstance(event, dict):
            raise CardError(f"Line {number} of metrics.jsonl is not an object.")
        yield number, event


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise CardError(f"{path.name} cannot be read: {error.strerror}.") from error
    except UnicodeDecodeError:
        raise CardError(f"{path.name} is not text.") from None
