"""An offer: what one silo says that it has, signed. ``{"body": ..., "signature": hex, "signer": fingerprint}``.

It holds the silo's public keys, so that whoever has the file can check it: that shows that nobody changed it, not whose
keys they are. A catalogue keeps to the keys that it saw first, or to those of a roster.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, NoReturn

from quire.catalog.counts import Count
from quire.catalog.errors import BadOffer, CatalogError, OfferRefused
from quire.catalog.form import closed, from_json, kind_of
from quire.clients.data.rules.labels import SENSITIVITIES, spelled
from quire.clients.identity.errors import IdentityFileError
from quire.clients.identity.files import read
from quire.clients.tasks.schema import Schema
from quire.privacy.dp.contract import PrivacyError
from quire.privacy.identity.errors import IdentityError
from quire.privacy.identity.keys import PrivateIdentity, PublicIdentity
from quire.privacy.identity.roster import is_hash
from quire.privacy.signed_body import SignedBody, canonical

FORMAT = "quire-offer-1"
MAX_BYTES = 1 << 20
MAX_TITLE, MAX_DESCRIPTION, MAX_CONTACT, MAX_PURPOSE = 200, 4000, 200, 2000
MAX_LISTED = 256
#: Days that an offer is good for, and the most.
DAYS, MAX_DAYS = 365, 1830
#: Seconds that another clock may be ahead.
AHEAD = 300

_KEYS = {
    *("format", "silo", "identity", "title", "description", "contact", "issued", "expires"),
    *("task", "schema", "schema_sha256", "labels", "terms", "rows"),
}
NAME = re.compile(r"[a-z][a-z0-9-]{0,31}")
_WORD = re.compile(r"[a-z][a-z0-9_-]{0,31}")
_LATEST = 2**37


@dataclass(frozen=True)
class Labels:
    """The labels of an offer's rows; see :class:`quire.clients.data.rules.labels.Dataset`."""

    sensitivity: str
    residency: tuple[str, ...] | None
    purposes: tuple[str, ...] | None

    def to_json(self) -> dict[str, Any]:
        """Return them as a JSON object."""
        residency = None if self.residency is None else list(self.residency)
        purposes = None if self.purposes is None else list(self.purposes)
        return {"sensitivity": self.sensitivity, "residency": residency, "purposes": purposes}


@dataclass(frozen=True)
class Terms:
    """Which options of ``privacy`` and ``aggregation`` the silo's policy admits, where its operator tells."""

    privacy: tuple[str, ...]
    aggregation: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Return them as a JSON object."""
        return {"privacy": list(self.privacy), "aggregation": list(self.aggregation)}


class Offer(SignedBody):
    """What a silo offers. :meth:`decode` checks everything, the signature included.

    Attributes
    ----------
    body : mapping
        As it was signed; the properties read it.
    signature, signer
        See :class:`~quire.privacy.signed_body.SignedBody`.
    """

    TAG: ClassVar[str] = "quire/offer/1"
    ERROR: ClassVar[type[PrivacyError]] = BadOffer

    @classmethod
    def sign(cls, body: Mapping[str, Any], identity: PrivateIdentity) -> Offer:
        """Sign a body; its ``identity`` is put in.

        Raises
        ------
        BadOffer
            If the body says something that an offer cannot say, or has too many bytes.
        """
        whole = {**body, "identity": identity.public.encode().hex()}
        check_body(whole)
        made = cls(whole, identity.sign(cls.TAG, canonical(whole)), identity.public.fingerprint)
        if len(made.encode()) > MAX_BYTES:
            raise BadOffer(f"An offer has at most {MAX_BYTES} bytes; this schema is too large for one.")
        return made

    @classmethod
    def decode(cls, data: bytes) -> Offer:
        """Read an offer and check its signature, by the keys that it names itself.

        Raises
        ------
        BadOffer
            If the bytes are anything but what :meth:`encode` writes of a signed offer.
        """
        if len(data) > MAX_BYTES:
            raise BadOffer(f"An offer has at most {MAX_BYTES} bytes.")
        try:
            value = json.loads(data.decode("ascii"), parse_constant=_no_number)
            if not isinstance(value, dict) or set(value) != {"body", "signature", "signer"}:
                raise ValueError
            if not isinstance(value["signer"], str) or not is_hash(value["signer"]):
                raise ValueError
            found = cls(value["body"], bytes.fromhex(value["signature"]), value["signer"])
            if found.encode() != data:
                raise ValueError
            json.dumps(value, ensure_ascii=False).encode()  # half a character has no place in any text
        except (TypeError, ValueError, RecursionError):
            raise BadOffer("These bytes are no offer, or one that was edited or reformatted.") from None
        check_body(found.body)
        found.check(found.public)
        return found

    @cached_property
    def public(self) -> PublicIdentity:
        """The keys that it names as the silo's."""
        return _identity(self.body["identity"])

    @cached_property
    def schema(self) -> Schema:
        """The form of the rows."""
        return from_json(self.body["schema"])

    @property
    def silo(self) -> str:
        """The silo's name."""
        return str(self.body["silo"])

    @property
    def task(self) -> str:
        """What can be learned: ``classification``, ``regression`` or ``images``."""
        return str(self.body["task"])

    @property
    def issued(self) -> int:
        """When it was made, in seconds since 1970 UTC."""
        return int(self.body["issued"])

    @property
    def expires(self) -> int:
        """The last second in which it is good."""
        return int(self.body["expires"])

    @property
    def count(self) -> Count:
        """How many rows, in its form."""
        return Count.from_json(self.body["rows"])

    @property
    def labels(self) -> Labels | None:
        """What the rows are labelled with; None where they have no labels."""
        return _labels(self.body["labels"])

    @property
    def terms(self) -> Terms | None:
        """What the policy admits; None where that is not told."""
        return _terms(self.body["terms"])

    def text(self, key: str) -> str | None:
        """Return ``title``, ``description`` or ``contact``; None where it is not given."""
        found = self.body[key]
        return None if found is None else str(found)

    def check_time(self, now: int) -> None:
        """Refuse an offer that is not good now.

        Raises
        ------
        OfferRefused
        """
        if now > self.expires:
            raise OfferRefused(f"The offer of {self.silo} expired on {day(self.expires)}: ask the silo for a new one.")
        if self.issued > now + AHEAD:
            raise OfferRefused(
                f"The offer of {self.silo} is dated {day(self.issued)}, which is yet to come: one of the two clocks is "
                "wrong."
            )


