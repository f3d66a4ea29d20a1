"""What a silo answers: stages, records, and the closed set of codes that travel when it cannot.

This is the published interface between server and silo. Nothing else of a silo is known to the server.

=============  ==============================================  ================================================
stage          the server sends                                the silo replies
=============  ==============================================  ================================================
``query``      receipts of earlier runs                        who it is, which code it runs, the hash of its
                                                               schema where silos read their own rows; before its
                                                               operator approves the run, no more than who it is
``moments``    nothing; ``data.preprocessing=federated`` only  count, sum, sum of squares of its features
``train``      the global model, the round                     its update (new - old), rows, training loss
``evaluate``   the global model, the round                     rows, loss and metrics on rows it keeps aside
``open`` ...   messages of secure aggregation                  messages of secure aggregation, and nothing else
=============  ==============================================  ================================================

A silo that cannot answer replies with a Flower ``Error`` that carries one of :class:`Code` and its fixed words:
the text of an exception never travels, for it may quote a record.
"""

from __future__ import annotations

import enum

VERSION = 1

# Stages: Flower's message types.
QUERY, TRAIN, EVALUATE = "query", "train", "evaluate"
MOMENTS = "query.moments"
# Of secure aggregation: three make a session's keys, four are a round.
OPEN, PAIRS, READY = "query.open", "query.pairs", "query.ready"
SHARES, MASK, CONFIRM, UNMASK = "train.shares", "train.mask", "query.confirm", "query.unmask"
SECURE_STAGES = (OPEN, PAIRS, READY, SHARES, MASK, CONFIRM, UNMASK)
# All that a silo answers to, by these very names: Flower would bring `train.default` to the handler of `train`.
STAGES = frozenset({QUERY, MOMENTS, TRAIN, EVALUATE, *SECURE_STAGES})

# Names of the records in a message. "arrays" and "config" are Flower's own convention.
ARRAYS, CONFIG, UPDATE, METRICS, IDENTITY = "arrays", "config", "update", "metrics", "identity"

# Keys inside the records.
ROUND = "server-round"
PROXIMAL_MU = "proximal-mu"
NUM_EXAMPLES = "num-examples"
TRAIN_LOSS = "train-loss"
# What an algorithm exchanges beside model and update, under names that no parameter of a model can have.
TOLD, MEMORY = "told", "memory"
STEPS = "nova/steps"
# Of q-FedAvg: what the sum of the reweighted updates is divided by.
FAIR = "fair/divisor"
FAIR_Q = "fair-q"
# What scores of a model that a silo has tuned to its own rows begin with, beside those of the global one.
TUNED = "tuned_"
# Under secure aggregation: the share of a silo's coordinates that were cut to the agreed bound, as a masked metric.
CLAMPED = "clamped"
CONTROL = "control/"
# privacy.clipping=adaptive: the round's clip, told in the config; and the bit that a silo sends beside its update,
# +1/2 if that was within the clip, else -1/2.
CLIP, WITHIN = "clip", "clip/within"
SILO, CODE_HASH, CONTRACT, SCHEMA = "silo", "code-hash", "contract", "schema"
# Under privacy: the public number of records that the operator declares, and the signed statement of what was charged.
RECORDS, RECEIPT = "records", "receipt"
# What the silo itself signed in earlier runs, as bytes: by that it knows if its ledger was put back.
WITNESSED = "witnessed"
# What a silo that runs in an enclave says of it: the profile, which speaks for nothing unless a roster records more.
ENCLAVE = "enclave"
# Where the operator has to approve each run: the signed statement of the decision; and, of a silo that says who it is
# and nothing else, the code for why.
APPROVAL, WITHHELD = "approval", "withheld"
# Of secure aggregation: the record that holds a message of the protocol, as bytes; a masked vector travels as an array.
# A simulated silo is told the names of all, which a real one finds in its roster.
PROTOCOL, MASKED, MESSAGE, ROSTER = "protocol", "masked", "message", "roster"
# Of the model chain: which round the model that is told is that of; what the algorithm remembered then; and the sums
# since, as they were opened, by the number of their round.
CHAIN, BASE, CHAIN_MEMORY, SUMS = "chain", "base-round", "chain-memory", "chain-sums"
# And how many silos are in each of these, in the same order, by which their noise is known.
SURVIVORS = "survivors"
# Of the transparency log, beside the first message of a round: the newest checkpoint, the log's key, and how the log
# goes on from each of the sizes that the silo may have seen last. A silo replies with its countersignature; where it
# refuses, with the size that it has seen.
LOG, CHECKPOINT, LOG_KEY, SIZES, PATHS = "log", "checkpoint", "log-key", "sizes", "paths"
COUNTERSIGNATURE, SEEN = "countersignature", "seen"
# What only a simulated silo shows: metrics that a real one keeps to itself under privacy.
SHOWN = "simulator-only"


