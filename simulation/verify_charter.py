"""What ``quire verify`` asks of the charter: that settings, run folder and log name one, and that it was in force."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from quire.charter.chain import Chain, expired, read_chain
from quire.charter.document import Charter
from quire.charter.errors import CharterError
from quire.conf.schema import Settings
from quire.transparency.entries import Entry

#: Seconds within which a server that has begun a run looks which charter is in force.
_LATER = 60


def check_charter(
    about: Mapping[str, Any], settings: Settings | None, entries: Sequence[Entry] | None, given: Path | None
) -> tuple[list[str], list[str]]:
    """Hold the charter that the settings name against ``run.json``, the log, and the charter itself if it is at hand.

    Parameters
    ----------
    about : mapping
        What ``run.json`` says.
    settings : Settings or None
        As composed anew; None if they cannot be trusted, which is said elsewhere.
    entries : sequence of quire.transparency.entries.Entry or None
        Of the run's log, once that is verified; None where there is none.
    given : pathlib.Path or None
        The folder of the charter's versions, or the file of the only one.

    Returns
    -------
    list of str
        Every discrepancy in one sentence.
    list of str
        What holds, and what a reader has to know.
    """
    if settings is None:
        return [], []
    named, held = settings.charter, _held(about)
    wrong = []
    if held.get("charter") != named:
        wrong.append(
            f"run.json says that the run is under the charter {_short(held.get('charter'))}, and its settings "
            f"name {_short(named)}."
        )
    if entries is not None:
        wrong += [f"The log {words}." for words in _logged(entries, named, held)]
    if named is None:
        if given is not None:
            wrong.append("The run is under no charter: its settings name none.")
        return wrong, []
    if given is None:
        return wrong, [f"Charter: {named}; what it says was not looked at, name its versions with --charter."]
    try:
        chain = read_chain(given)
    except CharterError as error:
        return [*wrong, f"The charter does not hold: {error}"], []
    wrong += [f"The charter: {words}." for words in _against(chain, named, held, about)]
    held_by = f"Charter: {named}, version {held.get('version')} of {chain.last.charter_id}, as you named it."
    return wrong, [] if wrong else [held_by]


def _held(about: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return what run.json says of the charter; nothing where it says none."""
    held = about.get("held_to")
    charter = held.get("charter") if isinstance(held, dict) else None
    return charter if isinstance(charter, dict) else {}


def _logged(entries: Sequence[Entry], named: str | None, held: Mapping[str, Any]) -> Iterator[str]:
    told = [entry for entry in entries if entry.kind == "charter"]
    for entry in told:
        if entry.body["charter"] != named:
            yield (
                f"says that run {entry.run} is under the charter {_short(entry.body['charter'])}, and its settings "
                f"name {_short(named)}"
            )
        elif dict(entry.body) != dict(held):
            yield f"says of the charter {_short(named)} another version, or another one before it, than run.json"
    if named is not None:
        under = {entry.run for entry in told}
        for run in sorted({entry.run for entry in entries if entry.kind == "session"} - under):
            yield f"does not say under which charter run {run} went, and its settings name {_short(named)}"


def _against(chain: Chain, named: str, held: Mapping[str, Any], about: Mapping[str, Any]) -> Iterator[str]:
    found = next((signed.charter for signed in chain.versions if signed.charter.hash == named), None)
    if found is None:
        yield f"none of the {len(chain.versions)} versions that you named has the hash {named}"
        return
    if (found.version, found.previous) != (held.get("version"), held.get("previous")):
        yield f"{_short(named)} is version {found.version}, and run.json has another number, or another one before it"
    began = _began(about)
    if began is None:
        yield "run.json does not say when the run began, so that nobody can tell which version was in force"
    elif not any(_in_force(chain, found, moment) for moment in (began, began + _LATER)):
        yield f"{found.label} was not in force when the run began"


def _in_force(chain: Chain, charter: Charter, moment: int) -> bool:
    try:
        return chain.in_force(moment).hash == charter.hash and not expired(charter, moment)
    except CharterError:
        return False


def _began(about: Mapping[str, Any]) -> int | None:
    try:
        return int(datetime.fromisoformat(about["started"]).timestamp())
    except (KeyError, TypeError, ValueError, OverflowError):
        return None


def _short(digest: object) -> str:
    return "none" if digest is None else str(digest)[:16]
