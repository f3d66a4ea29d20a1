"""The exchanges of secure aggregation in words: what each is for, and what it means that an attempt failed."""

from __future__ import annotations

#: What each exchange is for.
EXCHANGES = {
    "open": "advertise a key",
    "pairs": "seal halves of keys",
    "ready": "confirm the keys",
    "shares": "train, deal shares",
    "mask": "mask the update, send it",
    "confirm": "sign the set of survivors",
    "unmask": "give up shares",
}
#: And under ``aggregation.simulate=exact_sum``.
IN_CLEAR = {
    **dict.fromkeys(("open", "pairs", "ready"), "say that it is there, no keys"),
    "shares": "train, no shares",
    "mask": "send the update in clear",
    "confirm": "say that it is there, no signature",
    "unmask": "say that it is there, no shares",
}

#: Why an attempt came to nothing, by the error of the protocol.
REASONS = {
    "CohortTooSmall": "too few were left to agree on keys",
    "TooFewClients": "too few dealt shares",
    "TooFewSurvivors": "too few masked vectors came",
    "NoQuorum": "too few signed the set of survivors",
    "UnrecoverableShare": "the shares that came do not open the sum, and the round was lost",
    "SealedListMismatch": "a dropout had sealed other seeds than it named, and the round was lost",
}
