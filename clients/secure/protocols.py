"""The stages that a silo answers by: those of the protocol, or in a simulation that asks for it the short cut."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from quire.clients.answering import Refusal
from quire.clients.contract import Code
from quire.clients.member import Member
from quire.conf.schema import SecureAggregation
from quire.privacy.secagg import client, client_round, exact_sum
from quire.privacy.secagg.client import Party, Step
from quire.privacy.secagg.masks import Words
from quire.privacy.secagg.state import ClientState

Core = Callable[[Party, ClientState, bytes], Step]


@dataclass(frozen=True)
class Stages:
    """What answers each message; see :mod:`quire.privacy.secagg.client` and ``client_round``."""

    open_session: Core
    agree: Core
    ready: Core
    start: Callable[[Party, ClientState, bytes, bytes, bytes], Step]
    mask: Callable[[Party, ClientState, bytes, Callable[[], Words]], Step]
    confirm: Core
    unmask: Core


def protocol_of(secure: SecureAggregation, member: Member) -> Stages:
    """Return what a silo answers by.

    Raises
    ------
    Refusal
        With ``SETTINGS_REFUSED``, if a real silo is asked for the short cut. Its policy has refused that before: this
        is for whatever else brings it here.
    """
    if not secure.exact:
        return Stages(
            client.open_session,
            client.agree,
            client.ready,
            client_round.start,
            client_round.mask,
            client_round.confirm,
            client_round.unmask,
        )
    if not member.simulated:
        raise Refusal(
            Code.SETTINGS_REFUSED, "aggregation.simulate=exact_sum has no secure aggregation: it is for simulations"
        )
    return Stages(
        exact_sum.open_session,
        exact_sum.agree,
        exact_sum.ready,
        exact_sum.start,
        exact_sum.mask,
        exact_sum.confirm,
        exact_sum.unmask,
    )
