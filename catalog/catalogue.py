"""A catalogue: a folder of offers, ``NAME.offer.json``, one for each silo.

The offer that lies there is also what is remembered of its silo: the keys, and how new it is. So an offer under other
keys, or an older one, is refused as long as that file is there.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from quire.catalog.errors import CatalogError, OfferRefused
from quire.catalog.offer import NAME, Offer, moment, read_offer
from quire.clients.identity import Roster
from quire.clients.identity.files import replace
from quire.text import visible

SUFFIX = ".offer.json"
MAX_OFFERS = 10_000


@dataclass(frozen=True)
class Catalogue:
    """A folder of offers.

    Attributes
    ----------
    folder : pathlib.Path
    """

    folder: Path

    def names(self) -> list[str]:
        """Return the names under which offers lie there, in order.

        Raises
        ------
        CatalogError
            If there is no such folder, or it has too many.
        """
        try:
            found = sorted(entry.name for entry in self.folder.iterdir() if entry.name.endswith(SUFFIX))
        except OSError as error:
            raise CatalogError(
                f"The catalogue {self.folder} cannot be read: {error.strerror}; `quire catalog add` makes one."
            ) from None
        if len(found) > MAX_OFFERS:
            raise CatalogError(f"{self.folder} has more than {MAX_OFFERS} offers.")
        return [name.removesuffix(SUFFIX) for name in found]

    def offer(self, name: str) -> Offer:
        """Return the offer of a silo, its signature checked; whether it has expired is not looked at.

        Raises
        ------
        CatalogError
            If there is none, or what lies there is not one of this silo.
        """
        if name not in self.names():
            raise CatalogError(
                f"The catalogue {self.folder} has no offer of '{visible(name)}': see `quire catalog show "
                f"{self.folder}`."
            )
        if not NAME.fullmatch(name):
            raise OfferRefused(f"A file in {self.folder} is named for '{visible(name)}', which no silo is called.")
        path = self.folder / f"{name}{SUFFIX}"
        found = read_offer(path)
        if found.silo != name:
            raise OfferRefused(f"{path} is an offer of {found.silo}: files are named for their silos.")
        return found

    def offers(self) -> list[Offer]:
        """Return all offers, in the order of their silos' names.

        Raises
        ------
        CatalogError
            If one cannot be used: a catalogue is taken whole, so that nobody is left out unseen.
        """
        return [self.offer(name) for name in self.names()]

    def add(self, offer: Offer, now: int, roster: Roster | None = None) -> str:
        """Put an offer in, made if the folder is not there; return ``new``, ``newer`` or ``known``.

        Parameters
        ----------
        offer : Offer
            As read, so that its signature holds.
        now : int
            Seconds since 1970 UTC.
        roster : Roster, optional
            With its signatures checked: the silo has to be one of its members, under these keys, now.

        Raises
        ------
        OfferRefused
            If it has expired, is another party's, or is older than what is there.
        CatalogError
            If it cannot be written.
        """
        offer.check_time(now)
        if roster is not None:
            _hold_to_roster(offer, roster, now)
        with self._locked():
            state = "new"
            if offer.silo in self.names():
                before = self.offer(offer.silo)
                _hold_to_known(offer, before, self.folder)
                if before.encode() == offer.encode():
                    return "known"
                state = "newer"
            replace(self.folder / f"{offer.silo}{SUFFIX}", offer.encode())
        return state

    def check(self, name: str, now: int, roster: Roster | None = None) -> Offer:
        """Return a silo's offer if everything about it holds.

        Raises
        ------
        CatalogError
            If it does not.
        """
        found = self.offer(name)
        found.check_time(now)
        if roster is not None:
            _hold_to_roster(found, roster, now)
        return found

    @contextmanager
    def _locked(self) -> Iterator[None]:
        try:
            self.folder.mkdir(exist_ok=True)
            descriptor = os.open(self.folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            raise CatalogError(f"The catalogue {self.folder} cannot be used: {error.strerror}.") from None
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)  # of two who add at once, the older offer must not come last
            yield
        finally:
            os.close(descriptor)


def _hold_to_roster(offer: Offer, roster: Roster, now: int) -> None:
    member = next((one for one in roster.members if one.name == offer.silo), None)
    if member is None:
        raise OfferRefused(f"The roster {roster.roster_id} has no member '{offer.silo}', whose offer this says it is.")
    if member.identity != offer.public:
        raise OfferRefused(
            f"The offer of {offer.silo} is signed by {offer.signer[:16]}, and the roster {roster.roster_id} has "
            f"{member.identity.fingerprint[:16]}."
        )
    if not member.active(now):
        raise OfferRefused(f"{offer.silo} is no member of the roster {roster.roster_id} at this time.")


def _hold_to_known(offer: Offer, before: Offer, folder: Path) -> None:
    if offer.public != before.public:
        raise OfferRefused(
            f"The catalogue knows {offer.silo} under the key {before.signer[:16]}, and this offer is signed by "
            f"{offer.signer[:16]}: if the silo says by another way that its key is new, move "
            f"{folder / (offer.silo + SUFFIX)} away and add this one."
        )
    if offer.issued < before.issued or (offer.issued == before.issued and offer.body != before.body):
        raise OfferRefused(
            f"The catalogue has an offer of {offer.silo} of {moment(before.issued)}, and this one of "
            f"{moment(offer.issued)} is not newer: an old one was sent again."
        )
