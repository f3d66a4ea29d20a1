"""Fingerprints as people compare them: read out in groups of four, typed in any grouping."""

from __future__ import annotations

import hmac
import re

from quire.consortium.errors import ConsortiumError


def spoken(fingerprint: str) -> str:
    """Return a fingerprint in groups of four digits."""
    return " ".join(fingerprint[start : start + 4] for start in range(0, len(fingerprint), 4))


def compare(typed: str, fingerprint: str, whose: str) -> None:
    """Compare what somebody typed with a fingerprint; spaces, colons, dashes and capitals do not matter.

    Raises
    ------
    ConsortiumError
        If it is another one, or not all of one.
    """
    digits = re.sub(r"[\s:-]", "", typed).lower()
    if not re.fullmatch(r"[0-9a-f]{64}", digits):
        raise ConsortiumError("A fingerprint has 64 hexadecimal digits: compare all of them.")
    if not hmac.compare_digest(digits, fingerprint):
        # The file's own is not shown: it would be copied into the next attempt.
        raise ConsortiumError(
            f"This is not the fingerprint of {whose}: ask again on another channel, and if it stays another, the file "
            "was replaced on its way."
        )
