"""What a privacy card is made of: settings, journal, receipts and roster, as a run folder holds them."""

from __future__ import annotations

import binascii
import json
from base64 import b64decode
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from quire.privacy.dp.contract import PrivacyError
from quire.privacy.identity.errors import IdentityError
from quire.privacy.identity.signed import MAX_BYTES, SignedRoster
from quire.privacy.receipts import Receipt, ReceiptError
from quire.strategies.enclaves import NONE, Enclaves, EnclavesError
from quire.strategies.enclaves import read as read_enclaves
from quire.strategies.receipts import ROSTER_FILE


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
        The journal's lines about rounds and resumes, in order; of a round that was run again the later line alone. The
        line of a round that ended the run comes last.
    roster : SignedRoster or None
    charter_version : int or None
        Of the charter that the run is under, as ``run.json`` says; None where it says none.
    enclaves : Enclaves
        What is known of those in which silos ran.
    """

    settings: Mapping[str, Any]
    start: Mapping[str, Any]
    lines: tuple[dict[str, Any], ...]
    roster: SignedRoster | None
    charter_version: int | None = None
    enclaves: Enclaves = NONE

    @property
    def rounds(self) -> tuple[dict[str, Any], ...]:
        """The rounds, in order."""
        return tuple(line for line in self.lines if line["event"] == "round")

    @property
    def charged(self) -> tuple[dict[str, Any], ...]:
        """The rounds with those that failed, in order: what silos have charged for."""
        return tuple(line for line in self.lines if line["event"] in _CHARGED)

    @property
    def model(self) -> str:
        """SHA-256 of the last model; of the first before any round."""
        return str((self.rounds or (self.start,))[-1].get("model"))

    @cached_property
    def receipts(self) -> tuple[dict[str, Receipt], ...]:
        """The receipts of each line, by the silo that the journal names.

        Raises
        ------
        CardError
            If one is no receipt.
        """
        return tuple(_receipts(line) if line["event"] in _CHARGED else {} for line in self.lines)

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
    from quire.conf.strict_yaml import loaded

    text = _text(folder / "settings.yaml")
    try:
        settings = loaded(text)
    except ValueError:
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
        elif isinstance(kind, str) and kind in _FORMS:
            _check_form(number, line, _FORMS[kind])
            while kind in _CHARGED and lines and lines[-1]["round"] >= line["round"]:  # it was run again
                lines.pop()
            lines.append(line)
    path = folder / ROSTER_FILE
    roster = read_roster(path) if path.exists() else None
    return Material(settings, start, tuple(lines), roster, _charter_version(folder / "run.json"), _enclaves(folder))


def _enclaves(folder: Path) -> Enclaves:
    try:
        return read_enclaves(folder)
    except EnclavesError as error:
        raise CardError(str(error)) from error


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


def _charter_version(path: Path) -> int | None:
    """Return what run.json says of the charter's version; None where it says nothing that could be one."""
    try:
        found = json.loads(_text(path))["held_to"]["charter"]["version"]
    except (CardError, KeyError, TypeError, ValueError, RecursionError):
        return None
    return found if type(found) is int else None


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


_START: dict[str, Any] = {"silos": [str], "model": str}
_FAILED: dict[str, Any] = {"round": int, "cohort": [str], "replied": [str], "failed": [dict]}
_FORMS: dict[str, dict[str, Any]] = {"round": {**_FAILED, "model": str}, "failed": _FAILED, "resume": {"round": int}}
_OBJECTS = ("secure", "train", "released")  # where they are there at all
_CHARGED = ("round", "failed")


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
    if key := misshapen(line):
        raise CardError(f"Line {number} of metrics.jsonl has a '{key}' that is not of the right form.")


def misshapen(line: Mapping[str, Any]) -> str:
    """Return what of a journal's line should be an object, if it is there, and is none; nothing if all is well."""
    return next((key for key in _OBJECTS if not isinstance(line.get(key), dict | None)), "")


def _journal(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    text = _text(path)
    lines = text.split("\n")
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
