"""Catalogues for other catalogues: the words are those of the vocabularies, and no text of a silo becomes structure."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from offering import HEART, KEY, NOW, PURPOSE, offer

from quire.catalog.counts import Count
from quire.catalog.errors import CatalogError
from quire.catalog.linked import PREFIXES, exported
from quire.clients.tasks.schema import Image, Numeric, Schema, Target

LABELS = {"sensitivity": "restricted", "residency": ["ch", "eu"], "purposes": [PURPOSE]}
#: Properties and classes that are used, each looked up in its vocabulary by hand, with what has it (its domain).
DCAT = {
    "dcat:Catalog": {
        *("dct:title", "dct:description", "dct:publisher", "dct:modified", "dcat:dataset"),
    },
    "dcat:Dataset": {
        *("dct:identifier", "dct:title", "dct:description", "dct:publisher", "dcat:contactPoint", "dct:issued"),
        *("dct:valid", "dct:accessRights", "dct:rights", "dct:conformsTo", "dct:extent", "dcat:keyword"),
    },
    "foaf:Agent": {"foaf:name"},
    "vcard:Kind": {"vcard:fn", "vcard:hasEmail"},
    "dct:RightsStatement": {"rdfs:label"},
    "dct:Standard": {"dct:title"},
    "dct:SizeOrDuration": {"rdfs:label"},
}
SCHEMA_ORG = {
    "DataCatalog": {"name", "description", "dateModified", "dataset"},
    "Dataset": {
        *("identifier", "name", "description", "creator", "datePublished", "expires", "size"),
        *("conditionsOfAccess", "keywords", "variableMeasured"),
    },
    "Organization": {"name", "contactPoint"},
    "ContactPoint": {"email", "name"},
    "PropertyValue": {"name", "description", "minValue", "maxValue"},
}
ALL = [
    offer(title="Heart <disease>", description="1988 & after", contact="data@clinic.example", labels=LABELS),
    offer(Schema((), Image(8, 8, 1), HEART.target), silo="clinic-2", contact="Ask A. Vogel"),
    offer(silo="clinic-3", rows=Count("dp", 297, epsilon="0.5").to_json()),
]
texts = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=40).filter(str.strip)


def nodes(value: Any) -> Iterator[dict[str, Any]]:
    if isinstance(value, dict):
        yield value
        for item in value.values():
            yield from nodes(item)
    elif isinstance(value, list):
        for item in value:
            yield from nodes(item)


@pytest.mark.parametrize(("form", "words"), [("dcat", DCAT), ("schema.org", SCHEMA_ORG)])
def test_every_class_and_property_is_one_of_the_vocabularies(form: str, words: dict[str, set[str]]) -> None:
    found = json.loads(exported(ALL, form, "Partners"))
    context = found.pop("@context")
    assert context == (PREFIXES if form == "dcat" else "https://schema.org")
    seen = set()
    for node in nodes(found):
        if "@value" in node:
            assert set(node) <= {"@value", "@type"}
        elif "@type" in node:
            seen.add(node["@type"])
            assert {key for key in node if not key.startswith("@")} <= words[node["@type"]]
        else:
            assert set(node) == {"@id"}
    assert seen == set(words)


@pytest.mark.parametrize("form", ["dcat", "schema.org"])
def test_what_dcat_ap_and_schema_org_make_mandatory_is_there(form: str) -> None:
    found = json.loads(exported(ALL, form, "Partners"))
    datasets = found["dcat:dataset" if form == "dcat" else "dataset"]
    assert len(datasets) == 3
    for one in (found, *datasets):
        for name in ("dct:title", "dct:description") if form == "dcat" else ("name", "description"):
            assert one[name]
    assert len({one["@id"] for one in datasets}) == 3
    assert all(re.fullmatch(r"urn:uuid:[0-9a-f-]{36}", one["@id"]) for one in datasets)


def test_one_offer_in_both_vocabularies() -> None:
    (dcat,) = json.loads(exported(ALL[:1], "dcat", "Partners"))["dcat:dataset"]
    assert dcat["dct:title"] == {"@value": "Heart <disease>"}
    assert dcat["dcat:contactPoint"]["vcard:hasEmail"] == {"@id": "mailto:data@clinic.example"}
    assert dcat["dct:issued"] == {"@type": "xsd:dateTime", "@value": "2027-01-15T08:00:00Z"}
    assert dcat["dct:extent"]["rdfs:label"] == {"@value": "300 rows, declared"}
    assert PURPOSE in dcat["dct:rights"]["rdfs:label"]["@value"]
    (org,) = json.loads(exported(ALL[:1], "schema.org", "Partners"))["dataset"]
    assert org["@id"] == dcat["@id"]
    assert org["variableMeasured"][0] == {"@type": "PropertyValue", "name": "age", "minValue": 20.0, "maxValue": 90.0}
    assert org["creator"]["contactPoint"]["email"] == "data@clinic.example"
    (worded,) = json.loads(exported(ALL[1:2], "dcat", "Partners"))["dcat:dataset"]
    assert "vcard:hasEmail" not in worded["dcat:contactPoint"]


@given(texts, texts, texts, texts)
def test_texts_of_silos_are_literals_and_nothing_else(title: str, words: str, contact: str, column: str) -> None:
    schema = Schema((Numeric(column, 0.0, 1.0, False, 0.5),), None, Target(f"{column}!", "regression"))
    hostile = offer(schema, title=title, description=words, contact=contact)
    for form in ("dcat", "schema.org"):
        data = exported([hostile], form, title)
        assert data.isascii()
        assert not set(b"<>&") & set(data)
        found = json.loads(data)
        names = {node["@id"] for node in nodes(found) if "@id" in node}
        plain = {
            node["@id"] for node in nodes(json.loads(exported([offer(schema)], form, "Partners"))) if "@id" in node
        }
        assert {name for name in names if not re.fullmatch(r"mailto:[\w.+-]+@[\w.-]+", name, re.ASCII)} == plain
        assert title in json.dumps(found, ensure_ascii=False) or json.dumps(title, ensure_ascii=False)[1:-1] in (
            json.dumps(found, ensure_ascii=False)
        )


@pytest.mark.parametrize("contact", ["a@b", "a@b.c?subject=x", "javascript:x@b.c/", "<a@b.c>", "a b@c.d", "a@b.c\n"])
def test_what_is_no_address_becomes_no_link(contact: str) -> None:
    found = json.loads(exported([offer(contact=contact)], "dcat", "Partners"))
    assert "vcard:hasEmail" not in found["dcat:dataset"][0]["dcat:contactPoint"]


def test_identifiers_stay_from_offer_to_offer_of_one_key() -> None:
    first, second = (json.loads(exported([one], "schema.org", "P")) for one in (offer(), offer(issued=NOW + 5)))
    assert first["dataset"][0]["@id"] == second["dataset"][0]["@id"]
    assert KEY.public.fingerprint not in json.dumps(first)


def test_nothing_or_another_format_is_refused() -> None:
    with pytest.raises(CatalogError, match="nothing to export"):
        exported([], "dcat", "P")
    with pytest.raises(CatalogError, match="--format"):
        exported(ALL, "rdf", "P")
