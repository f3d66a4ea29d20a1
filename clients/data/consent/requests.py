"""Requests for erasure: ``erasures.jsonl``, a line for each request and for each attestation of one.

A line holds a keyed hash of the subject's id, never the id. From the next message on, the subject's rows are left out.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from quire.clients.data.consent.place import TAG_SIZE, Place, Subjects
from quire.clients.store.errors import StoreDamaged
from quire.errors import DataError

REQUEST, ATTESTED = "request", "attested"


@dataclass(frozen=True)
class Request:
    """One request.

    Attributes
    ----------
    id : str
        16 hexadecimal digits, drawn: what people call it by.
    subject : bytes
        The keyed hash of whom it is about, 16 bytes.
    column : str
        The column of the silo's rows that said whose a row is when it was recorded: an id is one of that column.
    after : int
        How many lines the lineage had then.
    time : str
        When it was recorded, UTC.
    attested : tuple of str
        When attestations of it were signed.
    """

    id: str
    subject: bytes
    column: str
    after: int
    time: str
    attested: tuple[str, ...] = ()


def requests_of(place: Place) -> dict[str, Request]:
    """Return all requests by id, in their order.

    Raises
    ------
    StoreDamaged
        If the book is gone or not what was written, or the silo's key for subjects is gone or another one.
    """
    place.check_book()
    chain = place.book
    bodies = chain.read()
    if not bodies:
        return {}
    subjects, found = place.subjects(), dict[str, Request]()
    for number, body in enumerate(bodies, start=1):
        try:
            _take(found, body, subjects)
        except (KeyError, TypeError, ValueError):
            raise StoreDamaged(f"Line {number} of {chain.path} is malformed: put back a copy of it.") from None
    return found


def any_request(place: Place) -> bool:
    """Tell whether a request was ever recorded, without reading any.

    Raises
    ------
    StoreDamaged
        If the book is gone.
    """
    place.check_book()
    path = place.book.path
    return path.exists() and path.stat().st_size > 0


def excluded(place: Place, column: str) -> tuple[Subjects, frozenset[bytes]] | None:
    """Return whom requests exclude, with the key that tells; None if there is no request.

    Parameters
    ----------
    place : Place
    column : str
        The column of the silo's rows that says whose a row is.

    Raises
    ------
    DataError
        If a request was recorded by another column: among the ids of this one its subject would not be found.
    StoreError
        If the book cannot be used.
    """
    found = requests_of(place)
    for one in found.values():
        if one.column != column:
            raise DataError(
                f"Request {one.id} for erasure was recorded by the subject column '{one.column}', and 'consent' now "
                f"names '{column}', by which its rows are not known: put back the column, under its name of then."
            )
    return (place.subjects(), frozenset(one.subject for one in found.values())) if found else None


def record(place: Place, subject: str, column: str) -> tuple[Request, bool]:
    """Record a request, durably; a subject for whom there is one already gets no second.

    Parameters
    ----------
    place : Place
    subject : str
        The id.
    column : str
        The column of the silo's rows that it is an id of.

    Returns
    -------
    request : Request
    new : bool

    Raises
    ------
    DataError
        If an earlier request was recorded by another column.
    StoreError
        If it cannot be written.
    """
    with place.locked():
        tag = place.subjects(make=True).tag(subject)
        excluded(place, column)
        for known in requests_of(place).values():
            if known.subject == tag:
                return known, False
        number = os.urandom(8).hex()
        _append(
            place,
            {"kind": REQUEST, "id": number, "subject": tag.hex(), "column": column, "after": place.lineage.count()},
        )
        return requests_of(place)[number], True


def note_attested(place: Place, number: str) -> None:
    """Note that an attestation of a request was signed."""
    with place.locked():
        _append(place, {"kind": ATTESTED, "id": number})


def _append(place: Place, body: Mapping[str, Any]) -> None:
    place.book.append({"key": place.subjects().check, **body})


def _take(found: dict[str, Request], body: Mapping[str, Any], subjects: Subjects) -> None:
    if body["key"] != subjects.check:
        raise StoreDamaged(
            "The silo's key for subjects is not the one that its requests for erasure were recorded under, so nobody "
            "could be told: put back a copy of it."
        )
    kind, number, time = body["kind"], str(body["id"]), str(body["time"])
    if kind == REQUEST:
        subject = bytes.fromhex(body["subject"])
        column, after = body["column"], body["after"]
        if len(subject) != TAG_SIZE or number in found or type(column) is not str or type(after) is not int:
            raise ValueError
        found[number] = Request(number, subject, column, after, time)
    elif kind == ATTESTED:
        found[number] = replace(found[number], attested=(*found[number].attested, time))
    else:
        raise ValueError
