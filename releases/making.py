"""From a run to a release: what has to hold of the run, what goes into the envelope, and what it says of both."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from quire.charter.chain import read_chain
from quire.charter.document import Charter
from quire.clients.arrays import fingerprint
from quire.clients.identity import files, read_roster
from quire.clients.tasks.schema import read_schema
from quire.errors import SettingsError
from quire.privacy.identity.keys import SEED_SIZE, PrivateIdentity
from quire.privacy.identity.roster import NAME_WORDS, Roster, is_hash, is_name
from quire.releases.disk import shown
from quire.releases.envelope import seal
from quire.releases.errors import ReleaseError
from quire.releases.header import (
    CARD,
    FOLDER,
    GIVEN,
    MAX_PAYLOAD,
    MAX_RECIPIENTS,
    MAX_VERSION,
    MODEL,
    NOT_VERIFIED,
    RUN,
    SCHEMA,
    SETTINGS,
    Header,
    Mark,
    Origin,
    Part,
    UnderCharter,
    purpose_of,
)
from quire.releases.marks import MarkKey
from quire.releases.opening import arrays_of, moment
from quire.releases.recipients import Recipient, read_recipient
from quire.releases.registry import Registry, opened
from quire.releases.watermark import BITS, embed
from quire.simulation.verify import verify_run
from quire.strategies.attacked import attack_told
from quire.strategies.checkpoint import safetensors
from quire.strategies.folder import read_about
from quire.strategies.material import CardError, read_material
from quire.strategies.told import layers_kept
from quire.text import visible

_MAX_FILE = 64 * 2**20


@dataclass(frozen=True)
class Terms:
    """What the releaser asks for.

    Attributes
    ----------
    name : str
        Of the model, under the rules for names in a roster.
    purpose : str
    expires : int
        The first second in which it does not open any more.
    recipients : tuple of pathlib.Path
        Their public files.
    roster, charter, schema : pathlib.Path or None
        What the run is held against; the agreed form of the rows, to go with it.
    unverified : bool
        Release a run that does not verify, and say so.
    watermark : pathlib.Path or None
        A new file for the key of a watermark; None: no watermark.
    """

    name: str
    purpose: str
    expires: int
    recipients: tuple[Path, ...]
    roster: Path | None = None
    charter: Path | None = None
    schema: Path | None = None
    unverified: bool = False
    watermark: Path | None = None


@dataclass
class Made:
    """A release: its file, its header, and what was found on the way."""

    path: Path
    header: Header
    notes: list[str] = field(default_factory=list)


def last_day(text: str) -> int:
    """Return when an envelope expires whose last day (UTC) is this: the first second of the next.

    Raises
    ------
    ReleaseError
        If it is no date such as ``2027-06-30``.
    """
    try:
        day = datetime.strptime(text, "%Y-%m-%d").replace(tzinfo=UTC)
        return int((day + timedelta(days=1)).timestamp())
    except (ValueError, OverflowError):
        raise ReleaseError(f"--expires takes the last day as a date such as 2027-06-30, not '{text[:40]}'.") from None


def release(run: Path, folder: Path, terms: Terms, identity: PrivateIdentity, now: int) -> Made:
    """Release the model of a run as the next version.

    Parameters
    ----------
    run : pathlib.Path
        The run's folder.
    folder : pathlib.Path
        The registry's; begun if there is none.
    terms : Terms
    identity : PrivateIdentity
        The releaser's.
    now : int
        Seconds since 1970 UTC.

    Raises
    ------
    QuireError
        If the run does not verify, or anything is not as it has to be; nothing is released then.
    """
    if not is_name(terms.name):
        raise ReleaseError(f"The name of a model must be {NAME_WORDS}.")
    purpose_of(terms.purpose)
    if terms.expires <= now:
        raise ReleaseError(f"The release would have expired on {moment(terms.expires)}: name a later day.")
    notes: list[str] = []
    about = _about(run)
    _not_attacked(run, about)
    recipients = _recipients(terms, now, notes)
    origin = _origin(run, about, terms, notes)
    charter = _charter(about, terms)
    parts = _parts(run, about, terms, origin)
    if missing := layers_kept(run):
        notes.append(
            f"The model lacks the layers that stayed in the silos (training.local_layers={visible(missing)}): whoever "
            "receives it has to train its own before the model is of use."
        )
    mark, key = _marked(parts, terms)
    released = False
    try:
        with opened(folder, identity, now, new=True) as registry:
            header = _header(registry, terms, identity, parts, recipients, now, (origin, charter, mark))
            envelope = seal(header, parts, recipients, identity)
            released = True  # or perhaps: a disk that fails while syncing does not tell, and the key must not be lost
            path = registry.release(envelope)
    except BaseException:
        if key is not None and not released:
            key.unlink(missing_ok=True)
        raise
    return Made(path, header, notes)


def _header(
    registry: Registry,
    terms: Terms,
    identity: PrivateIdentity,
    parts: Mapping[str, bytes],
    recipients: list[Recipient],
    now: int,
    about: tuple[Origin, UnderCharter | None, Mark | None],
) -> Header:
    origin, charter, mark = about
    known = registry.book.models.get(terms.name)
    before = known.versions[-1] if known is not None else None
    number = 1 if before is None else before.number + 1
    if number > MAX_VERSION:
        raise ReleaseError(f"{terms.name} has {MAX_VERSION} versions, the most that there can be.")
    return Header(
        name=terms.name,
        version=number,
        previous=None if before is None else before.envelope,
        registry=registry.book.id,
        releaser=identity.public,
        issued=now,
        expires=terms.expires,
        purpose=terms.purpose,
        model=fingerprint(arrays_of(parts[MODEL], MODEL)),
        parts=tuple(Part(name, hashlib.sha256(data).hexdigest(), len(data)) for name, data in parts.items()),
        recipients=tuple(one.id for one in recipients),
        origin=origin,
        charter=charter,
        watermark=mark,
    )


def _about(run: Path) -> Mapping[str, Any]:
    about = read_about(run)
    if not isinstance(about.get("model"), str) or not is_hash(about["model"]):
        raise ReleaseError(f"{shown(run)} holds no finished run: its run.json names no model.")
    return about


def _held_to(about: Mapping[str, Any], what: str) -> Any:
    """Return what ``run.json`` says that the run was held to; None where it says nothing."""
    held = about.get("held_to")
    return held.get(what) if isinstance(held, dict) else None


def _not_attacked(run: Path, about: Mapping[str, Any]) -> None:
    """Refuse the model of a run that a simulation attacked on purpose: no word in an envelope makes it a result."""
    if name := attack_told(run, about):
        raise ReleaseError(
            f"{shown(run)} was attacked on purpose (attack={visible(name)[:40]}): its model is no result, and is not "
            "released."
        )


def _recipients(terms: Terms, now: int, notes: list[str]) -> list[Recipient]:
    if not 1 <= len(terms.recipients) <= MAX_RECIPIENTS:
        raise ReleaseError(f"A release has 1 to {MAX_RECIPIENTS} recipients: name each with --to FILE.")
    found = [read_recipient(path) for path in terms.recipients]
    if len({one.id for one in found}) != len(found):
        raise ReleaseError("A recipient is named twice.")
    roster = None if terms.roster is None else read_roster(terms.roster).roster
    notes += [f"To {one.name}: key {one.id[:16]}, {_whose(one, roster, now)}." for one in found]
    return found


def _whose(one: Recipient, roster: Roster | None, now: int) -> str:
    if one.signer is None:
        return "which nobody has signed; compare it with its owner"
    if roster is None:
        return f"signed by {one.signer.fingerprint[:16]}; whose key that is, was not looked up without --roster"
    return f"signed by member {one.owner(roster, now)}"


def _origin(run: Path, about: Mapping[str, Any], terms: Terms, notes: list[str]) -> Origin:
    code = about.get("code")
    code = code if isinstance(code, str) and is_hash(code) else None
    try:
        found = verify_run(run, terms.roster, None, terms.charter)
        wrong = found.wrong
        if about.get("status") != "completed":
            wrong = [*wrong, "run.json does not say that the run was completed."]
    except SettingsError as error:  # without privacy, or a self-test
        wrong = [str(error)]
    if wrong:
        if not terms.unverified:
            more = f" (and {len(wrong) - 1} more; see `quire verify`)" if len(wrong) > 1 else ""
            raise ReleaseError(
                f"The run does not verify: {wrong[0].rstrip('.')}{more}. With --unverified it is released all the "
                "same, and the envelope says so."
            )
        notes.append(f"The run does not verify, and the envelope says so: {wrong[0]}")
        return Origin(about["model"], code, NOT_VERIFIED, None, None)
    notes += found.notes
    try:
        material = read_material(run)
        simulated = any(one.body["simulated"] for line in material.receipts for one in line.values())
        signed = read_roster(terms.roster) if terms.roster is not None else material.roster
    except CardError as error:
        raise ReleaseError(f"{shown(run)}: {error}") from error
    if signed is None:
        raise ReleaseError(f"{shown(run)} has no roster; name the consortium's with --roster FILE.")
    return Origin(about["model"], code, FOLDER if terms.roster is None else GIVEN, signed.roster.hash, simulated)


def _charter(about: Mapping[str, Any], terms: Terms) -> UnderCharter | None:
    named = _held_to(about, "charter")
    if named is None:
        if terms.charter is not None:
            raise ReleaseError("The run is under no charter: leave --charter out.")
        return None
    digest, version = (named.get("charter"), named.get("version")) if isinstance(named, dict) else (None, None)
    if not isinstance(digest, str) or not is_hash(digest) or type(version) is not int or not 0 < version <= MAX_VERSION:
        raise ReleaseError("run.json says of the charter what no run says.")
    if terms.charter is None:
        return UnderCharter(digest, version, checked=False)
    versions = read_chain(terms.charter).versions
    found = next((one.charter for one in versions if one.charter.hash == digest), None)
    if found is None or found.version != version:
        raise ReleaseError(
            f"The run is under version {version} of a charter, {digest[:16]}, and {shown(terms.charter)} holds none "
            "with this hash."
        )
    _check_use(found, terms.expires)
    return UnderCharter(digest, version, checked=True)


def _check_use(charter: Charter, expires: int) -> None:
    until = charter.exit.use_until
    if until is not None and expires - 1 > until:
        raise ReleaseError(
            f"The charter lets the model be used until {moment(until)}, and the release would expire on "
            f"{moment(expires)}: name an earlier day."
        )


def _parts(run: Path, about: Mapping[str, Any], terms: Terms, origin: Origin) -> dict[str, bytes]:
    parts = {MODEL: files.read(run / MODEL, MAX_PAYLOAD)}
    if fingerprint(arrays_of(parts[MODEL], shown(run / MODEL))) != origin.model:
        raise ReleaseError(f"{shown(run / MODEL)} is not the model that run.json names: it was changed since.")
    if (run / CARD).is_file():
        parts[CARD] = files.read(run / CARD, _MAX_FILE)
    parts[SETTINGS] = files.read(run / SETTINGS, _MAX_FILE)
    parts[RUN] = files.read(run / RUN, _MAX_FILE)  # federated preprocessing keeps the columns' statistics there
    named = _held_to(about, "schema")
    if terms.schema is not None:
        if read_schema(terms.schema).sha256 != named:
            raise ReleaseError(f"{shown(terms.schema)} is not the form of the rows that the run was held to.")
        parts[SCHEMA] = files.read(terms.schema, _MAX_FILE)
    elif named is not None:
        raise ReleaseError(
            "The run read rows of an agreed form, without which nobody can use its model: name --schema."
        )
    if sum(map(len, parts.values())) > MAX_PAYLOAD:
        raise ReleaseError(f"The model is too large: an envelope holds {MAX_PAYLOAD} bytes.")
    return parts


def _marked(parts: dict[str, bytes], terms: Terms) -> tuple[Mark | None, Path | None]:
    """Put a watermark into the model among the parts, and its key into a file, if one is asked for."""
    if terms.watermark is None:
        return None, None
    files.check_absent(terms.watermark)
    seed = os.urandom(SEED_SIZE)
    marked, layers = embed(arrays_of(parts[MODEL], MODEL), seed)
    key = MarkKey(seed, layers, fingerprint(marked))
    key.write(terms.watermark)
    parts[MODEL] = safetensors(marked)
    return Mark(BITS, key.commitment), terms.watermark
