"""What a rule does to one value: each a fixed function of that value and, for a hash, of the silo's secret key.

No rule looks at another row. So what a rule does to a record never depends on who else is in the table, and under
differential privacy there is nothing to account for: neighbouring tables stay neighbours.
"""

from __future__ import annotations

import math
import re
from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from hashlib import blake2b
from itertools import pairwise

from quire.clients.data import table
from quire.clients.tasks.schema import Label

#: What stands for a value afterwards; None: it is missing.
Value = Label | None
#: From a value, as text without spaces around it, to what stands for it. A ``ValueError`` says that it has no place.
Function = Callable[[str], Value]

DIGEST_BYTES = 16
#: Beyond so many buckets from the origin floating point could tell single values apart.
MAX_BUCKETS = 2**40


@dataclass(frozen=True)
class Hash:
    """A keyed hash: equal values stay equal in this silo, and without its key nobody can try values out.

    BLAKE2b with a key (RFC 7693, section 2.9), 128 bits. With ``buckets`` only which of so many a value falls into,
    as ``b0``, ``b1``, ...: something that a schema can list as categories.

    Attributes
    ----------
    buckets : int or None
    """

    buckets: int | None = None

    wrong = "values that cannot be hashed"
    numeric = False

    def function(self, key: bytes) -> Function:
        """Return the function of a value under a key of 32 bytes."""

        # With a byte before every value the key's block is worked in once, and not for each of them.
        keyed, buckets = blake2b(b"\x00", digest_size=DIGEST_BYTES, key=key), self.buckets

        def hashed(text: str) -> Value:
            digest = keyed.copy()
            digest.update(text.encode("utf-8", "surrogatepass"))
            # A letter first: digits alone would read as a number.
            if buckets is None:
                return "h" + digest.hexdigest()
            return f"b{int.from_bytes(digest.digest(), 'big') % buckets}"

        return hashed


@dataclass(frozen=True)
class Bucket:
    """The middle of the interval that a number falls into.

    Attributes
    ----------
    edges : tuple of float
        Ascending; interval i is ``[edges[i], edges[i + 1])``. What lies outside belongs to the first or the last one.
        Empty: intervals of ``width``.
    width : float
        Of intervals ``[k width, (k + 1) width)``, for whole k; 0 with ``edges``.
    """

    edges: tuple[float, ...] = ()
    width: float = 0.0

    wrong = "values that are no number, or one too large for their rule"
    numeric = True

    def function(self, key: bytes) -> Function:
        """Return the function of a value; it needs no key."""
        edges, width = self.edges, self.width
        middles = [low / 2 + high / 2 for low, high in pairwise(edges)]

        def bucketed(text: str) -> Value:
            number = as_number(text)
            if number is None:
                raise ValueError
            if middles:
                return middles[min(max(bisect_right(edges, number) - 1, 0), len(middles) - 1)]
            place = number / width
            if not abs(place) < MAX_BUCKETS:
                raise ValueError
            return (math.floor(place) + 0.5) * width

        return bucketed


@dataclass(frozen=True)
class Keep:
    """The first characters of a text: ``12345`` to ``12``. A shorter text is a group of its own.

    Attributes
    ----------
    characters : int
    """

    characters: int

    wrong = "values that would be cut to a mark of missing values"
    numeric = False

    def function(self, key: bytes) -> Function:
        """Return the function of a value; it needs no key."""
        return lambda text: text[: self.characters].rstrip()


@dataclass(frozen=True)
class Day:
    """A date without its day, as ``2026-11``, or without its month, as ``2026``.

    Attributes
    ----------
    part : {"month", "year"}
    form : str or None
        How dates are written, in the letters of ``strptime``; None: as in ISO 8601.
    """

    part: str
    form: str | None = None

    wrong = "values that are not dates as their rule has them"
    numeric = False

    def function(self, key: bytes) -> Function:
        """Return the function of a value; it needs no key."""
        form, month = self.form, self.part == "month"

        def generalised(text: str) -> Value:
            when = datetime.fromisoformat(text) if form is None else datetime.strptime(text, form)
            return f"{when.year:04}-{when.month:02}" if month else f"{when.year:04}"

        return generalised


