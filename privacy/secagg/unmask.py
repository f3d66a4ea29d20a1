"""The server's last step: from shares to secrets, from secrets to masks, with everybody who lied named.

Each share is first held against the hash that its dealer published, so that wrong ones are out before anything is
computed, and Lagrange's coefficients are the same for every dealer whose holders are the same, as a rule for all.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from quire.privacy.secagg import pairs, shamir
from quire.privacy.secagg.blame import Blame, blamed
from quire.privacy.secagg.context import edge_commitment, secret_commitment, share_hasher
from quire.privacy.secagg.errors import MalformedShare, SealedListMismatch, SecAggError, UnrecoverableShare
from quire.privacy.secagg.messages import Shares, Unmasked

_COMMITMENT = {"self": "self_commitment", "seal": "seal_commitment"}


class Opener:
    """Opens the secrets of one attempt.

    Parameters
    ----------
    context : bytes
    cohort, u2, u3 : sequence of int
    threshold : int
    dealt : mapping of int to Shares
        What every member of U2 published when it dealt.

    Attributes
    ----------
    blame : list of Blame
    """

    def __init__(
        self,
        context: bytes,
        cohort: Sequence[int],
        u2: Sequence[int],
        u3: Sequence[int],
        threshold: int,
        dealt: Mapping[int, Shares],
    ) -> None:
        self._context = context
        self._cohort = cohort
        self._dropped = [index for index in u2 if index not in set(u3)]
        self._u3 = u3
        self._threshold = threshold
        self._dealt = dealt
        self._coefficients: dict[tuple[int, ...], list[int]] = {}
        self.blame: list[Blame] = []

    def open(self, replies: Mapping[int, Unmasked]) -> tuple[list[bytes], list[bytes]]:
        """Return the seeds of the masks that are to be added to the sum of masked vectors, and to be subtracted.

        Raises
        ------
        UnrecoverableShare, SealedListMismatch
            Naming the first member whose secret does not come out; blame names all of them.
        """
        own = {index: {holder: reply.survivors[index][0] for holder, reply in replies.items()} for index in self._u3}
        seals = {
            index: {holder: reply.dropped[index][0] for holder, reply in replies.items()} for index in self._dropped
        }
        # All of them first: blame is then complete, and a round that fails names everyone at once.
        good_own = {dealer: self._verified("self", 0, dealer, shares) for dealer, shares in own.items()}
        good_seals = {dealer: self._verified("seal", 1, dealer, shares) for dealer, shares in seals.items()}
        minus: list[bytes] = []
        plus: list[bytes] = []
        wrong: list[SecAggError] = []
        for dealer, shares in good_own.items():
            try:
                minus.append(self._secret("self", dealer, shares))
            except SecAggError as error:
                wrong.append(error)
        for dealer, shares in good_seals.items():
            try:
                seeds = self._seeds(dealer, self._secret("seal", dealer, shares))
            except SecAggError as error:
                wrong.append(error)
                continue
            for survivor in self._u3:
                # The survivor added the seed if it has the lower index, so that it is to be subtracted.
                (minus if survivor < dealer else plus).append(seeds[survivor])
        if wrong:
            raise wrong[0]
        return plus, minus

    def _verified(self, use: str, column: int, dealer: int, shares: Mapping[int, bytes]) -> dict[int, bytes]:
        """Return the shares that are what their dealer committed to; blame the holders of the others."""
        hashes = self._dealt[dealer].hashes
        hashed = share_hasher(use, self._context, dealer)
        good = {}
        for holder, share in shares.items():
            if hashed(holder, share) == hashes[holder][column]:
                good[holder] = share
            else:
                self.blame.append(blamed(holder, "unmasked", MalformedShare, dealer, True))
        return good

    def _secret(self, use: str, dealer: int, shares: Mapping[int, bytes]) -> bytes:
        """Return a dealer's secret, held against its commitment."""
        holders = tuple(sorted(shares))[: self._threshold]
        if len(holders) < self._threshold:
            raise UnrecoverableShare(f"Too few good shares of member {dealer}'s secret were given.", dealer)
        if holders not in self._coefficients:
            self._coefficients[holders] = shamir.lagrange(holders)
        secret = shamir.combine(self._coefficients[holders], [shares[holder] for holder in holders])
        committed = getattr(self._dealt[dealer], _COMMITMENT[use])
        if secret is None or secret_commitment(use, self._context, dealer, secret) != committed:
            # Every share was the one that its dealer published a hash of: the dealer's shares are of no one secret.
            self.blame.append(blamed(dealer, "unmasked", UnrecoverableShare, proven=True))
            raise UnrecoverableShare(f"Member {dealer} dealt shares that are not of the secret it named.", dealer)
        return secret

    def _seeds(self, dealer: int, key: bytes) -> dict[int, bytes]:
        """Return a dropped member's mask seeds, each held against its commitment."""
        dealt = self._dealt[dealer]
        others = [index for index in self._cohort if index != dealer]
        opened = pairs.open_list(key, dealer, self._context, dealt.sealed)
        seeds = dict(zip(others, opened, strict=True)) if opened is not None else {}
        for survivor in self._u3:
            committed = dealt.peers[survivor][1]
            if not seeds or edge_commitment(self._context, dealer, survivor, seeds[survivor]) != committed:
                self.blame.append(blamed(dealer, "unmasked", SealedListMismatch, survivor, True))
                raise SealedListMismatch(f"Member {dealer} sealed other mask seeds than it named.", dealer)
        return seeds
