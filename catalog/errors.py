"""What can be wrong with an offer or a catalogue, in sentences."""

from __future__ import annotations

from quire.errors import QuireError
from quire.privacy.dp.contract import PrivacyError


class CatalogError(QuireError):
    """An offer cannot be made, or what was named cannot be used as asked."""

    exit_code = 2


class OfferRefused(CatalogError):
    """An offer is well formed and does not hold: its signature, its key, its order or the time speak against it."""

    exit_code = 1


class BadOffer(PrivacyError):
    """Bytes that are no offer, or an offer that is not signed as it has to be."""
