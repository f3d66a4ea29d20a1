"""Who may see what: one table, which docs/dashboard.md shows and every page is built by.

A page's parts are put together only where the role may see them. What a role may not see is not hidden by a template:
it is never read for it.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum


class Place(StrEnum):
    """What kind of folder the dashboard stands before."""

    CONSORTIUM = "consortium"
    RUNS = "runs"
    SILO = "silo"


class Role(StrEnum):
    """What somebody is in the consortium."""

    OPERATOR = "operator"
    MEMBER = "member"
    AUDITOR = "auditor"


class Part(StrEnum):
    """What there is to see; the value is what the documentation calls it."""

    MEMBERS = "members, certificates and when they end"
    INVITATIONS = "invitations that are open"
    RUNS = "runs: how far, what over all silos"
    SETTINGS = "settings that a run was started with"
    ERRORS = "why a run ended, in the server's words"
    BY_SILO = "figures silo by silo"
    CODES = "refusals by code"
    REFUSERS = "which silo refused"
    CARD = "privacy card"
    LOG = "log: checkpoints, countersignatures"
    STATEMENTS = "approvals as silos stated them"
    CERTIFICATE = "the silo's certificate and roster"
    BUDGET = "budget, spent, left"
    LEDGER = "ledger run by run"
    WORDS = "refusals in words"
    REQUESTS = "approvals waiting, with what each run would do"
    DECISIONS = "what was decided, by whom and why"
    SEEN = "logs that the silo was shown"
    LINEAGE = "data lineage"


_EVERYBODY = frozenset({Part.RUNS, Part.SETTINGS, Part.CODES, Part.CARD, Part.LOG})
_OPERATOR = _EVERYBODY | {Part.ERRORS, Part.BY_SILO, Part.REFUSERS, Part.STATEMENTS}
_AUDITOR = _EVERYBODY | {Part.ERRORS, Part.REFUSERS, Part.STATEMENTS}
_AT_SILO = frozenset({Part.CERTIFICATE, Part.CODES, Part.SEEN})

#: By place and role. In a silo's folder the silo's own people are its ``member``; its consortium's ``operator`` is a
#: guest there, and sees no more of refusals than the server does.
SIGHT: Mapping[Place, Mapping[Role, frozenset[Part]]] = {
    Place.CONSORTIUM: {
        Role.OPERATOR: _OPERATOR | {Part.MEMBERS, Part.INVITATIONS},
        Role.MEMBER: _EVERYBODY | {Part.MEMBERS},
        Role.AUDITOR: _AUDITOR | {Part.MEMBERS},
    },
    Place.RUNS: {Role.OPERATOR: _OPERATOR, Role.MEMBER: _EVERYBODY, Role.AUDITOR: _AUDITOR},
    Place.SILO: {
        Role.OPERATOR: _AT_SILO,
        Role.MEMBER: _AT_SILO | {Part.BUDGET, Part.LEDGER, Part.WORDS, Part.REQUESTS, Part.DECISIONS, Part.LINEAGE},
        Role.AUDITOR: _AT_SILO | {Part.BUDGET, Part.LEDGER, Part.DECISIONS, Part.LINEAGE},
    },
}