def read_offer(path: Path) -> Offer:
    """Read an offer from a file, its signature checked.

    Raises
    ------
    CatalogError
        If it cannot be read.
    OfferRefused
        If it is no offer, or its signature does not hold.
    """
    try:
        data = read(path, MAX_BYTES)
    except IdentityFileError as error:
        raise CatalogError(str(error)) from None
    try:
        return Offer.decode(data)
    except PrivacyError as error:
        raise OfferRefused(f"{path} is refused: {str(error).rstrip('.')}.") from None


def check_body(body: Any) -> None:
    """Check everything that an offer says, but the signature.

    Raises
    ------
    BadOffer
        If it says something that it cannot say.
    """
    found = closed(body, _KEYS, "An offer")
    if found["format"] != FORMAT:
        raise BadOffer(f"An offer is of the format {FORMAT}: a newer Quire wrote this one, or none.")
    if not isinstance(found["silo"], str) or not NAME.fullmatch(found["silo"]):
        raise BadOffer("A silo's name has at most 32 lower-case letters, digits and dashes, and begins with a letter.")
    _identity(found["identity"])
    for key, most in (("title", MAX_TITLE), ("description", MAX_DESCRIPTION), ("contact", MAX_CONTACT)):
        if found[key] is not None and not _is_text(found[key], most):
            raise BadOffer(f"The {key} of an offer has 1 to {most} characters of Unicode.")
    for key in ("issued", "expires"):
        if type(found[key]) is not int or not 0 <= found[key] < _LATEST:
            raise BadOffer(f"'{key}' of an offer is a whole number of seconds since 1970.")
    if not 0 < found["expires"] - found["issued"] <= MAX_DAYS * 86400:
        raise BadOffer(f"An offer expires after it is issued, and within {MAX_DAYS} days.")
    schema = from_json(found["schema"])
    if schema.sha256 != found["schema_sha256"]:
        raise BadOffer("The schema of an offer is not the one that it names by its hash.")
    if found["task"] != kind_of(schema):
        raise BadOffer("What an offer says can be learned is not what its schema says.")
    _labels(found["labels"])
    _terms(found["terms"])
    Count.from_json(found["rows"])


def moment(seconds: int) -> str:
    """Return a time (UTC) in seconds since 1970, to the second."""
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M:%S} UTC"


def day(seconds: int) -> str:
    """Return the day (UTC) of a time in seconds since 1970."""
    return datetime.fromtimestamp(seconds, UTC).date().isoformat()


def _identity(value: Any) -> PublicIdentity:
    try:
        found = PublicIdentity.decode(bytes.fromhex(value))
    except (IdentityError, TypeError, ValueError):
        raise BadOffer("An offer names the silo's public keys.") from None
    if found.encode().hex() != value:
        raise BadOffer("An offer names the silo's public keys in lower-case digits.")
    return found


def _labels(value: Any) -> Labels | None:
    if value is None:
        return None
    found = closed(value, {"sensitivity", "residency", "purposes"}, "Labels")
    if found["sensitivity"] not in SENSITIVITIES:
        raise BadOffer(f"The sensitivity of rows is one of {', '.join(SENSITIVITIES)}.")
    residency = None if found["residency"] is None else _words(found["residency"], "residency")
    purposes = found["purposes"]
    if purposes is not None:
        if not isinstance(purposes, list) or not 1 <= len(purposes) <= MAX_LISTED:
            raise BadOffer(f"Purposes are 1 to {MAX_LISTED} texts.")
        if not all(_is_text(one, MAX_PURPOSE) and spelled(one) == one for one in purposes):
            raise BadOffer(f"A purpose is a text of 1 to {MAX_PURPOSE} characters, with single spaces.")
    return Labels(found["sensitivity"], residency, None if purposes is None else tuple(purposes))


def _terms(value: Any) -> Terms | None:
    if value is None:
        return None
    found = closed(value, {"privacy", "aggregation"}, "Terms")
    return Terms(_words(found["privacy"], "privacy"), _words(found["aggregation"], "aggregation"))


def _words(value: Any, what: str) -> tuple[str, ...]:
    good = isinstance(value, list) and 1 <= len(value) <= MAX_LISTED
    if not good or not all(isinstance(word, str) and _WORD.fullmatch(word) for word in value):
        raise BadOffer(f"'{what}' lists words of lower-case letters, digits, dashes and underscores.")
    if value != sorted(set(value)):
        raise BadOffer(f"'{what}' lists words in order, none twice.")
    return tuple(value)


def _is_text(value: Any, most: int) -> bool:
    return isinstance(value, str) and 1 <= len(value) <= most and bool(value.strip()) and is_whole(value)


def is_whole(text: str) -> bool:
    """Tell whether a text has no half characters, as the bytes of a command line that are no UTF-8 become."""
    return not any("\ud800" <= letter <= "\udfff" for letter in text)


def _no_number(text: str) -> NoReturn:
    raise ValueError(text)
