"""What a silo answers: stages, records, and the closed set of codes that travel when it cannot.

This is the published interface between server and silo. Nothing else of a silo is known to the server.

=============  ==============================================  ================================================
stage          the server sends                                the silo replies
=============  ==============================================  ================================================
``query``      nothing                                         who it is, which code it runs, the hash of its
                                                               schema where silos read their own rows
``moments``    nothing; ``data.preprocessing=federated`` only  count, sum, sum of squares of its features
``train``      the global model, the round                     its update (new - old), rows, training loss
``evaluate``   the global model, the round                     rows, loss and metrics on rows it keeps aside
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
CONTROL = "control/"
SILO, CODE_HASH, CONTRACT, SCHEMA = "silo", "code-hash", "contract", "schema"


class Code(enum.IntEnum):
    """Why a silo did not answer. The only detail of a failure that leaves it."""

    BAD_REQUEST = 101
    SETTINGS_REFUSED = 102
    DATA_UNAVAILABLE = 103
    TRAINING_FAILED = 104
    EVALUATION_FAILED = 105
    NOT_FINITE = 106
    INTERNAL = 199


WORDS: dict[Code, str] = {
    Code.BAD_REQUEST: "the silo could not read the server's message",
    Code.SETTINGS_REFUSED: "the silo refused the settings",
    Code.DATA_UNAVAILABLE: "the silo could not load its data",
    Code.TRAINING_FAILED: "its training raised an error",
    Code.EVALUATION_FAILED: "its evaluation raised an error",
    Code.NOT_FINITE: "its model diverged to values that are not finite",
    Code.INTERNAL: "an unexpected error inside the silo",
}


def reason(code: Code) -> str:
    """Return the fixed text that travels with a code."""
    return f"quire:{code.name.lower()}"


def silo_name(label: str, partition: int) -> str:
    """Return the name of a simulated silo, counted from one: ``hospital-1``."""
    return f"{label}-{partition + 1}"