@dataclass(frozen=True)
class Mapped:
    """What a list says of a value, and one answer for all that it does not name.

    Attributes
    ----------
    named : tuple of (str, str or float)
    other : str, float or None
        For a value that is not named; None: it is missing then.
    """

    named: tuple[tuple[str, Label], ...]
    other: Value = None

    wrong = "values that cannot be looked up"

    @property
    def numeric(self) -> bool:
        """Whether all that it gives are numbers; else all are texts, and a number among them is written as one."""
        return all(isinstance(label, float) for _, label in self.named) and not isinstance(self.other, str)

    def function(self, key: bytes) -> Function:
        """Return the function of a value; it needs no key."""
        written: Callable[[Value], Value] = (lambda label: label) if self.numeric else as_text
        other, texts = written(self.other), {text: written(label) for text, label in self.named}
        numbers = {number: label for text, label in texts.items() if (number := as_number(text)) is not None}

        def mapped(text: str) -> Value:
            if text in texts:
                return texts[text]
            number = as_number(text)  # 1 and 1.0 are one value to a file of numbers
            return other if number is None else numbers.get(number, other)

        return mapped


Rule = Hash | Bucket | Keep | Day | Mapped


def as_number(text: str) -> float | None:
    """Return the finite number that a text is; None if it is none."""
    try:
        number = float(text)
    except ValueError:
        return None
    return number if math.isfinite(number) and "_" not in text else None


def as_text(value: Value) -> str | None:
    """Return a value as a text file has it: 7 for 7.0."""
    return table.as_text(value) if isinstance(value, float) else value


def gives(rule: Rule, mark: Label) -> bool:
    """Tell whether a rule could make a value look like a mark of missing values.

    By the form of both. Of a cut only marks as long as what is kept count: a shorter one comes out of a value with a
    space where it is cut, and ``?`` would be ruled out beside every cut. :func:`guarded` refuses those values.
    """
    text, number = as_text(mark) or "", mark if isinstance(mark, float) else as_number(mark)
    if isinstance(rule, Mapped):
        made = [label for label in (*(label for _, label in rule.named), rule.other) if label is not None]
        if rule.numeric or isinstance(mark, float):
            return number is not None and any(as_number(str(label)) == number for label in made)
        return text in [as_text(label) for label in made]
    if isinstance(rule, Keep):
        return len(text) == rule.characters
    if isinstance(rule, Day):
        return re.fullmatch("[0-9]{4}-(0[1-9]|1[0-2])" if rule.part == "month" else "[0-9]{4}", text) is not None
    if isinstance(rule, Hash):
        if rule.buckets is None:
            return re.fullmatch(f"h[0-9a-f]{{{2 * DIGEST_BYTES}}}", text) is not None
        return re.fullmatch("b(0|[1-9][0-9]{0,4})", text) is not None and int(text[1:]) < rule.buckets
    try:  # the middle of an interval lies in that interval
        return number is not None and rule.function(b"")(repr(number)) == number
    except ValueError:
        return False


def guarded(rule: Rule, function: Function, marks: Sequence[Label]) -> Function:
    """Return a rule's function that refuses a value of which it would make a mark of missing values.

    Only for what :func:`gives` cannot tell for all values: cuts, and dates in years of fewer than four digits.
    """
    if not marks or not isinstance(rule, Keep | Day):
        return function
    words = {mark for mark in marks if isinstance(mark, str)}
    numbers = {mark for mark in marks if isinstance(mark, float)}

    def checked(text: str) -> Value:
        value = function(text)
        if value in words or (isinstance(value, str) and as_number(value) in numbers):
            raise ValueError
        return value

    return checked