class Code(enum.IntEnum):
    """Why a silo did not answer. The only detail of a failure that leaves it."""

    BAD_REQUEST = 101
    SETTINGS_REFUSED = 102
    DATA_UNAVAILABLE = 103
    TRAINING_FAILED = 104
    EVALUATION_FAILED = 105
    NOT_FINITE = 106
    NO_POLICY = 107
    POLICY_REFUSED = 108
    BUDGET_REFUSED = 109
    CODE_REFUSED = 110
    SEED_REFUSED = 111
    ROUNDS_REFUSED = 112
    SCORES_WITHHELD = 113
    BOOKS_UNUSABLE = 114
    REPLAY_REFUSED = 115
    ROSTER_REFUSED = 116
    SECURE_REFUSED = 117
    AWAITING_APPROVAL = 118
    REJECTED = 119
    LOG_REFUSED = 120
    CHARTER_REFUSED = 121
    CHARTER_EXPIRED = 122
    ANOTHER_CHARTER = 123
    CHARTER_TASK = 124
    CHARTER_CODE = 125
    CHARTER_TERMS = 126
    LABELS_REFUSED = 127
    INTERNAL = 199


WORDS: dict[Code, str] = {
    Code.BAD_REQUEST: "the silo could not read the server's message",
    Code.SETTINGS_REFUSED: "the silo refused the settings",
    Code.DATA_UNAVAILABLE: "the silo could not load its data",
    Code.TRAINING_FAILED: "its training raised an error",
    Code.EVALUATION_FAILED: "its evaluation raised an error",
    Code.NOT_FINITE: "its model diverged to values that are not finite",
    Code.NO_POLICY: "its operator has given it no policy, so it refuses every run",
    Code.POLICY_REFUSED: "its own policy does not allow these settings",
    Code.BUDGET_REFUSED: "the run would exceed the silo's own privacy budget",
    Code.CODE_REFUSED: "its operator has not approved this code",
    Code.SEED_REFUSED: "it draws its own randomness and refuses a seed: leave out 'seed'",
    Code.ROUNDS_REFUSED: "its own limit of rounds is reached",
    Code.SCORES_WITHHELD: "under differential privacy its scores stay in the silo",
    Code.BOOKS_UNUSABLE: "its own books (store or ledger) cannot be used",
    Code.REPLAY_REFUSED: "it has answered this round already, and does not answer twice",
    Code.ROSTER_REFUSED: "the roster it finds is not the one that it has pinned",
    Code.SECURE_REFUSED: "it cannot take part in secure aggregation as it was asked to",
    Code.AWAITING_APPROVAL: "its operator has not approved this run yet",
    Code.REJECTED: "its operator has rejected this run",
    Code.LOG_REFUSED: "its operator asks for a transparency log, and this run has none or another one",
    Code.CHARTER_REFUSED: "the charter that it finds does not hold, or has no place for it",
    Code.CHARTER_EXPIRED: "its charter is not in force",
    Code.ANOTHER_CHARTER: "the run is under none, or under another charter than is in force there",
    Code.CHARTER_TASK: "its charter does not admit this task",
    Code.CHARTER_CODE: "its charter does not admit this code",
    Code.CHARTER_TERMS: "its charter does not allow these settings",
    Code.LABELS_REFUSED: "the labels of its data set do not admit this run",
    Code.INTERNAL: "an unexpected error inside the silo",
}


def reason(code: Code) -> str:
    """Return the fixed text that travels with a code."""
    return f"quire:{code.name.lower()}"


def silo_name(label: str, partition: int) -> str:
    """Return the name of a simulated silo, counted from one: ``hospital-1``."""
    return f"{label}-{partition + 1}"
