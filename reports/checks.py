"""What was verified of a run: ``quire verify``, check by check, with what came out and what it was held against."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from quire.errors import QuireError
from quire.privacy.dp.contract import PrivacyError
from quire.reports.document import Standing
from quire.reports.values import part
from quire.simulation.verify import examine_run
from quire.simulation.verify_result import Verification

#: Every check by its name in a :class:`Verification`: what is called what, and what is looked at.
CHECKS = {
    "files": ("Files", "Every file of the run folder has the form that a run writes."),
    "settings": ("Settings", "settings.yaml says what its own overrides compose to."),
    "roster": ("Roster", "Whose keys count, and whether the roster carries its admins' signatures."),
    "receipts": (
        "Receipts",
        "Every silo that is in a sum signed a receipt for that round, about these settings, this code and this model.",
    ),
    "noise": ("Noise", "The noise that the silos agreed on is the one that settings and roster ask for."),
    "chain": ("Model chain", "The rounds are all there, in order, and end with the model that lies in the folder."),
    "log": ("Transparency log", "Roots, checkpoints and countersignatures hold, and the run folder says what it says."),
    "charter": ("Charter", "Settings, run.json and log name one charter, which was in force when the run began."),
    "approvals": ("Approvals", "What operators decided is signed by their silos, about this run, and was logged."),
    "transcripts": ("Transcripts", "What the server received opens to the sums of which the models were made."),
    "card": ("Privacy card", "Every figure on the card, recomputed from the receipts."),
}

_NO_ROSTER = "The run folder has no roster, so that nobody knows whose signatures these are: name it with --roster."


@dataclass(frozen=True)
class Check:
    """One check.

    Attributes
    ----------
    key, title, asks : str
        Name, heading, and what is looked at.
    standing : Standing
        ``VERIFIED``, ``FAILED``, ``UNCHECKED`` or ``ABSENT``.
    words : tuple of str
        What is wrong, what holds, or why it could not be checked.
    """

    key: str
    title: str
    asks: str
    standing: Standing
    words: tuple[str, ...]


@dataclass(frozen=True)
class Keys:
    """What signatures are held against, as the reader named it.

    Attributes
    ----------
    roster : pathlib.Path or None
        The consortium's; None: the run folder's own.
    pin : str or None
        The hash that it must have.
    charter : pathlib.Path or None
        The folder of the charter's versions, or the file of the only one.
    """

    roster: Path | None = None
    pin: str | None = None
    charter: Path | None = None

    @property
    def named(self) -> bool:
        """Whether the reader said which roster it has to be."""
        return self.roster is not None or self.pin is not None


def checks_of(
    folder: Path, settings: Mapping[str, Any], simulated: bool, keys: Keys, troubles: Sequence[str]
) -> tuple[Check, ...]:
    """Verify a run, and tell what came of each check.

    Parameters
    ----------
    folder : pathlib.Path
    settings : mapping
        What ``settings.yaml`` says.
    simulated : bool
        Whether anything says that its silos were simulated.
    keys : Keys
    troubles : sequence of str
        Files that cannot be opened, in sentences: with any, nothing is checked.
    """
    if troubles:
        return tuple(
            Check("files", *CHECKS["files"], Standing.FAILED, tuple(troubles))
            if key == "files"
            else Check(key, *CHECKS[key], Standing.UNCHECKED, ("A file of the run folder cannot be opened.",))
            for key in CHECKS
        )
    try:
        found = examine_run(folder, keys.roster, keys.pin, keys.charter)
    except (QuireError, PrivacyError) as error:
        found = Verification(wrong=[str(error)], parts={"files": ([str(error)], [])})
    return tuple(_check(key, found, settings, simulated, keys, folder) for key in CHECKS)


def _check(
    key: str, found: Verification, settings: Mapping[str, Any], simulated: bool, keys: Keys, folder: Path
) -> Check:
    wrong, notes = found.parts.get(key, ([], []))
    title, asks = CHECKS[key]
    if wrong:
        return Check(key, title, asks, Standing.FAILED, tuple(wrong))
    why = _absent(key, found, settings, simulated, keys, folder)
    if why is not None:
        return Check(key, title, asks, Standing.ABSENT, (why, *notes))
    if key not in found.parts:
        why = "It was not reached: a check before it could not be made."
        if key == "roster" and "chain" in found.parts:  # what comes after it was made
            why = _NO_ROSTER
        return Check(key, title, asks, Standing.UNCHECKED, (why,))
    open_ = _open(key, simulated, keys)
    if open_ is not None:
        return Check(key, title, asks, Standing.UNCHECKED, (open_, *notes))
    return Check(key, title, asks, Standing.VERIFIED, tuple(notes) or ("It holds.",))


def _absent(
    key: str, found: Verification, settings: Mapping[str, Any], simulated: bool, keys: Keys, folder: Path
) -> str | None:
    """Say why a check does not concern a run; None if it does."""
    private = part(settings, "privacy", "name") not in (None, "none")
    if key in ("receipts", "card", "noise") and not private:
        return "The run had no privacy (privacy=none): silos signed no receipts, and there is no card."
    if key in ("receipts", "card", "noise") and "files" in found.parts and key not in found.parts and not found.wrong:
        return "No round was finished: there are no receipts, and there is no card."
    if key == "noise" and not str(part(settings, "privacy", "name")).endswith("_distributed"):
        return "Each silo added its own noise, or the server did: no noise was shared."
    if key == "roster" and simulated:
        return "A simulation has no keys of silos: its own follow from the seed, and prove nothing about who signed."
    if key == "log" and not (folder / "log").exists():
        return "The run kept no transparency log."
    if key == "charter" and settings.get("charter") is None and keys.charter is None:
        return "The run is under no charter: its settings name none."
    if key == "approvals" and not (folder / "approvals.jsonl").exists():
        return "No operator's decision lies in the run folder, and no log tells of one."
    if key == "transcripts" and key in found.parts and not found.parts[key][1]:
        return "The run kept no transcripts."
    return None


def _open(key: str, simulated: bool, keys: Keys) -> str | None:
    """Say what remains to be done by the reader where a check found nothing wrong; None if nothing does."""
    if key == "roster" and not keys.named and not simulated:
        return (
            "The roster is the run folder's own. Its admins' signatures hold; whether it is the consortium's nobody "
            "has compared. Name the consortium's with --roster, or its hash with --pin."
        )
    if key == "charter" and keys.charter is None:
        return "What the charter says was not looked at: name its versions with --charter."
    return None
