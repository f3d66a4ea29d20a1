"""What single values look like: addresses, numbers with a checksum, dates, codes. Each a yes or no to one text."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable
from datetime import datetime

from quire.clients.data.rules.words import DATE, DIRECT, GEOGRAPHIC, SENSITIVE, TECHNICAL

_EMAIL = re.compile(r"[^@\s]+@[^@\s]+\.[A-Za-z]{2,}")
_IBAN = re.compile(r"[A-Z]{2}[0-9]{2}[A-Z0-9]{11,30}")
_PHONE = re.compile(r"(?:\+|00?|\()[0-9][0-9 ()/.-]{5,}[0-9]")
_SSN = re.compile(r"(?!000|666|9)[0-9]{3}-(?!00)[0-9]{2}-(?!0000)[0-9]{4}")
_NIR = re.compile(r"[1-478][0-9]{2}[0-9]{2}(?:[0-9]{2}|2[AB])[0-9]{6}[0-9]{2}")
_NINO = re.compile(r"[A-CEGHJ-PR-TW-Z][A-CEGHJ-NPR-TW-Z][0-9]{6}[A-D]")
_AHV = re.compile(r"756[0-9]{10}")
_PENSION = re.compile(r"[0-9]{8}[A-Z][0-9]{3}")
_UUID = re.compile(r"[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}", re.IGNORECASE)
_HEX = re.compile(r"[0-9a-f]{32,128}", re.IGNORECASE)
_ICD10 = re.compile(r"[A-TV-Z][0-9][0-9AB](?:\.[0-9A-Z]{1,4})?[!*+]?")
_UK_POSTCODE = re.compile(r"[A-Z]{1,2}[0-9][0-9A-Z]? ?[0-9][A-Z]{2}")
_PERSON = re.compile(r"[A-ZÀ-Þ][a-zß-ÿ'-]+(?:,? (?:(?:von|van|de|der|du|la|le) )?[A-ZÀ-Þ][\w'.-]*)+")
#: How dates are written, beside ISO 8601, most telling first.
FORMS = ("%d.%m.%Y", "%d.%m.%y", "%d/%m/%Y", "%m/%d/%Y", "%d-%m-%Y", "%Y/%m/%d", "%d.%m.%Y %H:%M", "%d/%m/%Y %H:%M")


def is_email(text: str) -> bool:
    """Tell whether a text looks like an e-mail address."""
    return _EMAIL.fullmatch(text) is not None


def is_iban(text: str) -> bool:
    """Tell whether a text is an IBAN with its checksum (ISO 13616: modulo 97 it is 1)."""
    compact = text.replace(" ", "").upper()
    if not _IBAN.fullmatch(compact):
        return False
    return int("".join(str(int(letter, 36)) for letter in compact[4:] + compact[:4])) % 97 == 1


def is_phone(text: str) -> bool:
    """Tell whether a text looks like a telephone number: with a prefix, 7 to 15 digits (E.164)."""
    digits = sum(letter.isdigit() for letter in text)
    return 7 <= digits <= 15 and _PHONE.fullmatch(text) is not None and form_of([text]) is None


def is_ip(text: str) -> bool:
    """Tell whether a text is an address of the Internet Protocol, version 4 or 6."""
    if text.count(".") != 3 and text.count(":") < 2:
        return False
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def is_card(text: str) -> bool:
    """Tell whether a text is the number of a payment card with its checksum (ISO/IEC 7812, Luhn)."""
    digits = re.sub(r"[ -]", "", text)
    if not re.fullmatch(r"[3-6][0-9]{12,18}", digits):
        return False
    doubled = [int(digit) * (1 + place % 2) for place, digit in enumerate(reversed(digits))]
    return sum(number - 9 * (number > 9) for number in doubled) % 10 == 0


def is_social(text: str) -> bool:
    """Tell whether a text is a number of social security or of taxes: US, GB, FR, CH, DE; with its checksum, if any."""
    if _SSN.fullmatch(text):
        return True
    compact = re.sub(r"[ .-]", "", text).upper()
    if _NINO.fullmatch(compact):
        return True
    if _NIR.fullmatch(compact):
        body = compact[:13].replace("2A", "19").replace("2B", "18")
        return 97 - int(body) % 97 == int(compact[13:])
    if _AHV.fullmatch(compact):
        weighted = sum(int(digit) * (1 + 2 * (place % 2)) for place, digit in enumerate(compact[:12]))
        return -weighted % 10 == int(compact[12])
    return _is_german_pension(compact) or _is_german_tax(compact)


def _is_german_pension(compact: str) -> bool:
    """Check the last digit: section 4 of the VKVV."""
    if not _PENSION.fullmatch(compact):
        return False
    letter = ord(compact[8]) - ord("A") + 1
    digits = [int(digit) for digit in f"{compact[:8]}{letter:02}{compact[9:11]}"]
    weights = (2, 1, 2, 5, 7, 1, 2, 1, 2, 1, 2, 1)
    total = sum(sum(divmod(digit * weight, 10)) for digit, weight in zip(digits, weights, strict=True))
    return total % 10 == int(compact[11])


def _is_german_tax(compact: str) -> bool:
    """Check the last digit: ISO/IEC 7064, MOD 11,10."""
    if not re.fullmatch(r"[1-9][0-9]{10}", compact):
        return False
    product = 10
    for digit in compact[:10]:
        total = (int(digit) + product) % 10 or 10
        product = 2 * total % 11
    return (11 - product) % 10 == int(compact[10])


def is_code_of_disease(text: str) -> bool:
    """Tell whether a text has the form of a code of ICD-10."""
    return _ICD10.fullmatch(text) is not None


def is_person(text: str) -> bool:
    """Tell whether a text looks like a person's name: two words or more, each with a capital."""
    return len(text) <= 60 and _PERSON.fullmatch(text) is not None


