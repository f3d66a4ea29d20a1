"""What is known of one run before a document is made of it: its files, read once, and what came of verifying them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from quire.charter.chain import Chain, charter_files, read_chain, read_charter
from quire.charter.document import Charter
from quire.charter.errors import CharterError
from quire.charter.signed import MAX_BYTES as MAX_CHARTER
from quire.clients.identity import read_roster
from quire.conf.asked import attack_on, is_short_cut
from quire.conf.schema import SecureAggregation
from quire.conf.strict_yaml import loaded
from quire.privacy.identity.errors import IdentityError
from quire.privacy.identity.roster import Roster
from quire.privacy.identity.signed import MAX_BYTES as MAX_ROSTER
from quire.reports.checks import Check, Keys, checks_of
from quire.reports.document import Standing
from quire.reports.errors import ReportInput
from quire.reports.inputs import Inputs
from quire.reports.journal import Journal, read_journal
from quire.reports.values import listed, mapping, number, parsed, part, word
from quire.strategies.material import CardError
from quire.strategies.material import read_roster as read_kept
from quire.strategies.robust.build import is_robust
from quire.text import visible
from quire.transparency.errors import LogError
from quire.transparency.reading import read_notes
from quire.transparency.verify import Place


@dataclass(frozen=True, eq=False)
class Run:
    """One run.

    Attributes
    ----------
    folder : pathlib.Path
    name : str
        What the document calls it: the folder's own name, made visible.
    about, settings, card : dict
        ``run.json``, ``settings.yaml``, ``privacy_card.json``; empty where there is none that can be read.
    journal : Journal
    checks : dict of str to Check
    roster : Roster or None
        The one that signatures were held against.
    chain : Chain or None
        The versions of the charter, if they were named and hold.
    keys : Keys
    troubles : tuple of str
        Files that cannot be opened.
    witnesses : int
        Countersignatures of silos under its log; none where there is no roster to hold them against.
    """

    folder: Path
    name: str
    about: dict[str, Any]
    settings: dict[str, Any]
    card: dict[str, Any]
    journal: Journal
    checks: dict[str, Check]
    roster: Roster | None
    chain: Chain | None
    keys: Keys
    troubles: tuple[str, ...] = ()
    witnesses: int = 0

    @property
    def signers(self) -> tuple[str, ...]:
        """The checks that bind what the server wrote to somebody else's signature.

        A log that no silo countersigned is signed by the server alone, who may have written it anew.
        """
        return ("receipts", "log") if self.witnesses else ("receipts",)

    def setting(self, group: str, key: str) -> Any:
        """Return a setting, None where there is none."""
        return part(self.settings, group, key)

    @property
    def privacy(self) -> str:
        """The option of the group ``privacy``."""
        return word(self.setting("privacy", "name"))

    @property
    def aggregation(self) -> str:
        """The option of the group ``aggregation``."""
        return word(self.setting("aggregation", "name"))

    @property
    def short_cut(self) -> bool:
        """Whether sums were made in clear that the protocol would have masked: there was no secure aggregation."""
        return is_short_cut(self.settings)

    @property
    def attack(self) -> str:
        """Which attack a simulation carried out against itself; empty where none."""
        told = self.about.get("attacked")
        return visible(attack_on(self.settings)) or ("" if told is None else word(mapping(told).get("name")))

    @property
    def masked(self) -> bool:
        """Whether updates were summed under masks, by the settings; else the server saw each of them."""
        return self.aggregation == SecureAggregation.seen and not self.short_cut

    @property
    def robust(self) -> bool:
        """Whether a rule bounded what updates that lie apart do to the mean."""
        return is_robust(self.aggregation)

    @property
    def simulated(self) -> bool:
        """Whether anything says that its silos were simulated."""
        return _simulated(self.about, self.card)

    @property
    def failed(self) -> bool:
        """Whether any check failed."""
        return any(one.standing is Standing.FAILED for one in self.checks.values())

    @property
    def silos(self) -> list[dict[str, Any]]:
        """What the card says of each silo."""
        return [mapping(one) for one in listed(self.card.get("silos"))]

    @property
    def epsilon(self) -> float | None:
        """The largest epsilon of any silo, by the card; infinity without noise or without privacy, None if unknown."""
        return float("inf") if self.privacy == "none" else number(part(self.card, "worst", "rdp"))

    @cached_property
    def charter(self) -> Charter | None:
        """The version of the charter that the run is under, where its versions were named and hold."""
        if self.chain is None:
            return None
        named = self.settings.get("charter")
        return next((one.charter for one in self.chain.versions if one.charter.hash == named), None)

    def by(self, *needed: str, any_of: tuple[str, ...] = ()) -> Standing:
        """Return how far a statement may be relied upon that rests on these checks.

        Parameters
        ----------
        needed : str
            Checks that have to hold.
        any_of : tuple of str
            Of these, if there are any, at least one has to hold as well: who signed for it.
        """
        standings = [self.checks[name].standing for name in needed]
        others = [self.checks[name].standing for name in any_of]
        if Standing.FAILED in standings or self.checks["files"].standing is Standing.FAILED:
            return Standing.FAILED
        if any(one is not Standing.VERIFIED for one in standings):
            return Standing.UNCHECKED
        if not others or Standing.VERIFIED in others:
            return Standing.VERIFIED
        return Standing.FAILED if Standing.FAILED in others else Standing.UNCHECKED

    @property
    def signed_settings(self) -> Standing:
        """How far settings may be relied upon: consistent, and signed for in receipts or in a log."""
        return self.by("settings", any_of=self.signers)

    @property
    def signed_rounds(self) -> Standing:
        """How far the journal may be relied upon."""
        return self.by("chain", any_of=self.signers)


def is_run(folder: Path) -> bool:
    """Tell whether a folder looks like that of a run."""
    try:
        return (folder / "run.json").is_file() or (folder / "settings.yaml").is_file()
    except OSError:
        return False


def read_run(folder: Path, keys: Keys, inputs: Inputs, label: str = "") -> Run:
    """Read and verify a run.

    Parameters
    ----------
    folder : pathlib.Path
    keys : Keys
        What its signatures are held against.
    inputs : Inputs
        Gets the files that it was read from.
    label : str
        What its files are called by, where there are several runs in one document.

    Raises
    ------
    ReportInput
        If it is no run, or a self-test of the noise; or the roster or charter that was named cannot be read.
    """
    if not folder.is_dir():
        raise ReportInput(f"There is no folder '{folder}': name the folder of a run.")
    if not is_run(folder):
        raise ReportInput(f"'{folder}' is not the folder of a run: it holds neither run.json nor settings.yaml.")
    chain = _charter(keys, inputs)
    _roster(keys, inputs)
    troubles = inputs.look_at_run(folder, label)
    about, card = (_json(folder, name, troubles) for name in ("run.json", "privacy_card.json"))
    settings = _yaml(folder, troubles)
    if about.get("selftest") or part(settings, "privacy", "selftest"):
        raise ReportInput(f"'{folder}' holds a self-test of the noise, which learned nothing: there is no such report.")
    journal = Journal() if _bad("metrics.jsonl", troubles) else read_journal(folder / "metrics.jsonl")
    simulated = _simulated(about, card)
    checks = {one.key: one for one in checks_of(folder, settings, simulated, keys, troubles)}
    name = visible(folder.absolute().name)
    roster = _held_against(folder, keys, troubles)
    return Run(
        folder,
        name,
        about,
        settings,
        card,
        journal,
        checks,
        roster,
        chain,
        keys,
        tuple(troubles),
        _witnesses(folder, troubles) if roster is not None or simulated else 0,
    )


def _simulated(about: dict[str, Any], card: dict[str, Any]) -> bool:
    told = [mapping(one).get("simulated") for one in listed(card.get("silos"))]
    return about.get("runtime") != "deployment" or any(one is not False for one in told)


def _witnesses(folder: Path, troubles: list[str]) -> int:
    if troubles or not (folder / "log").is_dir():
        return 0
    try:
        notes, _ = read_notes(Place.of(folder / "log").checkpoints)
    except (LogError, OSError):
        return 0
    return sum(mark.name != note.checkpoint.origin for note in notes for mark in note.marks)


def _bad(name: str, troubles: list[str]) -> bool:
    return any(name in one for one in troubles)


def _json(folder: Path, name: str, troubles: list[str]) -> dict[str, Any]:
    if _bad(name, troubles):
        return {}
    try:
        return mapping(parsed((folder / name).read_bytes()))
    except OSError:
        return {}


def _yaml(folder: Path, troubles: list[str]) -> dict[str, Any]:
    if _bad("settings.yaml", troubles):
        return {}
    try:
        return mapping(loaded((folder / "settings.yaml").read_text(encoding="utf-8")))
    except (OSError, ValueError):
        return {}


def _charter(keys: Keys, inputs: Inputs) -> Chain | None:
    if keys.charter is None:
        return None
    for file in charter_files(keys.charter):
        inputs.look(file, f"charter: {file.name}", MAX_CHARTER)
        read_charter(file)  # a file that is no charter is a mistake of whoever named it
    try:
        return read_chain(keys.charter)
    except CharterError:  # one that does not hold is a finding, which the checks have
        return None


def _roster(keys: Keys, inputs: Inputs) -> None:
    if keys.roster is not None:
        inputs.look(keys.roster, f"roster: {keys.roster.name}", MAX_ROSTER)
        read_roster(keys.roster)


def _held_against(folder: Path, keys: Keys, troubles: list[str]) -> Roster | None:
    path = keys.roster if keys.roster is not None else folder / "roster.json"
    if (keys.roster is None and _bad("roster.json", troubles)) or not path.is_file():
        return None
    try:
        return read_kept(path).roster
    except (CardError, IdentityError):
        return None
