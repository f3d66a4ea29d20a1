"""A made-up table in English, German and French, with kinds of columns that public tables do not have."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np


def made_up(rows: int = 500) -> dict[str, tuple[str, list[object]]]:
    """Return columns that the real tables lack, each with what it is."""
    rng = np.random.default_rng(10)
    first, last = ("Anna", "Bert", "Chloe", "Emile", "Fritz"), ("Vogel", "Durand", "Smith", "Petit", "Meier")

    def many(make: Callable[[], object]) -> list[object]:
        return [make() for _ in range(rows)]

    def digits(count: int) -> str:
        return "".join(map(str, rng.integers(0, 10, count)))

    def iban() -> str:
        body = digits(18)
        return f"DE{98 - int(body + '131400') % 97:02}{body}"

    def nir() -> str:
        body = f"{rng.integers(1, 3)}{digits(2)}{rng.integers(1, 13):02}{rng.integers(1, 96):02}{digits(6)}"
        return f"{body}{97 - int(body) % 97:02}"

    def day(form: str) -> str:
        return str(np.datetime64("1950-01-01") + rng.integers(0, 25_000)) if not form else _day(rng, form)

    words = ("the", "patient", "came", "walking", "and", "left", "without", "pain", "today")
    return {
        "Nachname": ("direct", many(lambda: str(rng.choice(last)))),
        "nom complet": ("direct", many(lambda: f"{rng.choice(first)} {rng.choice(last)}")),
        "kontakt": ("direct", many(lambda: f"{rng.choice(first)}.{digits(4)}@example.org".lower())),
        "phone_home": ("direct", many(lambda: f"+44 20 {digits(4)} {digits(4)}")),
        "Bankverbindung": ("direct", many(iban)),
        "assure": ("direct", many(nir)),
        "last_seen_from": ("direct", many(lambda: ".".join(map(str, rng.integers(1, 255, 4))))),
        "PatientenNr": ("direct", many(lambda: digits(8))),
        "beleg": ("technical", [f"{place:06}" for place in range(rows)]),
        "uuid": ("technical", many(lambda: f"{digits(8)}-{digits(4)}-{digits(4)}-{digits(4)}-{digits(12)}")),
        "Geburtsdatum": ("date", many(lambda: day("."))),
        "admis_le": ("date", many(lambda: day("/"))),
        "visit": ("date", many(lambda: day(""))),
        "PLZ": ("geographic", many(lambda: digits(5))),
        "commune": ("geographic", many(lambda: str(rng.choice(["Lyon", "Nice", "Metz"])))),
        "dx1": ("sensitive", many(lambda: f"{rng.choice(list('CEIJ'))}{digits(2)}.{digits(1)}")),
        "monatliches_einkommen": ("sensitive", many(lambda: int(rng.integers(900, 9000)))),
        "traitement": ("sensitive", many(lambda: str(rng.choice(["A", "B"])))),
        "Familienstand": ("quasi", many(lambda: str(rng.choice(["ledig", "verheiratet"])))),
        "sexe": ("quasi", many(lambda: str(rng.choice(["f", "m"])))),
        "profession": ("quasi", many(lambda: str(rng.choice(["nurse", "baker", "pilot"])))),
        "Bemerkungen": ("text", many(lambda: " ".join(rng.choice(words, 9)))),
        "seen": ("text", many(lambda: " ".join(rng.choice(words, 12)))),
        "crp_mg_l": ("plain", many(lambda: round(float(rng.gamma(2, 9)), 1))),
        "newsletter_email": ("plain", many(lambda: int(rng.integers(0, 2)))),
    }


def _day(rng: np.random.Generator, mark: str) -> str:
    return mark.join((f"{rng.integers(1, 29):02}", f"{rng.integers(1, 13):02}", str(rng.integers(1930, 2025))))
