"""An offer in lines for a person's eyes; whatever a silo chose itself is bounded and made visible."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from quire.catalog.offer import Offer, day
from quire.clients.data.rules.labels import asks_of
from quire.clients.tasks.schema import Categorical, Label, Numeric, Schema, Target
from quire.text import TEXT, visible

_SHOWN = 12


def described(offer: Offer) -> Iterator[tuple[str, str]]:
    """Yield all that an offer says, as names and lines."""
    yield "Silo", offer.silo
    for key in ("title", "description", "contact"):
        if (text := offer.text(key)) is not None:
            yield key.capitalize(), visible(text, TEXT)
    yield "Rows", offer.count.words
    yield "Good", f"{day(offer.issued)} to {day(offer.expires)}"
    yield "Key", offer.signer
    yield "Labels", labels_of(offer)
    if offer.labels is not None:
        for asked in asks_of(offer.labels.sensitivity):
            yield "  asks for", asked
        for purpose in offer.labels.purposes or ():
            yield "  purpose", visible(purpose, TEXT)
    if offer.terms is not None:
        privacy, aggregation = ", ".join(offer.terms.privacy), ", ".join(offer.terms.aggregation)
        yield "Terms", f"privacy {privacy}; aggregation {aggregation}"
    yield "Schema", f"{offer.task}, {form_of(offer.schema)}; {offer.schema.sha256}"
    for column in offer.schema.columns:
        yield "  column", _column(column)
    yield "  target", _target(offer.schema.target)


def form_of(schema: Schema) -> str:
    """Say in few words what form rows have: ``13 columns``, or ``images of 28 x 28 x 1``."""
    if schema.image is not None:
        return f"images of {schema.image.height} x {schema.image.width} x {schema.image.channels}"
    return f"{len(schema.columns)} column{'' if len(schema.columns) == 1 else 's'}"


def labels_of(offer: Offer) -> str:
    """Say in one line what labels the rows have."""
    labels = offer.labels
    if labels is None:
        return "none"
    places = "anywhere" if labels.residency is None else ", ".join(labels.residency)
    purposes = "any purpose" if labels.purposes is None else f"{len(labels.purposes)} named"
    return f"{labels.sensitivity}; members in: {places}; purposes: {purposes}"


def _column(column: Numeric | Categorical) -> str:
    missing = ", may be missing" if column.missing else ""
    if isinstance(column, Numeric):
        return f"{visible(column.name)}: number from {column.low:g} to {column.high:g}{missing}"
    return f"{visible(column.name)}: one of {_listed(column.categories)}{missing}"


def _target(target: Target) -> str:
    if target.kind == "regression":
        return f"{visible(target.name)}: number from {target.low:g} to {target.high:g}"
    at_least = "" if target.at_least is None else f", the second from {target.at_least:g} on"
    return f"{visible(target.name)}: class, {_listed(target.classes)}{at_least}"


def _listed(labels: Sequence[Label]) -> str:
    shown = ", ".join(visible(one) if isinstance(one, str) else f"{one:g}" for one in labels[:_SHOWN])
    return shown + (f" and {len(labels) - _SHOWN} more" if len(labels) > _SHOWN else "")
