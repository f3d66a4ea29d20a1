"""Propose what each column of a table is: from its name, the type, the form and the uniqueness of its values.

A proposal, for a person to look at. It quotes no value, and knows nothing but the table: that a column without a
telling name or form hides an identifier, it cannot see.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace

import numpy as np

from quire.clients.data.rules.cells import as_number, as_text
from quire.clients.data.rules.patterns import PATTERNS, form_of
from quire.clients.data.rules.redact import distinct
from quire.clients.data.rules.words import (
    ABOUT_PEOPLE,
    DATE,
    DIRECT,
    GEOGRAPHIC,
    PLAIN,
    QUASI,
    SENSITIVE,
    TARGETS,
    TECHNICAL,
    TEXT,
    spoken_for,
    words_of,
)

#: What a kind is called, the most telling about a person first: where two are as likely, the first is proposed.
KINDS = {
    DIRECT: "direct identifier",
    SENSITIVE: "sensitive attribute",
    QUASI: "quasi identifier",
    TEXT: "free text",
    DATE: "date",
    GEOGRAPHIC: "geographic",
    TECHNICAL: "technical id",
    PLAIN: "plain measurement",
}
SAMPLE = 2000  # distinct values that are looked at
_SHARE = 0.9  # of them that have to be of a form
_FEWEST = 3  # distinct values below which a form says nothing
_MANY = 20  # rows from which on uniqueness says something


@dataclass(frozen=True)
class Proposal:
    """What a column seems to be.

    Attributes
    ----------
    column : str
    kind : str
        A key of :data:`KINDS`.
    confidence : float
        From 0 to 1: an order, not a probability.
    why : str
        Without any value.
    numeric : bool
    form : str or None
        How its dates are written: a format of ``strptime``, empty for ISO 8601; None if they are none.
    """

    column: str
    kind: str
    confidence: float
    why: str
    numeric: bool
    form: str | None = None


@dataclass(frozen=True)
class _Facts:
    """What there is to know of a column's values."""

    rows: int
    distinct: int
    texts: list[str]
    numeric: bool
    whole: bool
    form: str | None
    consecutive: bool

    @property
    def unique(self) -> bool:
        return self.rows >= _MANY and self.distinct == self.rows

    @property
    def few(self) -> bool:
        """Whether there are but a few numbers: answers, codes; nothing that names anybody."""
        return self.numeric and self.rows >= _MANY and self.distinct <= 5


def classify(
    columns: Mapping[str, np.ndarray], target: str | None = None, missing: Collection[str] = ()
) -> list[Proposal]:
    """Propose what each column is.

    Parameters
    ----------
    columns : mapping of str to numpy.ndarray, each of shape (n,)
    target : str or None
        The column that is learned, if that is known.
    missing : collection of str
        Marks of missing values.

    Returns
    -------
    list of Proposal
        One for each column, in their order.
    """
    found = [_propose(name, _facts(np.asarray(values), missing)) for name, values in columns.items()]
    if not any(one.kind in (DIRECT, QUASI) for one in found):
        return found
    return [_among_people(one, target) for one in found]


def _among_people(one: Proposal, target: str | None) -> Proposal:
    """Look at a column once more, the table being about people."""
    if one.kind != PLAIN:
        return one
    words = words_of(one.column)
    if one.column == target or (target is None and len(words) == 1 and words[0] in TARGETS):
        return replace(one, kind=SENSITIVE, confidence=0.75, why="what is learned, in a table about people")
    if said := ABOUT_PEOPLE & set(words):
        return replace(one, kind=SENSITIVE, confidence=0.7, why=f"'{min(said)}' in a table about people")
    return one


