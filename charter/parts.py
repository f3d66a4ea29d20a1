"""What a charter is made of, each part checked when it is made; and how texts and numbers are spelled in it.

The canonical JSON that is signed holds printable ASCII and integers only. So a text is spelled with JSON's own
escapes (``"Zürich"`` is ``"Z\\u00fcrich"``), and a number that is not whole as the shortest decimal that reads back as
the same one (``"1e-05"``): one spelling each, and what is spelled otherwise is refused.
"""

from __future__ import annotations

import json
import math
import re
import unicodedata
from dataclasses import dataclass
from typing import Any

from quire.charter.errors import CharterError
from quire.privacy.identity.keys import PublicIdentity
from quire.privacy.identity.roster import FOR_EVER, NAME_WORDS, is_hash, is_name

#: Most characters of a text.
MAX_TEXT = 4000
#: The largest epsilon that a cap can be: beyond, nothing protects.
MAX_EPSILON = 1000.0

_NUMBER = re.compile(r"[0-9]{1,20}(?:\.[0-9]{1,20})?(?:e-[0-9]{2,3})?")
_WORD = re.compile(r"[a-z][a-z0-9_-]{0,31}")


@dataclass(frozen=True)
class Member:
    """One who signs, and the silo of that name.

    Attributes
    ----------
    name : str
        The silo's, under the rules for names in a roster.
    identity : PublicIdentity
        Its public keys: the charter alone says whose signature is whose.
    residency : str or None
        Where its records lie, as a word such as ``eu``.
    epsilon, delta : float or None
        The most that its records may spend under the charter; None in a charter without privacy.
    """

    name: str
    identity: PublicIdentity
    residency: str | None = None
    epsilon: float | None = None
    delta: float | None = None

    def __post_init__(self) -> None:
        if not is_name(self.name):
            raise CharterError(f"The name of a member must be {NAME_WORDS}.")
        if self.residency is not None:
            check_word(self.residency, f"The residency of {self.name}")
        if (self.epsilon is None) != (self.delta is None):
            raise CharterError(f"{self.name} must have a cap on epsilon and on delta, or on neither.")
        if self.epsilon is not None and not (0.0 < self.epsilon <= MAX_EPSILON):
            raise CharterError(f"The epsilon of {self.name} must be greater than 0 and at most {MAX_EPSILON:g}.")
        if self.delta is not None and not (0.0 < self.delta < 1.0):
            raise CharterError(f"The delta of {self.name} must be greater than 0 and less than 1.")


@dataclass(frozen=True, order=True)
class Release:
    """One version of the code that may run, by the two hashes that ``quire app hash`` shows.

    Attributes
    ----------
    bundle : str
        ``content``: of all files of the app bundle, which a gate checks.
    sources : str
        Of the sources that take part in a round, which the code checks of itself.
    """

    bundle: str
    sources: str

    def __post_init__(self) -> None:
        if not is_hash(self.bundle) or not is_hash(self.sources):
            raise CharterError("The hashes of a release must be 64 hexadecimal digits in lower case each.")


@dataclass(frozen=True)
class Exit:
    """What happens at the end, and who may use the model: declarations, which no program enforces.

    Attributes
    ----------
    kept, destroyed, use : str
        What is kept, what is destroyed, who may use the model: in words.
    use_until : int or None
        Until when, in seconds since 1970 UTC; None: for good.
    """

    kept: str
    destroyed: str
    use: str
    use_until: int | None = None

    def __post_init__(self) -> None:
        for name in ("kept", "destroyed", "use"):
            check_text(getattr(self, name), f"'{name}' of the exit rules")
        if self.use_until is not None:
            check_time(self.use_until, "'use_until' of the exit rules")


def check_word(value: Any, what: str) -> None:
    """Refuse what is not a word: lower-case letters, digits, dashes, underscores."""
    if not isinstance(value, str) or not _WORD.fullmatch(value):
        raise CharterError(
            f"{what} must be a word of at most 32 lower-case letters, digits, dashes and underscores that begins with "
            "a letter."
        )


def check_time(value: Any, what: str) -> None:
    """Refuse what is not a time in whole seconds since 1970 UTC."""
    if type(value) is not int or not 0 <= value <= FOR_EVER:
        raise CharterError(f"{what} must be a time between the years 1970 and 9999.")


def check_text(value: Any, what: str) -> None:
    """Refuse what is not a text for people: printable, in Unicode's normal form C, neither empty nor endless."""
    if not isinstance(value, str) or not value.strip() or len(value) > MAX_TEXT:
        raise CharterError(f"{what} must be a text of 1 to {MAX_TEXT} characters.")
    if not all(line.isprintable() for line in value.split("\n")) or not unicodedata.is_normalized("NFC", value):
        raise CharterError(f"{what} must be printable text; no control characters, nor marks that turn its direction.")


def spelled_text(text: str) -> str:
    """Return the one spelling of a text."""
    return json.dumps(text, ensure_ascii=True)[1:-1]


def read_text(value: Any, what: str) -> str:
    """Read a text from its one spelling.

    Raises
    ------
    CharterError
        If it is spelled otherwise.
    """
    try:
        text = json.loads(f'"{value}"') if isinstance(value, str) and len(value) <= 12 * MAX_TEXT else None
    except ValueError:
        text = None
    if not isinstance(text, str) or spelled_text(text) != value:
        raise CharterError(f"{what} is not spelled as a text of a charter is.")
    return text


def spelled_number(number: float) -> str:
    """Return the one spelling of a number."""
    return repr(float(number))


def read_number(value: Any, what: str) -> float:
    """Read a number from its one spelling.

    Raises
    ------
    CharterError
        If it is spelled otherwise, or is not finite.
    """
    if not isinstance(value, str) or not _NUMBER.fullmatch(value):
        raise CharterError(f"{what} must be a decimal number, in quotes.")
    number = float(value)
    if not math.isfinite(number) or repr(number) != value:
        raise CharterError(f"{what} is not spelled as a number of a charter is: {value[:40]}.")
    return number
