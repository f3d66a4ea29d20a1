"""A catalogue for other catalogues: JSON-LD in the words of DCAT 3 (with DCAT-AP's choices) and of schema.org.

What strangers wrote goes into literals only. Identifiers are made here: of the silo's name, which is a word, and of
hashes. ``<``, ``>`` and ``&`` are escaped, so that the text can stand in a page's ``<script>``.

Source: W3C, Data Catalog Vocabulary (DCAT) version 3; SEMIC, DCAT-AP 3; schema.org, Dataset and DataCatalog.
"""

from __future__ import annotations

import json
import re
from base64 import urlsafe_b64encode
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any
from uuid import NAMESPACE_URL, uuid5

from quire.catalog.errors import CatalogError
from quire.catalog.offer import Offer, is_whole
from quire.clients.data.rules.labels import asks_of
from quire.clients.tasks.schema import Categorical, Numeric

DCAT, SCHEMA_ORG = "dcat", "schema.org"
FORMATS = (DCAT, SCHEMA_ORG)

#: The prefixes that an exported catalogue uses, and no others.
PREFIXES = {
    "dcat": "http://www.w3.org/ns/dcat#",
    "dct": "http://purl.org/dc/terms/",
    "foaf": "http://xmlns.com/foaf/0.1/",
    "rdfs": "http://www.w3.org/2000/01/rdf-schema#",
    "vcard": "http://www.w3.org/2006/vcard/ns#",
    "xsd": "http://www.w3.org/2001/XMLSchema#",
}
_RIGHTS = "http://publications.europa.eu/resource/authority/access-right/"
_ADDRESS = re.compile(r"[A-Za-z0-9._+-]{1,64}@[A-Za-z0-9-]{1,63}(?:\.[A-Za-z0-9-]{1,63}){1,8}")
_SHOWN = 100


def exported(offers: Sequence[Offer], form: str, title: str) -> bytes:
    """Return offers as one JSON-LD document, in UTF-8.

    Parameters
    ----------
    offers : sequence of Offer
    form : str
        One of :data:`FORMATS`.
    title : str
        Of the catalogue.

    Raises
    ------
    CatalogError
        If there is no such format, or nothing to export.
    """
    if form not in FORMATS:
        raise CatalogError(f"--format takes {' or '.join(FORMATS)}.")
    if not is_whole(title):
        raise CatalogError("--title takes characters of Unicode; some bytes of this one are none.")
    if not offers:
        raise CatalogError("There is no offer that is good now, and so nothing to export.")
    value = _dcat(offers, title) if form == DCAT else _schema_org(offers, title)
    text = json.dumps(value, indent=2, ensure_ascii=True, allow_nan=False)
    for letter in "<>&":  # such letters stand in strings only
        text = text.replace(letter, f"\\u{ord(letter):04x}")
    return text.encode("ascii") + b"\n"


def _dcat(offers: Sequence[Offer], title: str) -> dict[str, Any]:
    return {
        "@context": PREFIXES,
        "@type": "dcat:Catalog",
        "dct:title": _literal(title),
        "dct:description": _literal("What silos offer for federated learning. Rows stay where they are."),
        "dct:publisher": {"@type": "foaf:Agent", "foaf:name": _literal(title)},
        "dct:modified": _time(max(offer.issued for offer in offers)),
        "dcat:dataset": [_dcat_dataset(offer) for offer in offers],
    }


def _dcat_dataset(offer: Offer) -> dict[str, Any]:
    agent = {"@id": _id(offer, "silo"), "@type": "foaf:Agent", "foaf:name": _literal(offer.silo)}
    contact = offer.text("contact")
    card: dict[str, Any] = {"@type": "vcard:Kind", "vcard:fn": _literal(offer.silo if contact is None else contact)}
    if contact is not None and _ADDRESS.fullmatch(contact):
        card["vcard:hasEmail"] = {"@id": f"mailto:{contact}"}
    return {
        "@id": _id(offer, "rows"),
        "@type": "dcat:Dataset",
        "dct:identifier": _literal(_id(offer, "rows")),
        "dct:title": _literal(_title(offer)),
        "dct:description": _literal(_description(offer)),
        "dct:publisher": agent,
        "dcat:contactPoint": card,
        "dct:issued": _time(offer.issued),
        "dct:valid": _time(offer.expires),
        "dct:accessRights": {"@id": f"{_RIGHTS}NON_PUBLIC", "@type": "dct:RightsStatement"},
        "dct:rights": {"@type": "dct:RightsStatement", "rdfs:label": _literal(_conditions(offer))},
        "dct:conformsTo": {
            "@id": _hash(offer.schema.sha256),
            "@type": "dct:Standard",
            "dct:title": _literal("The schema of the rows, by its hash"),
        },
        "dct:extent": {"@type": "dct:SizeOrDuration", "rdfs:label": _literal(offer.count.words)},
        "dcat:keyword": [_literal(word) for word in ("federated learning", offer.task, *_columns(offer))],
    }