def _facts(values: np.ndarray, missing: Collection[str]) -> _Facts:
    texts, places = distinct(values)
    gone = np.array([text == "" or text in missing for text in texts], dtype=bool)
    rows = int(np.count_nonzero(~gone[places])) if len(texts) else 0
    kept = [text for text, none in zip(texts, gone.tolist(), strict=True) if not none]
    step = max(1, len(kept) // SAMPLE)
    sample = kept[::step][:SAMPLE]
    numbers = [as_number(text) for text in sample]
    numeric = bool(sample) and all(number is not None for number in numbers)
    known = [number for number in numbers if number is not None]
    whole = numeric and all(number.is_integer() for number in known)
    return _Facts(
        rows=rows,
        distinct=len(kept),
        texts=sample,
        numeric=numeric,
        whole=whole,
        form=form_of(sample),
        consecutive=whole and len(kept) >= _MANY and _consecutive(kept),
    )


def _consecutive(texts: list[str]) -> bool:
    numbers = [as_number(text) for text in texts]
    known = [number for number in numbers if number is not None]
    return len(known) == len(texts) and max(known) - min(known) < 1.5 * len(known)


def _propose(name: str, facts: _Facts) -> Proposal:
    """Weigh all that speaks for one kind or another; the surest wins."""
    said = [*_by_name(name, facts), *_by_form(facts), *_by_uniqueness(facts), (PLAIN, _plain(facts), _type(facts))]
    order = list(KINDS)
    best: dict[str, tuple[float, list[str]]] = {}
    for kind, sure, why in said:
        before, reasons = best.get(kind, (0.0, []))
        # Two reasons for one kind make surer than either.
        best[kind] = (1.0 - (1.0 - before) * (1.0 - sure) if reasons else sure, [*reasons, why])
    kind = max(best, key=lambda one: (round(best[one][0], 6), -order.index(one)))
    sure, reasons = best[kind]
    form = facts.form if kind == DATE else None
    return Proposal(name, kind, math.floor(100 * min(sure, 0.99)) / 100, "; ".join(reasons), facts.numeric, form)


def _by_name(name: str, facts: _Facts) -> list[tuple[str, float, str]]:
    found = []
    for kind, word, sure in spoken_for(name):
        weight = sure
        if (kind in (DIRECT, TECHNICAL) and facts.few) or (kind == TEXT and facts.numeric):
            weight *= 0.4  # whether somebody has a telephone names nobody
        if kind == DATE and facts.form is None and not _numbers_of_days(facts):
            weight *= 0.5
        found.append((kind, weight, f"'{word}' in its name"))
    return found


def _by_form(facts: _Facts) -> list[tuple[str, float, str]]:
    if facts.numeric and not facts.whole:
        return []
    if len(facts.texts) < _FEWEST:
        return []
    for kind, sure, what, test in PATTERNS:
        count = sum(map(test, facts.texts))
        # A checksum of one digit fits a tenth of all numbers by chance, and never nine tenths of a column.
        if count >= _SHARE * len(facts.texts):
            return [(kind, sure, f"{100 * count // len(facts.texts)} % look like {what}")]
    return []


def _by_uniqueness(facts: _Facts) -> list[tuple[str, float, str]]:
    if facts.form is not None or not facts.texts:
        return []
    words = sum(text.count(" ") + 1 for text in facts.texts) / len(facts.texts)
    if not facts.numeric and words >= 5 and facts.distinct > 0.5 * facts.rows:
        return [(TEXT, 0.85, "sentences, most of them different")]
    if facts.unique and facts.consecutive:
        return [(TECHNICAL, 0.75, "counts the rows")]
    lengths = {len(text) for text in facts.texts}
    if facts.unique and facts.whole and len(lengths) == 1 and min(lengths) >= 6:
        return [(TECHNICAL, 0.65, "another number of the same length in every row")]
    if facts.unique and not facts.numeric and words < 2:
        return [(TECHNICAL, 0.65, "another code in every row")]
    return []


def _numbers_of_days(facts: _Facts) -> bool:
    """Tell whether all are written as 20261122, or are years; in a column with gaps as 20261122.0."""
    digits = [as_text(as_number(text)) or "" for text in facts.texts]
    return facts.whole and all(
        (len(text) == 8 and form_of([f"{text[:4]}-{text[4:6]}-{text[6:]}"]) is not None)
        or (len(text) == 4 and 1850 <= int(text) <= 2150)
        for text in digits
    )


def _plain(facts: _Facts) -> float:
    return 0.6 if facts.numeric else 0.5


def _type(facts: _Facts) -> str:
    if not facts.texts:
        return "no values"
    if facts.numeric:
        kind = "whole numbers" if facts.whole else "numbers"
        return f"{kind}, {'a few' if facts.few else 'many'} different ones"
    return "texts, nothing telling about them"