def is_machine_id(text: str) -> bool:
    """Tell whether a text is a UUID, or a hash in hexadecimal digits."""
    return _UUID.fullmatch(text) is not None or (_HEX.fullmatch(text) is not None and not text.isdigit())


def form_of(texts: list[str]) -> str | None:
    """Return how all of some texts are written as dates: an empty text for ISO 8601; None if they are none."""
    if not texts or not all(6 <= len(text) <= 35 and not text.isdigit() for text in texts):
        return None
    for form in ("", *FORMS):
        if all(_is_date(text, form) for text in texts):
            return form
    return None


def _is_date(text: str, form: str) -> bool:
    try:
        when = datetime.strptime(text, form) if form else datetime.fromisoformat(text)
    except ValueError:
        return False
    return 1850 <= when.year <= 2150


#: Kind, how sure a column full of such values is, what to call them, and the test: the surest first.
PATTERNS: tuple[tuple[str, float, str, Callable[[str], bool]], ...] = (
    (DIRECT, 0.97, "IBANs with their checksum", is_iban),
    (DIRECT, 0.97, "e-mail addresses", is_email),
    (DIRECT, 0.95, "numbers of social security or taxes", is_social),
    (DIRECT, 0.95, "numbers of payment cards with their checksum", is_card),
    (DIRECT, 0.95, "IP addresses", is_ip),
    (DIRECT, 0.88, "telephone numbers", is_phone),
    (TECHNICAL, 0.95, "UUIDs or hashes", is_machine_id),
    (DATE, 0.95, "dates", lambda text: form_of([text]) is not None),
    (GEOGRAPHIC, 0.9, "postal codes", lambda text: _UK_POSTCODE.fullmatch(text) is not None),
    (SENSITIVE, 0.88, "codes of diseases (ICD-10)", is_code_of_disease),
    (DIRECT, 0.72, "names of people", is_person),
)
