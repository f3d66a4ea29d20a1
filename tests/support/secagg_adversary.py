"""A server that keeps to no rule, with colluders who keep to none either, against silos that run the real code.

It makes sessions of whom it likes, cohorts of whom it likes, shows whom it likes which set of survivors, lets its
colluders sign all of them, and asks for shares of some only, so that the others can be used again. What it got out is
worked out from the shares that it holds, by interpolation, not from what any threshold says.
"""

from __future__ import annotations

import random
from collections import defaultdict
from dataclasses import replace

from secagg_network import GENESIS, MODEL, Network, Node, config

from quire.privacy.secagg import shamir
from quire.privacy.secagg.context import secret_commitment, survivor_parts, tag
from quire.privacy.secagg.errors import SecAggError
from quire.privacy.secagg.messages import ConfirmRequest, Shares, Survivors, Unmasked, UnmaskRequest
from quire.privacy.secagg.params import Thresholds
from quire.privacy.secagg.policy import Policy
from quire.privacy.secagg.server_round import ServerRound
from quire.privacy.secagg.server_session import ServerSession
from quire.privacy.secagg.state import ClientState

NO_LIMITS = Thresholds(2048, 0, 1, 1)


class Lawless(Policy):
    """What a colluder accepts: everything."""

    def check(self, config: object) -> None:
        """Accept."""

    def thresholds(self, config: object, cohort: int) -> Thresholds:
        """Ask for nothing."""
        return NO_LIMITS


class LyingServer:
    """The adversary: the last ``c`` members of the roster are its own."""

    def __init__(self, n: int, c: int, seed: int = 0) -> None:
        self.network = Network(n, config(2, c, attempts=8), seed=seed)
        self.everyone = tuple(range(n))
        self.own = self.everyone[n - c :]
        for index in self.own:
            party = self.network.nodes[index].party
            object.__setattr__(party, "policy", Lawless(members=n, min_cohort=0, colluders=0, application=b""))
        self.sessions = 0
        self.session: ServerSession | None = None
        self._fresh: dict[int, tuple[bytes | None, bytes | None]] = {}
        #: By round: of every attempt of which the secret of some honest member came out, its context.
        self.opened: dict[int, set[bytes]] = defaultdict(set)
        #: By context: who is in a sum whose masks came off.
        self.sums: dict[bytes, tuple[int, ...]] = {}
        self.refusals: list[str] = []

    def rewind(self, stored: dict[int, tuple[bytes | None, bytes | None]]) -> None:
        """Put silos back to a state: colluders as they like, all of them between two tests."""
        for index, (state, counter) in stored.items():
            self.network.nodes[index].state, self.network.nodes[index].counter = state, counter

    def _ask(self, stage: str, index: int, message: bytes) -> bytes | None:
        try:
            return self.network.nodes[index].do(stage, message)
        except SecAggError as error:
            self.refusals.append(error.code)
            return None

    def make_session(
        self, members: tuple[int, ...], first_round: int = 1, colluders: int | None = None
    ) -> tuple[int, ...]:
        """Agree on keys among these members, or those of them that let themselves be asked; return who is in it."""
        self.sessions += 1
        network = self.network
        asked = network.config.colluders if colluders is None else colluders
        settings = replace(network.config, first_round=first_round, colluders=asked)
        sid = self.sessions.to_bytes(16, "big")
        session = ServerSession(sid, settings, network.members, network.session.roster)
        session.limits = lambda cohort: NO_LIMITS
        self.rewind(dict.fromkeys(self.own, (None, None)))
        for index in members:
            if (reply := self._ask("open", index, session.open())) is not None:
                session.receive(index, reply)
        if not session.advertised:
            return ()
        adverts = session.adverts()
        for index in session.advertised:
            if (reply := self._ask("agree", index, adverts)) is not None:
                session.receive(index, reply)
        for index in session.close_pairs():
            if (reply := self._ask("ready", index, session.pair_keys(index))) is not None:
                session.receive(index, reply)
        self.session = session
        ready = session.close()
        self._fresh = {i: (network.nodes[i].state, network.nodes[i].counter) for i in self.own if i in ready}
        return ready

    def attempt(
        self,
        round_number: int,
        attempt: int,
        cohort: tuple[int, ...],
        views: list[tuple[set[int], set[int]]] | None = None,
        askers: set[int] | None = None,
    ) -> None:
        """Run one attempt as far as it goes, and note what came out of it.

        Parameters
        ----------
        round_number, attempt : int
        cohort : tuple of int
        views : list of tuple of set of int
            Which honest members are shown which survivors; by default all of them those who masked.
        askers : set of int, optional
            Honest members that are asked for their shares in the end; by default all.
        """
        session, network = self.session, self.network
        if session is None or not cohort:
            return
        self.rewind({index: stored for index, stored in self._fresh.items() if index in cohort})
        one = ServerRound(session, round_number, attempt, cohort, MODEL, GENESIS)
        for index in one.cohort:
            if (reply := self._ask("start", index, one.start())) is not None:
                one.receive(index, reply)
        if not one._shares:
            return
        for index in one.close_shares():
            if (reply := self._ask("mask", index, one.mask_request(index))) is not None:
                one.receive(index, reply)
        dealt = dict(one._shares)
        arrived = set(one._digests)
        held: dict[int, dict[int, tuple[bytes, bytes]]] = {
            index: ClientState.decode(network.nodes[index].state).shares for index in self.own if index in arrived
        }
        given: dict[str, dict[int, dict[int, bytes]]] = {"self": defaultdict(dict), "seal": defaultdict(dict)}
        for readers, shown in views or [(arrived, arrived)]:
            survivors = tuple(sorted(shown & arrived))
            signatures = self._signatures(one, readers & arrived, survivors)
            request = UnmaskRequest(one.context, signatures).encode()
            for index in sorted(set(signatures) - set(self.own)):
                if askers is not None and index not in askers:
                    continue
                if (reply := self._ask("unmask", index, request)) is not None:
                    message = Unmasked.decode(reply)
                    for use, rows in (("self", message.survivors), ("seal", message.dropped)):
                        for dealer, (share,) in rows.items():
                            given[use][dealer][index] = share
                    self.sums.setdefault(one.context, survivors)
        self._work_out(round_number, one.context, dealt, held, given)

    def own_and(self, members: set[int]) -> set[int]:
        """Return members and colluders."""
        return members | set(self.own)

    def _signatures(self, one: ServerRound, readers: set[int], survivors: tuple[int, ...]) -> dict[int, tuple[bytes]]:
        """Return the signatures of the readers who confirm these survivors, and of every colluder among them."""
        found: dict[int, tuple[bytes]] = {}
        message = ConfirmRequest(one.context, survivors).encode()
        parts = survivor_parts(one.context, one.u2, survivors)
        for index in sorted(readers | set(self.own)):
            if index in self.own:
                if index in survivors:
                    found[index] = (self.network.identities[index].sign_ed25519(tag("survivors"), *parts),)
            elif (reply := self._ask("confirm", index, message)) is not None:
                found[index] = (Survivors.decode(reply).confirmation,)
        return found

    def _work_out(
        self,
        round_number: int,
        context: bytes,
        dealt: dict[int, Shares],
        held: dict[int, dict[int, tuple[bytes, bytes]]],
        given: dict[str, dict[int, dict[int, bytes]]],
    ) -> None:
        """Interpolate every honest dealer's secrets from what the server and its colluders have."""
        for dealer in set(dealt) - set(self.own):
            out = []
            for column, use in enumerate(("self", "seal")):
                shares = dict(given[use][dealer])
                shares |= {index: rows[dealer][column] for index, rows in held.items() if dealer in rows}
                holders = sorted(shares)
                secret = holders and shamir.combine(shamir.lagrange(holders), [shares[i] for i in holders])
                committed = dealt[dealer].self_commitment if use == "self" else dealt[dealer].seal_commitment
                if secret and secret_commitment(use, context, dealer, secret) == committed:
                    out.append(use)
            if out:
                self.opened[round_number].add(context)
            if len(out) == 2:
                raise AssertionError(f"both secrets of member {dealer} came out: its vector is in the clear")

    def honest(self) -> dict[int, Node]:
        """Return the silos that run the real code and policy."""
        return {index: node for index, node in self.network.nodes.items() if index not in self.own}


