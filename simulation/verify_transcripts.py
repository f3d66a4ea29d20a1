"""``quire transcript verify``, and what ``quire verify`` asks of transcripts: all that a run folder has for them."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from quire.clients.arrays import Arrays, fingerprint
from quire.conf.compose import compose
from quire.conf.schema import SecureAggregation, Settings
from quire.errors import QuireError, SettingsError
from quire.privacy.dp.contract import PrivacyError
from quire.privacy.dp.rounding import EncodingError
from quire.privacy.identity.errors import IdentityError
from quire.privacy.identity.keys import PublicIdentity
from quire.privacy.identity.roster import Roster
from quire.simulation.audited import Audit
from quire.simulation.transcripts import Auditor
from quire.simulation.verify_roster import trusted_roster
from quire.strategies.folder import read_about, read_overrides
from quire.strategies.material import CardError, Material, read_material
from quire.strategies.run_log import LOG_FOLDER
from quire.strategies.transcripts import TRANSCRIPTS_FOLDER
from quire.transparency.errors import LogError
from quire.transparency.reading import Entries
from quire.transparency.shown import LogName
from quire.transparency.verify import Place


def check_transcripts(
    folder: Path,
    material: Material,
    settings: Settings | None,
    about: Mapping[str, Any],
    roster: Roster | None,
    schema: Path | None = None,
) -> Audit:
    """Audit the transcripts of a run, if it has any or ought to.

    Parameters
    ----------
    folder : pathlib.Path
        The run folder.
    material : Material
    settings : Settings or None
        As composed anew; None where they could not be, which is said elsewhere.
    about : mapping
        What ``run.json`` says.
    roster : Roster or None
        Whose signatures count; None where there is none, which is said elsewhere.
    schema : pathlib.Path, optional
        The ``schema.yaml`` of a task whose silos read rows of their own: without it the first model is not known.

    Returns
    -------
    Audit
        An empty one of a run without transcripts.
    """
    if settings is None or roster is None or not isinstance(settings.aggregation, SecureAggregation):
        return Audit()
    log = _log(folder)
    if not _kept(folder, settings, material, log):
        return Audit()
    first, notes, wrong = _first_model(settings, material, schema)
    try:
        auditor = Auditor(folder, settings, roster, _span(about), first, None if log is None else log.name)
    except (EncodingError, PrivacyError) as error:
        return Audit(wrong=[f"What the silos agreed on cannot be worked out: {str(error).rstrip('.')}."])
    audit = auditor.audit
    audit.notes += notes
    audit.wrong += wrong
    before = str(material.start.get("model"))
    for line in material.charged:
        auditor.line(line, before)
        before = str(line.get("model"))
    logged = frozenset() if log is None else log.transcripts
    auditor.others({digest: f"round {number}, attempt {attempt}" for digest, number, attempt in logged})
    if log is not None:
        audit.wrong += [
            f"{one.name.capitalize()}: the log has no entry for its transcript."
            for one in audit.attempts
            if (one.replay.sha256, one.round, one.attempt) not in logged
        ]
    audit.notes.append(audit.summary)
    return audit


def audit_run(folder: Path, roster: Path | None = None, pin: str | None = None, schema: Path | None = None) -> Audit:
    """Audit the transcripts of a run by what lies in its folder, with or without privacy.

    Parameters
    ----------
    folder : pathlib.Path
        The run folder.
    roster : pathlib.Path, optional
        The consortium's, from where the reader trusts it; the run folder's own by default.
    pin : str, optional
        The hash that the roster must have.
    schema : pathlib.Path, optional
        See :func:`check_transcripts`.

    Raises
    ------
    SettingsError
        If the folder holds no run, or none with transcripts.
    QuireError
        If the roster cannot be read, or does not hold.
    """
    about = read_about(folder)
    settings = compose(read_overrides(folder))
    if not isinstance(settings.aggregation, SecureAggregation):
        raise SettingsError(f"The run in '{folder}' had no secure aggregation, so there are no transcripts of it.")
    try:
        material = read_material(folder)
        if not _kept(folder, settings, material, _log(folder)):
            raise SettingsError(f"The run in '{folder}' kept no transcripts: output.transcripts=true keeps them.")
        trusted = trusted_roster(material, settings, about.get("runtime") != "deployment", roster, pin)
    except CardError as error:
        raise QuireError(f"The transcripts of '{folder}' cannot be audited: {error}") from error
    if trusted.wrong:
        raise QuireError(f"The transcripts of '{folder}' cannot be audited: {trusted.wrong[0]}")
    audit = check_transcripts(folder, material, settings, about, trusted.roster, schema)
    audit.notes[:0] = trusted.notes
    return audit


def _kept(folder: Path, settings: Settings, material: Material, log: _Log | None) -> bool:
    """Whether anything says that transcripts were kept: settings.yaml alone may have been edited to say otherwise."""
    if settings.output.transcripts or (folder / TRANSCRIPTS_FOLDER).exists() or (log is not None and log.transcripts):
        return True
    told = [line["secure"].get("attempts") for line in material.charged if isinstance(line.get("secure"), dict)]
    attempts = [one for listed in told if isinstance(listed, list) for one in listed]
    return any(isinstance(one, dict) and one.get("transcript") is not None for one in attempts)


def _first_model(
    settings: Settings, material: Material, schema: Path | None
) -> tuple[Arrays | None, list[str], list[str]]:
    """Return the model that the seed gives, with notes, and with what is wrong with it."""
    from quire.clients.tasks import task_of
    from quire.clients.tasks.local_layers import first_model
    from quire.clients.tasks.schema import read_schema

    try:
        form = None if schema is None else read_schema(schema)
        model = first_model(task_of(settings, form), settings)
    except QuireError as error:
        why = f"The first model cannot be made here, so that sums were checked and models were not: {error}"
        return None, [why], []
    if fingerprint(model) != material.start.get("model"):
        return None, [], ["The run did not begin with the model that its seed gives: no later model was recomputed."]
    return model, [], []


def _span(about: Mapping[str, Any]) -> tuple[int, int]:
    """Return when a run began and ended; of what run.json does not say, now."""
    moments = []
    for key in ("started", "finished"):
        try:
            moments.append(int(datetime.fromisoformat(about[key]).timestamp()))
        except (KeyError, TypeError, ValueError, OverflowError):
            moments.append(int(time.time()))
    return moments[0], moments[1]


@dataclass(frozen=True)
class _Log:
    """What an audit asks of the run's log: which log it is, and digest, round and attempt of each transcript."""

    name: LogName
    transcripts: frozenset[tuple[str, int, int]]


def _log(folder: Path) -> _Log | None:
    """Read the run's log; None where there is none that can be read, which is told of by whoever verifies it."""
    if not (folder / LOG_FOLDER).exists():
        return None
    try:
        entries = Entries(Place.of(folder / LOG_FOLDER).entries)
        begin = entries.entry(0)
        key = PublicIdentity.decode(bytes.fromhex(begin.body["identity"]))
        found = [entry for _, entry in entries.each(lambda line: b'"kind":"transcript"' in line)]
        told = frozenset((entry.body["transcript"], entry.round, entry.body["attempt"]) for entry in found)
        return _Log(LogName(begin.body["origin"], key.fingerprint), told)
    except (LogError, IdentityError, OSError, KeyError):
        return None
