"""What an envelope says of itself, in clear: canonical JSON, signed by the releaser, bound into all that is encrypted.

::

    {"charter": null or {"checked": bool, "hash": hash, "version": 1},
     "expires": seconds, "format": "quire-envelope-1", "issued": seconds,
     "model": fingerprint of the model's arrays, "name": ..., "version": 1,
     "parts": [{"name": "model.safetensors", "sha256": hash, "size": bytes}, ...],      in the order of PARTS
     "previous": hash of the envelope of the version before, null in the first,
     "purpose": text, "recipients": [key id, ...], "registry": hash, "releaser": the public keys, hex,
     "run": {"code": hash or null, "model": fingerprint, "roster": hash or null, "simulated": bool or null,
             "verified": "given", "folder" or "no"},
     "watermark": null or {"bits": 64, "commitment": hash}}

``model`` is what is inside, ``run.model`` what the run ended with: they differ if a watermark was put in. Whoever can
read the file can read all of this, recipients or not; the parts themselves are encrypted.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

from quire.charter.errors import CharterError
from quire.charter.parts import check_text, read_text, spelled_text
from quire.privacy.identity.canonical import dumps, loads
from quire.privacy.identity.errors import BadEncoding, IdentityError
from quire.privacy.identity.keys import PublicIdentity
from quire.privacy.identity.roster import FOR_EVER, fields, hexadecimal, is_hash, is_name
from quire.releases.errors import Refused

FORMAT = "quire-envelope-1"
MODEL, CARD, SETTINGS, RUN, SCHEMA = PARTS = (
    *("model.safetensors", "privacy_card.json", "settings.yaml", "run.json", "schema.yaml"),
)
#: How a run's signatures were checked: against a roster that the releaser named, the run folder's own, or not at all.
GIVEN, FOLDER, NOT_VERIFIED = VERIFIED = ("given", "folder", "no")

MAX_HEADER = 256 * 1024
#: Bytes of all parts together: they are encrypted in one piece, and held in memory.
MAX_PAYLOAD = 2**30
MAX_RECIPIENTS = 1024
MAX_VERSION = 1_000_000
MAX_PURPOSE = 1000
MAX_BITS = 4096


@dataclass(frozen=True)
class Part:
    """A file in an envelope: name, SHA-256 (hex) and size in bytes."""

    name: str
    sha256: str
    size: int


@dataclass(frozen=True)
class Origin:
    """Which run a model is from, and what was found of it when it was released.

    Attributes
    ----------
    model : str
        Fingerprint of the model that the run ended with.
    code : str or None
        Hash of the code that the run went with; None where run.json says none.
    verified : str
        One of :data:`VERIFIED`.
    roster : str or None
        Hash of the roster that it was verified against.
    simulated : bool or None
        Whether its silos were simulated; None if it was not verified.
    """

    model: str
    code: str | None
    verified: str
    roster: str | None
    simulated: bool | None


@dataclass(frozen=True)
class UnderCharter:
    """The charter that a run was under, and whether the releaser held it in hand."""

    hash: str
    version: int
    checked: bool


@dataclass(frozen=True)
class Mark:
    """That there is a watermark: how many bits, and the hash that its key was committed to by."""

    bits: int
    commitment: str


@dataclass(frozen=True)
class Header:
    """What an envelope says. See the module for each field; refuses to be read with a contradiction in it."""

    name: str
    version: int
    previous: str | None
    registry: str
    releaser: PublicIdentity
    issued: int
    expires: int
    purpose: str
    model: str
    parts: tuple[Part, ...]
    recipients: tuple[str, ...]
    origin: Origin
    charter: UnderCharter | None = None
    watermark: Mark | None = None

    @property
    def label(self) -> str:
        """Name and version, for people."""
        return f"{self.name} version {self.version}"

    @property
    def payload(self) -> int:
        """Bytes of all parts together."""
        return sum(part.size for part in self.parts)

    @cached_property
    def data(self) -> bytes:
        """The canonical JSON."""
        charter, mark = self.charter, self.watermark
        return dumps(
            {
                **{"format": FORMAT, "name": self.name, "version": self.version, "previous": self.previous},
                **{"registry": self.registry, "releaser": self.releaser.encode().hex()},
                **{"issued": self.issued, "expires": self.expires, "purpose": spelled_text(self.purpose)},
                **{"model": self.model, "parts": [vars(part) for part in self.parts]},
                **{"recipients": list(self.recipients), "run": vars(self.origin)},
                "charter": None if charter is None else vars(charter),
                "watermark": None if mark is None else vars(mark),
            }
        )

    @classmethod
    def read(cls, data: bytes) -> Header:
        """Read a header, strictly.

        Raises
        ------
        Refused
            If it is anything that :attr:`data` cannot be.
        """
        try:
            return _read(data)
        except (IdentityError, CharterError) as error:
            raise Refused(f"The envelope's header is not one: {error}") from None


def purpose_of(text: str) -> str:
    """Return a purpose, once it can stand in a header; see :func:`bounded`."""
    return bounded(text, "The purpose", MAX_PURPOSE)


def bounded(text: str, what: str, most: int) -> str:
    """Return a text, once it can stand in what is signed.

    Raises
    ------
    CharterError
        If it is empty, too long, or has characters that do not print.
    """
    check_text(text, what)
    if len(text) > most:
        raise CharterError(f"{what} must be a text of 1 to {most} characters.")
    return text


_KEYS: dict[str, type | None] = {
    **dict.fromkeys(("format", "name", "registry", "releaser", "purpose", "model"), str),
    **dict.fromkeys(("version", "issued", "expires"), int),
    **dict.fromkeys(("previous", "parts", "recipients", "run", "charter", "watermark")),
}


def _read(data: bytes) -> Header:
    found = fields(loads(data, MAX_HEADER), "header", _KEYS)
    _need(found["format"] == FORMAT, f"its format is not {FORMAT}, the only one that this version reads.")
    _need(is_name(found["name"]), "its name is none.")
    _need(1 <= found["version"] <= MAX_VERSION, "its version is none.")
    _need(found["previous"] is None or _hash(found["previous"]), "'previous' is no hash.")
    _need(_hash(found["registry"]) and _hash(found["model"]), "a hash in it is none.")
    _need(0 <= found["issued"] < found["expires"] <= FOR_EVER, "its times are none.")
    return Header(
        name=found["name"],
        version=found["version"],
        previous=found["previous"],
        registry=found["registry"],
        releaser=PublicIdentity.decode(hexadecimal(found["releaser"], "'releaser'")),
        issued=found["issued"],
        expires=found["expires"],
        purpose=purpose_of(read_text(found["purpose"], "The purpose")),
        model=found["model"],
        parts=_parts(found["parts"]),
        recipients=_recipients(found["recipients"]),
        origin=_origin(found["run"]),
        charter=_charter(found["charter"]),
        watermark=_mark(found["watermark"]),
    )


def _parts(value: Any) -> tuple[Part, ...]:
    _need(isinstance(value, list) and len(value) <= len(PARTS), "its parts are none.")
    parts = []
    for item in value:
        found = fields(item, "part", {"name": str, "sha256": str, "size": int})
        _need(_hash(found["sha256"]) and 0 <= found["size"] <= MAX_PAYLOAD, "a part of it is none.")
        parts.append(Part(**found))
    names = [part.name for part in parts]
    _need(names == [name for name in PARTS if name in names], "its parts are others, or in another order.")
    _need({MODEL, SETTINGS, RUN} <= set(names), "it holds no model, or not what the model is used with.")
    _need(sum(part.size for part in parts) <= MAX_PAYLOAD, "its parts are too large.")
    return tuple(parts)


def _recipients(value: Any) -> tuple[str, ...]:
    _need(isinstance(value, list) and 1 <= len(value) <= MAX_RECIPIENTS, "its recipients are none, or too many.")
    _need(all(_hash(item) for item in value) and len(set(value)) == len(value), "a recipient is none, or there twice.")
    return tuple(value)


def _origin(value: Any) -> Origin:
    names = ("code", "model", "roster", "simulated", "verified")
    found = fields(value, "run", dict.fromkeys(names))
    _need(_hash(found["model"]), "the run's model is no hash.")
    _need(all(found[key] is None or _hash(found[key]) for key in ("code", "roster")), "a hash of the run is none.")
    _need(found["verified"] in VERIFIED, "how the run was verified is not said.")
    unknown = found["verified"] == NOT_VERIFIED
    _need(
        (found["roster"] is None) == unknown and (found["simulated"] is None) == unknown, "the run contradicts itself."
    )
    _need(found["simulated"] is None or type(found["simulated"]) is bool, "'simulated' is none.")
    return Origin(**found)


def _charter(value: Any) -> UnderCharter | None:
    if value is None:
        return None
    found = fields(value, "charter", {"checked": None, "hash": str, "version": int})
    _need(_hash(found["hash"]) and 1 <= found["version"] <= MAX_VERSION, "its charter is none.")
    _need(type(found["checked"]) is bool, "whether the charter was checked is not said.")
    return UnderCharter(**found)


def _mark(value: Any) -> Mark | None:
    if value is None:
        return None
    found = fields(value, "watermark", {"bits": int, "commitment": str})
    _need(_hash(found["commitment"]) and 1 <= found["bits"] <= MAX_BITS, "its watermark is none.")
    return Mark(**found)


def _hash(value: Any) -> bool:
    return isinstance(value, str) and is_hash(value)


def _need(holds: bool, otherwise: str) -> None:
    if not holds:
        raise BadEncoding(otherwise)
