"""Which of a silo's rows are left out, and why: each row by itself, after the rows were parted into train and test.

Rows are parted by their places in the whole table, so that a subject who withdraws moves nobody else's rows from one
side to the other.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from quire.clients.data.connectors import Raw
from quire.clients.data.consent.ids import ids_of
from quire.clients.data.consent.place import Place, Subjects
from quire.clients.data.consent.requests import any_request, excluded
from quire.clients.data.consent.section import WITHDRAWN, Consent
from quire.clients.data.consent.table import Listing, listing_of
from quire.clients.data.silo import Rows, SiloData
from quire.clients.policy.model import Operator
from quire.clients.tasks.schema import Label
from quire.errors import DataError

LOG = logging.getLogger("quire.clients")

#: Why a row is left out, in the order in which reasons are looked for: a row is counted under the first.
REASONS = ("no id", "erased", "withdrawn", "not given")


@dataclass(frozen=True, eq=False)
class Standing:
    """Consent as it stands at one moment.

    Attributes
    ----------
    consent : Consent
    listing : Listing or None
    erased : frozenset of bytes
        Keyed hashes of those who asked for erasure.
    subjects : Subjects or None
        The key; None where nobody did.
    """

    consent: Consent
    listing: Listing | None
    erased: frozenset[bytes] = frozenset()
    subjects: Subjects | None = None

    @property
    def mark(self) -> bytes:
        """Another one means that other rows may be left out."""
        listed = b"" if self.listing is None else self.listing.mark
        return hashlib.sha256(listed + b"".join(sorted(self.erased))).digest()

    def reasons(self, ids: Sequence[str | None]) -> np.ndarray:
        """Return why each row is left out, as its place in :data:`REASONS`; -1 where it is not. int8, shape (n,)."""
        known = np.fromiter((one is not None for one in ids), bool, len(ids))
        found = np.full(len(ids), -1, dtype=np.int8)
        if self.listing is not None:
            why = REASONS.index("withdrawn" if self.listing.means == WITHDRAWN else "not given")
            found[~self.listing.allows(ids)] = why
        if self.subjects is not None:
            tag, erased = self.subjects.tag, self.erased
            gone = np.fromiter((one is not None and tag(one) in erased for one in ids), bool, len(ids))
            found[gone] = REASONS.index("erased")
        found[~known] = REASONS.index("no id")
        return found


@dataclass(frozen=True, eq=False)
class Sifted:
    """What consent made of a silo's rows.

    Attributes
    ----------
    column : str
        The column that said whose a row is.
    came : int
        Rows of the silo's tables.
    left_out : dict of str to int
        By reason; reasons without a row are not in it.
    trained : int
        Rows to train on.
    scored : int
        Rows kept for testing and validation.
    train_ids : list of str
        Whose the rows to train on are; a subject with several rows is there as often.
    erased : frozenset of bytes
        Keyed hashes of those who had asked for erasure by then.
    """

    column: str
    came: int
    left_out: dict[str, int]
    trained: int
    scored: int
    train_ids: list[str]
    erased: frozenset[bytes] = frozenset()
    #: What :mod:`~quire.clients.data.consent.lineage` has worked out from the ids, by key.
    kept: dict[str, str] = field(default_factory=dict)


def standing(consent: Consent | None, operator: Operator) -> Standing | None:
    """Look at consent as it stands now; None for a silo that names no subjects.

    Raises
    ------
    DataError
        If the consent table cannot be used, or there are requests for erasure and nothing to know their rows by, or
        another column than when they were recorded.
    StoreError
        If the book of requests for erasure cannot be used.
    """
    if consent is None:
        if any_request(Place.of(operator)):
            raise DataError(
                f"{operator.store} holds requests for erasure, and the silo's file has no 'consent' with the 'subject' "
                "column by which their rows are known: put the section back."
            )
        return None
    listing = None if consent.table is None else listing_of(consent.table)
    if (found := excluded(Place.of(operator), consent.subject)) is None:
        return Standing(consent, listing)
    subjects, erased = found
    return Standing(consent, listing, erased, subjects)


class Sieve:
    """Sifts the rows of one silo: its tables one after the other, then what was made of them.

    Parameters
    ----------
    standing : Standing or None
        None lets everything through.
    """

    def __init__(self, standing: Standing | None) -> None:
        self._standing = standing
        self._ids: list[str | None] = []
        self._reasons: list[np.ndarray] = []
        self._numbered = 0

    def look(self, raw: Raw, missing: Sequence[Label], where: object) -> Raw:
        """Look at whose the rows of a table are, and return the table without the column that says so.

        Parameters
        ----------
        raw : Raw
        missing : sequence of str or float
            Marks of a missing value: such a subject is none.
        where : object
            For messages.

        Raises
        ------
        DataError
            If there is no column of subjects, or one that holds no ids.
        """
        if self._standing is None:
            return raw
        name = self._standing.consent.subject
        ids = subjects_in(raw, self._standing.consent, missing, where)
        self._ids += ids
        self._reasons.append(self._standing.reasons(ids))
        return Raw({key: column for key, column in raw.columns.items() if key != name}, raw.pixels)

    def number(self, rows: Rows) -> Rows:
        """Return the rows of the table that was looked at last with their places among all that were."""
        if self._standing is None:
            return rows
        first, self._numbered = self._numbered, self._numbered + len(rows)
        if self._numbered != len(self._ids):
            raise DataError("The rows of a silo are more or fewer than the subjects that they are about.")
        return Rows(rows.x, rows.y, np.arange(first, self._numbered))

    @property
    def left_out(self) -> int:
        """How many rows of the tables that were looked at are left out."""
        return sum(int((reasons >= 0).sum()) for reasons in self._reasons)

    def sift(self, data: SiloData, row_by_row: bool, where: object) -> tuple[SiloData, Sifted | None]:
        """Leave out what is not allowed.

        Parameters
        ----------
        data : SiloData
            Of numbered rows, parted as if nobody had withdrawn.
        row_by_row : bool
            As under privacy, where whether anything is left is no public fact, and nothing may depend on it.
        where : object
            For messages.

        Raises
        ------
        DataError
            If nothing is left to train on, or to test on.
        """
        if self._standing is None:
            return data, None
        reasons = np.concatenate(self._reasons)
        allowed = reasons < 0
        train, test = _kept(data.train, allowed), _kept(data.test, allowed)
        validation = None if data.validation is None else _kept(data.validation, allowed)
        if not row_by_row and min(len(part) for part in (train, test, validation) if part is not None) == 0:
            raise DataError(f"Consent leaves {where} without rows to train on or to test on.")
        self._warn(where)
        left = {why: count for place, why in enumerate(REASONS) if (count := int((reasons == place).sum()))}
        scored = len(test) + (0 if validation is None else len(validation))
        places = [] if train.places is None else train.places.tolist()
        subjects = [one for place in places if (one := self._ids[place]) is not None]
        sifted = Sifted(
            self._standing.consent.subject, len(self._ids), left, len(train), scored, subjects, self._standing.erased
        )
        return SiloData(train, test, validation), sifted

    def _warn(self, where: object) -> None:
        if self._standing is None:
            return
        listing, subjects = self._standing.listing, self._standing.subjects
        if listing is not None and listing.ids and listing.ids.isdisjoint(self._ids):
            LOG.warning(
                "%s: none of the %d subjects of the consent table is one of the silo's rows; are ids spelled alike?",
                where,
                len(listing.ids),
            )

        if subjects is not None:
            there = {subjects.tag(one) for one in self._ids if one is not None}
            if unmet := len(self._standing.erased - there):
                LOG.warning(
                    "%s: %d of %d requests for erasure are about nobody of the silo's rows; unless those rows were "
                    "deleted, are ids spelled alike?",
                    where,
                    unmet,
                    len(self._standing.erased),
                )


def subjects_in(raw: Raw, consent: Consent, missing: Sequence[Label], where: object) -> list[str | None]:
    """Return whose the rows of a table are: None where nobody's.

    Raises
    ------
    DataError
        If there is no column of subjects, or one that holds no ids.
    """
    name = consent.subject
    if name not in raw.columns:
        raise DataError(f"{where} has no column '{name}', which 'consent' names as whose each row is.")
    marks = {mark if isinstance(mark, str) else f"{mark:.17g}" for mark in missing}
    return ids_of(raw.columns[name], name, where, marks)


def _kept(rows: Rows, allowed: np.ndarray) -> Rows:
    return rows if rows.places is None else rows.take(np.flatnonzero(allowed[rows.places]))