def play(server: LyingServer, coins: random.Random, steps: int) -> None:
    """Attack at random, with a liking for what came close before: new cohorts of those who have not opened yet."""
    numbers: dict[int, int] = defaultdict(int)
    spent: dict[int, set[int]] = defaultdict(set)  # by round: honest members who gave shares
    for _ in range(steps):
        round_number = coins.choice((1, 1, 1, 2))
        numbers[round_number] += 1
        fresh = [index for index in server.honest() if index not in spent[round_number]]

        def some(members: list[int]) -> set[int]:
            return set(coins.sample(members, coins.randint(0, len(members))))

        if coins.random() < 0.5:
            wanted = set(fresh) if coins.random() < 0.6 else some(list(server.everyone))
            # The honest silos' own policies name no colluder: what holds them is what the run began with.
            fewer = 0 if coins.random() < 0.3 else None
            if server.make_session(tuple(sorted(server.own_and(wanted))), round_number, fewer) == ():
                continue
            numbers[round_number] = 1
        ready = set(server.session.members) if server.session else set()
        if server.session is None or not ready or round_number < server.session.config.first_round:
            continue
        cohort = server.own_and(set(fresh) if coins.random() < 0.6 else some(list(server.everyone))) & ready
        views = None
        if coins.random() < 0.3:
            first = some(sorted(cohort))
            views = [(first, server.own_and(some(sorted(cohort)) | first)), (cohort - first, set(cohort))]
        askers = set(fresh[: coins.randint(1, len(fresh))]) if fresh and coins.random() < 0.8 else None
        if 1 <= numbers[round_number] <= 8:
            before = {i: len(node.sent) for i, node in server.honest().items()}
            server.attempt(round_number, numbers[round_number], tuple(sorted(cohort)), views, askers)
            for index, node in server.honest().items():
                if len(node.sent) > before[index] and _gave(node.sent[-1]):
                    spent[round_number].add(index)


def _gave(data: bytes) -> bool:
    try:
        Unmasked.decode(data)
    except SecAggError:
        return False
    return True