def _schema_org(offers: Sequence[Offer], title: str) -> dict[str, Any]:
    return {
        "@context": "https://schema.org",
        "@type": "DataCatalog",
        "name": title,
        "description": "What silos offer for federated learning. Rows stay where they are.",
        "dateModified": _iso(max(offer.issued for offer in offers)),
        "dataset": [_schema_org_dataset(offer) for offer in offers],
    }


def _schema_org_dataset(offer: Offer) -> dict[str, Any]:
    creator: dict[str, Any] = {"@type": "Organization", "@id": _id(offer, "silo"), "name": offer.silo}
    contact = offer.text("contact")
    if contact is not None:
        is_mail = _ADDRESS.fullmatch(contact) is not None
        creator["contactPoint"] = {"@type": "ContactPoint", "email" if is_mail else "name": contact}
    return {
        "@type": "Dataset",
        "@id": _id(offer, "rows"),
        "identifier": _id(offer, "rows"),
        "name": _title(offer),
        "description": _description(offer),
        "creator": creator,
        "datePublished": _iso(offer.issued),
        "expires": _iso(offer.expires),
        "size": offer.count.words,
        "conditionsOfAccess": _conditions(offer),
        "keywords": ["federated learning", offer.task],
        "variableMeasured": [
            *(_variable(column) for column in offer.schema.columns),
            {"@type": "PropertyValue", "name": offer.schema.target.name, "description": "target"},
        ],
    }


def _variable(column: Numeric | Categorical) -> dict[str, Any]:
    found: dict[str, Any] = {"@type": "PropertyValue", "name": column.name}
    if isinstance(column, Numeric):
        return {**found, "minValue": column.low, "maxValue": column.high}
    names = [str(one) if isinstance(one, str) else f"{one:g}" for one in column.categories]
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return {**found, "description": f"one of {', '.join(names[:_SHOWN])}{more}"}


def _id(offer: Offer, part: str) -> str:
    """Return an identifier that holds no text of a stranger, and stays the same from offer to offer of one key."""
    return f"urn:uuid:{uuid5(NAMESPACE_URL, f'urn:sha256:{offer.signer}/{offer.silo}/{part}')}"


def _hash(sha256: str) -> str:
    """Return a hash as an identifier: RFC 6920."""
    return f"ni:///sha-256;{urlsafe_b64encode(bytes.fromhex(sha256)).decode().rstrip('=')}"


def _title(offer: Offer) -> str:
    return offer.text("title") or f"Rows of {offer.silo}"


def _description(offer: Offer) -> str:
    columns = len(offer.schema.columns)
    form = f"Rows of {columns} columns" if columns else "Images"
    return (
        offer.text("description") or f"{form}, for {offer.task}."
    ) + f" {offer.count.words[0].upper()}{offer.count.words[1:]}. Learned from where they are; no row is handed out."


def _conditions(offer: Offer) -> str:
    if offer.labels is None:
        return "Federated learning only, as the silo's own policy admits it."
    found = [f"Sensitivity {offer.labels.sensitivity}."]
    if asks := asks_of(offer.labels.sensitivity):
        found.append(f"A run needs: {'; '.join(asks)}.")
    if offer.labels.residency is not None:
        found.append(f"Members in {', '.join(offer.labels.residency)} only.")
    if offer.labels.purposes is not None:
        found.append(f"Purposes: {' | '.join(offer.labels.purposes)}")
    return " ".join(found)


def _columns(offer: Offer) -> list[str]:
    return [column.name for column in offer.schema.columns[:_SHOWN]]


def _literal(text: str) -> dict[str, str]:
    """Return a text as a literal that says so: a bare string could be taken for an identifier by a context."""
    return {"@value": text}


def _iso(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat().replace("+00:00", "Z")


def _time(seconds: int) -> dict[str, str]:
    return {"@type": "xsd:dateTime", "@value": _iso(seconds)}
