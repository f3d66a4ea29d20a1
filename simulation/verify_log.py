"""What ``quire verify`` asks of a run's transparency log: is it sound, and does the run folder say what it says?"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from quire.conf.schema import SecureAggregation, Settings
from quire.privacy.identity.roster import Roster
from quire.privacy.receipts import Receipt, settings_hash
from quire.strategies.card import CARD_FILE
from quire.strategies.material import Material
from quire.strategies.run_log import JOURNAL, LOG_FOLDER, journal_in, word
from quire.transparency.entries import Entry
from quire.transparency.errors import LogError
from quire.transparency.reading import Entries
from quire.transparency.verify import Place, verify_log


def check_log(
    folder: Path,
    about: Mapping[str, Any],
    settings: Settings | None,
    material: Material,
    roster: Roster | None,
    wrong: list[str],
    notes: list[str],
) -> Sequence[Entry] | None:
    """Hold a run folder against its transparency log, if it has one or rounds that were bound to one.

    Parameters
    ----------
    folder : pathlib.Path
        Of the run.
    about : mapping
        What ``run.json`` says.
    settings : Settings or None
        As composed anew; None if they cannot be trusted, which is said elsewhere.
    material : Material
        The journal, with the receipts of each line.
    roster : Roster or None
        Whose countersignatures count.
    wrong, notes : list of str
        Get discrepancies, and what a reader has to know.

    Returns
    -------
    sequence of quire.transparency.entries.Entry or None
        What the log says, once it is verified; None where there is none, or it does not hold.
    """
    if not (folder / LOG_FOLDER).exists():
        bound = [line["round"] for line in material.charged if (line.get("secure") or {}).get("checkpoint")]
        if bound:
            wrong.append(
                f"There is no log, and the journal says that round {bound[0]} was bound to one: it was taken away."
            )
        return None
    try:
        place = Place.of(folder / LOG_FOLDER)
        found = verify_log(place, roster=roster)
        wrong += [f"The log: {words}" for words in found.wrong]
        notes += [f"The log: {words}" for words in found.remarks]
        if found.wrong:
            return None
        entries = [entry for _, entry in Entries(place.entries).each()]
        wrong += [f"The log {words}." for words in _contradictions(folder, about, settings, material.receipts, entries)]
        if settings is not None and isinstance(settings.aggregation, SecureAggregation):
            wrong += [f"The log {words}." for words in _unbound(material.lines, entries)]
        over = about.get("status") == "completed"
        if over and found.size not in {note.checkpoint.size for note in found.notes}:
            wrong.append("The log ends with entries that are under no checkpoint.")
        missing = _journal(folder, entries)
        if missing is not None:  # who was killed may not have told the log of its last line
            (wrong if over else notes).append(f"The log {missing}.")
        return entries
    except (LogError, OSError) as error:
        wrong.append(f"The log: {error}")
        return None


def _journal(folder: Path, entries: Sequence[Entry]) -> str | None:
    """Say where the journal is not the one that was logged, line by line; None if it is."""
    logged = journal_in(enumerate(entries))
    with (folder / JOURNAL).open("rb") as file:
        lines = [hashlib.sha256(line).hexdigest() for line in file if line.endswith(b"\n")]
    for number, (one, other) in enumerate(zip(lines, logged, strict=False), start=1):
        if one != other:
            return f"was told another line {number} of {JOURNAL}"
    if len(lines) != len(logged):
        return f"was told {len(logged)} lines of {JOURNAL}, which has {len(lines)}"
    return None


def _unbound(lines: Sequence[Mapping[str, Any]], entries: Sequence[Entry]) -> Iterator[str]:
    """Say which rounds under masks are not in the log with a checkpoint, and with all who took part as its signers.

    Who had dropped out before it answered the first message of a round is in no set of those who dealt shares.
    """
    bound: dict[tuple[int, str], set[str]] = {}
    for entry in entries:
        if entry.kind == "checkpoint":
            bound.setdefault((entry.round, entry.body["checkpoint"]), set()).update(entry.body["silos"])
    for line in lines:
        secure = line.get("secure") if line["event"] == "round" else None
        if not isinstance(secure, dict):
            continue
        signed = bound.get((line["round"], str(secure.get("checkpoint"))))
        if signed is None:
            yield f"does not say which checkpoint round {line['round']} was bound to"
            continue
        attempts = secure.get("attempts")
        dealt = [one.get("u2") for one in attempts if isinstance(one, dict)] if isinstance(attempts, list) else []
        part = {str(silo) for names in [line["replied"], *dealt] if isinstance(names, list) for silo in names}
        where = f"on the checkpoint that round {line['round']} was bound to"
        for silo in sorted(part):
            if word(silo) not in signed:
                yield f"has no countersignature of {silo[:80]} {where}"


def _contradictions(
    folder: Path,
    about: Mapping[str, Any],
    settings: Settings | None,
    receipts: Sequence[Mapping[str, Receipt]],
    entries: Sequence[Entry],
) -> list[str]:
    found = []
    for entry in entries:
        if entry.kind == "session":
            if settings is not None and entry.body["settings"] != settings_hash(settings.as_dict()):
                found.append("is of other settings than settings.yaml")
            if entry.body["code"] != about.get("code"):
                found.append("is of other code than run.json names")
    heads = {
        (entry.body["silo"], entry.body["entries"], entry.body["head"])
        for entry in entries
        if entry.kind == "ledger_head"
    }
    for silo, receipt in ((silo, one) for line in receipts for silo, one in line.items()):
        ledger = receipt.body["ledger"]
        if ledger is not None and (word(silo), ledger["entries"], ledger["head"]) not in heads:
            found.append(f"has no entry for the ledger of {silo[:80]} at {ledger['entries']} entries")
    ends = [entry.body for entry in entries if entry.kind == "end"]
    if ends and about.get("status") == ends[-1]["status"]:
        card = folder / CARD_FILE
        digest = hashlib.sha256(card.read_bytes()).hexdigest() if card.exists() else None
        if ends[-1]["card"] != digest:
            found.append(f"ends with another {CARD_FILE}")
        if ends[-1]["model"] != about.get("model"):
            found.append("ends with another model than run.json")
    elif about.get("status") == "completed":
        found.append("does not say that the run was completed")
    return found
